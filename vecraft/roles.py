"""Wires the parts of a node together, one function per role.

storage   replays the journal into the catalog and the shards, and builds their graphs
ingest    copies records of foreign producers from the topics of its sources into the journal
gateway   the services that request handlers use
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from catalog.ingest import IngestSource
from gateway.admission.budget import budget_of
from gateway.admission.descriptors import Descriptors
from gateway.barriers import Barriers
from gateway.decided import DecidedWrites
from gateway.dialect.bulk_parser import BulkParser
from gateway.feeds import Closing, FeedService
from gateway.followers import FOLLOWERS_PART, Followers
from gateway.health import Health
from gateway.http.connection import RESERVED_CONNECTIONS, connections_of_loop
from gateway.inference.models import Models, NoModels, models_in
from gateway.inference.service import Inference
from gateway.reads import MakeReplica, ReadService, ReadTimeouts
from gateway.services import NodeState, Services
from gateway.subscriptions import SubscriptionService
from gateway.turns import Turns
from gateway.writes import WriteService
from journal.embedded import EmbeddedJournal
from journal.hlc import Clock
from journal.log import Journal, JournalError, Unfit
from journal.registry import SchemaRegistry
from journal.topics import TIERS, Topics
from journal.writer import Writer
from query.consistency import Gate, NotCaughtUp
from replayer.audit.auditor import Auditor
from replayer.ingest.member import Ingest
from replayer.ingest.sources import IngestSources
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.batch import Limits
from shard.scrubbing import Scrubber
from shard.shards import Shards
from snapshots.create import LogState, SnapshotFailed
from snapshots.cutter import LogCutter
from snapshots.folder import ArchiveFolder
from snapshots.node import SCRATCH, NodeSnapshots, Schedule
from snapshots.place import PlaceError, checked_scheme
from snapshots.prune import Policy
from snapshots.restore import take_note
from vecraft import __version__
from vecraft.background import BackgroundThread, give_way
from vecraft.heap import trim_heap
from vecraft.kafka import node_journal, replayer_group
from vecraft.settings import Settings
from vecraft.start_from_snapshot import StartFromSnapshot

log = logging.getLogger("vecraft")

STOP_S = 4.0
CLOSE_S = 120.0
"""The bound of the barriers before a snapshot."""

DAY_MS = 24 * 3600 * 1000
POOL_THREADS = 8
"""Number of slow reads at the same time. Reads that scan the same vectors are batched."""


class StartError(Exception):
    """The node cannot start; the text gives the reason."""


class Roles:
    """All roles in one process, as `vecraft serve` runs them. Create and stop it on the serving event loop."""

    def __init__(self, settings: Settings, make_replica: MakeReplica) -> None:
        check_data_dir(settings.data_dir)
        models = models_of(settings)
        self.topics = Topics(settings.topic_prefix, settings.preset)
        self.clock = Clock(wall_clock_ms, settings.max_drift_ms)
        self.journal = open_journal(settings)
        self.writer = Writer(self.journal, self.topics, self.clock, settings.max_drift_ms)
        self.builder = BackgroundThread("index-build")
        self.checkpointer = BackgroundThread("checkpoint")
        self.shards, self.replayer = self._storage(settings)
        self.registry = SchemaRegistry(settings.schema_registry_url)
        self.ingest = IngestSources(partial(self._member, settings), lambda: self.replayer.catalog.view, self.registry)
        self.replayer.follow_catalog(self.ingest.follow)
        self.replayer.restore = StartFromSnapshot(
            settings.snapshot_url,
            settings.data_dir / "state",
            self.journal,
            self.topics,
            lambda: self.services.node.stopping.is_set(),
        )
        self.replayer.claim = partial(self.journal.claim, self.ingest.group, settings.node)
        self.models = Models(models)
        path = checkpoints_path(settings)
        self.auditor = Auditor(self.journal, self.topics, path, self._knows_log, wall_clock_ms)
        self.services = self._gateway(settings, make_replica)
        self._replaying = threading.Thread(target=self.replayer.run, name="replay", daemon=True)
        self._ingesting = threading.Thread(target=self.ingest.run, name="ingest", daemon=True)
        self._watching = threading.Thread(target=self._watch, name="log-watch", daemon=True)
        self.scrubber = Scrubber(self.shards)
        self._scrubbing = threading.Thread(target=self.scrubber.run, name="scrub", daemon=True)
        self._auditing = threading.Thread(target=self.auditor.run, name="audit", daemon=True)
        self._looking = threading.Thread(target=self.services.health.run, name="health", daemon=True)
        self.snapshots = self.services.node.snapshots
        self._saving = threading.Thread(target=self._save, name="snapshots", daemon=True)
        _tidy(settings, self.services)

    def start(self) -> None:
        """Starts the replay, the watch that the log stays the same, and the looks at the node's health."""
        self._replaying.start()
        self._watching.start()
        self._looking.start()
        self._scrubbing.start()
        self._auditing.start()
        if self.snapshots is not None:
            self._saving.start()

    def start_ingest(self) -> None:
        """Starts the ingest. Call it after the replay has caught up."""
        self._ingesting.start()

    def _knows_log(self) -> bool:
        """Whether the log is the one of this node, and the replay does not need it more. At the stop it counts that it was."""
        stopping = self.services.node.stopping.is_set()
        return self.replayer.refusal is None and bool(self.replayer.log_name) and (stopping or self.replayer.caught_up())

    def _save(self) -> None:
        """Makes the snapshots of this node."""
        assert self.snapshots is not None
        give_way()
        self.snapshots.run()

    def _watch(self) -> None:
        """Stops the ingest when the node must not go on with this log."""
        self.replayer.watch()
        self.ingest.stop()

    async def stop(self) -> None:
        """Stops all roles, then the journal. Waits at most STOP_S for the threads."""
        self.services.reads.given_up.set()  # the process ends only when the pool's threads do
        self.services.jobs.stop()
        if self.snapshots is not None:
            self.snapshots.stop()
        for role in (self.services.health, self.scrubber, self.auditor, self.ingest, self.replayer):
            role.stop()
        deadline_s = time.monotonic() + STOP_S
        for thread in (self._ingesting, self._replaying, self._watching, self._auditing, self._saving):
            if thread.ident is not None:
                await asyncio.to_thread(thread.join, max(0.0, deadline_s - time.monotonic()))
        self.builder.stop()
        self.checkpointer.stop()
        self.services.writes.bulk_parser.stop()
        self.models.stop()
        self.services.reads.executor.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.journal.close)
        self.registry.close()

    def _storage(self, settings: Settings) -> tuple[Shards, Replayer]:
        limits = Limits(
            settings.max_drift_ms,
            settings.max_lateness_ms,
            settings.idempotency_window_s * 1000,
            settings.history_retention_s * 1000,
        )
        shards = Shards(
            settings.data_dir / "state", self.topics, limits, self.builder.submit, checkpoints=self.checkpointer.submit
        )
        letters = DeadLetters(settings.dead_letters_max, int(settings.dead_letters_days * DAY_MS))
        group = replayer_group(settings)
        return shards, Replayer(self.journal, self.topics, self.clock, shards, group, limits, letters)

    def _member(self, settings: Settings, source: IngestSource) -> Ingest:
        return Ingest(
            self.journal,
            self.topics,
            self.writer,
            self.registry,
            lambda: self.replayer.catalog.view,
            self.replayer.applied,
            settings.node,
            wall_clock_ms,
            check_log=self.replayer.check_log,
            claim_name=self._claim_name,
            source=source,
        )

    def _claim_name(self) -> None:
        """Ends this node's service when another node has taken its name."""
        try:
            self.replayer.claim_name()
        except Unfit as error:
            self.replayer.refuse(error)
            raise

    def _snapshots(self, settings: Settings) -> NodeSnapshots | None:
        """The snapshots of this node; None without a place for them. Raises StartError for what is none."""
        if not settings.snapshot_url:
            return None
        try:
            checked_scheme(settings.snapshot_url)
        except PlaceError as error:
            raise StartError(f"snapshot_url {error}") from error
        return NodeSnapshots(
            settings.snapshot_url,
            settings.node,
            settings.data_dir,
            self.shards,
            lambda: self.replayer.catalog.view,
            self._log_state,
            partial(self._close_shards, asyncio.get_running_loop()),
            lambda: self.services.node.ready(),
            Schedule(
                settings.snapshot_every_s,
                Policy(settings.snapshot_keep, settings.snapshot_keep_days),
                settings.journal_retention_s,
            ),
            wall_clock_ms,
            __version__,
            self._cutter(settings),
        )

    def _cutter(self, settings: Settings) -> LogCutter:
        return LogCutter(
            self.journal,
            self.topics,
            settings.node,
            replayer_group(settings).removesuffix(settings.node),
            self.shards,
            lambda: self.replayer.catalog.view,
            self._log_state,
            self.auditor.positions,
            settings.max_drift_ms,
            wall_clock_ms,
        )

    def _close_shards(self, loop: asyncio.AbstractEventLoop) -> None:
        """Writes barriers to all shards, and returns when they are applied. Raises SnapshotFailed."""

        async def close() -> None:
            for shard in self.shards.all():
                await self.services.writes.write_barriers(shard.collection, shard.number, list(TIERS))

        try:
            asyncio.run_coroutine_threadsafe(close(), loop).result(CLOSE_S)
        except (JournalError, NotCaughtUp, TimeoutError) as error:
            raise SnapshotFailed(f"the shards cannot be closed: {error}") from error

    def _log_state(self) -> LogState:
        known = self.replayer.known_log
        return LogState(self.replayer.log_identity, known.topics, known.accepted, self.replayer.applied.get())

    def _gateway(self, settings: Settings, make_replica: MakeReplica) -> Services:
        executor = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="pool")
        budget = budget_of(settings.memory_budget_mb, trim_heap)
        loops = settings.serving_threads
        gate = Gate(self.journal, self.topics, self.replayer.applied, settings.read_timeout_s)
        node = NodeState(
            settings.node,
            __version__,
            self.journal,
            self.topics,
            self.clock,
            self.replayer,
            self.ingest,
            self.shards,
            budget,
            Descriptors(loops * (connections_of_loop(loops) + RESERVED_CONNECTIONS)),
            settings.data_dir,
            self.auditor,
            ArchiveFolder(settings.snapshots_dir or settings.data_dir / "snapshots"),
            frozenset(host.strip().lower() for host in settings.snapshot_hosts.split(",") if host.strip()),
            self._snapshots(settings),
        )
        timeouts = ReadTimeouts(settings.read_timeout_s, settings.search_timeout_s)
        writes = WriteService(
            self.replayer, self.shards, gate, self.writer, executor, BulkParser(), budget, settings.append_timeout_s
        )
        reads = ReadService(
            self.replayer,
            self.shards,
            gate,
            self.topics,
            executor,
            timeouts,
            self.clock,
            Barriers(writes.write_barriers),
            settings.history_retention_s,
            make_replica,
            settings.max_answer_points,
        )
        decided = DecidedWrites(reads, writes, Turns(), reads.barriers)
        most = max(1, loops * connections_of_loop(loops) // FOLLOWERS_PART)
        followers = Followers(self.replayer.applied, most, node.stopping)
        feeds = FeedService(reads, followers, Closing(reads.barriers, followers))
        subscriptions = SubscriptionService(feeds, writes, self.journal)
        return Services(node, reads, writes, decided, feeds, subscriptions, gate, Health(node), Inference(self.models, executor))


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _tidy(settings: Settings, services: Services) -> None:
    """Removes what an earlier process left unfinished, and tells from which snapshot the state was restored."""
    shutil.rmtree(settings.data_dir / SCRATCH, ignore_errors=True)
    services.node.archives.tidy()
    if (note := take_note(settings.data_dir / "state")) is not None:
        log.info("the state was restored from snapshot %s of %s; the rest is replayed from the log", note.snapshot, note.url)


def check_data_dir(folder: Path) -> None:
    """Raises StartError for a folder that has something else than a node's data. Writes nothing."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        journal = {path.name for path in (folder / "journal").iterdir()} if "journal" in names else set()
    except OSError as error:
        raise StartError(f"data_dir {folder} cannot be read: {error.strerror}") from error
    foreign = {name for name in names if not name.startswith(".")} - {"lost+found"}
    if (foreign and not foreign & {"journal", "state", "audit", "snapshots"}) or (journal and "CURRENT" not in journal):
        raise StartError(f"data_dir {folder} has files of something else, and no data of a node: name another folder")


def models_of(settings: Settings) -> dict[str, Path]:
    """The folders of models, by name; none without a folder of models. Raises StartError when it cannot be used."""
    try:
        return {} if settings.models_dir is None else models_in(settings.models_dir)
    except (NoModels, OSError) as error:
        raise StartError(str(error)) from error


def open_journal(settings: Settings) -> Journal:
    """Opens the journal of the settings. Raises StartError when an embedded journal cannot be opened, SettingsError when the
    configuration of Kafka clients cannot be used."""
    if settings.journal == "kafka":
        return node_journal(settings)
    try:
        return EmbeddedJournal(journal_folder(settings), wall_clock_ms, settings.in_flight_mb << 20)
    except Exception as error:  # RocksDB's errors have no class of their own
        raise StartError(f"cannot open the journal in {journal_folder(settings)}: {error}") from error


def journal_folder(settings: Settings) -> Path:
    """The folder of the embedded journal."""
    return settings.data_dir / "journal"


def checkpoints_path(settings: Settings) -> Path:
    """The file of the checkpoints of the log (docs/audit.md)."""
    return settings.data_dir / "audit" / "checkpoints.jsonl"
