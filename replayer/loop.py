"""The loop from journal to projections. One iteration is `step`, with an injected clock, so that the simulator can run it.

One step:

1. Poll.
2. Pass the entries to the projections, in order; after each, announce the applied positions.
3. Pause the partitions that must wait.
4. At most once a second, commit the positions, for dashboards.

After a journal error the loop resumes with a new reader. After any other error it closes all in-memory state and opens it again
from disk, as a restarted process would. A failure inside one shard does not reach the loop: the projection of the shards
quarantines that shard.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from journal.log import Damaged, Entry, Journal, JournalError, Positions, Reader, TopicPartition, TopicSpec, Unfit
from replayer.failures import FailureLog
from replayer.lag import LagMeter
from shard.shards import AppliedPositions

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0
IDLE_POLL_S = 30.0
POLL_BYTES = 2 << 20
"""What comes while these are applied waits for them: about a thousand points of a bulk write, 0.1 s."""
RESTART_DELAY_S = 1.0


class LogMoved(Exception):
    """The bounds of the log have changed in a way that only a new start can judge."""


class LogBounds(NamedTuple):
    """The first offset of each partition that was not trimmed, and the end offset."""

    starts: Positions
    ends: Positions


def bounds_of(journal: Journal, partitions: Sequence[TopicPartition]) -> LogBounds:
    """The bounds of these partitions now. Raises JournalError."""
    return LogBounds(journal.start_offsets(partitions), journal.end_offsets(partitions))


class Projection(Protocol):
    """State folded from some partitions of the journal. The loop's thread calls all methods."""

    def passes(self) -> Sequence[Sequence[TopicPartition]]:
        """The partitions that it reads, as groups by priority: within one poll, entries of earlier groups are applied first."""

    def open(self, bounds: LogBounds, committed: Positions) -> Positions:
        """Opens the stored state. Returns the next offset to read of each partition.

        `committed` are the positions that the consumer group committed before this start.
        """

    def apply(self, entries: Sequence[Entry]) -> Positions:
        """Applies entries of one group of partitions, in offset order within each partition. Idempotent.

        Returns the partitions that must wait, each with the offset of its first entry that cannot be applied yet.
        """

    def skip(self, damage: Damaged) -> None:
        """Called when records of a partition of this projection cannot be read. The loop goes on after them if it returns."""
        return

    def end_step(self) -> Positions:
        """Does the periodic work at the end of a step. Returns the partitions that must wait, with their offsets.

        The loop pauses these partitions. When one is no longer returned, the loop reads it again from its offset.
        """
        return {}

    def due_s(self) -> float:
        """Seconds until `end_step` must be called again, even without new entries."""
        return IDLE_POLL_S

    def before_commit(self, applied: Positions) -> None:
        """Called with the applied positions before they are committed: about once a second, and when the loop becomes idle."""
        return

    def on_idle(self) -> None:
        """Called once each time when there are no more entries."""
        return

    def close(self) -> None:
        """Releases all in-memory state. `open` may be called again."""
        return


