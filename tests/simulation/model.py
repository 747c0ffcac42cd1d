"""What the log means, said a second time and in the simplest way: all admissible writes to a point, one after the other in the
order of their versions. Knows nothing of rows, segments, floors or replay; the world holds the real code against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import msgspec
import numpy as np
import orjson

from catalog.catalog import Catalog
from catalog.collection import Collection, Distance
from journal import codec
from journal.hlc import COUNTER_BITS
from journal.log import Entry, TopicPartition
from journal.records import (
    CATALOG_OPERATIONS,
    POINT_OPERATIONS,
    SHARD_OPERATIONS,
    Delete,
    PatchPayload,
    PatchVectors,
    Record,
    ReplacePayload,
    RequestResult,
    UnsetVectors,
    Upsert,
    VectorColumn,
)
from journal.split import take
from journal.topics import Topics, shard_of
from shard.batch import Limits
from shard.contract import contract_error


@dataclass
class ModelPoint:
    payload: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    version: int = -1
    expires: int | None = None


State = dict[bytes, ModelPoint]
Home = tuple[int, int, TopicPartition]
"""A collection, a shard of it, and one of the shard's home partitions."""


Written = tuple[tuple[int, ...], Entry, Record]
"""A write, and its place in the order of versions."""


@dataclass
class Expected:
    """Points and the writes that led to them, by collection; for each record with conditions the points for which they fail; the
    stamp of each record."""

    states: dict[int, State] = field(default_factory=dict)
    writes: dict[int, list[Written]] = field(default_factory=dict)
    failed: dict[tuple[Home, int], set[bytes]] = field(default_factory=dict)
    stamps: dict[Home, dict[int, int]] = field(default_factory=dict)


Reach = Callable[[TopicPartition, Record | None], int]
"""How far a partition is applied: for the shard of a data record, or for the catalog."""


Closed = Callable[[int, int], int]
"""Up to which stamp points of a collection's shard have expired."""


def expected_state(
    entries: list[Entry], reach: Reach, topics: Topics, limits: Limits, closed: Closed = lambda collection, shard: 0
) -> Expected:
    """What follows from all entries that are applied."""
    expected = Expected()
    seen = [
        entry for entry in entries if entry.partition != topics.system_partition or entry.offset < reach(entry.partition, None)
    ]
    catalog = _catalog([entry for entry in seen if entry.partition == topics.system_partition], limits)
    writes: dict[int, list[Written]] = {id_: [] for id_ in catalog.view.by_id}
    stamps: dict[tuple[object, ...], int] = {}
    attempts: dict[tuple[object, ...], list[Any]] = {}
    times: dict[tuple[object, ...], int] = {}
    keys: dict[tuple[object, ...], int] = {}
    origins: set[tuple[object, ...]] = set()
    epochs: dict[tuple[object, ...], int] = {}
    for entry in seen:
        record = _admissible(entry, limits)
        if record is None or entry.partition == topics.system_partition or not _allowed(record, entry, catalog, topics, limits):
            continue
        if entry.offset >= reach(entry.partition, record):
            continue
        line = (record.collection, record.shard, entry.partition)
        times[line] = max(times.get(line, 0), entry.time_ms)
        floor = times[line] - limits.max_lateness_ms << COUNTER_BITS
        stamp = stamps[line] = max(record.hlc, stamps.get(line, 0) + 1, floor)
        expected.stamps.setdefault(line, {})[entry.offset] = stamp

        def again(*key: object, line: object = line, stamp: int = stamp) -> bool:
            """Whether this key came within the window; if not, it has come now."""
            earlier = keys.get((line, *key))
            if earlier is not None and earlier > stamp - (limits.idempotency_window_ms << COUNTER_BITS):
                return True
            keys[line, *key] = stamp
            return False

        if record.idempotency_key and (record.expected is not None or isinstance(record.operation, RequestResult)):
            attempt = attempts.get((line, record.idempotency_key))
            if attempt is None or attempt[0] <= stamp - (limits.idempotency_window_ms << COUNTER_BITS):
                attempt = attempts[line, record.idempotency_key] = [stamp, record.attempt, record.request_id, False]
            if attempt[3] or not (record.attempt > attempt[1] or [record.attempt, record.request_id] == attempt[1:3]):
                continue
            attempt[1:] = [record.attempt, record.request_id, isinstance(record.operation, RequestResult)]
        elif record.idempotency_key and again(record.idempotency_key):
            continue
        if not isinstance(record.operation, POINT_OPERATIONS):
            continue
        if record.ingested is not None:
            record = _once(record, origins, epochs, line, again)
        if record.collection in writes:
            version = (stamp, topics.tier_of(entry.partition.topic), entry.partition.partition, entry.offset)
            writes[record.collection].append((version, entry, record))
    for id_, found in writes.items():
        expected.writes[id_] = sorted(found, key=lambda w: w[0])
        expected.states[id_] = _play(catalog.view.by_id[id_], expected.writes[id_], expected, partial(closed, id_))
    return expected


def state_at(expected: Expected, collection: Collection, positions: Mapping[TopicPartition, int], topics: Topics) -> State:
    """The points of a collection after all writes below some positions."""
    seen = [write for write in expected.writes[collection.id] if write[1].offset < positions.get(write[1].partition, 0)]

    def closed(shard: int) -> int:
        lines = [(collection.id, shard, home) for home in topics.home_partitions(collection.homes[shard])]
        below = (
            [s for offset, s in expected.stamps.get(line, {}).items() if offset < positions.get(line[2], 0)] for line in lines
        )
        return min(max(stamps, default=0) for stamps in below)

    return _play(collection, seen, Expected(), closed)


