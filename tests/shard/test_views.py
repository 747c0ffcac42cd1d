"""A read sees one moment, whatever is written and built meanwhile (I3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Record, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from query.search import search
from query.stages import Stage
from shard.batch import Limits
from shard.ranking.rankings import Nearest
from shard.shard import Shard
from shard.store import Changes
from shard.vectors.segment_policy import SegmentPolicy
from tests.reading import now, pinned

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)
COUNT = 100


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
        shown.extend(now(search(pinned([mine]), everything)).stamps)

    monkeypatch.setattr(mine.store, "write", write_slowly)
    mine.apply([upsert(1)])
    assert shown == [stamp_at(1000)] * COUNT, "all of the old, none of the new"
    assert now(search(pinned([mine]), everything)).stamps == [stamp_at(1001)] * COUNT
    mine.close()
