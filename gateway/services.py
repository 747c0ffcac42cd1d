"""The services that handlers use: reads, writes, and the state of the node."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from catalog.collection import Collection
from catalog.ingest import IngestSource
from gateway.admission.budget import Budget
from gateway.admission.descriptors import Descriptors
from gateway.admission.strict_mode import Rates
from gateway.barriers import Barriers
from gateway.decided import DecidedWrites
from gateway.durations import AnswerTimes
from gateway.feeds import FeedService
from gateway.health import Health
from gateway.inference.service import Inference
from gateway.jobs import Jobs
from gateway.reads import ReadService
from gateway.result_cache import ResultCache
from gateway.sessions import Sessions
from gateway.subscriptions import SubscriptionService
from gateway.writes import WriteService
from journal.hlc import Clock
from journal.log import Journal, JournalError, TopicPartition
from journal.topics import Topics
from query.consistency import Gate
from replayer.audit.auditor import Auditor
from replayer.ingest.sources import IngestSources
from replayer.ingest.status import SourceStatus, standings, status_of
from replayer.lag import Measured
from replayer.operations import AppliedRecord
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.shards import Shards
from snapshots.folder import ArchiveFolder
from snapshots.node import NodeSnapshots

RESULT_CACHE_BYTES = 16 << 20


class DiskUsage(NamedTuple):
    """Bytes of a file system."""

    total: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """The state of the node, for operators, probes and dashboards. Thread-safe; shared by the event loops."""

    name: str
    version: str
    journal: Journal
    topics: Topics
    clock: Clock
    replayer: Replayer
    ingest: IngestSources
    shards: Shards
    budget: Budget
    descriptors: Descriptors
    data_dir: Path
    auditor: Auditor
    archives: ArchiveFolder
    snapshot_hosts: frozenset[str] = frozenset()
    """The hosts from which archives may be fetched: `host`, or `host:port`."""
    snapshots: NodeSnapshots | None = None
    """None without a place for them."""
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
        return None if self.journal.failure is None else str(self.journal.failure)

    def disk_usage(self) -> DiskUsage | None:
        """Total, used and free bytes of the file system of the data folder; None when it cannot be looked at."""
        try:
            return DiskUsage(*shutil.disk_usage(self.data_dir))
        except OSError:
            return None

    def homes(self, collection: Collection) -> set[TopicPartition]:
        """The partitions in which records of the collection are written."""
        return {partition for home in collection.homes for partition in self.topics.home_partitions(home)}

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

    def lag(self) -> dict[TopicPartition, Measured]:
        """The lag of the replay by partition; none while the state is being opened. Raises JournalError."""
        if not (applied := self.replayer.applied.get()):
            return {}
        return self.replayer.lag.measure(self.journal.end_offsets(list(applied)), applied, self.clock.physical_ms())

    def measured_lag(self) -> dict[TopicPartition, Measured]:
        """As `lag`; empty when the log cannot be asked."""
        try:
            return self.lag()
        except JournalError:
            return {}

    def ingest_lag(self) -> dict[tuple[str, TopicPartition], int]:
        """How many records are not written yet, by source and partition; without sources whose topic cannot be asked."""
        lags: dict[tuple[str, TopicPartition], int] = {}
        for source in self.replayer.catalog.view.sources.values():
            try:
                found = standings(self.journal, self.topics, source)
            except JournalError:
                continue
            lags |= {(source.name, partition): standing.lag for partition, standing in found.items()}
        return lags

    def ingest_status(self, source: IngestSource) -> SourceStatus:
        """The status of a source of the ingest, asked of the log. Raises JournalError."""
        return status_of(self.journal, self.topics, source, self.ingest.member(source), self.name)


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one event loop.

    `inference`, `jobs`, `sessions`, `results`, `rates`, `times`, the followers of `feeds` and the states of `subscriptions` are
    shared by all loops.
    """

    node: NodeState
    reads: ReadService
    writes: WriteService
    decided: DecidedWrites
    feeds: FeedService
    subscriptions: SubscriptionService
    gate: Gate
    health: Health
    inference: Inference
    jobs: Jobs = field(default_factory=Jobs)
    sessions: Sessions = field(default_factory=Sessions)
    results: ResultCache = field(default_factory=lambda: ResultCache(RESULT_CACHE_BYTES))
    rates: Rates = field(default_factory=Rates)
    times: AnswerTimes = field(default_factory=AnswerTimes)
    running: dict[bytes, asyncio.Future[bytes]] = field(default_factory=dict)
    """Searches that are running on this loop, by cache key; equal requests wait for their results."""

    def on_this_loop(self) -> Services:
        """The services for the running event loop."""
        gate = self.gate.on_this_loop()
        writes = replace(self.writes, gate=gate)
        reads = replace(self.reads, gate=gate, barriers=Barriers(writes.write_barriers))
        decided = self.decided.on_this_loop(reads, writes)
        feeds = self.feeds.on_this_loop(reads)
        subscriptions = self.subscriptions.on_this_loop(feeds, writes)
        return replace(
            self,
            gate=gate,
            reads=reads,
            writes=writes,
            decided=decided,
            feeds=feeds,
            subscriptions=subscriptions,
            running={},
        )


Handler = Callable[..., Awaitable[Any]]
"""(request, response, services) -> the result of the answer."""

Stream = Callable[..., Awaitable[AsyncIterator[bytes]]]
"""(request, response, services, the last event's id or nothing) -> the parts of the answer."""
