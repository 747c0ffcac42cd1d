"""Writes a dead letter for each refused record, before the position advances (I6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from journal.log import Entry, Journal, Positions
from journal.topics import Topics
from replayer.operations import Operations
from replayer.projections.dead_letters import Burial, bury
from replayer.verdicts import Refused

log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """A refused record, its verdict, and the name of its collection ("" when unknown)."""

    entry: Entry
    verdict: Refused
    collection: str = ""


class Refusals:
    """Writes and counts the dead letters of this node. Writes none for records replayed again after a restart."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        operations: Operations,
        now_ms: Callable[[], int],
        check_log: Callable[[], None],
    ) -> None:
        self.buried = 0
        self._check_log = check_log
        self._journal = journal
        self._topics = topics
        self._operations = operations
        self._now_ms = now_ms
        self._done: Positions = {}

    def skip_below(self, committed: Positions) -> None:
        """Sets the positions below which no dead letters are written: the group committed them, so they have theirs already."""
        self._done = self._done | committed

    def bury(self, refused: Sequence[Refusal]) -> None:
        """Writes dead letters and waits until they are durable. Raises JournalError.

        First checks that the log is still the same: in another one, good records look wrong.
        """
        new = [refusal for refusal in refused if refusal.entry.offset >= self._done.get(refusal.entry.partition, 0)]
        if not new:
            return
        self._check_log()
        burials = [Burial(entry, verdict.reason, collection) for entry, verdict, collection in new]
        bury(self._journal, self._topics, burials, self._now_ms())
        for entry, verdict, _ in new:
            self.buried += 1
            log.warning("dead letter: %s/%d/%d: %s", *entry.partition, entry.offset, verdict.reason)
            if verdict.record is not None:
                self._operations.note_entry(entry, verdict.record, verdict.record.hlc, "refused", verdict.reason)
