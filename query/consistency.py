"""The gate: delays a read until this node has applied the positions that the read's consistency level requires (V10, I9).

eventual            none
bounded(ms)         the end of the log at some moment at most `ms` ago
read_your_writes    the client's own last position
strong              the end of the log when the read arrived

Requests for the end of the log are shared: one request serves all reads that arrived before it was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple

from catalog.collection import Consistency
from journal.log import Journal, JournalError, Positions, TopicPartition
from journal.token import advance
from journal.topics import Topics
from shard.shards import AppliedPositions


class NotCaughtUp(Exception):
    """This node did not reach the required positions in time. A read may be repeated, here or on another node."""


class Demand(NamedTuple):
    """The consistency level of a read, and its parameters. `token`: the client's last position."""

    level: Consistency
    token: Mapping[TopicPartition, int]
    staleness_ms: int = 0


class _Ends(NamedTuple):
    asked_at_s: float
    positions: Positions


class Gate:
    """Belongs to one event loop."""

    def __init__(self, journal: Journal, topics: Topics, applied: AppliedPositions, timeout_s: float) -> None:
        self._journal = journal
        self._topics = topics
        self._partitions = [topics.system_partition, *topics.data_partitions()]
        self._applied = applied
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Mapping[TopicPartition, int], asyncio.Future[None]]] = []
        self._ends = _Ends(float("-inf"), {})
        self._asking: asyncio.Task[None] | None = None
        applied.listen(self._on_advance)

    def on_this_loop(self) -> Gate:
        """A gate for the running event loop."""
        return Gate(self._journal, self._topics, self._applied, self._timeout_s)

    async def required(self, demand: Demand) -> Positions:
        """The positions that must be applied, over all partitions. Raises NotCaughtUp when the log cannot be asked."""
        if demand.level is Consistency.EVENTUAL:
            return {}
        positions = dict(demand.token)
        if demand.level in (Consistency.STRONG, Consistency.BOUNDED):
            not_before_s = time.monotonic() - demand.staleness_ms / 1000
            try:
                advance(positions, await self._ends_since(not_before_s))
            except JournalError as error:
                raise NotCaughtUp(f"the log cannot be asked for its end: {error}") from error
        return positions

    async def reached(self, positions: Mapping[TopicPartition, int], timeout_s: float | None = None) -> None:
        """Returns once everything below `positions` is applied. Raises NotCaughtUp after the timeout."""
        if self._applied.covers(positions):
            return
        future: asyncio.Future[None] = self._loop.create_future()
        waiting = (positions, future)
        self._waiting.append(waiting)
        if self._applied.covers(positions):  # the positions may have advanced before this read was in `_waiting`
            self._wake()
        try:
            await asyncio.wait_for(future, self._timeout_s if timeout_s is None else timeout_s)
        except TimeoutError:
            done = self._applied.get()
            missing = sum(max(0, offset - done.get(partition, 0)) for partition, offset in positions.items())
            raise NotCaughtUp(f"this node is {missing} records behind what the read demands") from None
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    async def holds(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Whether the log reaches these positions. Asks the log only if this node has not applied them, nor knows a later end."""
        known = self._ends.positions
        if self._applied.covers({p: offset for p, offset in positions.items() if offset > known.get(p, 0)}):
            return True
        ends = await self._ends_since(time.monotonic())
        return all(offset <= ends.get(partition, 0) for partition, offset in positions.items())

    async def _ends_since(self, not_before_s: float) -> Positions:
        while self._ends.asked_at_s < not_before_s:
            if self._asking is None:
                self._asking = self._loop.create_task(self._ask())
            await asyncio.shield(self._asking)
        return self._ends.positions

    async def _ask(self) -> None:
        asked_at_s = time.monotonic()
        try:
            positions = await self._loop.run_in_executor(None, self._journal.end_offsets, self._partitions)
            self._ends = _Ends(asked_at_s, positions)
        finally:
            self._asking = None

    def _on_advance(self) -> None:
        if self._waiting:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        still = []
        for positions, future in self._waiting:
            if not self._applied.covers(positions):
                still.append((positions, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still
