"""The files of segments: there as a whole or not at all, and never believed when they are damaged (I3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalog.collection import Distance, HnswConfig
from shard.vectors.graph import FlatCodes, Graph, GraphSpec
from shard.vectors.segment_store import DamagedSegment, SegmentStore

ROWS = np.arange(100, 160)
SPEC = GraphSpec(HnswConfig(m=8))


def vectors(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((len(ROWS), 8), np.float32)


def written(store: SegmentStore, seed: int = 1) -> str:
    graph, order = Graph.build(vectors(seed), Distance.DOT, SPEC)
    graph.ef = 123
    return store.write(ROWS[order], vectors(seed)[order], graph).name


def written_waiting(store: SegmentStore) -> str:
    codes = FlatCodes.of(vectors(), Distance.DOT)
    assert codes is not None
    codes.factor = 4
    return store.write(ROWS, vectors(), codes).name


def test_a_segment_opens_as_it_was_written(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    name = written(store)
    segment = SegmentStore(tmp_path).open(name)
    assert isinstance(segment.graph_or_codes, Graph)
    assert sorted(segment.rows) == list(ROWS)
    assert np.array_equal(segment.vectors[np.argsort(segment.rows)], vectors())
    assert (segment.graph_or_codes.spec, segment.graph_or_codes.ef, len(segment.graph_or_codes)) == (SPEC, 123, len(ROWS))


def test_a_segment_that_waits_for_its_graph_opens_as_it_was_written(tmp_path: Path) -> None:
    segment = SegmentStore(tmp_path).open(written_waiting(SegmentStore(tmp_path)))
    assert isinstance(segment.graph_or_codes, FlatCodes)
    assert segment.graph_or_codes.factor == 4
    assert np.array_equal(segment.rows, ROWS)
    assert np.array_equal(segment.vectors, vectors())
    assert 3 in segment.graph_or_codes.search(vectors()[3], 2, None)


def test_the_latest_segment_comes_first(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    assert store.names() == []
    names = [write(store) for write in (written, written_waiting, written)]
    assert store.names() == names[::-1]
    store.remove(names[0])
    assert written(store) > names[2]


def test_a_segment_that_was_never_finished_does_not_open_and_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SegmentStore(tmp_path)

    def fail(path: Path, target: Path) -> None:
        raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="no power"):
            written(store)
    (unfinished,) = store.names()
    with pytest.raises(DamagedSegment, match="never finished"):
        store.open(unfinished)
    store.open(written(store))
    for name in store.names():
        store.remove(name)
    assert store.names() == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", ["rows.npy", "vectors.npy", "graph.faiss", "graph.json", "codes.faiss", "codes.json"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, empty])
def test_a_damaged_file_is_found_when_the_segment_is_opened(tmp_path: Path, file: str, damage: Callable[[Path], None]) -> None:
    store = SegmentStore(tmp_path)
    name = (written_waiting if file.startswith("codes") else written)(store)
    damage(tmp_path / name / file)
    with pytest.raises(DamagedSegment, match=name):
        store.open(name)


def test_files_that_do_not_fit_each_other_do_not_open(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path)
    name = written(store)
    np.save(tmp_path / name / "rows.npy", ROWS[:-1])
    with pytest.raises(DamagedSegment, match=r"rows.npy has 600 bytes, 608 were written"):
        store.open(name)
