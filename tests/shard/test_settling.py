"""I7: below the closed stamp a point has one state; nothing is left of what led to it, nor of a deleted point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Barrier, Delete, PatchPayload, Record, ShardOperation, Upsert, VectorColumn
from journal.stamps import NEVER
from journal.topics import TIERS, Topics
from query import points
from shard.batch import Limits
from shard.replica import PayloadPart
from shard.shard import Shard
from tests.reading import now, pinned

TOPICS = Topics()
HOMES = [TopicPartition(TOPICS.tier(tier), 0) for tier in TIERS]
COLLECTION = Collection("c", 0, CollectionConfig({"": VectorParams(2, Distance.DOT)}), [[0, 0, 0, 0]])
A, B = encode_id(1), encode_id(2)


class Life:
    """One shard, and a log that is as long as the test wants it."""

    def __init__(self, folder: Path) -> None:
        self.shard = Shard(folder, COLLECTION, 0, TOPICS, Limits(), lambda task: None)
        self.offsets = dict.fromkeys(HOMES, 0)
        self.ms = 0

    def apply(self, operation: ShardOperation, tier: int = 1) -> None:
        """Two seconds later, in one of the tiers."""
        self.ms += 2000
        home = HOMES[tier]
        entry = Entry(home, self.offsets[home], self.ms, None, b"", ())
        self.offsets[home] += 1
        self.shard.apply([(entry, Record(stamp_at(self.ms), operation, 0))])

    def close_all(self) -> None:
        """Barriers in all tiers; then a write, after which is settled what may be."""
        for tier in TIERS:
            self.apply(Barrier(), tier)
        for _ in range(2):
            self.apply(Barrier())


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    yield life
    life.shard.close()


def upsert(*ids: bytes, payload: bytes = b'{"n":1}') -> Upsert:
    return Upsert(list(ids), [VectorColumn.of("", np.ones((len(ids), 2), np.float32))], [payload] * len(ids))


def test_patches_and_tombstones_go_when_the_stamp_is_closed(life: Life) -> None:
    for operation in (upsert(A, B), upsert(A, payload=b'{"n":2}'), PatchPayload([A], b'{"m":3}'), Delete([B])):
        life.apply(operation)
    shard = life.shard
    assert len(shard.store.history(A)) == 3
    assert shard.unsettled() == 3
    before, _ = shard.store.point(A)
    life.close_all()
    after, _ = shard.store.point(A)
    assert (after.full, after.keys, after.payload) == (before.version(), {}, before.payload)
    assert not shard.store.history(A)
    assert not shard.store.history(B)
    assert shard.store.point(B)[0].full == NEVER, "as if it had never been"
    assert shard.unsettled() == 0


def test_nothing_is_settled_while_one_tier_is_open(life: Life) -> None:
    for operation in (upsert(A), upsert(A, payload=b'{"n":2}')):
        life.apply(operation)
    for tier in (0, 2):
        life.apply(Barrier(), tier)
    life.apply(Barrier())
    assert len(life.shard.store.history(A)) == 1
    assert life.shard.closed() == 0


def test_a_deleted_point_stays_for_the_views_in_which_it_exists(life: Life) -> None:
    """A scroll goes over the keys as they are now, so none may go that an earlier moment needs."""
    life.apply(upsert(A, B))
    reading = pinned([life.shard])
    life.apply(Delete([A]))
    life.close_all()
    assert now(points.scroll(reading, None, b"", 10)) == ([A, B], None)
    assert len(now(points.retrieve(reading, [A], PayloadPart()))) == 1
    assert life.shard.store.point(A)[0].full != NEVER
    del reading
    life.close_all()
    assert life.shard.store.point(A)[0].full == NEVER


def test_what_waits_is_known_after_a_restart(life: Life, tmp_path: Path) -> None:
    for operation in (upsert(A), Delete([A])):
        life.apply(operation)
    life.shard.close()
    offsets, ms = life.offsets, life.ms
    life.shard = Shard(tmp_path, COLLECTION, 0, TOPICS, Limits(), lambda task: None)
    assert life.shard.unsettled() == 1
    assert (life.offsets, life.ms) == (offsets, ms)
    life.close_all()
    assert life.shard.unsettled() == 0