def state_as_of(expected: Expected, collection: Collection, stamp: int) -> State:
    """The points of a collection after all writes up to a stamp."""
    return _play(
        collection, [write for write in expected.writes[collection.id] if write[0][0] <= stamp], Expected(), lambda shard: stamp
    )


def _once(
    record: Record,
    origins: set[tuple[object, ...]],
    epochs: dict[tuple[object, ...], int],
    line: object,
    again: Callable[..., bool],
) -> Record:
    """The record less the points that came from a place, or bear a key, that was seen before; all but since the last move."""
    assert record.ingested is not None
    kept: list[int] = []
    epoch = record.ingested.epoch
    if epoch < epochs.get((line, record.ingested.log), 0):
        return msgspec.structs.replace(record, operation=take(record.operation, kept))
    epochs[line, record.ingested.log] = epoch
    for index, offset in enumerate(record.ingested.offsets):
        origin = (line, record.ingested.log, epoch, offset)
        if origin not in origins:
            origins.add(origin)
            key = record.ingested.keys[index] if record.ingested.keys else ""
            if not key or not again(record.operation.ids[index], key, epoch):
                kept.append(index)
    return msgspec.structs.replace(record, operation=take(record.operation, kept))


def _catalog(entries: list[Entry], limits: Limits) -> Catalog:
    catalog = Catalog(limits.idempotency_window_ms)
    for entry in entries:
        record = _admissible(entry, limits)
        is_command = record is not None and isinstance(record.operation, CATALOG_OPERATIONS)
        operation, key = (record.operation, record.idempotency_key) if record is not None and is_command else (None, "")
        catalog.apply(entry.offset, entry.time_ms, operation, key)
    return catalog


_decoded = lru_cache(10_000)(codec.decode)
"""Each check reads the whole log again."""


def _admissible(entry: Entry, limits: Limits) -> Record | None:
    try:
        record = _decoded(entry.value)
    except codec.DecodeError:
        return None
    too_far = record.hlc - (entry.time_ms << COUNTER_BITS) >= (limits.max_drift_ms + 1) << COUNTER_BITS
    return None if too_far else record


def _allowed(record: Record, entry: Entry, catalog: Catalog, topics: Topics, limits: Limits) -> bool:
    collection = catalog.view.by_id.get(record.collection)
    if collection is None or not isinstance(record.operation, SHARD_OPERATIONS):
        return False
    tier = topics.tier_of(entry.partition.topic)
    return (
        record.catalog_position <= catalog.view.position
        and catalog.known_at_ms(record.catalog_position) <= entry.time_ms + limits.max_lateness_ms
        and record.shard < len(collection.homes)
        and collection.homes[record.shard][tier] == entry.partition.partition
        and (
            not isinstance(record.operation, POINT_OPERATIONS)
            or (
                all(shard_of(point_id, len(collection.homes)) == record.shard for point_id in record.operation.ids)
                and contract_error(collection, record.operation) is None
            )
        )
    )


def _play(collection: Collection, writes: list[Written], expected: Expected, closed: Callable[[int], int]) -> State:
    state: State = {}

    def expire(before: int) -> None:
        for point_id in [id_ for id_, point in state.items() if point.expires is not None and point.expires < before]:
            expires = state[point_id].expires
            assert expires is not None
            if expires >> 2 <= closed(shard_of(point_id, len(collection.homes))):
                del state[point_id]

    for (stamp, tier, *_), entry, record in writes:
        expire(stamp << 2 | tier)
        if record.expected is not None:
            expected.failed[(record.collection, record.shard, entry.partition), entry.offset] = set()
        for index, point_id in enumerate(record.operation.ids):
            found = state.get(point_id)
            if record.expected is not None and record.expected[index] != (-1 if found is None else found.version):
                expected.failed[(record.collection, record.shard, entry.partition), entry.offset].add(point_id)
            else:
                _write(state, collection, record.operation, index, stamp << 2 | tier)
    expire(2**63)
    return state


def _write(state: State, collection: Collection, operation: Any, index: int, version: int) -> None:
    point_id = operation.ids[index]
    point = state.get(point_id)
    touched = True
    match operation:
        case Upsert():
            payload = operation.payloads[index]
            vectors = _vectors(collection, operation.vectors, index, len(operation.ids))
            expires = ((version >> 18) + operation.ttl_ms << 18 | 0x3FFFF) if operation.ttl_ms else None
            state[point_id] = point = ModelPoint(orjson.loads(payload) if payload else {}, vectors, expires=expires)
        case Delete():
            state.pop(point_id, None)
        case PatchPayload() if point:
            kept = {key: value for key, value in point.payload.items() if key not in operation.unset}
            point.payload = kept | orjson.loads(operation.set)
            touched = bool(operation.unset or orjson.loads(operation.set))
        case ReplacePayload() if point:
            point.payload = orjson.loads(operation.payload)
        case PatchVectors() if point:
            changed = _vectors(collection, operation.vectors, index, len(operation.ids))
            point.vectors |= changed
            touched = bool(changed)
        case UnsetVectors() if point:
            point.vectors = {name: vector for name, vector in point.vectors.items() if name not in operation.names}
            touched = bool(operation.names)
    if point is not None and touched:
        point.version = version


def _vectors(collection: Collection, columns: list[VectorColumn], index: int, count: int) -> dict[str, np.ndarray]:
    found = {}
    for column in columns:
        indexes = list(column.indexes(count))
        if index in indexes:
            vector = column.each()[indexes.index(index)]
            params = collection.config.vectors.get(column.name)
            if params is not None and params.distance is Distance.COSINE:
                vector = vector / (np.sqrt(np.sum(vector * vector)) or 1)
            found[column.name] = vector
    return found
