"""The replayer of a node with all roles: catalog, shards and dead letters in one loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from catalog.catalog import Catalog
from journal.hlc import Clock
from journal.log import Journal, JournalError
from journal.token import log_name
from journal.topics import Topics
from replayer.known_log import Known, KnownLog, LogChanged
from replayer.loop import Loop
from replayer.operations import Operations
from replayer.projections.catalog import CatalogProjection, Follower
from replayer.projections.dead_letters import DeadLetters, DeadLettersProjection
from replayer.projections.shards import ShardsProjection
from replayer.refusals import Refusals
from shard.batch import Limits
from shard.shards import AppliedPositions, Shards

log = logging.getLogger(__name__)

WATCH_S = 2.0
"""Interval between checks that no topic was made anew."""


class Replayer(Loop):
    """Replays a journal into `catalog`, `shards` and `letters`, under the consumer group `group`."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        clock: Clock,
        shards: Shards,
        group: str,
        limits: Limits,
        letters: DeadLetters,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        applied, stopping = AppliedPositions(), threading.Event()
        self.claim: Callable[[str], None] = lambda owner: None
        """Claims this node's name on the log for the owner of its state. Raises Unfit when another node has the name."""
        self.restore: Callable[[str, bool], bool] = lambda reason, is_needed: False
        """Puts the state of a snapshot in the place of this node's state, which nobody has open, and returns whether it did.

        It gets the reason, and whether the log alone does not suffice. Raises JournalError when it is to be tried again.
        """
        self.log_name = ""
        """The name of the log in position tokens; empty until it is open."""
        self.limits = limits
        self._topics = topics
        self._system = topics.system
        self.operations = Operations()
        self.letters = letters
        self._known = KnownLog(shards.folder, topics)
        self._refusals = Refusals(journal, topics, self.operations, now_ms, self.check_log)
        self._catalog = CatalogProjection(journal, topics, limits, self.operations, self._refusals, stopping)
        of_shards = ShardsProjection(
            journal,
            topics,
            clock,
            self._catalog,
            shards,
            limits,
            self.operations,
            self._refusals,
            applied,
            now_ms,
            monotonic_s,
            self._known,
        )
        of_shards.wake = self.wake
        self._of_shards = of_shards
        self.judge = of_shards.judge
        of_letters = DeadLettersProjection(journal, topics, letters, lambda: self.catalog.view.collections, now_ms)
        super().__init__(journal, topics.all(), group, [self._catalog, of_shards, of_letters], applied, stopping, monotonic_s)

    def open(self) -> None:
        if not self._known.check(self._journal):
            raise JournalError("topics are missing; they are not created as long as it is not known why")
        self.claim_name()
        if not self._known.known.topics:
            self._begin_without_state()
        super().open()
        if (behind := self._of_shards.behind) and not self._journal.refusals():
            self.close()
            if self.restore(behind[0], True):
                self._known.reload()
            super().open()
        self.log_name = log_name(self._journal.identities([self._system])[self._system])

    def _begin_without_state(self) -> None:
        """Takes the state of a snapshot if there is one, since a replay of the whole log takes longer, or is not possible."""
        partitions = self._topics.data_partitions()
        topics = {partition.topic for partition in partitions}
        is_whole = len(self._journal.identities([self._system, *topics])) == len(topics) + 1  # else they are created by `open`
        starts = self._journal.start_offsets(partitions) if is_whole else {}
        if self.restore("this node has no state", any(starts.values())):
            self._known.reload()
        else:
            log.info("this node has no state, and replays the log from its first record on")

    def claim_name(self) -> None:
        """Raises Unfit when another node has this node's name."""
        self.claim(self._known.owner)

    def check_log(self) -> None:
        """Raises LogChanged when the log is not the one that this node has applied."""
        self._known.check(self._journal)

    def watch(self) -> None:
        """Checks every WATCH_S that the log is still the same, and refuses to go on when it is not. Returns after a refusal or
        `stop`. For a thread of its own.
        """
        while self.refusal is None and not self._stopping.wait(WATCH_S):
            try:
                if self.applied.get():
                    self.check_log()
            except LogChanged as change:
                self.refuse(change)
            except JournalError:
                pass  # the loop meets it, too

    def follow_catalog(self, follower: Follower) -> None:
        """Registers a callback for every command that is applied after `open`."""
        self._catalog.follow(follower)

    @property
    def catalog(self) -> Catalog:
        """The catalog. While the loop opens again after a failure, this is the previous catalog."""
        return self._catalog.catalog

    @property
    def known_log(self) -> Known:
        """What this node knows of its log."""
        return self._known.known

    @property
    def log_identity(self) -> str:
        """The identity of the log that is applied; see `replayer.known_log`."""
        return self._known.identity

    @property
    def buried(self) -> int:
        """Number of dead letters that this node has written."""
        return self._refusals.buried
