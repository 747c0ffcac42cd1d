"""The replayer of a node with all roles: catalog, shards and dead letters in one loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from catalog.catalog import Catalog
from journal.hlc import Clock
from journal.log import Journal
from journal.token import log_name
from journal.topics import Topics
from replayer.loop import Loop
from replayer.operations import Operations
from replayer.projections.catalog import CatalogProjection
from replayer.projections.dead_letters import DeadLetters, DeadLettersProjection
from replayer.projections.shards import ShardsProjection
from replayer.refusals import Refusals
from shard.batch import Limits
from shard.shards import AppliedPositions, Shards


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
        self.log_name = ""
        """The name of the log in position tokens; empty until it is open."""
        self._system = topics.system
        self.operations = Operations()
        self.letters = letters
        self._refusals = Refusals(journal, topics, self.operations, now_ms)
        self._catalog = CatalogProjection(journal, topics, limits, self.operations, self._refusals, stopping)
        of_shards = ShardsProjection(
            journal, topics, clock, self._catalog, shards, limits, self.operations, self._refusals, applied, now_ms, monotonic_s
        )
        of_letters = DeadLettersProjection(journal, topics, letters, lambda: self.catalog.view.collections, now_ms)
        super().__init__(journal, topics.all(), group, [self._catalog, of_shards, of_letters], applied, stopping, monotonic_s)

    def open(self) -> None:
        super().open()
        self.log_name = log_name(self._journal.identity(self._system))

    @property
    def catalog(self) -> Catalog:
        """The catalog. While the loop opens again after a failure, this is the previous catalog."""
        return self._catalog.catalog

    @property
    def buried(self) -> int:
        """Number of dead letters that this node has written."""
        return self._refusals.buried
