"""One write batch: the records that a shard applies together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap

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
    RequestResult,
    ShardOperation,
    UnsetVectors,
    Upsert,
    Vector,
    VectorColumn,
)
from journal.split import take
from journal.stamps import MAX_VERSION, NEVER, Version, expiry_of, next_stamp, stamp_of, tier_of, version_of
from shard.decisions import Attempt, Decision
from shard.history import Condition, Write, current_write, fold, holds
from shard.join import PointState
from shard.past import timeline
from shard.store import NO_ROW, Changes, PastState, Progress

if TYPE_CHECKING:
    from shard.shard import Shard


MAX_INGEST_LOGS = 100
"""Logs of foreign producers of which a home partition's position is kept; the one that was used longest ago leaves. There is one
for each partition of each ingest topic that there ever was."""


class Limits(NamedTuple):
    """Limits that decide what is applied; they must be equal on all replicas, or the replicas would differ.

    `history_ms`: how long earlier states are kept, unless the collection says otherwise. It decides only what can be read.
    """

    max_drift_ms: int = 500
    max_lateness_ms: int = 10_000
    idempotency_window_ms: int = 24 * 3600 * 1000
    history_ms: int = 24 * 3600 * 1000


class Applied(NamedTuple):
    """The result of one record. `repeated`: its idempotency key was applied before, so it changed nothing."""

    stamp: int
    repeated: bool


class ChangedPoint:
    """A point that a batch writes to: its state before and after."""

    __slots__ = ("is_changed", "is_late", "new_vectors", "old_payload", "old_row", "past", "point", "point_id")

    def __init__(self, point_id: bytes, point: PointState, row: int) -> None:
        self.point_id = point_id
        self.point = point
        self.old_row = row
        self.old_payload = point.payload
        self.new_vectors = False
        self.is_changed = False
        self.is_late = False
        """Whether a write came that is earlier than the state before, so that the past of the point must be computed anew."""
        self.past: list[PastState] = []
        """The states that the batch ended, if no write is late."""


class WriteBatch:
    """One batch: first `join` for each record, then `changes`, then `publish`."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._changes = Changes(shard.store)
        self._points: dict[bytes, ChangedPoint] = {}
        self._history: dict[bytes, dict[Version, bytes]] = {}
        self._decisions: dict[tuple[int, int], Decision] = {}
        self._keys: dict[tuple[int, str], int] = {}
        self._attempts: dict[tuple[int, str], Attempt] = {}
        self._removed: list[tuple[int, bytes]] = []
        self._inserted: list[tuple[int, ChangedPoint]] = []
        self._updated: list[tuple[int, ChangedPoint]] = []
        self._past: list[tuple[int, PastState]] = []
        self._past_removed: list[int] = []
        self._stamps: dict[int, tuple[list[int], list[int]]] = {}
        self._kept_since = 0
        self.progress: dict[TopicPartition, Progress] = {}
        self.touched: list[int] = []
        """The rows that the batch created, ended, or changed the payload of."""
        self.next_expiry = MAX_VERSION
        """When the first of the points that the batch writes may have to expire."""
        self.unsettled = 0
        """The number of points that wait to be settled because of this batch."""

    def join(self, entry: Entry, record: Record) -> Applied | None:
        """Step 1 for one record. None when it was applied before."""
        before = self.progress.get(entry.partition) or self._shard.progress(entry.partition)
        if entry.offset < before.offset:
            return None
        limits = self._shard._limits
        time_ms = max(before.time_ms, entry.time_ms)
        stamp = next_stamp(record.hlc, before.stamp, time_ms, limits.max_lateness_ms)
        self.progress[entry.partition] = Progress(entry.offset + 1, stamp, time_ms, before.ingested, before.epochs)
        tier = self._shard._topics.tier_of(entry.partition.topic)
        offsets, stamps = self._stamps.setdefault(tier, ([], []))
        offsets.append(entry.offset)
        stamps.append(stamp)
        operation = self._new_part(entry, record, tier, stamp)
        if operation is not None:
            self._apply_operation(version_of(stamp, tier), operation, self._conditions(entry, record, tier, stamp))
        return Applied(stamp, repeated=operation is None)

    def expire(self, version: Version, point_id: bytes) -> None:
        """Step 1 for a point that may have to expire, which is no record: it follows from the stamp of its upsert."""
        self._changes.delete_expiry(version, point_id)
        changed = self._changed(point_id)
        if changed.point.expires == version or version < changed.point.version():
            self._apply_writes(version, (point_id,), (Write("expire"),), None)

    def changes(self) -> Changes:
        """Step 2: everything that the batch writes to RocksDB, including the next offsets."""
        for point_id, changed in self._points.items():
            if changed.is_late or changed.past:
                self._write_past(point_id, changed)
            if changed.is_changed:
                self._write_point(point_id, changed)
            writes = self._history.get(point_id, {})
            for version, write in writes.items():
                self._changes.put_write(point_id, version, write)
            if writes or (changed.is_changed and not changed.point.alive):
                self._changes.put_unsettled(max((changed.point.version(), *writes)), point_id)
                self.unsettled += 1
        window = self._window()
        for (tier, offset), decision in self._decisions.items():
            self._changes.put_decision(tier, offset, decision, decision.stamp + window)
        for (tier, key), stamp in self._keys.items():
            self._changes.put_idempotency_key(tier, key, stamp, stamp + window)
        for (tier, key), attempt in self._attempts.items():
            self._changes.put_attempt(tier, key, attempt, attempt.stamp + window)
        for partition, progress in self.progress.items():
            self._changes.put_progress(partition, progress)
        for tier, (offsets, stamps) in self._stamps.items():
            self._changes.put_stamps(tier, offsets, stamps)
        if not self._shard.keeps_history and self.progress:
            self._kept_since = max(progress.stamp for progress in self.progress.values())
            self._changes.put_kept_since(self._kept_since)
        self._changes.put_next_row(self._shard._next_row)
        alive = len(self._shard.alive) + len(self._inserted) - len(self._removed)
        self._changes.put_counts(alive, len(self._shard.past.rows) + len(self._past) - len(self._past_removed))
        self.touched = [row for row, _ in (*self._removed, *self._inserted, *self._updated, *self._past)] + self._past_removed
        if self.touched:
            self._changes.put_touched(self._shard.checkpoint.batch + 1, self.touched)
        return self._changes

    def publish(self) -> None:
        """Step 3: updates the in-memory indexes. Called under the shard's lock, after the write."""
        shard = self._shard
        removed = ((row, payload, None) for row, payload in self._removed)
        updated = ((row, change.old_payload, change.point.payload) for row, change in self._updated)
        added = ((row, None, change.point.payload) for row, change in self._inserted)
        shard.payload.change(chain(removed, updated, added))
        for row, change in self._inserted:
            shard.rows.put(row, change.point_id, change.point.version())
        shard.rows.renew([(row, changed.point.version()) for row, changed in self._updated])
        ended = sorted(row for row, _ in self._removed)
        shard.rows.remove(ended)
        shard.alive.update([row for row, _ in self._inserted])
        shard.alive.difference_update(BitMap(ended))
        for name, vectors in shard.vectors.items():
            inserted = [(row, changed.point.vectors[name]) for row, changed in self._inserted if name in changed.point.vectors]
            if inserted:
                vectors.add(np.array([row for row, _ in inserted], np.int64), [vector for _, vector in inserted])
            if ended:
                vectors.kill(np.array(ended, np.int64))
        shard.past.change(shard.rows, self._past, self._past_removed)
        shard.past.kept_since = max(shard.past.kept_since, self._kept_since)

    def _new_part(self, entry: Entry, record: Record, tier: int, stamp: int) -> ShardOperation | None:
        """The part of a record's operation that was not applied before; None when nothing is left."""
        operation: ShardOperation = record.operation  # type: ignore[assignment]
        if record.ingested is not None:
            return self._not_applied_yet(operation, record.ingested, entry.partition, tier)  # type: ignore[arg-type]
        if not record.idempotency_key:
            return operation
        if record.expected is not None or isinstance(operation, RequestResult):
            return operation if self._begins_or_continues(entry, record, tier, stamp) else None
        return None if self._is_repeated(tier, record.idempotency_key, stamp) else operation

    def _conditions(self, entry: Entry, record: Record, tier: int, stamp: int) -> list[Condition] | None:
        """The conditions of a record, if it has any; its decision begins as if all of them hold."""
        if record.expected is None:
            return None
        ids: list[bytes] = record.operation.ids if record.idempotency_key else []  # type: ignore[union-attr]
        self._decisions[tier, entry.offset] = Decision(stamp, set(), ids)
        return [Condition(expected, entry.offset) for expected in record.expected]

    def _begins_or_continues(self, entry: Entry, record: Record, tier: int, stamp: int) -> bool:
        """Whether a record of a request with an idempotency key and conditions is applied. Notes the attempt, or its result."""
        key = (tier, record.idempotency_key)
        known = self._attempts.get(key) or self._shard.store.attempt(*key)
        if known is None or known.stamp <= stamp - self._window():
            known = Attempt(stamp, record.attempt, record.request_id)
        elif not known.accepts(record.attempt, record.request_id):
            return False
        offsets = known.offsets if record.expected is None else [*known.offsets, entry.offset]
        result = record.operation.result if isinstance(record.operation, RequestResult) else None
        self._attempts[key] = Attempt(known.stamp, record.attempt, record.request_id, offsets, result)
        return True

    def _window(self) -> int:
        """How long idempotency keys hold, as a difference of stamps."""
        return self._shard._limits.idempotency_window_ms << COUNTER_BITS

    def _not_applied_yet(
        self, operation: PointOperation, ingested: Ingested, partition: TopicPartition, tier: int
    ) -> PointOperation | None:
        """The part of an ingested operation that was not applied before; None when nothing is left.

        Within an epoch, the ingester writes the records of one source log to one partition in offset order and without gaps.
        After a restart it begins at or below the last acknowledged offset. So everything below the highest offset seen here was
        applied already, whichever ingester wrote it again. With a new epoch the offsets begin anew, as an operator has decided;
        then nothing of an earlier one is applied, which an ingester may still write late.
        """
        progress = self.progress[partition]
        epoch = progress.epochs.get(ingested.log, 0)
        if ingested.epoch < epoch:
            return None
        seen = progress.ingested.get(ingested.log, 0) if ingested.epoch == epoch else 0
        indexes = [index for index, offset in enumerate(ingested.offsets) if offset >= seen]
        if not indexes:
            return None
        others = [(log, offset) for log, offset in progress.ingested.items() if log != ingested.log]
        progress.ingested = dict([*others[1 - MAX_INGEST_LOGS :], (ingested.log, ingested.offsets[-1] + 1)])
        epochs = progress.epochs | ({ingested.log: ingested.epoch} if ingested.epoch else {})
        progress.epochs = {log: epoch for log, epoch in epochs.items() if log in progress.ingested}
        if ingested.keys:
            kind = f"i{ingested.epoch}" if ingested.epoch else "i"
            indexes = [
                index
                for index in indexes
                if not (key := ingested.keys[index])
                or not self._is_repeated(tier, f"{kind}/{operation.ids[index].hex()}/{key}", progress.stamp)
            ]
        if len(indexes) == len(operation.ids):
            return operation
        return take(operation, indexes) if indexes else None

    def _is_repeated(self, tier: int, key: str, stamp: int) -> bool:
        """Whether a write with this key was applied within the idempotency window. If not, the key is recorded."""
        earlier = self._keys.get((tier, key)) or self._shard.store.idempotency_stamp(tier, key)
        if earlier is not None and earlier > stamp - self._window():
            return True
        self._keys[tier, key] = stamp
        return False

    def _apply_operation(self, version: Version, operation: ShardOperation, conditions: Sequence[Condition] | None) -> None:
        match operation:
            case Upsert(ids, columns, payloads, ttl_ms):
                expires = expiry_of(stamp_of(version), ttl_ms) if ttl_ms else NEVER
                vectors = self._by_point(columns, len(ids))
                kept = [{key: vector for key, vector in each.items() if vector is not None} for each in vectors]
                full = [
                    Write("upsert", kept[at], b"" if payloads[at] == b"{}" else payloads[at], expires=expires)
                    for at in range(len(ids))
                ]
                self._apply_writes(version, ids, full, conditions)
            case Delete(ids):
                self._apply_writes(version, ids, repeat(Write("delete")), conditions)
            case PatchPayload(ids, changes, unset):
                self._apply_writes(version, ids, repeat(Write("patch_payload", payload=changes, unset=unset)), conditions)
            case ReplacePayload(ids, payload):
                replaced = Write("replace_payload", payload=b"" if payload == b"{}" else payload)
                self._apply_writes(version, ids, repeat(replaced), conditions)
            case PatchVectors(ids, columns):
                patches = [Write("patch_vectors", vectors) for vectors in self._by_point(columns, len(ids))]
                self._apply_writes(version, ids, patches, conditions)
            case UnsetVectors(ids, names):
                self._apply_writes(version, ids, repeat(Write("patch_vectors", dict.fromkeys(names))), conditions)

    def _apply_writes(
        self, version: Version, ids: Sequence[bytes], writes: Iterable[Write], conditions: Sequence[Condition] | None
    ) -> None:
        for at, (point_id, write) in enumerate(zip(ids, writes, strict=False)):
            changed = self._changed(point_id)
            if write.expires != NEVER:  # noted also if it changes nothing now: it may lie before a write with a condition
                self._changes.put_expiry(write.expires, point_id)
                self.next_expiry = min(self.next_expiry, write.expires)
            if conditions is not None:
                write = msgspec.structs.replace(write, condition=conditions[at])
            if version < changed.point.version() or version < changed.point.decided:
                changed.is_late = True
                self._keep_current(point_id, changed.point)  # it may be joined without being kept
            if version < changed.point.decided or (write.kind == "expire" and version < changed.point.version()):
                self._fold(point_id, changed, version, write)
            elif write.condition is None:
                self._join(point_id, changed, version, write)
            elif version < changed.point.version():
                self._fold(point_id, changed, version, write)
            else:
                self._decide(point_id, changed, version, write, write.condition)

    def _changed(self, point_id: bytes) -> ChangedPoint:
        """A point that the batch writes to, which is read when it is asked for first."""
        if (changed := self._points.get(point_id)) is None:
            changed = self._points[point_id] = ChangedPoint(point_id, *self._shard.store.point(point_id))
        return changed

    def _join(self, point_id: bytes, changed: ChangedPoint, version: Version, write: Write) -> None:
        """Applies a write without a condition. Keeps what the new state does not tell any more."""
        point = changed.point
        if not write.is_full or version > point.full:
            self._keep_current(point_id, point)
        before = self._state(point_id, point, version)
        joined = write.join(point, version)
        if joined and before is not None:
            changed.past.append(before)
        if not write.is_full or not joined or point.is_patched():  # it cannot be read back from the state
            self._keep(point_id, version, write)
        changed.is_changed |= joined
        changed.new_vectors |= joined and (write.is_full or write.kind == "patch_vectors")

    def _decide(self, point_id: bytes, changed: ChangedPoint, version: Version, write: Write, condition: Condition) -> None:
        """Applies a write with a condition that is later than all that is known of the point."""
        point = changed.point
        self._keep_current(point_id, point)
        self._keep(point_id, version, write)
        held = holds(condition, point)
        before = self._state(point_id, point, version)
        if held:
            if write.join(point, version) and before is not None:
                changed.past.append(before)
            changed.new_vectors |= write.is_full or write.kind == "patch_vectors"
        else:
            self._note_outcome(point_id, version, condition, held)
        point.decided = version
        changed.is_changed = True

    def _fold(self, point_id: bytes, changed: ChangedPoint, version: Version, write: Write) -> None:
        """Applies a write that comes before one that is applied, where one of the two has a condition: folds all writes again."""
        self._keep_current(point_id, changed.point)
        self._keep(point_id, version, write)
        writes = self._all_writes(point_id)
        changed.point, outcomes = fold(writes)
        for at, kept in writes:
            if kept.condition is not None:
                self._note_outcome(point_id, at, kept.condition, outcomes[at])
        changed.is_changed = changed.new_vectors = True

    def _state(self, point_id: bytes, point: PointState, end: Version) -> PastState | None:
        """The current state of a point, which ends at a version; None if the point does not exist, or nothing of it is kept."""
        if not point.alive or not self._shard.keeps_history:
            return None
        return PastState(point_id, point.version(), end, point.payload, point.vectors)

    def _write_past(self, point_id: bytes, changed: ChangedPoint) -> None:
        """Writes the states that a point had until this batch. If a write came late, replaces those that are already written."""
        past: Iterable[PastState] = changed.past
        if changed.is_late:
            self._keep_current(point_id, changed.point)
            writes = self._all_writes(point_id)
            known = self._shard.store.past_rows(point_id)
            for replaced in self._shard.store.rows(row for version, row in known.items() if version >= writes[0][0]):
                self._changes.delete_past(replaced)
                self._past_removed.append(replaced.row)
            past = timeline(point_id, writes) if self._shard.keeps_history else ()
        for state in past:
            if state.version == state.end:  # a record that writes its point twice: nobody can read what was between
                continue
            row = self._shard._next_row
            self._shard._next_row += 1
            self._changes.put_past(row, state)
            self._past.append((row, state))

    def _all_writes(self, point_id: bytes) -> list[tuple[Version, Write]]:
        """All writes to a point since it was settled, in ascending order of version. The current state must have been kept."""
        kept = {at: self._shard.store.decode_write(data) for at, data in self._history.get(point_id, {}).items()}
        return sorted((self._shard.store.history(point_id) | kept).items())

    def _note_outcome(self, point_id: bytes, version: Version, condition: Condition, held: bool) -> None:
        """Records whether the condition of a write held for the point."""
        key = (tier_of(version), condition.offset)
        decision = self._decisions.get(key) or self._shard.store.decision(*key)
        if decision is None:
            return  # its time is over: nobody asks any more
        self._decisions[key] = decision
        if held:
            decision.failed.discard(point_id)
        else:
            decision.failed.add(point_id)

    def _keep_current(self, point_id: bytes, point: PointState) -> None:
        """Keeps the full write that gave the current state, which the next write changes.

        That of a patched point was kept before its first patch; one that is not later than `decided` was kept too.
        """
        if point.full > point.decided and not point.is_patched():
            self._keep(point_id, point.full, current_write(point))

    def _keep(self, point_id: bytes, version: Version, write: Write) -> None:
        self._history.setdefault(point_id, {})[version] = write.encoded()

    def _by_point(self, columns: Sequence[VectorColumn], count: int) -> list[dict[str, Vector | None]]:
        """The vectors of each point by key, as they are stored; None of a vector that the collection does not have any more."""
        by_point: list[dict[str, Vector | None]] = [{} for _ in range(count)]
        for column in columns:
            vectors: Iterable[Vector | None] = repeat(None, len(column.indexes(count)))
            if (format_ := self._shard.store.formats.get(column.name)) is not None:
                encoding = format_.encoding
                vectors = column.each() if encoding is None else column.split(encoding.encode(column.array()))
            for index, vector in zip(column.indexes(count), vectors, strict=True):
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
