"""Multi-vectors with quantisation: codes choose which points are compared, and the vectors themselves score them (T8, I10)."""

from __future__ import annotations

import numpy as np
import pytest
from pyroaring import BitMap

from catalog.collection import (
    BinaryQuantization,
    Datatype,
    Distance,
    HnswConfig,
    ProductQuantization,
    Quantization,
    ScalarQuantization,
    TurboQuantization,
)
from shard.vectors.datatypes import Encoding
from shard.vectors.graph import CodeUse, GraphSpec
from shard.vectors.index import RowSet, ScoredRows
from shard.vectors.multi import MultiIndex

POINTS, SIZE = 1_200, 64
TURBO = GraphSpec(HnswConfig(), TurboQuantization("bits2"))
KINDS = [
    pytest.param(TurboQuantization("bits4"), SIZE // 2 + 32),
    pytest.param(TurboQuantization("bits2"), SIZE // 4 + 32, marks=pytest.mark.slow),
    pytest.param(TurboQuantization("bits1_5"), SIZE * 3 // 16 + 16),
    pytest.param(TurboQuantization("bits1"), SIZE // 8 + 16, marks=pytest.mark.slow),
    pytest.param(BinaryQuantization(), SIZE // 8 + 16, marks=pytest.mark.slow),
    pytest.param(ScalarQuantization(), SIZE),
]


def several(count: int, seed: int) -> list[np.ndarray]:
    """Points of one to four unit vectors, from clusters."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((200, SIZE))
    made = [centres[chance.integers(200, size=n)] + chance.standard_normal((n, SIZE)) for n in chance.integers(1, 5, count)]
    return [(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32) for vectors in made]


def built(spec: GraphSpec, distance: Distance = Distance.COSINE, vectors: list[np.ndarray] | None = None) -> MultiIndex:
    index = MultiIndex(distance, SIZE, spec)
    vectors = several(POINTS, 1) if vectors is None else vectors
    encoding = Encoding(spec.datatype, distance, SIZE)
    index.add(np.arange(len(vectors)), [encoding.encode(each) for each in vectors])
    assert coded(index)
    return index


def coded(index: MultiIndex) -> bool:
    """Whether there was something to code."""
    build = index.plan(idle=True)
    if build is not None:
        index.run(build)
    index.publish()
    return build is not None


def recall(index: MultiIndex, use: CodeUse | None = None) -> float:
    view, hits, sign = index.view, 0, 1 if index.view.distance.higher_is_closer else -1
    for query in several(40, 2):
        exact, found = view.scan(query, 10), view.search(query, 10, use=use or CodeUse())
        assert_exact(index, query, found)
        hits += int((sign * found.scores[:10] >= sign * exact.scores[9] - 1e-5).sum())
    return hits / 400


def assert_exact(index: MultiIndex, query: np.ndarray, found: ScoredRows) -> None:
    all_scores = dict(zip(*map(np.ndarray.tolist, index.view.compare(query)), strict=True))
    assert found.scores.tolist() == [all_scores[row] for row in found.rows.tolist()]


@pytest.mark.parametrize(("quantization", "most_bytes"), KINDS, ids=str)
def test_codes_are_small_and_find_what_they_should(quantization: Quantization, most_bytes: float) -> None:
    index = built(GraphSpec(HnswConfig(), quantization))
    assert index.view.is_coded
    total = sum(map(len, several(POINTS, 1)))
    assert index.sizes_bytes()["codes"] <= most_bytes * total
    assert recall(index) >= 0.95
    assert not coded(index), "nothing is left to do"


@pytest.mark.parametrize("datatype", Datatype)
@pytest.mark.parametrize("distance", [pytest.param(Distance.DOT, marks=pytest.mark.slow), Distance.EUCLID])
def test_every_datatype_can_be_quantised(datatype: Datatype, distance: Distance) -> None:
    vectors = [np.abs(each) * 255 for each in several(POINTS, 1)]
    index = built(GraphSpec(HnswConfig(), TurboQuantization(), datatype), distance, vectors)
    query = np.abs(several(1, 2)[0]) * 255
    found, exact = index.view.search(query, 10), index.view.scan(query, 10)
    assert_exact(index, query, found)
    assert len({*found.rows[:10].tolist()} & {*exact.rows[:10].tolist()}) >= 8


def test_what_came_later_died_or_is_filtered_is_heeded() -> None:
    index, query = built(TURBO), several(1, 2)[0]
    first = index.view.search(query, 5).rows.tolist()
    index.kill(np.array(sorted(first[:2])))
    index.add(np.arange(POINTS, POINTS + 1), [query])  # has no code yet
    index.publish()
    assert index.view.is_coded
    found = index.view.search(query, 5).rows.tolist()
    assert found[0] == POINTS
    assert not {*found} & {*first[:2]}
    allowed = RowSet(BitMap(range(0, POINTS, 2)))
    among = index.view.search(query, 5, rows=allowed)
    assert all(row % 2 == 0 for row in among.rows.tolist())
    assert among.rows[0] == index.view.scan(query, 5, allowed).rows[0]
    assert not coded(index), "one more is not worth new codes"
    more = several(POINTS, 3)
    index.add(np.arange(POINTS + 1, 2 * POINTS + 1), more)
    assert coded(index)
    assert recall(index) >= 0.95


def test_codes_of_rows_that_are_gone_are_not_used() -> None:
    """Most points die while codes are made, and their places are taken by others."""
    index = MultiIndex(Distance.COSINE, SIZE, TURBO)
    index.add(np.arange(POINTS), several(POINTS, 1))
    build = index.plan(idle=True)
    assert build is not None
    index.kill(np.arange(0, POINTS - 100))
    index.run(build)
    index.publish()
    assert not index.view.is_coded
    assert index.view.size() == 100
    index.add(np.arange(POINTS, 2 * POINTS), several(POINTS, 3))
    assert coded(index)
    assert recall(index) >= 0.95


def test_changed_settings_change_the_codes() -> None:
    index = built(TURBO)
    before = index.sizes_bytes()["codes"]
    index.spec = GraphSpec(HnswConfig(), TurboQuantization("bits1"))
    assert coded(index)
    assert index.sizes_bytes()["codes"] < before
    index.spec = GraphSpec()
    assert not coded(index)
    assert not index.view.is_coded


@pytest.mark.parametrize(
    ("quantization", "distance"),
    [(TurboQuantization(), Distance.MANHATTAN), (ProductQuantization(), Distance.COSINE)],
    ids=["no codes for the distance", "product codes"],
)
def test_where_there_are_no_codes_all_are_compared(quantization: Quantization, distance: Distance) -> None:
    index = built(GraphSpec(HnswConfig(), quantization), distance)
    assert not index.view.is_coded
    assert recall(index) == 1
    assert not coded(index), "it is not tried for ever"


def test_more_candidates_find_more() -> None:
    noise = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (noisy(POINTS))]
    index = built(GraphSpec(HnswConfig(), BinaryQuantization()), vectors=noise)
    assert recall(index) <= recall(index, CodeUse(oversampling=100.0)) == 1


def noisy(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(5).standard_normal((count, 2, SIZE), np.float32))
