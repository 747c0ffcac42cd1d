"""What the log means, said a second time and in the simplest way: all admissible writes to a point, one after the other in the
order of their versions. Knows nothing of rows, segments, floors or replay; the world holds the real code against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import orjson

from catalog.catalog import Catalog
from catalog.collection import Collection, Distance
from journal import codec
from journal.hlc import COUNTER_BITS
from journal.log import Entry, TopicPartition
from journal.records import Delete, PatchPayload, PatchVectors, Record, ReplacePayload, UnsetVectors, Upsert, VectorColumn
from journal.split import take
from journal.topics import Topics, shard_of
from shard.batch import Limits
from shard.contract import contract_error


@dataclass
class ModelPoint:
    payload: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


State = dict[bytes, ModelPoint]


Reach = Callable[[TopicPartition, Record | None], int]
"""How far a partition is applied: for the shard of a data record, or for the catalog."""


def expected_state(entries: list[Entry], reach: Reach, topics: Topics, limits: Limits) -> dict[int, State]:
    """Collection id -> points, from all entries that are applied."""
    seen = [
        entry for entry in entries if entry.partition != topics.system_partition or entry.offset < reach(entry.partition, None)
    ]
    catalog = _catalog([entry for entry in seen if entry.partition == topics.system_partition], limits)
    writes: dict[int, list[tuple[tuple[int, ...], Record]]] = {id_: [] for id_ in catalog.view.by_id}
    stamps: dict[tuple[object, ...], int] = {}
    times: dict[tuple[object, ...], int] = {}
    keys: dict[tuple[object, ...], int] = {}
    origins: set[tuple[object, ...]] = set()
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

        def again(*key: object, line: object = line, stamp: int = stamp) -> bool:
            """Whether this key came within the window; if not, it has come now."""
            earlier = keys.get((line, *key))
            if earlier is not None and earlier > stamp - (limits.idempotency_window_ms << COUNTER_BITS):
                return True
            keys[line, *key] = stamp
            return False

        if record.idempotency_key and again(record.idempotency_key):
            continue
        if record.ingested is not None:
            record = _once(record, origins, line, again)
        if record.collection in writes:
            version = (stamp, topics.tier_of(entry.partition.topic), entry.partition.partition, entry.offset)
            writes[record.collection].append((version, record))
    return {id_: _play(catalog.view.by_id[id_], sorted(found, key=lambda w: w[0])) for id_, found in writes.items()}


def _once(record: Record, origins: set[tuple[object, ...]], line: object, again: Callable[..., bool]) -> Record:
    """The record less the points that came from a place, or bear a key, that was seen before."""
    assert record.ingested is not None
    kept = []
    for index, offset in enumerate(record.ingested.offsets):
        origin = (line, record.ingested.log, offset)
        if origin not in origins:
            origins.add(origin)
            key = record.ingested.keys[index] if record.ingested.keys else ""
            if not key or not again(record.operation.ids[index], key):
                kept.append(index)
    return msgspec.structs.replace(record, operation=take(record.operation, kept))


def _catalog(entries: list[Entry], limits: Limits) -> Catalog:
    catalog = Catalog()
    for entry in entries:
        record = _admissible(entry, limits)
        is_command = record is not None and not hasattr(record.operation, "ids")
        catalog.apply(entry.offset, entry.time_ms, record.operation if record is not None and is_command else None)
    return catalog


def _admissible(entry: Entry, limits: Limits) -> Record | None:
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError:
        return None
    too_far = record.hlc - (entry.time_ms << COUNTER_BITS) >= (limits.max_drift_ms + 1) << COUNTER_BITS
    return None if too_far else record


def _allowed(record: Record, entry: Entry, catalog: Catalog, topics: Topics, limits: Limits) -> bool:
    collection = catalog.view.by_id.get(record.collection)
    if collection is None or not hasattr(record.operation, "ids"):
        return False
    tier = topics.tier_of(entry.partition.topic)
    return (
        record.catalog_position <= catalog.view.position
        and catalog.known_at_ms(record.catalog_position) <= entry.time_ms + limits.max_lateness_ms
        and record.shard < len(collection.homes)
        and collection.homes[record.shard][tier] == entry.partition.partition
        and all(shard_of(point_id, len(collection.homes)) == record.shard for point_id in record.operation.ids)
        and contract_error(collection, record.operation) is None
    )


def _play(collection: Collection, writes: list[tuple[tuple[int, ...], Record]]) -> State:
    state: State = {}
    for _, record in writes:
        operation = record.operation
        for index, point_id in enumerate(operation.ids):
            point = state.get(point_id)
            match operation:
                case Upsert():
                    payload = operation.payloads[index]
                    state[point_id] = ModelPoint(
                        orjson.loads(payload) if payload else {},
                        _vectors(collection, operation.vectors, index, len(operation.ids)),
                    )
                case Delete():
                    state.pop(point_id, None)
                case PatchPayload() if point:
                    kept = {key: value for key, value in point.payload.items() if key not in operation.unset}
                    point.payload = kept | orjson.loads(operation.set)
                case ReplacePayload() if point:
                    point.payload = orjson.loads(operation.payload)
                case PatchVectors() if point:
                    point.vectors |= _vectors(collection, operation.vectors, index, len(operation.ids))
                case UnsetVectors() if point:
                    point.vectors = {name: vector for name, vector in point.vectors.items() if name not in operation.names}
    return state


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
