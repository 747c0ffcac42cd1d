"""The services that handlers use: reads, writes, and the state of the node."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from gateway.admission.budget import Budget
from gateway.admission.strict_mode import Rates
from gateway.decided import DecidedWrites
from gateway.reads import ReadService
from gateway.result_cache import ResultCache
from gateway.sessions import Sessions
from gateway.writes import WriteService
from journal.hlc import Clock
from journal.log import Journal, JournalError, Positions, TopicPartition
from journal.topics import INGEST_PARTITIONS, Topics
from query.consistency import Gate
from replayer.ingest.member import Ingest
from replayer.lag import Measured
from replayer.operations import AppliedRecord
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.shards import Shards

RESULT_CACHE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class NodeState:
    """The state of the node, for operators, probes and dashboards. Thread-safe; shared by the event loops."""

    name: str
    version: str
    journal: Journal
    topics: Topics
    clock: Clock
    replayer: Replayer
    ingest: Ingest
    shards: Shards
    budget: Budget
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    stopping: threading.Event = field(default_factory=threading.Event)

    def ready(self) -> bool:
        """Whether this node has replayed the log as of its start, and is not stopping.

        The node is ready despite shards in quarantine, as long as others are served.
        """
        served = bool(self.shards.all()) or not self.shards.quarantined()
        return not self.stopping.is_set() and self.failure() is None and self.replayer.caught_up() and served

    def failure(self) -> str | None:
        """Why the node cannot read or write its log; None when it can."""
        if (failure := self.replayer.failure) is not None:
            return str(failure)
        return self.journal.failure()

    def letters(self) -> DeadLetters:
        """The dead letters; removes those whose retention has passed first."""
        letters = self.replayer.letters
        letters.expire(self.clock.physical_ms(), self.replayer.catalog.view.collections)
        return letters

    def operation(self, request_id: str) -> Sequence[AppliedRecord]:
        """The records of a request that are among the latest that this node applied."""
        return self.replayer.operations.of(request_id)

    def buried(self) -> int:
        """The number of records that this node has written to the dead letters."""
        return self.replayer.buried + self.ingest.dead

    def measured_lag(self) -> dict[TopicPartition, Measured]:
        """The lag of the replay by partition; empty when the log cannot be asked."""
        applied = self.replayer.applied.get()
        try:
            ends = self.journal.end_offsets(list(applied))
        except JournalError:
            return {}
        return self.replayer.lag.measure(ends, applied, self.clock.physical_ms())

    def ingest_lag(self) -> Positions:
        """How many records of the ingest topic are not written yet, by partition; empty when the log cannot be asked."""
        partitions = [TopicPartition(self.topics.ingest, number) for number in range(INGEST_PARTITIONS)]
        try:
            ends = self.journal.end_offsets(partitions)
            done = self.journal.start_offsets(partitions) | self.journal.committed(self.ingest.group, partitions)
        except JournalError:
            return {}
        return {partition: max(0, end - done[partition]) for partition, end in ends.items()}


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one event loop; `sessions`, `results` and `rates` are shared by all loops."""

    node: NodeState
    reads: ReadService
    writes: WriteService
    decided: DecidedWrites
    gate: Gate
    sessions: Sessions = field(default_factory=Sessions)
    results: ResultCache = field(default_factory=lambda: ResultCache(RESULT_CACHE_BYTES))
    rates: Rates = field(default_factory=Rates)
    running: dict[bytes, asyncio.Future[bytes]] = field(default_factory=dict)
    """Searches that are running on this loop, by cache key; equal requests wait for their results."""

    def on_this_loop(self) -> Services:
        """The services for the running event loop."""
        gate = self.gate.on_this_loop()
        reads, writes = replace(self.reads, gate=gate), replace(self.writes, gate=gate)
        decided = self.decided.on_this_loop(reads, writes)
        return replace(self, gate=gate, reads=reads, writes=writes, decided=decided, running={})


Handler = Callable[..., Awaitable[Any]]
"""(request, response, services) -> the result of the answer."""
