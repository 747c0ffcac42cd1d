"""Datatypes: vectors are stored as small as they say, and every plan scores what is stored."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from catalog.collection import Datatype, Distance
from shard.vectors.datatypes import Encoding
from shard.vectors.graph import GraphSpec
from shard.vectors.index import RowSet
from shard.vectors.multi import MultiIndex
from shard.vectors.segment_policy import SegmentPolicy
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import DenseIndex
from shard.vectors.turbo import Rotation

COUNT = 260
POLICY = SegmentPolicy(seal_rows=100)
SMALL = [datatype for datatype in Datatype if datatype is not Datatype.FLOAT32]


def written(size: int, count: int = COUNT) -> np.ndarray:
    """Vectors that every datatype can hold."""
    return np.random.default_rng(size).uniform(1, 255, (count, size)).astype(np.float32)


def built(folder: Path, encoding: Encoding, vectors: np.ndarray) -> DenseIndex:
    """Two segments with a graph, and one without."""
    index = opened(folder, encoding)
    for part in np.array_split(np.arange(len(vectors)), 3):
        index.add(part, list(encoding.encode(vectors[part])))
        while part[-1] < len(vectors) - 1 and (build := index.plan(False)) is not None:
            index.run(build)
    index.publish()
    return index


def opened(folder: Path, encoding: Encoding) -> DenseIndex:
    spec = GraphSpec(datatype=encoding.datatype)
    return DenseIndex(SegmentStore(folder), encoding.distance, encoding.size, spec, threading.RLock(), POLICY)


def reference(distance: Distance, stored: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The scores of vectors as they are read, in float64."""
    stored, query = stored.astype(np.float64), query.astype(np.float64)
    match distance:
        case Distance.DOT:
            return stored @ query  # type: ignore[no-any-return]
        case Distance.COSINE:
            return stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)  # type: ignore[no-any-return]
        case Distance.EUCLID:
            return np.linalg.norm(stored - query, axis=1)
    return np.abs(stored - query).sum(axis=1)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("datatype", "size_bytes"), [("float32", 400), ("float16", 200), ("uint8", 100), ("turbo4", 54)])
def test_vectors_are_stored_as_small_as_their_datatype(tmp_path: Path, datatype: str, size_bytes: int) -> None:
    """In memory, in the files of a segment, and mapped again after a restart."""
    encoding = Encoding(Datatype(datatype), Distance.DOT, 100)
    index = built(tmp_path, encoding, written(100))
    segments = [view.segment for view in index.view.segments]
    assert [segment.vectors[0].nbytes for segment in segments] == [size_bytes] * len(segments)
    stored = [path.stat().st_size for path in tmp_path.glob("*/vectors.npy")]
    assert sum(stored) == size_bytes * index.status()["indexed"] + 128 * len(stored), "numpy's files have a head of 128 bytes"
    again = opened(tmp_path, encoding)
    missing = again.load(np.arange(COUNT), COUNT)
    assert len(missing) == COUNT - index.status()["indexed"]
    again.publish()
    assert {view.segment.vectors.itemsize * encoding.width for view in again.view.segments} == {size_bytes}


