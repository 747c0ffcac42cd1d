"""One node: every role in one process, wired together, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
import uvloop

from gateway.admission.budget import budget_of
from gateway.dialect.bulk_parser import BulkParser
from gateway.http.app import create_app
from gateway.service import Service, Timeouts
from journal.embedded import EmbeddedJournal
from journal.hlc import Clock
from journal.kafka import KafkaJournal
from journal.log import Journal
from journal.registry import SchemaRegistry
from journal.topics import Topics
from journal.writer import Writer
from query.consistency import Gate
from replayer.ingest.member import Ingest
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.batch import Limits
from shard.shards import Shards
from vecraft import __version__
from vecraft.background import BackgroundThread
from vecraft.heap import keep_heap_small
from vecraft.settings import Settings

log = logging.getLogger("vecraft")

DRAIN_S = 5
"""Requests in flight get this long to end after SIGTERM; replay and journal get the rest of ten seconds."""
STOP_S = 4.0
DAY_MS = 24 * 3600 * 1000
PROGRESS_EVERY_S = 2.0
POOL_THREADS = 8
"""Longer reads at a time; those that scan the same vectors are run together."""
MAX_CONNECTIONS = 1000
SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms would make a search wait that long for a replaying thread."""


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Node:
    """Serves until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = ""
        self.started = threading.Event()
        self._server: uvicorn.Server | None = None
        self._service: Service | None = None

    def run(self) -> None:
        """Runs the node in this thread. Returns after `stop`, SIGTERM or SIGINT; raises StartError when it must not serve."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        keep_heap_small()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each shard keeps several files open
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Begins the clean stop: not ready any more, requests end, replay ends, the log closes. From any thread."""
        if self._service is not None:
            self._service.stopping.set()
        if self._server is not None:
            self._server.should_exit = True

    async def _serve(self) -> None:
        settings = self.settings
        limits = Limits(settings.max_drift_ms, settings.max_lateness_ms, settings.idempotency_window_s * 1000)
        topics = Topics(settings.topic_prefix, settings.preset)
        clock = Clock(wall_clock_ms, settings.max_drift_ms)
        journal = open_journal(settings)
        builder = BackgroundThread("index-build")
        shards = Shards(settings.data_dir / "state", topics, limits, builder.submit)
        letters = DeadLetters(settings.dead_letters_max, int(settings.dead_letters_days * DAY_MS))
        replayer = Replayer(journal, topics, clock, shards, f"{settings.topic_prefix}.replayer.{settings.node}", limits, letters)
        writer = Writer(journal, topics, clock, settings.max_drift_ms)
        registry = SchemaRegistry(settings.schema_registry_url)
        ingest = Ingest(
            journal,
            topics,
            writer,
            registry,
            lambda: replayer.catalog.view,
            replayer.applied,
            settings.node,
            wall_clock_ms,
        )
        self._service = service = Service(
            journal=journal,
            topics=topics,
            clock=clock,
            writer=writer,
            replayer=replayer,
            ingest=ingest,
            shards=shards,
            gate=Gate(journal, topics, replayer.applied, settings.read_timeout_s),
            pool=ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="pool"),
            bulk_parser=BulkParser(),
            budget=budget_of(settings.memory_budget_mb),
            node=settings.node,
            version=__version__,
            timeouts=Timeouts(settings.append_timeout_s, settings.read_timeout_s),
        )
        replaying = threading.Thread(target=replayer.run, name="replay", daemon=True)
        ingesting = threading.Thread(target=ingest.run, name="ingest", daemon=True)
        replaying.start()
        progress = asyncio.create_task(self._report_progress(service, ingesting))
        try:
            await self._listen(service)
        finally:
            progress.cancel()
            for role in (ingest, replayer):
                role.stop()
            deadline_s = time.monotonic() + STOP_S
            for thread in (ingesting, replaying):
                if thread.ident is not None:
                    await asyncio.to_thread(thread.join, max(0.0, deadline_s - time.monotonic()))
            builder.stop()
            service.bulk_parser.stop()
            service.pool.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(journal.close)
            registry.close()
            log.info("stopped")
        if replayer.refusal is not None:
            raise StartError(f"{replayer.refusal}. `vecraft topics check` says so too, `vecraft topics create` makes new ones")

    async def _listen(self, service: Service) -> None:
        settings = self.settings
        server = self._server = _Server(_server_config(service), self)
        listening = _bound_socket(settings.host, settings.port)
        host, port = listening.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("node %s listens on %s, API docs at %s/docs", settings.node, self.url, self.url)
        more = [ServingThread(service, listening) for _ in range(settings.serving_threads - 1)]
        self.started.set()
        try:
            await server.serve([listening])
        finally:
            for thread in more:
                await asyncio.to_thread(thread.stop)

    async def _report_progress(self, service: Service, ingesting: threading.Thread) -> None:
        """Says how far the replay is until the node is ready, and takes its share of the ingest topic from then on."""
        started_s = time.monotonic()
        while not service.ready():
            if service.replayer.refusal is not None:
                return self.stop()
            await asyncio.sleep(PROGRESS_EVERY_S if time.monotonic() - started_s > PROGRESS_EVERY_S else 0.05)
            done, total = service.replayer.behind()
            if not service.ready() and total and time.monotonic() - started_s > PROGRESS_EVERY_S:
                log.info("replaying: %d of %d records (%d %%)", done, total, 100 * done // total)
        log.info("ready after %.1f s", time.monotonic() - started_s)
        ingesting.start()


class _Server(uvicorn.Server):
    """Turns signals into the node's clean stop, so that readiness goes first."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    def handle_exit(self, sig: int, frame: object) -> None:
        log.info("%s: stopping", signal.Signals(sig).name)
        self._node.stop()


class ServingThread:
    """One more event loop that takes connections from the same socket, so that one answers while another one's search runs."""

    def __init__(self, service: Service, listening: socket.socket) -> None:
        self._service = service
        listening.listen()
        self._listening = listening.dup()
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends as the first server does: requests in flight get DRAIN_S."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(DRAIN_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._server = uvicorn.Server(_server_config(self._service.on_this_loop()))
        if self._service.stopping.is_set():
            return
        await self._server.serve([self._listening])


def _server_config(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service),
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_S,
    )


class StartError(Exception):
    """The node cannot start here; the text says why."""


def _bound_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listening


def open_journal(settings: Settings) -> Journal:
    """The journal that the settings name. Raises StartError when an embedded one cannot be opened."""
    if settings.journal == "kafka":
        return KafkaJournal(settings.bootstrap_servers, settings.append_timeout_s, settings.in_flight_mb << 20)
    try:
        return EmbeddedJournal(journal_folder(settings), wall_clock_ms, settings.in_flight_mb << 20)
    except Exception as error:  # RocksDB's errors have no class of their own
        raise StartError(f"cannot open the journal in {journal_folder(settings)}: {error}") from error


def journal_folder(settings: Settings) -> Path:
    """Where the embedded log lies."""
    return settings.data_dir / "journal"
