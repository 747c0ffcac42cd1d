"""The loop from journal to projections. `step` is the whole of it, and takes its clock from outside, so the simulator can run it.

One step: poll; hand the entries to the projections, in their order; announce the positions; see which partitions must wait; now
and then commit the positions for the dashboards. After a failure of the journal it reads on; any other failure throws the
in-memory state away and begins again from disk, the same way as a restarted process does. What fails inside one shard never gets
here: the projection of the shards keeps it to that shard.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from journal.log import Entry, Journal, JournalError, Positions, Reader, TopicPartition, TopicSpec, Unfit
from replayer.failures import log_failure
from replayer.lag import LagMeter
from shard.shards import AppliedPositions

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0
IDLE_POLL_S = 30.0
RESTART_DELAY_S = 1.0


class Projection(Protocol):
    """One thing that is made of the journal: subclasses say from which partitions, and how. The loop's thread calls all of it."""

    def passes(self) -> Sequence[Sequence[TopicPartition]]:
        """The partitions that it reads, in groups: of what one poll brings, an earlier group's entries are applied first."""

    def open(self, ends: Positions, committed: Positions) -> Positions:
        """Opens the state that there is, and returns where each partition is to be read on.

        `ends` are the ends of the log and `committed` the positions that this reader's group committed in an earlier life.
        """

    def apply(self, entries: Sequence[Entry]) -> Positions:
        """Applies entries of one group of partitions, in offset order within each. What was applied before changes nothing.

        Returns, for each partition whose entries cannot all be applied yet, the offset at which it has to wait.
        """

    def settle(self) -> Positions:
        """Does what is due at the end of a step, and returns the partitions that still have to wait, with their offsets.

        They are not read until this names them no more; then they are read on from those offsets.
        """
        return {}

    def due_s(self) -> float:
        """In how many seconds `settle` has to be called again, also when the log brings nothing."""
        return IDLE_POLL_S

    def keep(self, applied: Positions) -> None:
        """Notes durably how far everything is applied; about once a second, and before the loop rests."""
        return

    def rest(self) -> None:
        """Called once when the log brings nothing more."""
        return

    def close(self) -> None:
        """Lets go of everything; `open` may follow."""
        return


