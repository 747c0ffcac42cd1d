"""I6: what no replica can apply goes to the dead letters with its origin and the reason, and stops nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from catalog.collection import CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import (
    CreateCollection,
    Delete,
    DeleteCollection,
    Ingested,
    PatchPayload,
    Upsert,
    VectorColumn,
)
from journal.writer import Request
from query import points
from shard.batch import Limits
from tests.replayer.rig import HOME, NOW_MS, TOPICS, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.replayer.close()


def upsert(*numbers: float, size: int = 2, point_id: bytes = encode_id(1), payload: bytes = b"") -> Upsert:
    return Upsert([point_id], [VectorColumn.of("", np.array([numbers], np.float32).reshape(-1, size))], [payload])


GOOD = upsert(1, 2)
BAD = {
    "no framing": (lambda rig: b"poison", "framing"),
    "empty": (lambda rig: b"", "framing"),
    "cut off": (lambda rig: rig.record(GOOD)[:-5], "not a record"),
    "drift": (lambda rig: rig.record(GOOD, hlc=stamp_at(NOW_MS + 501)), "501 ms ahead of its append time, the bound is 500 ms"),
    "dimension": (lambda rig: rig.record(upsert(1, 2, 3, size=3)), "expected dim: 2, got 3"),
    "not finite": (lambda rig: rig.record(upsert(float("nan"), 1)), "not finite"),
    "payload": (lambda rig: rig.record(upsert(1, 2, payload=b"[1]")), "must be an object"),
    "broken payload": (lambda rig: rig.record(upsert(1, 2, payload=b"{")), ""),
    "id": (lambda rig: rig.record(upsert(1, 2, point_id=b"\x09")), "not a point id"),
    "collection": (lambda rig: rig.record(GOOD, collection=7), "collection 7 cannot be known"),
    "shard": (lambda rig: rig.record(GOOD, shard=1), "shard 1"),
    "never created": (lambda rig: rig.record(GOOD, collection=7, catalog_position=8), "catalog position 8"),
    "negative position": (lambda rig: rig.record(GOOD, collection=-1, catalog_position=-5), "cannot be known"),
    "empty patch": (lambda rig: rig.record(PatchPayload([encode_id(1)], b"")), "it is empty"),
    "too deep": (lambda rig: rig.record(upsert(1, 2, payload=b'{"a":' * 300 + b"1" + b"}" * 300)), "300 deep, the bound is 100"),
    "command": (lambda rig: rig.record(DeleteCollection("c")), "does not belong"),
    "origins": (lambda rig: rig.record(GOOD, ingested=Ingested("log", [1, 2])), "origins are given for 2"),
    "keys": (lambda rig: rig.record(GOOD, ingested=Ingested("log", [1], ["a", "b"])), "keys for 2 of 1 points"),
    "order of origins": (lambda rig: rig.record(GOOD, ingested=Ingested("log", [-1])), "do not ascend from 0"),
    "before its collection": (lambda rig: rig.record(GOOD, catalog_position=0), "cannot be known at catalog position 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_poison_goes_to_the_dead_letters_and_stops_nothing(rig: Rig, kind: str) -> None:
    make, reason = BAD[kind]
    value = make(rig)
    rig.journal.append(HOME, value, b"key", [("from", b"test")]).result()
    rig.now_ms += Limits().max_lateness_ms + 1  # for the record whose claim may still come true
    rig.replayer.step(0)
    rig.append(rig.record(upsert(3, 4, point_id=encode_id(2))))
    (letter,) = rig.dead_letters()
    headers = dict(letter.headers)
    assert letter.value == value
    assert (letter.key, letter.time_ms) == (b"key", NOW_MS)
    assert headers["__connect.errors.topic"] == HOME.topic.encode()
    assert (headers["__connect.errors.partition"], headers["__connect.errors.offset"]) == (b"2", b"0")
    assert reason in headers["__connect.errors.exception.message"].decode()
    assert headers["from"] == b"test"
    assert rig.ids() == [encode_id(2)], "the next record is applied, the poisoned one is not"
    assert rig.replayer.applied.get()[HOME] == 2


def test_a_record_away_from_home(rig: Rig) -> None:
    rig.append(rig.record(GOOD), TopicPartition(TOPICS.tier(1), 0))
    assert b"not at home" in dict(rig.dead_letters()[0].headers)["__connect.errors.exception.message"]


def test_points_in_the_system_topic(rig: Rig) -> None:
    rig.append(rig.record(GOOD), TOPICS.system_partition)
    assert len(rig.dead_letters()) == 1
    assert rig.replayer.catalog.view.position == 2


def test_a_claim_on_a_catalog_that_is_not_there_is_refused_once_it_is_too_late(rig: Rig) -> None:
    value = rig.record(GOOD, catalog_position=5)
    rig.journal.append(HOME, value).result()
    rig.now_ms += Limits().max_lateness_ms + 1
    rig.replayer.step(0)
    assert b"catalog position 5" in dict(rig.dead_letters()[0].headers)["__connect.errors.exception.message"]


def test_a_replica_behind_in_the_catalog_waits_for_it(rig: Rig, tmp_path: Path) -> None:
    """The record comes before the command in what one poll brings; it is applied all the same."""
    config = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}))
    rig.writer.write_catalog(CreateCollection("d", config, [[0, 2, 0, 0]]), Request("create")).result()
    value = rig.record(GOOD, collection=1, catalog_position=2)
    entry = Entry(HOME, 0, NOW_MS, None, value, ())
    rig.replayer._apply_data([entry])
    assert points.matching_ids(rig.shards.of(1), None) == [encode_id(1)]


def test_records_of_a_deleted_collection_are_dropped_in_silence(rig: Rig) -> None:
    rig.writer.write_catalog(DeleteCollection("c"), Request("delete")).result()
    rig.replayer.step(0)
    rig.append(rig.record(Delete([encode_id(1)])))
    assert not rig.dead_letters()
    assert [part.verdict for part in rig.replayer.operations.of("r")] == ["dropped"]


def test_a_restart_does_not_bury_again(rig: Rig) -> None:
    rig.append(b"poison")
    rig.append(b"poison", TOPICS.system_partition)
    assert len(rig.dead_letters()) == 2
    while rig.replayer.step(0):
        pass  # until it is idle, and commits
    rig.replayer.close()
    rig.replayer.open()
    while rig.replayer.step(0):
        pass
    assert len(rig.dead_letters()) == 2
