"""Who waits for changes: requests and streams that follow a feed. They are woken when something is applied, and cost
nothing else. Their number has a bound of its own, so that they leave connections to other requests.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from gateway.http.errors import TooManyRequests
from journal.log import TopicPartition
from shard.shards import AppliedPositions

FOLLOWERS_PART = 4
"""Followers may take one of so many connections."""

RETRY_S = 5.0


class Follower:
    """One that waits for records in some partitions. Belongs to one event loop."""

    def __init__(self, applied: AppliedPositions, partitions: Sequence[TopicPartition], stopping: threading.Event) -> None:
        self._applied = applied
        self._partitions = partitions
        self._stopping = stopping
        self._seen: list[int] = []
        self._woken = asyncio.Event()
        self.is_told = False
        """Whether something else than a record has happened that it waits for."""

    def look(self) -> None:
        """What is applied up to now has been looked at, or will be."""
        self._woken.clear()
        self._seen = self._offsets()

    async def wait(self, timeout_s: float) -> None:
        """Returns when something was applied after the last `look`, when the node stops, or after the timeout."""
        self.wake()  # what was applied after the look, and before the follower is told of it
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._woken.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        if self.is_told or self._stopping.is_set() or self._offsets() != self._seen:
            self._woken.set()

    def _offsets(self) -> list[int]:
        applied = self._applied.get()
        return [applied.get(partition, -1) for partition in self._partitions]


class Followers:
    """All followers of the node, at most `most`. Thread-safe; shared by the event loops."""

    def __init__(self, applied: AppliedPositions, most: int, stopping: threading.Event) -> None:
        self.most = most
        self.events = self.rounds = self.cut_off = 0
        """Events told, rounds of barriers for feeds, and streams that ended because their reader was too slow."""
        self._applied = applied
        self._stopping = stopping
        self._lock = threading.RLock()  # a signal, which stops the node, may interrupt who holds it
        self._by_loop: dict[asyncio.AbstractEventLoop, set[Follower]] = {}
        applied.listen(self.wake)

    def count(self, events: int = 0, rounds: int = 0, cut_off: int = 0) -> None:
        """Adds to what `/metrics` shows."""
        with self._lock:
            self.events += events
            self.rounds += rounds
            self.cut_off += cut_off

    @property
    def stopping(self) -> bool:
        """Whether the node stops."""
        return self._stopping.is_set()

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._by_loop.values()))

    @contextmanager
    def following(self, partitions: Sequence[TopicPartition]) -> Iterator[Follower]:
        """A follower on the running loop. Raises TooManyRequests when there are as many as there may be."""
        loop, follower = asyncio.get_running_loop(), Follower(self._applied, partitions, self._stopping)
        with self._lock:
            if sum(map(len, self._by_loop.values())) >= self.most:
                text = f"this node has {self.most} followers of feeds, the bound; read pages without wait_ms, or try later"
                raise TooManyRequests(text, RETRY_S)
            self._by_loop.setdefault(loop, set()).add(follower)
        try:
            yield follower
        finally:
            with self._lock:
                self._by_loop[loop].discard(follower)
                if not self._by_loop[loop]:
                    del self._by_loop[loop]

    def tell(self, followers: Collection[Follower]) -> None:
        """Wakes some followers. Called from any thread."""
        for follower in followers:
            follower.is_told = True
        self.wake()

    def wake(self) -> None:
        """Has each follower look whether it is concerned. Called from any thread."""
        if not self._by_loop:
            return
        with self._lock:
            for loop in self._by_loop:
                loop.call_soon_threadsafe(self._wake_those_of, loop)

    def _wake_those_of(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            followers = list(self._by_loop.get(loop, ()))
        for follower in followers:
            follower.wake()
