"""Repairs a log that has lost records which this node's state still holds, while the node is stopped.

The log as it is now is replayed into a scratch state. What the kept state of a shard has more, or has otherwise, is what the log
has lost: it is written to the log again, as full upserts and as deletes. Then the kept state of that shard is removed, so that it
is replayed from the log, like everybody's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from catalog.collection import Collection
from journal.hlc import Clock
from journal.log import Damaged, Entry, Journal, JournalError, Positions, TopicPartition, acknowledged, lost_end
from journal.records import Delete, PointOperation, Record, Upsert, columns_of
from journal.stamps import stamp_of, tier_of
from journal.token import advance
from journal.topics import Topics
from journal.writer import Destination, Origin, Writer
from replayer.known_log import KnownLog
from replayer.loop import bounds_of
from replayer.projections.dead_letters import DeadLetters
from replayer.projections.shards import ALL_OFFSETS
from replayer.replayer import Replayer
from replayer.verdicts import Accepted
from shard.batch import Limits
from shard.shard import Shard
from shard.shards import Remedy, Shards
from shard.store import Row
from shard.view import ShardView

POINTS_PER_WRITE = 500
BARRIERS_AT_ONCE = 500
WRITE_TIMEOUT_S = 30.0
GROUP = "repair"
POLL_S = 0.1


class Loss(NamedTuple):
    """What the log has lost of one shard, in any of its partitions.

    `missing` and `extra`: ids of points that the log lacks or has otherwise, and of points that it only has because it has lost
    their deletion. They are None when the state cannot tell, since the shard needs all these records itself.
    """

    collection: Collection
    number: int
    tier: int
    reasons: list[str]
    missing: list[bytes] | None
    extra: list[bytes] | None


class Repair:
    """Compares the state in `state` with the log; `scratch` is an empty folder. Close it in the end."""

    def __init__(self, journal: Journal, topics: Topics, limits: Limits, state: Path, scratch: Path, now_ms: Callable[[], int]):
        self._journal = journal
        self._topics = topics
        self._known = KnownLog(state, topics)
        self._clock = Clock(now_ms, limits.max_drift_ms)
        partitions = [topics.system_partition, *topics.data_partitions(), topics.dead_letter_partition]
        self._bounds = bounds_of(journal, partitions)
        known = msgspec.structs.replace(
            self._known.known, accepted=dict.fromkeys(_names(self._bounds.ends), ALL_OFFSETS), catalog=0
        )
        KnownLog(scratch, topics).write(known)
        self._fresh = Shards(scratch, topics, limits, _nothing, checkpoints=_nothing)
        group = f"{topics.prefix}.{GROUP}"
        journal.commit(group, self._bounds.ends)  # so that nothing is buried again
        self._replayer = Replayer(journal, topics, self._clock, self._fresh, group, limits, DeadLetters())
        self._kept = Shards(state, topics, limits, _nothing, checkpoints=_nothing)
        self._kept.log = self._known.identity
        self._damages: list[Damaged] = []
        """What of the log cannot be read, and was not accepted before."""

    def replay(self, progress: Callable[[int, int], None]) -> None:
        """Replays the log into the scratch state. Calls `progress` with the records done, and their total number."""
        self._replayer.open()
        while not self._replayer.caught_up():
            try:
                self._replayer.step(POLL_S)
            except Damaged as damage:
                if damage.next_offset > self._known.accepted(damage.partition):
                    self._damages.append(damage)
                self._replayer.skip(damage)
            progress(*self._replayer.behind())

    def losses(self) -> list[Loss]:
        """What the log has lost, by shard. Damaged state says nothing. Raises JournalError for one that is in use."""
        found: list[Loss] = []
        for collection in self._replayer.catalog.view.collections.values():
            self._kept.open(collection)
            for held in self._kept.quarantined().values():
                if held.remedy is not Remedy.REBUILD:
                    raise JournalError(f"the state of shard {held.number} of {held.collection} cannot be opened: {held.reason}")
            for kept in self._kept.served(collection.id):
                found += self._losses_of(kept)
        return found

    def _losses_of(self, kept: Shard) -> Iterator[Loss]:
        """What the log has lost of a shard. Lets its state apply what the log still has, if only the state can say the rest."""
        applied: list[tuple[TopicPartition, str]] = []
        needed: list[tuple[TopicPartition, str]] = []
        for partition in kept.home_partitions():
            offset, start, end = kept.progress(partition).offset, self._bounds.starts[partition], self._bounds.ends[partition]
            if offset > end:
                applied.append((partition, lost_end(partition, end, offset)))
            elif offset < start:
                needed.append((partition, f"{partition} begins at {start}, {offset} is needed"))
            for damage in self._damages:
                if damage.partition == partition:
                    (applied if offset >= damage.next_offset else needed).append((partition, str(damage)))
        reasons = [reason for _, reason in applied + needed]
        if not reasons:
            return
        missing, extra = None, None
        if applied:
            self._catch_up(kept)
            fresh = self._fresh.find(kept.collection.id, kept.number)
            assert fresh is not None, "it was replayed"
            missing, extra = self._difference(kept, fresh)
        tier = self._topics.tier_of((applied + needed)[0][0].topic)
        yield Loss(kept.collection, kept.number, tier, reasons, missing, extra)

    def _catch_up(self, kept: Shard) -> None:
        """Applies what the log has beyond a shard's state: otherwise later writes would count as lost ones, and be undone."""
        ends = self._bounds.ends
        positions = {p: max(kept.progress(p).offset, self._bounds.starts[p]) for p in kept.home_partitions()}
        positions = {p: offset for p, offset in positions.items() if offset < ends[p]}
        reader = self._journal.reader()
        try:
            reader.assign(positions)
            while any(offset < ends[p] for p, offset in positions.items()):
                try:
                    entries, positions = reader.poll(POLL_S)
                except Damaged as damage:
                    positions = positions | {damage.partition: damage.next_offset}
                    reader.assign(positions)
                    continue
                kept.apply([(entry, record) for entry in entries if (record := self._record_of(kept, entry)) is not None])
        finally:
            reader.close()

    def _record_of(self, shard: Shard, entry: Entry) -> Record | None:
        """The record of an entry that this shard is to apply."""
        verdict = self._replayer.judge(entry)
        if not isinstance(verdict, Accepted):
            return None
        is_of_shard = (verdict.record.collection, verdict.record.shard) == (shard.collection.id, shard.number)
        return verdict.record if is_of_shard else None

    def _difference(self, kept: Shard, fresh: Shard) -> tuple[list[bytes], list[bytes]]:
        """The ids of points that `kept` has and `fresh` has not, or has otherwise; and of those that only `fresh` has.

        Without those that were written after all that `kept` knows: another node may have gone on with what the log has.
        """
        known = {self._topics.tier_of(p.topic): kept.progress(p).stamp for p in kept.home_partitions()}

        def is_later(row: Row) -> bool:
            return stamp_of(row.version) > known[tier_of(row.version)]

        missing = []
        for row in _points(kept.view):
            found = fresh.view.find([row.id])
            if not found or not (is_later(found[0]) or _is_same(kept.view, row, fresh.view, found[0])):
                missing.append(row.id)
        extra = [row.id for row in _points(fresh.view) if not kept.view.find([row.id]) and not is_later(row)]
        return missing, extra

    def write_back(self, losses: Sequence[Loss]) -> int:
        """Writes to the log what it has lost. Returns the number of points. Raises JournalError; it may then be repeated."""
        for loss in losses:
            for partition in self._kept_of(loss).home_partitions():
                self._clock.seed(self._kept_of(loss).progress(partition).stamp)
        for partition in self._topics.data_partitions():
            self._fill_up(partition, losses)
        writer = Writer(self._journal, self._topics, self._clock)
        count = 0
        for loss in losses:
            for operation in _operations(self._kept_of(loss).view, loss):
                written = writer.write_points(self._destination(loss), [operation], loss.tier, _origin(loss))
                acknowledged(written, WRITE_TIMEOUT_S)
                count += len(operation.ids)
        return count

    def _fill_up(self, partition: TopicPartition, losses: Sequence[Loss]) -> None:
        """Appends barriers, which change nothing, in place of records that are lost at the end of a partition.

        So what is written next gets offsets that other nodes have not applied, although they may have applied the lost records.
        And a shard gets the stamp of its last lost record, so that a later record has one stamp on all nodes.
        """
        held = [
            (loss, kept.progress(partition)) for loss in losses if partition in (kept := self._kept_of(loss)).home_partitions()
        ]
        missing = max((progress.offset for _, progress in held), default=0) - self._journal.end_offsets([partition])[partition]
        if missing <= 0:
            return
        behind = [(loss, progress.stamp) for loss, progress in held if progress.stamp > self._fresh_stamp(loss, partition)]
        for loss, stamp in behind[1:]:
            self._write_barriers(partition, loss, stamp, 1)
        loss, stamp = behind[0] if behind else (held[0][0], held[0][1].stamp)
        self._write_barriers(partition, loss, stamp, missing - len(behind[1:]))

    def _fresh_stamp(self, loss: Loss, partition: TopicPartition) -> int:
        fresh = self._fresh.find(loss.collection.id, loss.number)
        assert fresh is not None, "it was replayed"
        return fresh.progress(partition).stamp

    def _write_barriers(self, partition: TopicPartition, loss: Loss, stamp: int, count: int) -> None:
        """Writes barriers of a shard to its home partition; the last one has this stamp."""
        clock = Clock(lambda: 0)
        clock.seed(stamp - count)
        writer, tier = Writer(self._journal, self._topics, clock), self._topics.tier_of(partition.topic)
        for start in range(0, count, BARRIERS_AT_ONCE):
            some = range(start, min(count, start + BARRIERS_AT_ONCE))
            for written in [writer.write_barriers(self._destination(loss), loss.number, [tier], _origin(loss)) for _ in some]:
                acknowledged(written, WRITE_TIMEOUT_S)

    def _kept_of(self, loss: Loss) -> Shard:
        kept = self._kept.find(loss.collection.id, loss.number)
        assert kept is not None
        return kept

    def _destination(self, loss: Loss) -> Destination:
        return Destination("", loss.collection.id, self._replayer.catalog.view.position, loss.collection.homes)

    def accept(self, losses: Sequence[Loss]) -> None:
        """Removes the state of the shards, so that they are replayed, and accepts that the log lacks what it lacks now."""
        bounds = dict(self._bounds.starts)
        advance(bounds, {damage.partition: damage.next_offset for damage in self._damages})
        accepted = self._known.known.accepted | _names(bounds)
        # What was applied is said of offsets that the log may give out again.
        empty = {"passed": {}, "passed_catalog": 0, "applied": {}, "applied_catalog": 0}
        self._known.write(msgspec.structs.replace(self._known.known, accepted=accepted, **empty))
        self._kept.close()
        for loss in losses:
            shutil.rmtree(self._kept.folder / str(loss.collection.id) / str(loss.number), ignore_errors=True)

    def close(self) -> None:
        self._replayer.close()
        self._kept.close()


