"""I6: every replica decides alike about a record, by nothing but the log."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from catalog.catalog import Catalog
from catalog.collection import CollectionConfig, Distance, VectorParams
from journal import codec
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import (
    Barrier,
    CatalogOperation,
    CreateCollection,
    DeleteCollection,
    Ingested,
    Operation,
    PatchPayload,
    Record,
    RequestResult,
    VectorColumn,
)
from journal.topics import Topics
from replayer.verdicts import Accepted, Dropped, NeedsCatalog, Refused, Verdict, claim_failed, judge, judge_command
from shard.batch import Limits
from tests.replayer.rig import upsert

NOW_MS = 1_700_000_000_000
LIMITS = Limits()
TOPICS = Topics("v")
HOME = TopicPartition(TOPICS.tier(1), 2)
CONFIG = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}))
GOOD = upsert(1, 2)
TWO_POINTS = msgspec.structs.replace(
    GOOD, ids=[encode_id(1), encode_id(2)], vectors=[VectorColumn.of("", np.ones((2, 2), np.float32))], payloads=[b"", b""]
)


def catalog(*commands: tuple[int, CatalogOperation | None]) -> Catalog:
    """Collection `c` with id 0, at home in HOME, and what these commands make of it, each with the log's time for it."""
    found = Catalog()
    for time_ms, command in [(NOW_MS, CreateCollection("c", CONFIG, [[0, 2, 0, 0]])), *commands]:
        found.apply(found.view.position, time_ms, command)
    return found


def entry(value: bytes, partition: TopicPartition = HOME) -> Entry:
    return Entry(partition, 0, NOW_MS, None, value, ())


def encoded(operation: Operation, **changes: object) -> bytes:
    good: dict[str, object] = {"hlc": stamp_at(NOW_MS), "collection": 0, "catalog_position": 1}
    return codec.encode(Record(operation=operation, **(good | changes)))  # type: ignore[arg-type]


def verdict(value: bytes, known: Catalog | None = None, partition: TopicPartition = HOME) -> Verdict:
    return judge(entry(value, partition), known or catalog(), TOPICS, LIMITS)


