"""Turns: requests of this node that decide about the same points go one after the other, so that each makes progress.

Requests of other nodes are not waited for: a write that was decided too early finds out by its conditions, and is decided anew.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager

MAX_WAITING = 10_000
"""Requests that wait at the same time."""


class TooManyWaiting(Exception):
    """MAX_WAITING requests wait for their turn."""


class NoTurn(Exception):
    """The turn did not come in time."""


class _Ticket:
    def __init__(self, keys: list[Hashable]) -> None:
        self.keys = keys
        self.behind = 0
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()

    def call(self) -> None:
        self.loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)


class Turns:
    """Queues by point, in the order of arrival. Thread-safe; shared by the event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[Hashable, deque[_Ticket]] = {}
        self._tickets = 0
        self.rounds = {"final": 0, "repeated": 0}
        """How many rounds of decided writes there were, by outcome."""

    def count(self, outcome: str) -> None:
        """Counts a round."""
        with self._lock:
            self.rounds[outcome] += 1

    @property
    def waiting(self) -> int:
        """The number of requests that have their turn or wait for it."""
        return self._tickets

    @asynccontextmanager
    async def take(self, keys: Iterable[Hashable], timeout_s: float) -> AsyncIterator[None]:
        """Waits until no earlier request has one of the keys; they are held for the block.

        Raises TooManyWaiting, and NoTurn when the turn does not come in time.
        """
        ticket = _Ticket(list(dict.fromkeys(keys)))
        self._enqueue(ticket)
        try:
            if ticket.behind:
                try:
                    await asyncio.wait_for(ticket.ready, timeout_s)
                except TimeoutError:
                    raise NoTurn(f"others changed the same points for {timeout_s:.1f} s") from None
            yield
        finally:
            self._leave(ticket)

    def _enqueue(self, ticket: _Ticket) -> None:
        """Enters all queues at once, so that requests cannot wait for each other in a circle."""
        with self._lock:
            if self._tickets >= MAX_WAITING:
                raise TooManyWaiting(f"{MAX_WAITING} requests wait for points that others are changing")
            self._tickets += 1
            for key in ticket.keys:
                queue = self._queues.setdefault(key, deque())
                ticket.behind += bool(queue)
                queue.append(ticket)

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            self._tickets -= 1
            for key in ticket.keys:
                queue = self._queues[key]
                first = queue[0] is ticket
                queue.remove(ticket)
                if not queue:
                    del self._queues[key]
                elif first:
                    queue[0].behind -= 1
                    if not queue[0].behind:
                        queue[0].call()
