"""A member for each source that the catalog has, each on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from catalog.catalog import CatalogView
from catalog.ingest import DEFAULT_SOURCE, DEFAULT_SOURCES, IngestSource
from journal.registry import SchemaRegistry
from replayer.ingest.member import IDLE_POLL_S, Ingest

STOP_S = 3.0
"""How long `run` waits for the members when it ends."""


class _Running(NamedTuple):
    member: Ingest
    thread: threading.Thread


class IngestSources:
    """Starts and stops members as sources are created and deleted. Its own thread calls `run`.

    `make` gives the member of a source. What an operator changes reaches the members when `follow` tells it; if the catalog was
    opened anew meanwhile, within IDLE_POLL_S.
    """

    def __init__(self, make: Callable[[IngestSource], Ingest], view: Callable[[], CatalogView], registry: SchemaRegistry) -> None:
        self.registry = registry
        self._make = make
        self._view = view
        self._default = make(DEFAULT_SOURCES[DEFAULT_SOURCE])
        self._running: dict[str, _Running] = {}
        self._ending: list[_Running] = []
        self._ended_written = self._ended_dead = 0
        self._stopping, self._changed = threading.Event(), threading.Event()

    def run(self) -> None:
        """Runs the members until `stop`."""
        while not self._stopping.is_set():
            self._match()
            self._changed.wait(IDLE_POLL_S)
            self._changed.clear()
        for running in self._running.values():
            running.member.stop()
        for running in [*self._running.values(), *self._ending]:
            running.thread.join(STOP_S)

    def stop(self) -> None:
        """Makes `run` stop the members, and return. Thread-safe."""
        self._stopping.set()
        self._changed.set()

    def follow(self, before: CatalogView, after: CatalogView) -> None:
        """Tells that a command was applied to the catalog."""
        if before.sources is not after.sources:
            self._changed.set()

    def member(self, source: IngestSource) -> Ingest | None:
        """The member of a source; None until it was started."""
        if source.id == 0:
            return self._default
        running = self._running.get(source.name)
        return running.member if running is not None and running.member.source.id == source.id else None

    @property
    def group(self) -> str:
        """The consumer group of the default source."""
        return self._default.group

    @property
    def failure(self) -> Exception | None:
        """Why a source does not work now; None while all do."""
        return next((member.failure for member in self._members() if member.failure is not None), None)

    @property
    def written(self) -> int:
        """The number of records whose changes this node has written."""
        return self._ended_written + sum(member.written for member in self._members())

    @property
    def dead(self) -> int:
        """The number of records that this node has buried."""
        return self._ended_dead + sum(member.dead for member in self._members())

    def _members(self) -> list[Ingest]:
        others = [running.member for running in list(self._running.values()) if running.member is not self._default]
        return [self._default, *others]

    def _match(self) -> None:
        """Starts and stops members, and wakes the others, so that they look at their sources."""
        sources = self._view().sources
        for name, running in list(self._running.items()):
            source = sources.get(name)
            if source is not None and source.id == running.member.source.id:
                running.member.wake()
            else:
                self._end(name)
        for name, source in sources.items():
            if name not in self._running:
                member = self._default if source.id == 0 else self._make(source)
                thread = threading.Thread(target=member.run, name=f"ingest-{name}", daemon=True)
                self._running[name] = _Running(member, thread)
                thread.start()

    def _end(self, name: str) -> None:
        running = self._running.pop(name)
        running.member.stop()
        self._ended_written += running.member.written
        self._ended_dead += running.member.dead
        self._ending = [*(each for each in self._ending if each.thread.is_alive()), running]
