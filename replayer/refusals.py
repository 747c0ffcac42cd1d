"""What becomes of refused records: a dead letter each, written before the position moves on (I6)."""

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
    """A refused record, and the name of the collection it was for, if that is known."""

    entry: Entry
    verdict: Refused
    collection: str = ""


class Refusals:
    """Writes dead letters for refused records, and counts them."""

    def __init__(self, journal: Journal, topics: Topics, operations: Operations, now_ms: Callable[[], int]) -> None:
        self.buried = 0
        self._journal = journal
        self._topics = topics
        self._operations = operations
        self._now_ms = now_ms
        self._done: Positions = {}

    def done_before(self, committed: Positions) -> None:
        """Says what was read before under this group, in an earlier life of this node: it has its dead letters."""
        self._done = self._done | committed

    def bury(self, refused: Sequence[Refusal]) -> None:
        """Writes dead letters and waits until they are durable; raises JournalError when they are not."""
        new = [refusal for refusal in refused if refusal.entry.offset >= self._done.get(refusal.entry.partition, 0)]
        burials = [Burial(entry, verdict.reason, collection) for entry, verdict, collection in new]
        bury(self._journal, self._topics, burials, self._now_ms())
        for entry, verdict, _ in new:
            self.buried += 1
            log.warning("dead letter: %s/%d/%d: %s", *entry.partition, entry.offset, verdict.reason)
            if verdict.record is not None:
                self._operations.note_entry(entry, verdict.record, verdict.record.hlc, "refused", verdict.reason)
