"""Cutting an operation by shard and size."""

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from journal.codec import encode
from journal.ids import encode_id
from journal.log import Definite
from journal.records import (
    Delete,
    PatchPayload,
    PatchVectors,
    PointOperation,
    Record,
    ReplacePayload,
    UnsetVectors,
    Upsert,
    VectorColumn,
)
from journal.split import MAX_RECORD_BYTES, split
from journal.topics import shard_of
from tests.journal.operations import point_operations

ENVELOPE_BYTES = 1000
"""Room beside the operation: the other fields of a record, and the names of vectors. Brokers take 1,000,000 bytes."""


def points_of(operation: PointOperation) -> list[tuple[object, ...]]:
    """What an operation does, point by point, without its columns."""
    vectors: list[dict[str, bytes]] = [{} for _ in operation.ids]
    for column in getattr(operation, "vectors", []):
        for index, vector in zip(column.indexes(len(operation.ids)), column.each(), strict=True):
            vectors[index][column.name] = vector.tobytes()
    payloads = getattr(operation, "payloads", operation.ids)
    shared = [getattr(operation, name, None) for name in ("set", "unset", "payload", "names")]
    return [(type(operation), *each, *shared) for each in zip(operation.ids, vectors, payloads, strict=True)]


def joined(parts: Iterable[PointOperation]) -> list[tuple[object, ...]]:
    return [point for part in parts for point in points_of(part)]


large = point_operations([Upsert, PatchVectors], 8, [1, 1000, 30_000, 60_000], [0, 1, 20_000, 59_980])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(point_operations() | large, st.sampled_from([1, 2, 3, 6, 16]))
@example(ReplacePayload([encode_id(n) for n in range(50)], bytes(MAX_RECORD_BYTES - 100)), 2)
def test_the_parts_are_the_whole(operation: PointOperation, shard_number: int) -> None:
    """I8, J1: each point once, in its shard, with all that belongs to it, in the order of the request; each part fits."""
    parts = list(split(operation, shard_number))
    points = points_of(operation)
    for shard in range(shard_number):
        here = [point for point in points if shard_of(point[1], shard_number) == shard]
        assert joined(part.operation for part in parts if part.shard == shard) == here
    assert {part.shard for part in parts} <= set(range(shard_number))
    for part in parts:
        assert part.operation.ids
        assert part.operation.ids == [operation.ids[index] for index in part.indexes]
        assert len(encode(Record(0, part.operation))) <= MAX_RECORD_BYTES + ENVELOPE_BYTES
    assert list(split(operation, shard_number)) == parts, "a retry makes the same parts"


def test_a_part_is_as_large_as_it_may_be() -> None:
    """I11: a bulk of small points is not cut into more records than it needs."""
    ids = [encode_id(n) for n in range(2000)]
    operation = Upsert(ids, [VectorColumn("", 256, None, bytes(4 * 256 * 2000))], [b""] * 2000)
    assert len(list(split(operation, 1))) == 3


def test_an_operation_without_points_has_no_parts() -> None:
    """I8"""
    assert list(split(Delete([]), 1)) == list(split(Delete([]), 4)) == []


ID = [encode_id(1)]
TOO_MUCH = MAX_RECORD_BYTES + 1


@pytest.mark.parametrize(
    "operation",
    [
        Upsert(ID, [], [bytes(TOO_MUCH)]),
        Upsert(ID, [VectorColumn("", 225_001, None, bytes(900_004))], [b""]),
        Upsert(ID, [VectorColumn(name, 120_000, None, bytes(480_000)) for name in "ab"], [b""]),
        PatchVectors(ID, [VectorColumn("", 225_001, [0], bytes(900_004))]),
        ReplacePayload(ID, bytes(TOO_MUCH)),
        PatchPayload(ID, bytes(TOO_MUCH)),
        PatchPayload(ID, b"{}", ["k" * TOO_MUCH]),
        PatchPayload(ID, b"{}", ["k"] * TOO_MUCH),
        PatchPayload(ID, b"{}", [""] * TOO_MUCH),
        UnsetVectors(ID, ["n" * TOO_MUCH]),
    ],
    ids=lambda operation: type(operation).__name__,
)
@pytest.mark.parametrize("shard_number", [1, 3])
def test_a_point_that_no_record_can_hold_is_refused(operation: PointOperation, shard_number: int) -> None:
    """I11: before anything is written."""
    with pytest.raises(Definite):
        list(split(operation, shard_number))