class Loop:
    """Replays a journal into `projections`, in their order, and commits positions to the consumer group `group`."""

    def __init__(
        self,
        journal: Journal,
        specs: Mapping[str, TopicSpec],
        group: str,
        projections: Sequence[Projection],
        applied: AppliedPositions,
        stopping: threading.Event,
        monotonic_s: Callable[[], float],
    ) -> None:
        self.applied = applied
        self.lag = LagMeter()
        self.failure: Exception | None = None
        self.refusal: Unfit | None = None
        self._journal = journal
        self._specs = specs
        self._group = group
        self._projections = projections
        self._passes = [(projection, group) for projection in projections for group in projection.passes()]
        self._pass_of = {partition: at for at, (_, group) in enumerate(self._passes) for partition in group}
        self._monotonic_s = monotonic_s
        self._reader: Reader | None = None
        self._next: Positions = {}
        self._paused: Positions = {}
        self._committed: Positions = {}
        self._next_commit_s = 0.0
        self._idle = True
        self._stopping = stopping
        self._failures, self._commits = FailureLog(), FailureLog()
        self._ready_at: Positions = {}
        self._reached: Positions | None = None

    # For the owner. A dedicated thread calls `run`; the other methods here are thread-safe.

    def run(self) -> None:
        """Replays until `stop`. Resumes after a JournalError; opens all state again after any other error.

        Returns early only for a `refusal`, when an operator must act: a topic does not meet its specification, or the log is
        another one, or a part of it that all depends on is damaged.
        """
        opened = False
        while not self._stopping.is_set():
            try:
                if opened:
                    self._resume()
                else:
                    self.open()
                opened, self.failure = True, None
                self._failures.succeeded("the replay goes on")
                while not self._stopping.is_set():
                    self._check_refusal()
                    self.advance(self._poll_timeout_s())
            except Unfit as error:
                self.refuse(error)
                break
            except Damaged as error:  # found by a projection that cannot go on without the record
                self.refuse(Unfit(str(error)))
                break
            except Exception as error:  # state on disk stays consistent, and the log is complete
                what = "replay stopped" if opened else "the journal cannot be opened yet"
                self._failures.failed(f"{what}, trying again every {RESTART_DELAY_S:g} s", error)
                self.failure = error
                if not (opened and isinstance(error, JournalError)):
                    self.close()
                    opened = False
                self._stopping.wait(RESTART_DELAY_S)
        self.close()

    def stop(self) -> None:
        """Makes `run` return after the current step."""
        self._stopping.set()
        self.wake()

    def refuse(self, reason: Unfit) -> None:
        """Makes `run` return with this `refusal` after the current step. Thread-safe."""
        self.failure = self.refusal = reason
        log.error("this node serves and reads nothing more: %s", reason)
        self.wake()

    def wake(self) -> None:
        """Makes the current step end soon, so that the periodic work is done. Thread-safe."""
        if (reader := self._reader) is not None:
            reader.wake()

    def caught_up(self) -> bool:
        """Whether all entries that were in the log when this loop opened are applied."""
        ready_at = self._ready_at  # read once: `open` may replace it at any moment
        if self._reached is not ready_at and self.applied.covers(ready_at):
            self._reached = ready_at  # every read calls this; once true it stays true
        return self._reached is self._ready_at and bool(self.applied.get())

    def behind(self) -> tuple[int, int]:
        """Progress of the initial replay: records applied, and their total number, both counted from the start of the log."""
        done = self.applied.get()
        return sum(min(done.get(p, 0), end) for p, end in self._ready_at.items()), sum(self._ready_at.values())

    # The loop.

    def open(self) -> None:
        """Ensures the topics, opens the projections in order, and assigns the reader to the positions that they return."""
        self._journal.ensure_topics(self._specs)
        reader = self._reader = self._journal.reader()
        partitions = list(self._pass_of)
        bounds = bounds_of(self._journal, partitions)
        committed = self._journal.committed(self._group, partitions)
        positions: Positions = {}
        for projection in self._projections:
            positions |= projection.open(bounds, committed)
        reader.assign(positions)
        self._next, self._paused, self._committed = dict(positions), {}, {}
        self._ready_at = bounds.ends
        self.applied.restart(positions)

    def advance(self, timeout_s: float) -> None:
        """One step. Records that cannot be read are skipped."""
        try:
            self.step(timeout_s)
        except Damaged as damage:
            self.skip(damage)

    def skip(self, damage: Damaged) -> None:
        """Goes on after records that cannot be read. Raises Damaged when nothing can go on without them."""
        assert self._reader is not None
        partition = damage.partition
        projection, _ = self._passes[self._pass_of[partition]]
        projection.skip(damage)
        self._next[partition] = damage.next_offset
        self.applied.advance({partition: damage.next_offset})
        self._reader.assign({p: offset for p, offset in self._next.items() if p not in self._paused})

    def step(self, timeout_s: float) -> int:
        """Polls once and applies the entries. Returns their number."""
        assert self._reader is not None, "open() comes first"
        batch = self._reader.poll(timeout_s, max_bytes=POLL_BYTES)
        self._next |= batch.positions
        self.lag.begin(batch.entries)
        waited = self._apply(batch.entries, batch.positions)
        self.lag.done()
        paused = {p: offset for projection in self._projections for p, offset in projection.end_step().items()}
        if paused != self._paused or waited:
            self._pause(paused)
        self._commit_when_due(bool(batch.entries))
        return len(batch.entries)

    def close(self) -> None:
        """Closes the reader and the projections. State on disk stays. No position counts as applied until `open` has returned."""
        self.applied.suspend()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        for projection in reversed(self._projections):
            projection.close()

    def _apply(self, entries: Sequence[Entry], positions: Positions) -> bool:
        """Passes the entries to each pass in order, and announces its applied positions before the next pass.

        Returns whether a partition has to wait, and so must be read again from where it does.
        """
        waited = False
        by_pass: dict[int, list[Entry]] = {}
        for entry in entries:
            by_pass.setdefault(self._pass_of[entry.partition], []).append(entry)
        # Transaction markers advance a partition without an entry.
        done = {p: offset for p, offset in positions.items() if self._pass_of[p] not in by_pass}
        for at in sorted(by_pass):
            projection, partitions = self._passes[at]
            waiting = projection.apply(by_pass[at])
            self._next |= waiting
            waited = waited or bool(waiting)
            done |= {p: waiting.get(p, positions[p]) for p in partitions if p in positions}
            self.applied.advance(done)
        if not by_pass:
            self.applied.advance(done)
        return waited

    def _check_refusal(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _pause(self, paused: Positions) -> None:
        """Pauses exactly the partitions in `paused`. A resumed one is read from the offset at which it was paused."""
        assert self._reader is not None
        self._paused = paused
        self._reader.assign({p: offset for p, offset in self._next.items() if p not in paused})

    def _resume(self) -> None:
        """Continues at the applied positions with a new reader. Entries that are read again are skipped by offset."""
        assert self._reader is not None
        self.check_log()
        self._reader.close()
        self._reader = self._journal.reader()
        starts, ends = bounds_of(self._journal, list(self._pass_of))
        applied = self.applied.get()
        if any(offset > ends[p] or offset < starts[p] for p, offset in applied.items() if not self._may_be_trimmed(p)):
            raise LogMoved("the log does not hold what is applied, or what comes next")
        self._next = {p: max(starts[p], offset) for p, offset in applied.items()}
        self._reader.assign({p: offset for p, offset in self._next.items() if p not in self._paused})

    def check_log(self) -> None:
        """Raises Unfit when the log is not the one that is applied."""
        return

    def _may_be_trimmed(self, partition: TopicPartition) -> bool:
        """Whether another node may trim a partition: it is of a topic that does not keep everything."""
        return not self._specs[partition.topic].log_times

    def _poll_timeout_s(self) -> float:
        """Short while a commit is due soon, long when idle. A new entry ends the poll early in both cases."""
        idle = self._idle and self.applied.get() == self._committed
        return min([IDLE_POLL_S if idle else COMMIT_EVERY_S, *(projection.due_s() for projection in self._projections)])

    def _commit_when_due(self, busy: bool) -> None:
        """Commits the positions, at most once a second while busy, and when idle."""
        if busy:
            self._idle = False
        elif not self._idle:
            self._idle = True
            for projection in self._projections:
                projection.on_idle()
        now_s = self._monotonic_s()
        applied = self.applied.get()
        if applied == self._committed or (busy and now_s < self._next_commit_s):
            return
        try:
            for projection in self._projections:
                projection.before_commit(applied)
            self._journal.commit(self._group, applied)
            self._commits.succeeded("positions are committed again")
        except JournalError as error:  # only dashboards need the commit; projections store their own positions
            self._commits.failed("positions are not committed, so that tools show too much lag", error)
        self._committed = applied
        self._next_commit_s = now_s + COMMIT_EVERY_S
