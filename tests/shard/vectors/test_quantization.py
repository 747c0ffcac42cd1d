"""Quantised graphs: their codes are as small as they say, and what they find is ranked by the vectors themselves (T8, I10)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from catalog.collection import (
    BinaryQuantization,
    Distance,
    HnswConfig,
    ProductQuantization,
    Quantization,
    ScalarQuantization,
    TurboQuantization,
)
from shard.vectors.graph import CodeUse, Graph, GraphSpec
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import DenseIndex

SIZE, COUNT = 128, 12_000
LINK_BYTES = 400
"""What a point's links take, at most."""


def clusters(count: int, seed: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((60, SIZE))
    found = centres[chance.integers(60, size=count)] + chance.standard_normal((count, SIZE))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def recall(vectors: DenseIndex, use: CodeUse | None = None) -> float:
    hits = 0
    for query in clusters(60, 2):
        sign = 1 if vectors.view.distance.higher_is_closer else -1
        worst = sign * vectors.view.scan(query, 10).scores[-1] - 1e-5
        found = vectors.view.search(query, 10, 96, use=CodeUse() if use is None else use)
        hits += int((sign * found.scores >= worst).sum())
    return hits / 600


def built(folder: Path, quantization: Quantization | None, distance: Distance = Distance.COSINE) -> DenseIndex:
    vectors = DenseIndex(SegmentStore(folder), distance, SIZE, GraphSpec(HnswConfig(), quantization), threading.RLock())
    vectors.add(np.arange(COUNT), clusters(COUNT, 1))
    build = vectors.plan(False)
    assert build is not None
    vectors.run(build)
    vectors.publish()
    assert vectors.status()["indexed"] == COUNT
    return vectors


def code_bytes(folder: Path) -> float:
    """How many bytes of the graph's file each vector takes."""
    (path,) = folder.glob("*/graph.faiss")
    return path.stat().st_size / COUNT


@pytest.mark.parametrize(
    ("quantization", "most_bytes", "floor"),
    [
        (None, SIZE, 0.95),
        (ScalarQuantization(), SIZE, 0.95),
        (ScalarQuantization(quantile=0.99), SIZE, 0.95),
        (BinaryQuantization(), SIZE // 8 + 16, 0.85),
        (BinaryQuantization(encoding="two_bits"), SIZE // 4 + 32, 0.9),
        pytest.param(ProductQuantization("x4"), SIZE, 0.95, marks=pytest.mark.slow),
        (ProductQuantization("x16"), SIZE // 4, 0.85),
        pytest.param(TurboQuantization("bits1"), SIZE // 8 + 16, 0.85, marks=pytest.mark.slow),
        pytest.param(TurboQuantization("bits1_5"), SIZE * 3 // 16 + 16, 0.88, marks=pytest.mark.slow),
        pytest.param(TurboQuantization("bits2"), SIZE // 4 + 32, 0.9, marks=pytest.mark.slow),
        (TurboQuantization("bits4"), SIZE // 2 + 32, 0.95),
    ],
    ids=[
        *("none", "scalar", "scalar-quantile", "binary", "two-bits", "product-x4", "product-x16"),
        *("turbo-1", "turbo-1.5", "turbo-2", "turbo-4"),
    ],
)
def test_codes_are_small_and_find_what_they_should(
    tmp_path: Path, quantization: Quantization | None, most_bytes: int, floor: float
) -> None:
    """T8: int8 keeps 0.95 and more; after a restart the same."""
    vectors = built(tmp_path, quantization)
    assert code_bytes(tmp_path) < most_bytes + LINK_BYTES
    assert recall(vectors) >= floor
    again = DenseIndex(SegmentStore(tmp_path), Distance.COSINE, SIZE, vectors.spec, threading.RLock())
    assert not len(again.load(np.arange(COUNT), COUNT))
    again.publish()
    assert recall(again) >= floor


def test_more_candidates_find_more_and_ranking_by_codes_finds_less(tmp_path: Path) -> None:
    """T8: rescoring and oversampling."""
    vectors = built(tmp_path, BinaryQuantization())
    by_codes, usual, more = (recall(vectors, use) for use in (CodeUse(rescore=False), CodeUse(), CodeUse(oversampling=8.0)))
    assert by_codes < usual <= more
    assert more >= 0.97


@pytest.mark.parametrize("distance", [Distance.EUCLID, Distance.DOT, Distance.MANHATTAN])
@pytest.mark.parametrize(
    "quantization",
    [BinaryQuantization(), pytest.param(TurboQuantization("bits1"), marks=pytest.mark.slow)],
    ids=["binary", "turbo"],
)
def test_every_distance_can_be_quantised(tmp_path: Path, quantization: Quantization, distance: Distance) -> None:
    """T8; Manhattan keeps whole vectors where the codes do not know it."""
    assert recall(built(tmp_path, quantization, distance)) >= 0.8


def test_turbo_codes_do_not_depend_on_how_the_numbers_are_distributed() -> None:
    """A few dimensions have nearly all of the length: one bit of each of the others says nothing, unless vectors are rotated."""
    vectors = clusters(3_000, 1) * np.where(np.arange(SIZE) < 8, 1, 0.02).astype(np.float32)
    queries = vectors[:40]
    found = {}
    for quantization in (BinaryQuantization(), TurboQuantization("bits1")):
        graph, order = Graph.build(vectors, Distance.DOT, GraphSpec(HnswConfig(), quantization))
        hits = 0
        for query in queries:
            best = np.sort(vectors @ query)[-10]
            hits += int((vectors[order[graph.search(query, 40, 200, None)]] @ query >= best - 1e-6).sum())
        found[type(quantization)] = hits / 400
    assert found[TurboQuantization] > found[BinaryQuantization] + 0.1


def test_changed_settings_build_anew(tmp_path: Path) -> None:
    """T8: a graph that is not as the settings want it is replaced, and answers meanwhile."""
    vectors = built(tmp_path, None)
    large = code_bytes(tmp_path)
    vectors.spec = GraphSpec(HnswConfig(), BinaryQuantization())
    build = vectors.plan(False)
    assert build is not None
    assert vectors.status()["indexed"] == COUNT
    vectors.run(build)
    assert vectors.plan(False) is None
    assert code_bytes(tmp_path) < large - SIZE / 2