def _points(view: ShardView) -> Iterator[Row]:
    rows = iter(view.alive)
    while some := list(islice(rows, POINTS_PER_WRITE)):
        yield from view.points(some)


def _is_same(kept: ShardView, row: Row, fresh: ShardView, other: Row) -> bool:
    vectors, others = kept.vectors_of(row.row), fresh.vectors_of(other.row)
    same = vectors.keys() == others.keys() and all(vectors[name].tobytes() == others[name].tobytes() for name in vectors)
    return same and row.payload == other.payload and row.version == other.version  # another node may have this version


def _origin(loss: Loss) -> Origin:
    return Origin(f"repair-{loss.collection.id}-{loss.number}", principal="vecraft journal repair")


def _operations(view: ShardView, loss: Loss) -> Iterator[PointOperation]:
    missing, extra = iter(loss.missing or ()), iter(loss.extra or ())
    while ids := list(islice(missing, POINTS_PER_WRITE)):
        rows = view.find(ids)
        columns = columns_of([view.vectors_of(row.row) for row in rows])
        yield Upsert([row.id for row in rows], columns, [row.payload or b"{}" for row in rows])
    while ids := list(islice(extra, POINTS_PER_WRITE)):
        yield Delete(ids)


def _names(positions: Positions) -> dict[str, int]:
    return {str(partition): offset for partition, offset in positions.items()}


def _nothing(task: Callable[[], None]) -> None:
    """Runs no background task: this state is read once."""
