"""The writer, over the journal in memory: stamps, routing, retries and receipts."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import fastavro
import pytest

from journal import codec
from journal.hlc import stamp_at
from journal.log import TopicPartition
from journal.records import CreateCollection, Delete, Ingested, PatchPayload, Record, UpdateCollection, Upsert
from journal.split import Part
from journal.writer import Origin, Receipt, Writer
from tests.journal.writer.written import DESTINATION, EVERYWHERE, HOMES, NOW_MS, ORIGIN, TOPICS, World, ids_of


@pytest.mark.parametrize("tier", range(4))
def test_every_part_goes_to_the_home_of_its_shard(world: World, tier: int) -> None:
    """V1, V4"""
    world.write(EVERYWHERE, tier=tier)
    found = world.log()
    assert {record.shard: entry.partition for entry, record in found} == {
        shard: TopicPartition(TOPICS.tier(tier), HOMES[shard][tier]) for shard in range(3)
    }
    assert {record.shard: record.operation for _, record in found} == {n: Delete(ids_of(n)) for n in range(3)}


def test_the_envelope_tells_who_wrote_what_and_when(world: World) -> None:
    """V3"""
    operation = Upsert(ids_of(1), [], [b'{"a": 1}'])
    world.write(operation, origin=Origin("r-1", "once", "key:ci", "00-trace-01"))
    ((entry, record),) = world.log()
    assert record == Record(
        hlc=stamp_at(NOW_MS),
        operation=operation,
        collection=12,
        catalog_position=34,
        shard=1,
        tenant="acme",
        request_id="r-1",
        idempotency_key=record.idempotency_key,
        origin="key:ci",
    )
    assert record.idempotency_key.startswith("once/")
    headers = dict(entry.headers)
    assert entry.key == b"12/1"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"] == b"r-1/%d" % record.hlc
    assert headers["ce_source"] == b"/vecraft.tier2"
    assert headers["ce_type"] == b"vecraft.v1.Upsert"
    assert headers["content-type"] == codec.CONTENT_TYPE
    assert headers["hlc"] == b"%d" % record.hlc
    assert headers["traceparent"] == b"00-trace-01"


def test_a_header_without_a_value_is_left_out(world: World) -> None:
    """V3"""
    world.write(EVERYWHERE)
    assert all("traceparent" not in dict(entry.headers) for entry, _ in world.log())


def keys(world: World) -> list[str]:
    return [record.idempotency_key for _, record in world.log()]


def test_a_retry_has_the_same_idempotency_keys_part_by_part(world: World) -> None:
    """I2: so that the retry of a request that was half written adds only what is missing."""
    once = Origin("r", idempotency_key="once")
    world.write(EVERYWHERE, origin=once)
    first = [(record.shard, record.idempotency_key) for _, record in world.log()]
    assert len(set(first)) == 3
    assert all(key.startswith("once/") for _, key in first)
    world.write(EVERYWHERE, origin=once)
    assert sorted((record.shard, record.idempotency_key) for _, record in world.log()) == sorted(first * 2)


def test_each_operation_of_a_request_has_its_own_place_under_the_key(world: World) -> None:
    """I2: so an operation that stands in a request twice is written twice; without a key there is none."""
    (one,) = ids_of(1)
    for place in ("0", "1"):
        world.write(Delete([one]), origin=Origin("r", idempotency_key="once", place=place))
    assert len(set(keys(world))) == 2
    world.write(Delete([one]))
    assert keys(world)[-1] == ""


def test_the_operations_of_a_request_are_written_in_their_order(world: World) -> None:
    """I4, I2: equal ones too; the third here is no retry of the first."""
    (one,) = ids_of(1)
    operations = [PatchPayload([one], b'{"a": 1}'), PatchPayload([one], b'{"a": 2}'), PatchPayload([one], b'{"a": 1}')]
    world.write(*operations, origin=Origin("r", idempotency_key="once"))
    found = [record for _, record in world.log()]
    assert [record.operation for record in found] == operations
    assert found[0].hlc < found[1].hlc < found[2].hlc
    assert len(set(keys(world))) == 3


def test_the_receipt_tells_where_the_write_can_be_seen(world: World) -> None:
    """V10, I9"""
    world.write(Delete(ids_of(0)))
    receipt = world.write(EVERYWHERE)
    token = receipt.token()
    assert token.positions == {
        TopicPartition("vecraft.tier2", 5): 3,  # two shards live there, and the first write
        TopicPartition("vecraft.tier2", 0): 1,
    }
    assert token.hlc == world.clock.last == max(record.hlc for _, record in world.log())
    assert sorted(written.shard for written in receipt.written) == [0, 1, 2]


def test_an_operation_without_points_writes_nothing(world: World) -> None:
    """I8"""
    receipt = world.write(Delete([]))
    assert (receipt.written, receipt.token().positions, world.log()) == ([], {}, [])


@pytest.mark.usefixtures("hasty_threads")
def test_stamps_follow_the_order_of_each_partition(world: World) -> None:
    """I4, V2: whatever threads write, and while time stands still."""

    def write_many(_: int) -> None:
        for _ in range(40):
            world.write(EVERYWHERE)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(write_many, range(6)))
    found = world.log()
    stamps = [record.hlc for _, record in found]
    assert len(set(stamps)) == 6 * 40 * 3
    for partition in {entry.partition for entry, _ in found}:
        mine = [record.hlc for entry, record in found if entry.partition == partition]
        assert mine == sorted(mine)


@pytest.mark.parametrize(
    "write",
    [
        lambda writer: writer.write_points(DESTINATION, [EVERYWHERE], 0, Origin("r", idempotency_key="once")),
        lambda writer: writer.write_ingested(DESTINATION, Part(0, [0], Delete(ids_of(0))), 0, Ingested("log", [0]), ORIGIN),
        lambda writer: writer.write_catalog(UpdateCollection("docs", b"{}"), ORIGIN),
    ],
    ids=["points", "ingested", "catalog"],
)
def test_nobody_waits_while_a_record_is_encoded(
    world: World, write: Callable[[Writer], Future[Receipt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bulk write takes long to encode, and the event loop writes too: only stamps and appends need the lock."""
    locked: list[bool] = []

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*args: Any, **named: Any) -> Any:
            locked.append(world.writer._lock.locked())
            return work(*args, **named)

        return watch

    monkeypatch.setattr(fastavro, "schemaless_writer", watched(fastavro.schemaless_writer))
    write(world.writer).result(0)
    assert locked
    assert not any(locked)


def test_catalog_commands_go_to_the_system_topic(world: World) -> None:
    """V4"""
    operations = [CreateCollection("docs", b"{}", HOMES), UpdateCollection("docs", b"{}")]
    futures: list[Future[Receipt]] = [world.writer.write_catalog(each, ORIGIN) for each in operations]
    assert [future.result(0).written[0].appended.offset for future in futures] == [0, 1]
    found = world.log()
    assert {entry.partition for entry, _ in found} == {TOPICS.system_partition}
    assert [record.operation for _, record in found] == operations
    assert {(record.collection, record.request_id, record.origin) for _, record in found} == {(-1, "r-1", "key:ci")}
    assert found[0][1].hlc < found[1][1].hlc