BAD = {
    "no framing": (b"poison", "framing"),
    "empty": (b"", "framing"),
    "cut off": (encoded(GOOD)[:-5], "not a record"),
    "drift": (encoded(GOOD, hlc=stamp_at(NOW_MS + 501)), "501 ms ahead of its append time, the bound is 500 ms"),
    "dimension": (encoded(upsert(1, 2, 3, size=3)), "expected dim: 2, got 3"),
    "not finite": (encoded(upsert(float("nan"), 1)), "not finite"),
    "payload": (encoded(upsert(1, 2, payload=b"[1]")), "must be an object"),
    "broken payload": (encoded(upsert(1, 2, payload=b"{")), ""),
    "id": (encoded(upsert(1, 2, point_id=b"\x09")), "not a point id"),
    "collection": (encoded(GOOD, collection=7), "collection 7 cannot be known"),
    "shard": (encoded(GOOD, shard=1), "shard 1"),
    "negative shard": (encoded(GOOD, shard=-1), "shard -1"),
    "negative position": (encoded(GOOD, collection=-1, catalog_position=-5), "cannot be known"),
    "before its collection": (encoded(GOOD, catalog_position=0), "cannot be known at catalog position 0"),
    "empty patch": (encoded(PatchPayload([encode_id(1)], b"")), "it is empty"),
    "too deep": (encoded(upsert(1, 2, payload=b'{"a":' * 300 + b"1" + b"}" * 300)), "300 deep, the bound is 100"),
    "command": (encoded(DeleteCollection("c")), "does not belong"),
    "origins": (encoded(GOOD, ingested=Ingested("log", [1, 2])), "origins are given for 2"),
    "keys": (encoded(GOOD, ingested=Ingested("log", [1], ["a", "b"])), "keys for 2 of 1 points"),
    "order of origins": (encoded(TWO_POINTS, ingested=Ingested("log", [2, 1])), "do not ascend from 0"),
    "name of the origin": (encoded(GOOD, ingested=Ingested("x" * 513, [1])), "513 characters, the bound is 512"),
    "barrier with origin": (encoded(Barrier(), ingested=Ingested("log", [])), "Barrier has no points with origins or conditions"),
    "barrier with condition": (encoded(Barrier(), expected=[]), "Barrier has no points with origins or conditions"),
    "result with origin": (encoded(RequestResult(b"{}"), ingested=Ingested("log", [1])), "RequestResult has no points"),
    "result with condition": (encoded(RequestResult(b"{}"), expected=[1]), "RequestResult has no points"),
    "negative origin": (encoded(GOOD, ingested=Ingested("log", [-1])), "do not ascend from 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_no_replica_applies(kind: str) -> None:
    value, reason = BAD[kind]
    found = verdict(value)
    assert isinstance(found, Refused)
    assert reason in found.reason


def test_what_every_replica_applies() -> None:
    found = verdict(encoded(TWO_POINTS, ingested=Ingested("log", [0, 1], ["a", "b"])))
    assert isinstance(found, Accepted)
    assert found.record.operation == TWO_POINTS


def test_a_record_away_from_home() -> None:
    found = verdict(encoded(GOOD), partition=TopicPartition(TOPICS.tier(1), 0))
    assert isinstance(found, Refused)
    assert "not at home" in found.reason


def test_a_point_in_the_wrong_shard() -> None:
    both = catalog((NOW_MS, CreateCollection("d", CONFIG.replace(b"{", b'{"shard_number":2,', 1), [[0, 2, 0, 0]] * 2)))
    kinds = {type(verdict(encoded(GOOD, collection=1, catalog_position=2, shard=shard), both)) for shard in (0, 1)}
    assert kinds == {Accepted, Refused}


def test_a_collection_that_was_never_created() -> None:
    """The command at position 1 failed, so no collection has the id 1."""
    found = verdict(encoded(GOOD, collection=1, catalog_position=2), catalog((NOW_MS, None)))
    assert isinstance(found, Refused)
    assert "collection 1 does not exist at catalog position 2" in found.reason


@pytest.mark.parametrize("operation", [GOOD, upsert(1, 2, 3, size=3)])
def test_what_is_for_a_deleted_collection_is_dropped_whatever_it_says(operation: Operation) -> None:
    assert isinstance(verdict(encoded(operation), catalog((NOW_MS, DeleteCollection("c")))), Dropped)


def test_a_record_whose_writer_knew_more_of_the_catalog_waits() -> None:
    found = verdict(encoded(GOOD, catalog_position=3))
    assert isinstance(found, NeedsCatalog)
    assert (found.position, found.latest_ms) == (3, NOW_MS + LIMITS.max_lateness_ms)


@pytest.mark.parametrize(("late_ms", "kind"), [(0, Accepted), (1, Refused)])
def test_a_claim_on_the_catalog_must_have_come_true_in_time(late_ms: int, kind: type) -> None:
    """Also for a replica that reads both much later, and one that has read far beyond."""
    at_ms = NOW_MS + LIMITS.max_lateness_ms + late_ms
    for after in ([], [(at_ms + 1_000_000, None)] * 5):
        found = verdict(encoded(GOOD, catalog_position=2), catalog((at_ms, None), *after))
        assert type(found) is kind
        if isinstance(found, Refused):
            assert found.record is not None
            assert found == claim_failed(found.record), "as a replica decides that waited in vain"


def test_commands() -> None:
    assert isinstance(judge_command(entry(encoded(DeleteCollection("c")), TOPICS.system_partition), LIMITS), Accepted)
    for value in (b"poison", encoded(GOOD), encoded(DeleteCollection("c"), hlc=stamp_at(NOW_MS + 501))):
        assert isinstance(judge_command(entry(value, TOPICS.system_partition), LIMITS), Refused)