class Loop:
    """Replays a journal into `projections`, under the consumer group `group`. An earlier projection goes first."""

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
        self._held: Positions = {}
        self._committed: Positions = {}
        self._next_commit_s = 0.0
        self._rested = True
        self._stopping = stopping
        self._ready_at: Positions = {}
        self._reached: Positions | None = None

    # The owner's side: a thread of its own runs `run` until `stop`.

    def run(self) -> None:
        """Replays until `stop`. After a failure of the journal it reads on from where it is; after any other it opens anew.

        Gives up only when the topics are unfit (`refusal`): somebody has to change them first.
        """
        opened = False
        while not self._stopping.is_set():
            try:
                if opened:
                    self._read_on()
                else:
                    self.open()
                opened, self.failure = True, None
                while not self._stopping.is_set():
                    self.step(self._poll_timeout_s())
            except Unfit as error:
                self.failure = self.refusal = error
                break
            except Exception as error:  # whatever it was, the state on disk is sound, and the log is the truth
                what = "replay stopped" if opened else "the journal cannot be opened yet"
                log_failure(self.failure, error, what, RESTART_DELAY_S)
                self.failure = error
                if not (opened and isinstance(error, JournalError)):
                    self.close()
                    opened = False
                self._stopping.wait(RESTART_DELAY_S)
        self.close()

    def stop(self) -> None:
        """Makes `run` return after the step it is in."""
        self._stopping.set()
        if (reader := self._reader) is not None:
            reader.wake()

    def caught_up(self) -> bool:
        """Whether everything is applied that the log held when this loop opened."""
        if self._reached is not self._ready_at and self.applied.covers(self._ready_at):
            self._reached = self._ready_at  # asked by every read, and true for good once it is
        return self._reached is self._ready_at and bool(self.applied.get())

    def behind(self) -> tuple[int, int]:
        """Records applied and to apply since the loop opened, for progress reports."""
        done = self.applied.get()
        return sum(min(done.get(p, 0), end) for p, end in self._ready_at.items()), sum(self._ready_at.values())

    # The loop.

    def open(self) -> None:
        """Sees to the topics, opens the projections one after the other, and finds where each partition is to be read on."""
        self._journal.ensure_topics(self._specs)
        reader = self._reader = self._journal.reader()
        partitions = list(self._pass_of)
        ends = self._journal.end_offsets(partitions)
        committed = self._journal.committed(self._group, partitions)
        positions: Positions = {}
        for projection in self._projections:
            positions |= projection.open(ends, committed)
        reader.assign(positions)
        self._next, self._held, self._committed = dict(positions), {}, {}
        self._ready_at = ends
        self.applied.restart(positions)

    def step(self, timeout_s: float) -> int:
        """Polls once and applies what came. Returns how many records that were."""
        assert self._reader is not None, "open() comes first"
        batch = self._reader.poll(timeout_s)
        self._next |= batch.positions
        self.lag.begin(batch.entries)
        waited = self._apply(batch.entries, batch.positions)
        self.lag.done()
        held = {p: offset for projection in self._projections for p, offset in projection.settle().items()}
        if held != self._held or waited:
            self._hold(held)
        self._tend(bool(batch.entries))
        return len(batch.entries)

    def close(self) -> None:
        """Lets go of reader and projections. Their state stays on disk; nothing counts as applied until `open` is done."""
        self.applied.suspend()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        for projection in reversed(self._projections):
            projection.close()

    def _apply(self, entries: Sequence[Entry], positions: Positions) -> bool:
        """Hands each pass its entries, and announces what it has applied before the next one begins.

        Whether some partition has to wait, and so must be read again from where it does.
        """
        waited = False
        by_pass: dict[int, list[Entry]] = {}
        for entry in entries:
            by_pass.setdefault(self._pass_of[entry.partition], []).append(entry)
        for at in sorted(by_pass):
            projection, partitions = self._passes[at]
            waiting = projection.apply(by_pass[at])
            self._next |= waiting
            waited = waited or bool(waiting)
            self.applied.advance({p: waiting.get(p, positions[p]) for p in partitions if p in positions})
        idle = {self._pass_of[p] for p in positions} - by_pass.keys()  # markers move positions without an entry
        self.applied.advance({p: offset for p, offset in positions.items() if self._pass_of[p] in idle})
        return waited

    def _hold(self, held: Positions) -> None:
        """Reads all partitions but those that have to wait. One that waits no more is read again from where it had to."""
        assert self._reader is not None
        self._held = held
        self._reader.assign({p: offset for p, offset in self._next.items() if p not in held})

    def _read_on(self) -> None:
        """Goes on at the applied positions with a new reader; what is read twice is recognised by its offset."""
        assert self._reader is not None
        self._reader.close()
        self._reader = self._journal.reader()
        starts = self._journal.start_offsets(list(self._pass_of))  # another node may have trimmed dead letters meanwhile
        self._next = {p: max(starts[p], offset) for p, offset in self.applied.get().items()}
        self._reader.assign({p: offset for p, offset in self._next.items() if p not in self._held})

    def _poll_timeout_s(self) -> float:
        """Short while something is to be committed soon, long when idle: a new record ends the wait anyway."""
        idle = self._rested and self.applied.get() == self._committed
        return min([IDLE_POLL_S if idle else COMMIT_EVERY_S, *(projection.due_s() for projection in self._projections)])

    def _tend(self, busy: bool) -> None:
        """Keeps and commits the positions, at most once a second and when idle."""
        if busy:
            self._rested = False
        elif not self._rested:
            self._rested = True
            for projection in self._projections:
                projection.rest()
        now_s = self._monotonic_s()
        applied = self.applied.get()
        if applied == self._committed or (busy and now_s < self._next_commit_s):
            return
        try:
            for projection in self._projections:
                projection.keep(applied)
            self._journal.commit(self._group, applied)
        except JournalError as error:  # dashboards can wait; the state knows its own positions
            log.warning("positions are not committed: %s", error)
        self._committed = applied
        self._next_commit_s = now_s + COMMIT_EVERY_S
