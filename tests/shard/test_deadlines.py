"""What takes long on a shard looks at the time on its way, and stops (I11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Delete, Record, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from shard.batch import Limits
from shard.deadline import Deadline, DeadlineExceeded
from shard.filters.conditions import IDS_PER_STEP, IdTest
from shard.ranking.execution import KEY_COST, rank
from shard.ranking.rankings import ById, Ranking
from shard.shard import Shard
from shard.store import StoreView
from shard.vectors.multi import MultiIndex

HOME = TopicPartition(Topics().tier(1), 0)
ALIVE = 3_000


def after_checks(checks: int) -> Deadline:
    """A deadline that passes at the check of this number, which counts from one."""
    ticks = count()
    return Deadline(checks, lambda: next(ticks))


def test_a_deadline_passes_at_its_time() -> None:
    deadline = after_checks(2)
    deadline.check()
    with pytest.raises(DeadlineExceeded):
        deadline.check()


def test_a_search_among_multi_vectors_stops_between_the_vectors_of_its_query() -> None:
    index = MultiIndex(Distance.DOT, 2)
    index.add(np.arange(3), [np.ones((4, 2), np.float32)] * 3)
    index.publish()
    query = np.ones((10, 2), np.float32)
    assert len(index.view.scan(query, 3, None, after_checks(11)).rows) == 3
    with pytest.raises(DeadlineExceeded):
        index.view.scan(query, 3, None, after_checks(10))


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    """A shard with ALIVE points, whose ids are even numbers, and as many ids that were deleted: the largest."""
    collection = Collection("c", 0, CollectionConfig({"": VectorParams(2, Distance.DOT)}), [[0 for _ in TIERS]])
    shard = Shard(tmp_path, collection, 0, Topics(), Limits(), lambda _: None)
    ids = [encode_id(2 * number) for number in range(ALIVE)]
    dead = [encode_id(2 * number) for number in range(ALIVE, 5 * ALIVE)]
    upsert = Upsert(ids, [VectorColumn.of("", np.ones((ALIVE, 2), np.float32))], [b""] * ALIVE)
    for offset, operation in enumerate((upsert, Delete(dead))):
        shard.apply([(Entry(HOME, offset, 1000 + offset, None, b"", ()), Record(stamp_at(1000 + offset), operation, 0))])
    yield shard
    shard.close()


def test_a_filter_by_many_ids_stops_between_them(shard: Shard) -> None:
    test = IdTest(frozenset(encode_id(number) for number in range(5 * IDS_PER_STEP)))
    assert len(test.rows(shard.view, after_checks(6))) == 5 * IDS_PER_STEP / 2
    with pytest.raises(DeadlineExceeded):
        test.rows(shard.view, after_checks(5))


@pytest.mark.parametrize("start", [0, 2 * ALIVE - 10, 2 * ALIVE + 5])
@pytest.mark.parametrize("limit", [3, 10, ALIVE, 2**31])
def test_a_page_by_id_passes_over_no_more_keys_than_there_are_points(
    shard: Shard, start: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many were deleted."""
    passed = []
    scan: Callable[[StoreView, bytes], Iterator[tuple[bytes, int]]] = StoreView.scan_points

    def counted(store: StoreView, first: bytes = b"") -> Iterator[tuple[bytes, int]]:
        for item in scan(store, first):
            passed.append(item)
            yield item

    monkeypatch.setattr(StoreView, "scan_points", counted)
    ranking = Ranking(ById(encode_id(start)), limit, None)
    rows = rank(shard.view, ranking, None, Deadline(60)).rows
    expected = [encode_id(number) for number in range(0, 2 * ALIVE, 2) if number >= start][:limit]
    assert shard.view.ids(rows)[0] == expected
    assert len(passed) <= ALIVE / KEY_COST + 2
