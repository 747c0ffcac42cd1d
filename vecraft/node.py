"""One node as a process: listens, serves on several event loops, stops in order. `vecraft/roles.py` wires its parts."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from functools import partial

import uvicorn
import uvloop

from gateway.closing import keep_closing
from gateway.http.app import create_app
from gateway.http.connection import KEEP_ALIVE_S, Connection, Door, connections_of_loop
from gateway.reads import MakeReplica, local_replica
from gateway.services import Services
from vecraft.heap import keep_heap_small
from vecraft.roles import Roles, StartError
from vecraft.settings import Settings

log = logging.getLogger("vecraft")

DRAIN_S = 5
"""Time for requests in flight after SIGTERM. Replay and journal get the rest of ten seconds."""
STOP_WITHIN_S = 9.0
"""Then the process ends, whatever still runs. It loses as much as by SIGKILL: nothing that was acknowledged."""
PROGRESS_EVERY_S = 2.0
READY_CHECK_S = 0.05
SWITCH_INTERVAL_S = 0.0005
"""With Python's default of 5 ms, a search would wait that long for the replay thread."""


class Node:
    """Serves requests until `stop` or a signal."""

    def __init__(self, settings: Settings, make_replica: MakeReplica = local_replica) -> None:
        self.settings = settings
        self.make_replica = make_replica
        self.url = ""
        self.started = threading.Event()
        self._server: uvicorn.Server | None = None
        self._services: Services | None = None

    def run(self) -> None:
        """Runs the node in this thread. Returns after `stop`, SIGTERM or SIGINT. Raises StartError when it cannot start."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        keep_heap_small()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each shard keeps several files open
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    def stop(self) -> None:
        """Starts the clean stop: readiness off, requests end, replay ends, the journal closes. Thread-safe."""
        if self._services is not None:
            self._services.node.stopping.set()
            self._services.feeds.followers.wake()  # they end
        if self._server is not None:
            self._server.should_exit = True

    async def _serve(self) -> None:
        roles = Roles(self.settings, self.make_replica)
        self._services = roles.services
        roles.start()
        tasks = [
            asyncio.create_task(self._report_progress(roles)),
            asyncio.create_task(keep_closing(roles.services.node, roles.services.writes)),
        ]
        try:
            await self._listen(roles.services)
        finally:
            for task in tasks:
                task.cancel()
            await roles.stop()
            log.info("stopped")
        if (refusal := roles.replayer.refusal) is not None:
            raise StartError(str(refusal))

    async def _listen(self, services: Services) -> None:
        settings = self.settings
        server = self._server = _Server(_server_config(services, settings.serving_threads), self)
        listening = _bound_socket(settings.host, settings.port)
        host, port = listening.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("node %s listens on %s, API docs at %s/docs", settings.node, self.url, self.url)
        more = [ServingThread(services, listening, settings.serving_threads) for _ in range(settings.serving_threads - 1)]
        self.started.set()
        try:
            await server.serve([listening])
        finally:
            for thread in more:
                await asyncio.to_thread(thread.stop)

    async def _report_progress(self, roles: Roles) -> None:
        """Logs the progress of the replay until the node is ready, then starts the ingest role."""
        node = roles.services.node
        started_s = time.monotonic()
        next_report_s = started_s + PROGRESS_EVERY_S
        while not node.ready():
            if roles.replayer.refusal is not None:
                return self.stop()
            await asyncio.sleep(READY_CHECK_S)
            if time.monotonic() > next_report_s and not node.ready():
                done, total = roles.replayer.behind()
                if total:
                    log.info("replaying: %d of %d records (%d %%)", done, total, 100 * done // total)
                    next_report_s += PROGRESS_EVERY_S
        log.info("ready after %.1f s", time.monotonic() - started_s)
        roles.start_ingest()


class _Server(uvicorn.Server):
    """Handles signals with `Node.stop`, which turns readiness off first."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    def handle_exit(self, sig: int, frame: object) -> None:
        log.info("%s: stopping", signal.Signals(sig).name)
        watchdog = threading.Timer(STOP_WITHIN_S, _end_process)
        watchdog.daemon = True
        watchdog.start()
        self._node.stop()


def _end_process() -> None:
    log.warning("did not stop within %d s; the process ends now, nothing that was acknowledged is lost", STOP_WITHIN_S)
    logging.shutdown()
    os._exit(0)


class ServingThread:
    """An additional event loop on the same socket, so that one loop can answer while a search blocks another."""

    def __init__(self, services: Services, listening: socket.socket, loops: int) -> None:
        self._services = services
        self._loops = loops
        listening.listen()
        self._listening = listening.dup()
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, name="serve", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops this loop. Requests in flight get DRAIN_S."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(DRAIN_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._server = uvicorn.Server(_server_config(self._services.on_this_loop(), self._loops))
        if self._services.node.stopping.is_set():
            return
        await self._server.serve([self._listening])


def _server_config(services: Services, loops: int) -> uvicorn.Config:
    """The configuration of one of `loops` event loops."""
    door = Door(connections_of_loop(loops))
    services.node.descriptors.doors.append(door)
    return uvicorn.Config(
        create_app(services),
        loop="none",
        http=partial(Connection, door),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )


def _bound_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise StartError(
            f"cannot listen on {host} port {port}: {error.strerror or error}, name another --port or --host"
        ) from error
    return listening
