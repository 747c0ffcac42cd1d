"""A read sees one moment, whatever is written and built meanwhile (I3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Record, Upsert, VectorColumn
from journal.stamps import stamp_of
from journal.topics import TIERS, Topics
from payload.schema import FieldSchema, FieldType
from query import points
from query.pinned import Pinned
from query.search import search
from query.stages import Stage
from shard.batch import Limits
from shard.filters.conditions import Condition
from shard.filters.fields import Match, MatchTest
from shard.filters.subjects import Subject
from shard.filters.where import where
from shard.ranking.rankings import Nearest, OrderBy
from shard.shard import Shard
from shard.store import Changes
from shard.vectors.segment_policy import SegmentPolicy
from tests.reading import now, pinned

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)
COUNT = 100
WAIT_S = 20


def upsert(offset: int) -> tuple[Entry, Record]:
    vectors = np.random.default_rng(offset).standard_normal((COUNT, 8), np.float32)
    ids = [encode_id(number) for number in range(COUNT)]
    operation = Upsert(ids, [VectorColumn.of("", vectors)], [b"{}"] * COUNT)
    return Entry(HOME, offset, 1000 + offset, None, b"", ()), Record(stamp_at(1000 + offset), operation, 0)


def test_a_build_that_ends_while_a_batch_is_written_shows_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the batch are in RocksDB and not yet in the indexes; the new graph is over the old rows."""
    later: list[Callable[[], None]] = []
    config = CollectionConfig({"": VectorParams(8, Distance.DOT)})
    collection, policy = Collection("c", 0, config, [[0 for _ in TIERS]]), SegmentPolicy(seal_rows=COUNT // 2)
    mine = Shard(tmp_path, collection, 0, TOPICS, Limits(), later.append, policy)
    mine.apply([upsert(0)])
    (build,) = later
    write = mine.store.write
    shown: list[int] = []
    everything = Stage(Nearest("", np.ones(8, np.float32)), COUNT)

    def write_slowly(changes: Changes) -> None:
        write(changes)
        build()
        shown.extend(map(stamp_of, now(search(pinned([mine]), everything)).versions))

    monkeypatch.setattr(mine.store, "write", write_slowly)
    mine.apply([upsert(1)])
    assert shown == [stamp_at(1000)] * COUNT, "all of the old, none of the new"
    assert [*map(stamp_of, now(search(pinned([mine]), everything)).versions)] == [stamp_at(1001)] * COUNT
    mine.close()


def payload_upsert(offset: int, word: str) -> tuple[Entry, Record]:
    ids = [encode_id(number) for number in range(COUNT)]
    payloads = [b'{"word": "%s", "n": %d}' % (word.encode(), number) for number in range(COUNT)]
    return Entry(HOME, offset, 1000 + offset, None, b"", ()), Record(stamp_at(1000 + offset), Upsert(ids, [], payloads), 0)


BY_WORD = where(Condition(must=[Condition(key="word", match=Match(value="old"))]))
READS: dict[str, Callable[[Pinned], Coroutine[Any, Any, Any]]] = {
    "select": lambda view: points.count(view, BY_WORD),
    "order": lambda view: search(view, Stage(OrderBy("n"), COUNT, BY_WORD)),
    "facet": lambda view: points.facet(view, "n", BY_WORD, COUNT),
    "search": lambda view: search(view, Stage(Nearest("", np.ones(8, np.float32)), COUNT, BY_WORD)),
}


@pytest.mark.parametrize("read", READS)
def test_points_are_tested_without_a_lock_that_writes_wait_for(
    tmp_path: Path, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read is in the middle of a filter that no index answers; a write batch is applied all the same, and not seen by it."""
    config = CollectionConfig({"": VectorParams(8, Distance.DOT)})
    collection = Collection("c", 0, config, [[0 for _ in TIERS]], {"n": FieldSchema(FieldType.INTEGER)})
    mine = Shard(tmp_path, collection, 0, TOPICS, Limits(), lambda task: None)
    mine.apply([payload_upsert(0, "old")])
    testing, go_on = threading.Event(), threading.Event()
    test = MatchTest.test

    def test_slowly(self: MatchTest, subject: Subject) -> bool:
        testing.set()
        assert go_on.wait(WAIT_S)
        return test(self, subject)

    monkeypatch.setattr(MatchTest, "test", test_slowly)
    expected = now(points.count(pinned([mine]), None))
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(now, READS[read](pinned([mine])))
        assert testing.wait(WAIT_S)
        writing = threads.submit(mine.apply, [payload_upsert(1, "new")])
        writing.result(WAIT_S)
        go_on.set()
        answer = reading.result(WAIT_S)
    assert expected == COUNT
    if read == "select":
        assert answer == COUNT, "all are as they were when it began"
    elif read == "search":
        assert answer.ids == []  # the points have no vectors
    else:
        assert len(answer if read == "facet" else answer.ids) == COUNT
    assert now(points.count(pinned([mine]), BY_WORD)) == 0
    mine.close()
