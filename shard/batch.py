"""One write batch: the records that a shard applies together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import orjson
from pyroaring import BitMap

from catalog.collection import Distance
from journal.hlc import COUNTER_BITS
from journal.log import Entry, TopicPartition
from journal.records import (
    Delete,
    Ingested,
    PatchPayload,
    PatchVectors,
    PointOperation,
    Record,
    ReplacePayload,
    UnsetVectors,
    Upsert,
    Vector,
    VectorColumn,
)
from journal.split import take
from journal.stamps import NEVER, Version, next_stamp, version_of
from shard.join import PointState
from shard.store import NO_ROW, Changes, Progress
from shard.vectors.index import normalised

if TYPE_CHECKING:
    from shard.shard import Shard


class Limits(NamedTuple):
    """Limits that decide what is applied; they must be equal on all replicas, or the replicas would differ."""

    max_drift_ms: int = 500
    max_lateness_ms: int = 10_000
    idempotency_window_ms: int = 24 * 3600 * 1000


class Applied(NamedTuple):
    """The result of one record. `repeated`: its idempotency key was applied before, so it changed nothing."""

    stamp: int
    repeated: bool


class ChangedPoint:
    """A point that a batch writes to: its state before and after."""

    __slots__ = ("is_changed", "new_vectors", "old_payload", "old_row", "point", "point_id")

    def __init__(self, point_id: bytes, point: PointState, row: int) -> None:
        self.point_id = point_id
        self.point = point
        self.old_row = row
        self.old_payload = point.payload
        self.new_vectors = False
        self.is_changed = False


class WriteBatch:
    """One batch: first `join` for each record, then `changes`, then `publish`."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._changes = Changes(shard.store)
        self._points: dict[bytes, ChangedPoint] = {}
        self._keys: dict[str, int] = {}
        self._removed: list[tuple[int, bytes]] = []
        self._inserted: list[tuple[int, ChangedPoint]] = []
        self._updated: list[tuple[int, ChangedPoint]] = []
        self.progress: dict[TopicPartition, Progress] = {}
        self.touched = BitMap()

    def join(self, entry: Entry, record: Record) -> Applied | None:
        """Step 1 for one record. None when it was applied before."""
        before = self.progress.get(entry.partition) or self._shard.progress(entry.partition)
        if entry.offset < before.offset:
            return None
        limits = self._shard._limits
        time_ms = max(before.time_ms, entry.time_ms)
        stamp = next_stamp(record.hlc, before.stamp, time_ms, limits.max_lateness_ms)
        self.progress[entry.partition] = Progress(entry.offset + 1, stamp, time_ms, before.ingested)
        tier = self._shard._topics.tier_of(entry.partition.topic)
        scope = f"{tier}/{entry.partition.partition}"
        operation: PointOperation | None = record.operation  # type: ignore[assignment]
        if record.idempotency_key and self._is_repeated(f"{scope}/{record.idempotency_key}", stamp):
            operation = None
        elif record.ingested is not None:
            operation = self._not_applied_yet(record.operation, record.ingested, entry.partition, scope)  # type: ignore[arg-type]
        if operation is not None:
            self._apply_operation(version_of(stamp, tier), operation)
        return Applied(stamp, repeated=operation is None)

    def changes(self) -> Changes:
        """Step 2: everything that the batch writes to RocksDB, including the next offsets."""
        for point_id, changed in self._points.items():
            if changed.is_changed:
                self._write_point(point_id, changed)
        for key, stamp in self._keys.items():
            self._changes.put_idempotency_key(key, stamp)
        for partition, progress in self.progress.items():
            self._changes.put_progress(partition, progress)
        self._changes.put_next_row(self._shard._next_row)
        self.touched = BitMap([row for row, _ in (*self._removed, *self._inserted, *self._updated)])
        if self.touched:
            self._changes.put_touched(self._shard.checkpoint.batch + 1, self.touched)
        return self._changes

    def publish(self) -> None:
        """Step 3: updates the in-memory indexes. Called under the shard's lock, after the write."""
        shard = self._shard
        changed = [(row, change.old_payload) for row, change in self._updated]
        written = [(row, change.point.payload) for row, change in [*self._updated, *self._inserted]]
        shard.payload.change([*self._removed, *changed], written)
        for row, change in self._inserted:
            shard.rows.put(row, change.point_id, change.point.version())
        shard.rows.renew([(row, changed.point.version()) for row, changed in self._updated])
        removed = sorted(row for row, _ in self._removed)
        shard.rows.remove(removed)
        shard.alive.update([row for row, _ in self._inserted])
        shard.alive.difference_update(BitMap(removed))
        for name, vectors in shard.vectors.items():
            inserted = [(row, changed.point.vectors[name]) for row, changed in self._inserted if name in changed.point.vectors]
            if inserted:
                vectors.add(np.array([row for row, _ in inserted], np.int64), [vector for _, vector in inserted])
            if removed:
                vectors.kill(np.array(removed, np.int64))

    def _not_applied_yet(
        self, operation: PointOperation, ingested: Ingested, partition: TopicPartition, scope: str
    ) -> PointOperation | None:
        """The part of an ingested operation that was not applied before; None when nothing is left.

        The ingester writes the records of one source log to one partition in offset order and without gaps. After a restart it
        begins at or below the last acknowledged offset. So everything below the highest offset seen here was applied already,
        whichever ingester wrote it again.
        """
        progress = self.progress[partition]
        seen = progress.ingested.get(ingested.log, 0)
        indexes = [index for index, offset in enumerate(ingested.offsets) if offset >= seen]
        if not indexes:
            return None
        progress.ingested = progress.ingested | {ingested.log: ingested.offsets[-1] + 1}
        if ingested.keys:
            indexes = [
                index
                for index in indexes
                if not (key := ingested.keys[index])
                or not self._is_repeated(f"{scope}/i/{operation.ids[index].hex()}/{key}", progress.stamp)
            ]
        if len(indexes) == len(operation.ids):
            return operation
        return take(operation, indexes) if indexes else None

    def _is_repeated(self, key: str, stamp: int) -> bool:
        """Whether a write with this key was applied within the idempotency window. If not, the key is recorded."""
        earlier = self._keys.get(key) or self._shard.store.idempotency_stamp(key)
        if earlier is not None and earlier > stamp - (self._shard._limits.idempotency_window_ms << COUNTER_BITS):
            return True
        self._keys[key] = stamp
        return False

    def _apply_operation(self, version: Version, operation: PointOperation) -> None:
        match operation:
            case Upsert(ids, columns, payloads):
                vectors = self._by_point(columns, len(ids))
                for index, changed in self._changed_points(ids):
                    payload = b"" if payloads[index] == b"{}" else payloads[index]
                    self._full_write(ids[index], changed, version, vectors[index], payload)
            case Delete(ids):
                for index, changed in self._changed_points(ids):
                    self._full_write(ids[index], changed, version, None, b"")
            case PatchPayload(ids, changes, unset):
                fields = orjson.loads(changes)
                for index, changed in self._changed_points(ids):
                    self._put_patch_version(ids[index], changed, version, ("patch_payload", changes, unset))
                    changed.is_changed |= changed.point.patch_payload(version, fields, unset)
            case ReplacePayload(ids, payload):
                for index, changed in self._changed_points(ids):
                    self._put_patch_version(ids[index], changed, version, ("replace_payload", payload))
                    changed.is_changed |= changed.point.replace_payload(version, b"" if payload == b"{}" else payload)
            case PatchVectors(ids, columns):
                vectors = self._by_point(columns, len(ids))
                for index, changed in self._changed_points(ids):
                    self._patch_vectors(ids[index], changed, version, vectors[index])
            case UnsetVectors(ids, names):
                for index, changed in self._changed_points(ids):
                    self._patch_vectors(ids[index], changed, version, dict.fromkeys(names))

    def _changed_points(self, ids: Sequence[bytes]) -> Iterable[tuple[int, ChangedPoint]]:
        for index, point_id in enumerate(ids):
            changed = self._points.get(point_id)
            if changed is None:
                changed = self._points[point_id] = ChangedPoint(point_id, *self._shard.store.point(point_id))
            yield index, changed

    def _full_write(
        self, point_id: bytes, changed: ChangedPoint, version: Version, vectors: dict[str, Vector] | None, payload: bytes
    ) -> None:
        """An upsert, or a delete where `vectors` is None."""
        point = changed.point
        if version > point.full:
            self._put_current_version(point_id, point)
        joined = point.delete(version) if vectors is None else point.upsert(version, vectors, payload)
        if not joined or point.is_patched():  # this write cannot be read back from the state
            self._put_version(point_id, version, _encodable_write(vectors, payload))
        changed.is_changed |= joined
        changed.new_vectors |= joined

    def _patch_vectors(
        self, point_id: bytes, changed: ChangedPoint, version: Version, vectors: Mapping[str, Vector | None]
    ) -> None:
        data = {name: None if vector is None else vector.tobytes() for name, vector in vectors.items()}
        self._put_patch_version(point_id, changed, version, ("patch_vectors", data))
        joined = changed.point.patch_vectors(version, vectors)
        changed.is_changed |= joined
        changed.new_vectors |= joined

    def _put_patch_version(self, point_id: bytes, changed: ChangedPoint, version: Version, write: object) -> None:
        """Stores a patch as a version, and before the first patch also the full write that it changes."""
        self._put_current_version(point_id, changed.point)
        self._put_version(point_id, version, write)

    def _put_current_version(self, point_id: bytes, point: PointState) -> None:
        """Stores the current full write as a version. If patches changed it, this was done before the first patch."""
        if point.full != NEVER and not point.is_patched():
            self._put_version(point_id, point.full, _encodable_write(point.vectors if point.alive else None, point.payload))

    def _put_version(self, point_id: bytes, version: Version, write: object) -> None:
        self._changes.put_version(point_id, version, msgspec.msgpack.encode(write))

    def _by_point(self, columns: Sequence[VectorColumn], count: int) -> list[dict[str, Vector]]:
        """The vectors of each point by name, normalised to unit length where the distance is Cosine."""
        by_point: list[dict[str, Vector]] = [{} for _ in range(count)]
        for column in columns:
            params = self._shard.collection.config.vectors.get(column.name)
            if params is not None and params.distance is Distance.COSINE:
                column = msgspec.structs.replace(column, data=normalised(column.array()).tobytes())
            for index, vector in zip(column.indexes(count), column.each(), strict=True):
                by_point[index][column.name] = vector
        return by_point

    def _write_point(self, point_id: bytes, changed: ChangedPoint) -> None:
        point, row = changed.point, changed.old_row
        if row != NO_ROW and (changed.new_vectors or not point.alive):
            self._changes.delete_row(row)
            self._removed.append((row, changed.old_payload))
        if not point.alive:
            self._changes.put_point(point_id, point, NO_ROW)
            return
        if row == NO_ROW or changed.new_vectors:
            row = self._shard._next_row
            self._shard._next_row += 1
            self._changes.put_vectors(row, point.vectors)
            self._inserted.append((row, changed))
        else:
            self._updated.append((row, changed))
        self._changes.put_row(row, point_id, point)
        self._changes.put_point(point_id, point, row)


def _encodable_write(vectors: Mapping[str, Vector] | None, payload: bytes) -> object:
    if vectors is None:
        return ("delete",)
    return ("upsert", {name: vector.tobytes() for name, vector in vectors.items()}, payload)
