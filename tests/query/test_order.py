"""A score is a function of the query and the point, and a ranking has one order, by whatever way it was reached (N6, I10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, SparseParams, VectorParams
from journal.hlc import stamp_at
from journal.ids import decode_id, encode_id
from journal.log import Entry, TopicPartition
from journal.records import SPARSE, Record, Upsert, Vector, VectorColumn
from journal.topics import TIERS, Topics, shard_of
from query import points
from query.groups import grouped
from query.matrix import matrix
from query.pinned import Pinned
from query.search import page, prepare, search
from query.stages import Diversity, Fusion, Stage
from shard.batch import Limits
from shard.filters.conditions import Condition
from shard.filters.where import where
from shard.ranking import execution
from shard.ranking.formula import Formula
from shard.ranking.rankings import Nearest, SearchParams, SumScores
from shard.replica import RankedPoints
from shard.shard import Shard
from shard.vectors.segment_policy import SegmentPolicy
from tests.reading import now, pinned

TOPICS = Topics()
COUNT, SIZE, DENSE, MULTI, SPARSE_NAME = 601, 24, "dense", "multi", "sparse"
EXACT = SearchParams(exact=True)
RANDOM = np.random.default_rng(5)

Open = Callable[..., Pinned]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Open]:
    """Makes a collection of some points, with graphs over most of them."""
    opened: list[Shard] = []

    def made(
        config: CollectionConfig,
        vectors: Mapping[str, Sequence[Vector]],
        shards: int = 1,
        payload: Callable[[int], bytes] = lambda number: b"{}",
    ) -> Pinned:
        config = msgspec.structs.replace(config, shard_number=shards)
        collection = Collection("c", 0, config, [[number for _ in TIERS] for number in range(shards)])
        count = len(next(iter(vectors.values())))
        order = np.random.default_rng(1).permutation(count).tolist()  # so that the order of rows is not that of ids
        mine = []
        for number in range(shards):
            folder = tmp_path / f"{len(opened)}"
            shard = Shard(folder, collection, number, TOPICS, Limits(), lambda task: task(), SegmentPolicy(seal_rows=100))
            opened.append(shard)
            mine.append(shard)
            ids = [id_ for id_ in order if shard_of(encode_id(id_), shards) == number]
            for at, some in enumerate(np.array_split(ids, min(3, count))):
                columns = [column(name, [each[id_] for id_ in some]) for name, each in vectors.items()]
                operation = Upsert([encode_id(int(id_)) for id_ in some], columns, [payload(int(id_)) for id_ in some])
                entry = Entry(TopicPartition(TOPICS.tier(1), number), at, 1000, None, b"", ())
                shard.apply([(entry, Record(stamp_at(1000 + at), operation, 0))])
        return pinned(mine)

    yield made
    for shard in opened:
        shard.close()


def column(name: str, vectors: Sequence[Vector]) -> VectorColumn:
    return (
        VectorColumn.of(name, np.stack(vectors))
        if vectors[0].ndim == 1 and name == DENSE
        else VectorColumn.of_each(name, vectors)
    )


def sparse(size: int) -> Vector:
    indexes = np.sort(RANDOM.choice(40, size, replace=False))
    return np.array(list(zip(indexes, RANDOM.normal(size=size), strict=True)), SPARSE)


def scores(ranked: RankedPoints) -> dict[bytes, float]:
    return dict(zip(ranked.ids, ranked.scores.tolist(), strict=True))


def numbers(ranked: RankedPoints) -> list[int]:
    return [int(decode_id(id_)) for id_ in ranked.ids]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("distance", Distance)
def test_a_score_does_not_depend_on_the_way_it_was_reached(make: Open, distance: Distance, shards: int) -> None:
    config = CollectionConfig(
        {DENSE: VectorParams(SIZE, distance), MULTI: VectorParams(SIZE, distance, multi=True)},
        sparse_vectors={SPARSE_NAME: SparseParams()},
    )
    vectors = {
        DENSE: list(RANDOM.normal(size=(COUNT, SIZE)).astype(np.float32)),
        MULTI: [RANDOM.normal(size=(1 + at % 4, SIZE)).astype(np.float32) for at in range(COUNT)],
        SPARSE_NAME: [sparse(9) for _ in range(COUNT)],
    }
    read = make(config, vectors, shards)
    asked = {DENSE: vectors[DENSE][7] * 3, MULTI: vectors[MULTI][7], SPARSE_NAME: RANDOM.permutation(vectors[SPARSE_NAME][7])}
    for name, vector in asked.items():
        check_scores(read, name, vector)


def check_scores(read: Pinned, name: str, vector: Vector) -> None:
    nearest = Nearest(name, prepare(read.collection, name, vector))
    every = scores(now(search(read, Stage(nearest, COUNT, params=EXACT))))
    few = where(Condition(has_id=list(range(50))))
    inner = Stage(nearest, 40)
    for stage in (
        inner,
        Stage(nearest, 5, few),
        Stage(nearest, 30, params=SearchParams(rescore=False)),
        Stage(nearest, 30, inner=[inner]),
        Stage(Formula(b'{"formula": "$score"}'), 30, inner=[inner]),
        Stage(nearest, 9, diversity=Diversity(0.3, 30)),
    ):
        found = scores(now(search(read, stage)))
        assert found
        assert found == {id_: every[id_] for id_ in found}
    (alone,) = now(points.retrieve(read, [encode_id(7)], vectors=[name]))
    again = scores(
        now(search(read, Stage(Nearest(name, prepare(read.collection, name, alone.vectors[name])), COUNT, params=EXACT)))
    )
    pairs = now(matrix(read, name, Condition(has_id=list(range(20))), 20, 19, 1))
    mine = pairs.nearest[pairs.ids.index(encode_id(7))]
    assert {pairs.ids[at]: score for at, score in mine} == {pairs.ids[at]: again[pairs.ids[at]] for at, _ in mine}


@pytest.mark.parametrize("count", [1, 2, 9, 100])
def test_a_score_by_many_examples_does_not_depend_on_the_number_of_points(make: Open, count: int) -> None:
    vectors = list(RANDOM.normal(size=(100, SIZE)).astype(np.float32))
    read = make(CollectionConfig({DENSE: VectorParams(SIZE, Distance.DOT)}), {DENSE: vectors})
    query = SumScores(DENSE, vectors[:50], vectors[50:70])
    every = scores(now(search(read, Stage(query, 100))))
    some = scores(now(search(read, Stage(query, 100, where(Condition(has_id=list(range(count))))))))
    assert some == {id_: every[id_] for id_ in some}
    assert len(some) == count


@pytest.mark.parametrize("shards", [1, 4])
def test_pages_of_equal_points_are_in_the_order_of_their_ids(make: Open, shards: int) -> None:
    config = CollectionConfig(
        {DENSE: VectorParams(2, Distance.DOT), MULTI: VectorParams(2, Distance.DOT, multi=True)},
        sparse_vectors={SPARSE_NAME: SparseParams()},
    )
    one = {
        DENSE: np.ones(2, np.float32),
        MULTI: np.ones((2, 2), np.float32),
        SPARSE_NAME: np.array([(7, 0.5)], SPARSE),
    }
    read = make(config, {each: [vector] * COUNT for each, vector in one.items()}, shards)
    for name, params in product(one, (SearchParams(), EXACT)):
        stages = [Stage(Nearest(name, one[name]), end, params=params) for end in range(50, COUNT + 50, 50)]
        assert [n for stage in stages for n in numbers(now(page(read, stage, stage.limit - 50)))] == list(range(COUNT))


def test_pages_of_a_fusion_are_in_the_order_of_their_ids(make: Open) -> None:
    """Each point is at the same rank in one of two lists, so that pairs of points have equal scores."""
    vectors = [np.array([at, -at], np.float32) for at in range(20)]
    read = make(CollectionConfig({DENSE: VectorParams(2, Distance.DOT)}), {DENSE: vectors})
    up, down = (Stage(Nearest(DENSE, np.array(by, np.float32)), 20) for by in ([1, 0], [0, 1]))
    order = numbers(now(search(read, Stage(Fusion("rrf"), 20, inner=[up, down]))))
    assert order == [n for pair in zip(range(10), range(19, 9, -1), strict=True) for n in pair]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("size", [7, 50])
def test_pages_through_graphs_have_each_point_once(monkeypatch: pytest.MonkeyPatch, make: Open, size: int, shards: int) -> None:
    """Also those that a narrow walk has missed."""
    monkeypatch.setattr(execution, "LEAST_BREADTH", 16)
    vectors = list(np.random.default_rng(300).normal(size=(COUNT, 64)).astype(np.float32))
    read = make(CollectionConfig({DENSE: VectorParams(64, Distance.DOT)}), {DENSE: vectors}, shards)
    for seed in range(3):
        query = Nearest(DENSE, np.random.default_rng(seed).normal(size=64).astype(np.float32))
        narrow = SearchParams(ef=1)
        pages = [now(page(read, Stage(query, end, params=narrow), end - size)) for end in range(size, COUNT + size, size)]
        assert sorted(n for each in pages for n in numbers(each)) == list(range(COUNT))
        assert all((np.diff(each.scores) <= 0).all() for each in pages)
        assert now(search(read, Stage(query, 3, params=narrow))).ids == now(search(read, Stage(query, 16, params=narrow))).ids[:3]


def test_more_equal_points_than_a_walk_finds_are_in_the_order_of_their_ids(make: Open) -> None:
    """And points that are closer come first."""
    vectors = [np.array([2 if at in (77, 99) else 1, 0], np.float32) for at in range(5000)]
    read = make(CollectionConfig({DENSE: VectorParams(2, Distance.DOT)}), {DENSE: vectors})
    found = now(search(read, Stage(Nearest(DENSE, np.array([1, 0], np.float32)), 10)))
    assert numbers(found) == [77, 99, *range(8)]


def test_groups_over_a_prefetch_have_its_points_and_scores(make: Open) -> None:
    """V12"""
    vectors = list(RANDOM.normal(size=(50, SIZE)).astype(np.float32))
    config = CollectionConfig({DENSE: VectorParams(SIZE, Distance.DOT)})
    read = make(config, {DENSE: vectors}, payload=lambda number: b'{"g":%d}' % (number % 5))
    some, other = Nearest(DENSE, vectors[0]), Nearest(DENSE, vectors[1])
    for stage in (
        Stage(other, 50, inner=[Stage(some, 1)]),
        Stage(Fusion("rrf"), 50, inner=[Stage(some, 5), Stage(other, 5)]),
        Stage(Fusion("dbsf"), 50, inner=[Stage(some, 5), Stage(other, 5)]),
    ):
        ranked, _ = now(grouped(read, stage, "g", 5, 10))
        assert scores(ranked) == scores(now(search(read, stage)))


def test_small_distances_are_told_apart(make: Open) -> None:
    """Their squares have no place in a float32."""
    lengths = [3e-23, 1e-30, 2e-23, 0, 1e-25, 1e-16, 1e-40]
    dense = [np.array([length, 0], np.float32) for length in lengths]
    names = {DENSE: VectorParams(2, Distance.EUCLID), MULTI: VectorParams(2, Distance.EUCLID, multi=True)}
    read = make(CollectionConfig(names), {DENSE: dense, MULTI: [vector[np.newaxis] for vector in dense]})
    zero = np.zeros(2, np.float32)
    for query in (Nearest(DENSE, zero), Nearest(MULTI, zero[np.newaxis])):
        found = now(search(read, Stage(query, 7)))
        assert numbers(found) == [3, 6, 1, 4, 2, 0, 5]
        assert found.scores.tolist() == pytest.approx(sorted(lengths), rel=1e-5, abs=1e-45)


@pytest.mark.parametrize("length", [1e-45, 1e-38, 3e-23, 1.0, 1e18])
def test_vectors_of_any_length_have_a_direction(make: Open, length: float) -> None:
    config = CollectionConfig({DENSE: VectorParams(2, Distance.COSINE)})
    read = make(config, {DENSE: [np.array([length, 0], np.float32)]})
    query = prepare(read.collection, DENSE, np.array([length, 0], np.float32))
    assert now(search(read, Stage(Nearest(DENSE, query), 1))).scores.tolist() == [1.0]


LARGE = [1.8e19, 1e20, 2.0**64 - 1, 3e38]


@pytest.mark.parametrize("distance", Distance)
@pytest.mark.parametrize("large", LARGE)
def test_no_score_is_infinite(make: Open, distance: Distance, large: float) -> None:
    """However large the numbers of vectors are, with and without graphs, by one vector, by several and by terms."""
    far = np.array([large, -large], np.float32)
    names = {DENSE: VectorParams(2, distance), MULTI: VectorParams(2, distance, multi=True)}
    config = CollectionConfig(names, sparse_vectors={SPARSE_NAME: SparseParams()})
    some = list(RANDOM.normal(size=(300, 2)).astype(np.float32))
    dense = [far, -far, np.array([large, large], np.float32), *some]
    terms = [np.array([(1, vector[0]), (2, vector[1])], SPARSE) for vector in dense]
    read = make(config, {DENSE: dense, MULTI: [np.stack([vector]) for vector in dense], SPARSE_NAME: terms})
    far = prepare(read.collection, DENSE, far)
    if distance is Distance.EUCLID and large == LARGE[0]:
        found = scores(now(search(read, Stage(Nearest(DENSE, far), 303, params=EXACT))))
        assert found[encode_id(1)] == pytest.approx(2 * np.sqrt(2) * large)
    many = [far] * 9
    for query in (
        Nearest(DENSE, far),
        SumScores(DENSE, many, []),
        SumScores(DENSE, [], many),
        SumScores(DENSE, many, [-far] * 9),
        Nearest(MULTI, np.stack(many)),
        Nearest(SPARSE_NAME, np.array([(1, large), (2, -large)], SPARSE)),
    ):
        for params in (EXACT, SearchParams()):
            found_scores = now(search(read, Stage(query, 303, params=params))).scores
            assert len(found_scores) == 303
            assert np.isfinite(found_scores).all()
