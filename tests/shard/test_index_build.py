"""A payload index is built beside the writes: when it is installed it knows them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import orjson
import pytest

import shard.index_build
import shard.shard
from catalog.collection import Collection, CollectionConfig
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Delete, PatchPayload, PointOperation, Record, Upsert
from journal.topics import TIERS, Topics
from payload.schema import FieldSchema, FieldType
from query import points
from query.search import search
from query.stages import Stage
from shard.batch import Limits
from shard.filters.conditions import Condition
from shard.filters.fields import Range
from shard.filters.where import where
from shard.ranking.rankings import OrderBy
from shard.shard import Shard
from shard.view import IndexNotBuilt
from tests.reading import now, pinned

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)
COLLECTION = Collection("c", 0, CollectionConfig(), [[0 for _ in TIERS]])
LOW = where(Condition(must=[Condition(key="n", range=Range(lt=10))]))


def test_writes_during_a_build_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard.shard, "FEW_ROWS", 0)
    monkeypatch.setattr(shard.index_build, "LAST_ROWS", 2)
    tasks: list[Callable[[], None]] = []
    mine = Shard(tmp_path, COLLECTION, 0, TOPICS, Limits(), tasks.append)

    def apply(offset: int, operation: PointOperation) -> None:
        mine.apply([(Entry(HOME, offset, 1000 + offset, None, b"", ()), Record(stamp_at(1000 + offset), operation, 0))])

    def upsert(*numbers: int) -> Upsert:
        return Upsert([encode_id(number) for number in numbers], [], [orjson.dumps({"n": number}) for number in numbers])

    apply(0, upsert(*range(20)))
    mine.configure(msgspec.structs.replace(COLLECTION, fields={"n": FieldSchema(FieldType.INTEGER)}))
    assert now(points.count(pinned([mine]), LOW)) == 10, "the points are tested one by one"
    with pytest.raises(IndexNotBuilt, match="'n' is still being built"):
        now(search(pinned([mine]), Stage(OrderBy("n"), 30)))
    advance = shard.index_build.IndexBuild._advance
    left = [
        upsert(*range(20, 25)),
        Delete([encode_id(3), encode_id(4), encode_id(8)]),
        PatchPayload([encode_id(5), encode_id(6), encode_id(7)], b'{"n":50}'),
        upsert(30),  # so few that the next look installs the index
    ]

    def advance_and_write(self: shard.index_build.IndexBuild, view: object) -> None:
        advance(self, view)  # type: ignore[arg-type]
        if left:
            apply(10 - len(left), left.pop(0))

    monkeypatch.setattr(shard.index_build.IndexBuild, "_advance", advance_and_write)
    for task in tasks:
        task()
    assert not left
    ordered = now(search(pinned([mine]), Stage(OrderBy("n"), 30))).ids
    expected = [n for n in (*range(25), 30) if n not in (3, 4, 5, 6, 7, 8)] + [5, 6, 7]
    assert ordered == [encode_id(number) for number in expected]
    assert now(points.count(pinned([mine]), LOW)) == 4
    assert mine.payload.points("n") == len(expected)
    mine.close()
