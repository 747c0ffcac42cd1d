"""The catalog as a projection of the system topic. It depends on no other projection, so a process may run it alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from catalog.catalog import Catalog, CatalogView
from journal.log import Damaged, Entry, Journal, JournalError, Positions, TopicPartition
from journal.records import CatalogOperation, Record
from journal.topics import Topics
from replayer.loop import LogBounds, Projection
from replayer.operations import Operations
from replayer.refusals import Refusal, Refusals
from replayer.verdicts import Refused, judge_command
from shard.batch import Limits

POLL_S = 1.0

Follower = Callable[[CatalogView, CatalogView], None]
"""Called with the views before and after each command, before the position of the command is announced."""


class CatalogProjection(Projection):
    """Folds the system topic into `catalog`. During `open`, `catalog` is still the previous one."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        limits: Limits,
        operations: Operations,
        refusals: Refusals,
        stopping: threading.Event,
    ) -> None:
        self.catalog = Catalog(limits.idempotency_window_ms)
        self._journal = journal
        self._system = topics.system_partition
        self._limits = limits
        self._operations = operations
        self._refusals = refusals
        self._stopping = stopping
        self._followers: list[Follower] = []

    def follow(self, follower: Follower) -> None:
        """Registers a callback for every command that is applied after `open`."""
        self._followers.append(follower)

    def passes(self) -> Sequence[Sequence[TopicPartition]]:
        return [[self._system]]

    def open(self, bounds: LogBounds, committed: Positions) -> Positions:
        """Replays the complete system topic, because the projections that open next need the catalog."""
        self._refusals.skip_below({p: offset for p, offset in committed.items() if p == self._system})
        catalog, end = Catalog(self._limits.idempotency_window_ms), bounds.ends[self._system]
        reader = self._journal.reader()
        try:
            reader.assign({self._system: 0})
            while catalog.view.position < end:
                if self._stopping.is_set():
                    raise JournalError("stopped while reading the catalog")
                batch = reader.poll(POLL_S)
                for entry in batch.entries:
                    self._fold(catalog, entry)
                if batch.positions[self._system] >= end > catalog.view.position:
                    catalog.view = catalog.view._replace(position=end)  # only transaction markers are left
        finally:
            reader.close()
        self.catalog = catalog
        return {self._system: catalog.view.position}

    def skip(self, damage: Damaged) -> None:
        """Raises the damage: what every later record means depends on all commands before it."""
        raise damage

    def apply(self, entries: Sequence[Entry]) -> Positions:
        for entry in entries:
            before = self.catalog.view
            if entry.offset < before.position:
                continue
            record = self._fold(self.catalog, entry)
            for follower in self._followers:
                follower(before, self.catalog.view)
            if record is not None:
                self._operations.note_entry(entry, record, record.hlc, "applied")
        return {}

    def _fold(self, catalog: Catalog, entry: Entry) -> Record | None:
        """Applies a system record to the catalog. Writes a dead letter for a record without a valid command, and returns None."""
        verdict = judge_command(entry, self._limits)
        if isinstance(verdict, Refused):
            self._refusals.bury([Refusal(entry, verdict)])
            catalog.apply(entry.offset, entry.time_ms, None)
            return None
        operation: CatalogOperation = verdict.record.operation  # type: ignore[assignment]
        catalog.apply(entry.offset, entry.time_ms, operation, verdict.record.idempotency_key, verdict.record.hlc)
        return verdict.record
