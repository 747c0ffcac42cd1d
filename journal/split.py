"""Splits an operation into parts, each for one shard and small enough for one record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from journal.log import Definite
from journal.records import Delete, PatchPayload, PatchVectors, PointOperation, ReplacePayload, UnsetVectors, Upsert, VectorColumn
from journal.topics import shard_of

MAX_RECORD_BYTES = 900_000


class PointTooLarge(Definite):
    """A single point is larger than a record may be."""


_POINT_BYTES = 8
"""Estimate of Avro's overhead per point: its length prefixes."""


class Part(NamedTuple):
    """One record for one shard: the operation on the ids at `indexes` of the whole operation."""

    shard: int
    indexes: Sequence[int]
    operation: PointOperation


def split(operation: PointOperation, shard_number: int, bytes_per_point: int = 0) -> Iterator[Part]:
    """The parts of an operation, in a deterministic order. Within a shard the ids keep their order.

    `bytes_per_point` are kept free for what the record says about each point beside the operation.

    Raises PointTooLarge when a single point does not fit into a record.
    """
    sizes = _point_sizes(operation, bytes_per_point)
    shared_bytes = _shared_size(operation)
    _check(sizes, shared_bytes)
    for shard, indexes in _by_shard(operation.ids, shard_number):
        for part in _cut(indexes, sizes, MAX_RECORD_BYTES - shared_bytes):
            yield Part(shard, part, operation if len(part) == len(operation.ids) else take(operation, part))


def take(operation: PointOperation, indexes: Sequence[int]) -> PointOperation:
    """The same operation on the ids at `indexes` only."""
    ids = [operation.ids[i] for i in indexes]
    match operation:
        case Upsert():
            payloads = [operation.payloads[i] for i in indexes]
            return Upsert(ids, _take_columns(operation.vectors, indexes), payloads, operation.ttl_ms)
        case PatchVectors():
            return PatchVectors(ids, _take_columns(operation.vectors, indexes))
        case Delete() | PatchPayload() | ReplacePayload() | UnsetVectors():
            return msgspec.structs.replace(operation, ids=ids)


def check_sizes(operation: PointOperation, bytes_per_point: int = 0) -> None:
    """Raises PointTooLarge when `split` would."""
    _check(_point_sizes(operation, bytes_per_point), _shared_size(operation))


def _check(sizes: Sequence[int], shared_bytes: int) -> None:
    if sizes and max(sizes) + shared_bytes > MAX_RECORD_BYTES:
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        needed = sizes[largest] + shared_bytes
        raise PointTooLarge(f"point {largest} takes {needed} bytes, a record holds at most {MAX_RECORD_BYTES}")


def _by_shard(ids: Sequence[bytes], shard_number: int) -> list[tuple[int, Sequence[int]]]:
    if shard_number == 1:
        return [(0, range(len(ids)))]
    groups: dict[int, list[int]] = {}
    for index, point_id in enumerate(ids):
        groups.setdefault(shard_of(point_id, shard_number), []).append(index)
    return sorted(groups.items())


def _cut(indexes: Sequence[int], sizes: Sequence[int], max_bytes: int) -> Iterator[Sequence[int]]:
    start = size = 0
    for at, index in enumerate(indexes):
        if size + sizes[index] > max_bytes:
            yield indexes[start:at]
            start, size = at, 0
        size += sizes[index]
    if start < len(indexes):
        yield indexes[start:]


def _point_sizes(operation: PointOperation, bytes_per_point: int) -> list[int]:
    sizes = [len(point_id) + _POINT_BYTES + bytes_per_point for point_id in operation.ids]
    if isinstance(operation, Upsert):
        sizes = [size + len(payload) for size, payload in zip(sizes, operation.payloads, strict=True)]
    if isinstance(operation, Upsert | PatchVectors):
        for column in operation.vectors:
            for index, size in zip(column.indexes(len(sizes)), column.sizes_bytes(), strict=False):
                sizes[index] += size + _POINT_BYTES
    return sizes


def _shared_size(operation: PointOperation) -> int:
    """Bytes that are repeated in every part."""
    match operation:
        case PatchPayload():
            return len(operation.set) + _names_size(operation.unset)
        case ReplacePayload():
            return len(operation.payload)
        case UnsetVectors():
            return _names_size(operation.names)
        case _:
            return 0


def _names_size(names: Sequence[str]) -> int:
    return sum(len(name.encode()) + _POINT_BYTES for name in names)


def _take_columns(columns: Sequence[VectorColumn], indexes: Sequence[int]) -> list[VectorColumn]:
    if not indexes:
        return []
    return [taken for column in columns if (taken := _take_column(column, indexes)) is not None]


def _take_column(column: VectorColumn, indexes: Sequence[int]) -> VectorColumn | None:
    if column.points is None:
        return _chosen(column, indexes, None)
    place = {index: at for at, index in enumerate(indexes)}
    chosen = [(at, place[point]) for at, point in enumerate(column.points) if point in place]
    return _chosen(column, [at for at, _ in chosen], [point for _, point in chosen]) if chosen else None


def _chosen(column: VectorColumn, at: Sequence[int], points: list[int] | None) -> VectorColumn:
    """The vectors at the positions `at` of a column, as a column for `points`."""
    if column.lengths is None:
        return VectorColumn.of(column.name, column.array()[np.asarray(at, np.intp)], points)
    each = column.each()
    return VectorColumn.of_each(column.name, [each[place] for place in at], points)