@pytest.mark.parametrize("distance", Distance)
@pytest.mark.parametrize("datatype", SMALL)
@pytest.mark.parametrize("size", [1, 3, 24, 100])
def test_every_plan_scores_what_is_stored(tmp_path: Path, datatype: Datatype, distance: Distance, size: int) -> None:
    encoding = Encoding(datatype, distance, size)
    vectors, query = written(size), np.random.default_rng(0).uniform(1, 255, size).astype(np.float32)
    view = built(tmp_path, encoding, vectors).view
    asked = query / np.linalg.norm(query) if encoding.normalises else query
    all_scores = view.compare(asked)
    rows = np.arange(COUNT)
    assert (all_scores.rows == rows).all()
    for found in (
        view.scan(asked, COUNT),
        view.scan(asked, COUNT, RowSet(BitMap(range(0, COUNT, 3)))),
        view.search(asked, COUNT, 2 * COUNT),
        view.search(asked, 10, 2 * COUNT),
    ):
        assert len(found.rows) >= 10
        assert (found.scores == all_scores.scores[found.rows]).all(), "bit for bit"
    stored = encoding.decode(encoding.encode(vectors))
    rounded = encoding.decode(encoding.encode(query[np.newaxis]))[0] if datatype is not Datatype.TURBO4 else asked
    expected = reference(distance, stored, rounded)
    assert np.allclose(all_scores.scores, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_uint8_truncates_and_keeps_what_fits() -> None:
    encoding = Encoding(Datatype.UINT8, Distance.COSINE, 6)
    numbers = np.array([[-10, 1.9, 2, 254.99, 255, 300]], np.float32)
    assert encoding.decode(encoding.encode(numbers)).tolist() == [[0, 1, 2, 254, 255, 255]]
    assert not encoding.normalises, "unit vectors would be truncated to zeros"


def test_float16_rounds() -> None:
    encoding = Encoding(Datatype.FLOAT16, Distance.DOT, 3)
    read = encoding.decode(encoding.encode(np.array([[0.1, 1 / 3, 1000.3]], np.float32)))
    assert read.dtype == np.float32
    assert read.tolist() == [[0.0999755859375, 0.333251953125, 1000.5]]


@pytest.mark.parametrize("size", [1, 2, 3, 100, 129, 384])
def test_turbo4_is_close_to_what_was_written(size: int) -> None:
    """The levels of normally distributed numbers have a squared error of 0.0095 of their square (Max, 1960)."""
    encoding = Encoding(Datatype.TURBO4, Distance.EUCLID, size)
    vectors = np.random.default_rng(1).standard_normal((500, size), np.float32) ** 3
    read = encoding.decode(encoding.encode(vectors))
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(np.linalg.norm(read, axis=1), lengths, rtol=1e-4)
    assert np.mean(np.linalg.norm(read - vectors, axis=1) ** 2 / lengths**2) < 0.011
    assert np.allclose(encoding.decode(encoding.encode(read)), read, rtol=1e-4, atol=1e-4), "written again it stays the same"
    assert not encoding.decode(encoding.encode(np.zeros((1, size), np.float32))).any()


def test_turbo4_codes_are_the_same_for_ever() -> None:
    """They are in the files of every node: a change of the rotation or of the levels would make them other vectors."""
    encoding = Encoding(Datatype.TURBO4, Distance.DOT, 9)
    assert encoding.encode(np.arange(9, dtype=np.float32)[np.newaxis])[0].tobytes().hex() == "a4b3a5610ac2339440"


@pytest.mark.parametrize("width", [1, 7, 64, 384])
def test_a_rotation_keeps_products_and_can_be_undone(width: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((20, max(1, width * 2 // 3)), np.float32)
    rotated = Rotation.of(width).apply(vectors)
    assert rotated.shape == (20, width)
    assert np.allclose(rotated @ rotated.T, vectors @ vectors.T, atol=1e-3)
    assert np.allclose(Rotation.of(width).undo(rotated)[:, : vectors.shape[1]], vectors, atol=1e-5)


@pytest.mark.parametrize(
    ("datatype", "distance", "most_bytes"),
    [(Datatype.TURBO4, Distance.COSINE, 64 + 32), (Datatype.UINT8, Distance.EUCLID, 128), (Datatype.FLOAT16, Distance.DOT, 256)],
)
def test_codes_of_a_graph_are_not_larger_than_the_vectors(
    tmp_path: Path, datatype: Datatype, distance: Distance, most_bytes: int
) -> None:
    encoding = Encoding(datatype, distance, 128)
    centres = np.random.default_rng(1).uniform(0, 255, (30, 128))
    vectors = np.clip(centres.repeat(40, axis=0) + np.random.default_rng(2).normal(0, 40, (1200, 128)), 0, 255).astype(np.float32)
    index = built(tmp_path, encoding, vectors)
    graphs = [view.segment.graph for view in index.view.segments if view.segment.graph is not None]
    assert graphs
    for graph in graphs:
        assert graph.code_bytes() <= most_bytes * len(graph)
    hits = 0
    for query in vectors[::40]:
        asked = query / np.linalg.norm(query) if encoding.normalises else query
        hits += len({*index.view.scan(asked, 10).rows} & {*index.view.search(asked, 10).rows})
    assert hits >= 0.95 * 300


def test_files_of_another_datatype_are_not_taken(tmp_path: Path) -> None:
    built(tmp_path, Encoding(Datatype.FLOAT16, Distance.DOT, 24), written(24))
    other = opened(tmp_path, Encoding(Datatype.UINT8, Distance.DOT, 24))
    assert len(other.load(np.arange(COUNT), COUNT)) == COUNT


@pytest.mark.parametrize("distance", Distance)
@pytest.mark.parametrize("datatype", SMALL)
def test_multi_vectors_are_stored_and_scored_alike(datatype: Datatype, distance: Distance) -> None:
    encoding = Encoding(datatype, distance, 24)
    vectors, query = written(24, 3 * COUNT), written(25, 2)[:, :24]
    index = MultiIndex(distance, 24, GraphSpec(datatype=datatype))
    index.add(np.arange(COUNT), np.split(encoding.encode(vectors), COUNT))
    index.publish()
    assert index._vectors.nbytes == len(index._vectors) * encoding.dtype.itemsize * encoding.width
    asked = query / np.linalg.norm(query, axis=1, keepdims=True) if encoding.normalises else query
    stored = encoding.decode(encoding.encode(vectors))
    rounded = encoding.decode(encoding.encode(query)) if datatype is not Datatype.TURBO4 else asked
    each = np.stack([reference(distance, stored, one).reshape(COUNT, 3) for one in rounded])
    match distance:
        case Distance.COSINE | Distance.DOT:
            expected = each.max(axis=2).sum(axis=0)
        case Distance.EUCLID:
            expected = np.sqrt((each**2).min(axis=2).sum(axis=0))
        case _:
            expected = each.min(axis=2).sum(axis=0)
    assert np.allclose(index.view.compare(asked).scores, expected, rtol=2e-3)
    found = index.view.scan(asked, 10)
    assert (found.scores == index.view.compare(asked).scores[found.rows]).all()
