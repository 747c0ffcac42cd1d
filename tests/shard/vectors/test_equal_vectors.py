"""Equal vectors have equal scores, wherever they are and however they are searched, so that ids decide between them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pyroaring import BitMap

from catalog.collection import Distance
from shard.vectors.graph import GraphSpec
from shard.vectors.index import RowSet
from shard.vectors.multi import MultiIndex
from shard.vectors.segment_policy import SegmentPolicy
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import DenseIndex

COUNT = 299
"""Odd, so that it is no multiple of what a matrix product does at a time."""


@pytest.mark.parametrize("size", [1, 3, 24, 100, 384])
@pytest.mark.parametrize("distance", Distance)
def test_equal_vectors_have_one_score(tmp_path: Path, distance: Distance, size: int) -> None:
    random = np.random.default_rng(size)
    vector, query = (random.normal(size=size).astype(np.float32) for _ in range(2))
    if distance is Distance.COSINE:
        vector /= np.linalg.norm(vector)
    policy = SegmentPolicy(seal_rows=100)
    vectors = DenseIndex(SegmentStore(tmp_path), distance, size, GraphSpec(), threading.RLock(), policy)
    for start, end in ((0, 150), (150, 250), (250, COUNT)):  # two segments with a graph and one without
        vectors.add(np.arange(start, end), np.tile(vector, (end - start, 1)))
        while end < COUNT and (build := vectors.plan(False)) is not None:
            vectors.run(build)
    vectors.kill(np.array([7, 170, 298]))
    vectors.publish()
    view = vectors.view
    scores = {*view.compare(query).scores.tolist()}
    for limit in (1, 10, COUNT):
        scores |= {*view.scan(query, limit).scores.tolist(), *view.search(query, limit, 2 * COUNT).scores.tolist()}
        scores |= {*view.scan(query, limit, RowSet(BitMap([1, 160, 251]))).scores.tolist()}
        assert len(view.scan(query, limit).rows) == COUNT - 3, "all of them tie"
    assert len(scores) == 1


def test_equal_multi_vectors_have_one_score() -> None:
    random = np.random.default_rng(1)
    vectors, query = random.normal(size=(3, 100)).astype(np.float32), random.normal(size=(2, 100)).astype(np.float32)
    index = MultiIndex(Distance.DOT, 100)
    index.add(np.arange(COUNT), [vectors] * COUNT)
    index.publish()
    assert len({*index.view.compare(query).scores.tolist()}) == 1
