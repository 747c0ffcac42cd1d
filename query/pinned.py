"""A pinned view of a collection: a lease on every shard for the time of one request (I13), and the fan-out to the leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from catalog.collection import Collection
from journal.log import Positions, TopicPartition
from journal.topics import shard_of
from shard.deadline import Deadline
from shard.replica import Answer, AsOf, Lease, Pool, Replica

T = TypeVar("T")

QUICK_POINTS = 500
"""Up to this many points are merged, sorted or converted in less than a millisecond."""


class Pinned:
    """The leases on a collection's shards, at least one, and the deadline of the request."""

    __slots__ = ("_by_shard", "_pool", "collection", "deadline", "leases")

    def __init__(
        self, collection: Collection, leases: Sequence[Lease], deadline: Deadline, pool: Pool[Any] | None = None
    ) -> None:
        self.collection = collection
        self.leases = leases
        self._pool = pool
        self.begin(deadline)
        self._by_shard = {lease.shard: lease for lease in leases}

    def begin(self, deadline: Deadline) -> None:
        """Starts the work of the request, after the wait for its positions."""
        self.deadline = deadline
        for lease in self.leases:
            lease.begin(deadline)

    @property
    def versions(self) -> list[Hashable]:
        """The versions of the leases, in their order: equal versions mean equal answers."""
        return [lease.version for lease in self.leases]

    @property
    def positions(self) -> Positions:
        """The next offsets of the collection's home partitions: the leases contain everything below them."""
        if len(self.leases) == 1:
            return self.leases[0].positions
        positions: Positions = {}
        for lease in self.leases:
            for partition, offset in lease.positions.items():  # shards may share a home partition: the lowest offset counts
                positions[partition] = min(offset, positions.get(partition, offset))
        return positions

    async def run(self, count: int, work: Callable[[], T]) -> T:
        """Runs work on `count` points: directly for few points, in the thread pool for many."""
        return work() if count <= QUICK_POINTS or self._pool is None else await self._pool(work)

    async def give_way(self) -> None:
        """Lets other requests have the event loop, between pieces of work that are quick each."""
        if self._pool is not None:  # without one there is no event loop
            await asyncio.sleep(0)

    async def by_lease(self, ids: Sequence[bytes]) -> list[tuple[Lease, Sequence[bytes]]]:
        """Splits ids by shard, without shards that have none of them; keeps the given order."""
        if len(self.leases) == 1:
            return [(self.leases[0], ids)]
        return await self.run(len(ids), partial(self._by_lease, ids))

    def _by_lease(self, ids: Sequence[bytes]) -> list[tuple[Lease, Sequence[bytes]]]:
        count = self.collection.config.shard_number
        by_shard: dict[int, list[bytes]] = {}
        for id_ in ids:
            by_shard.setdefault(shard_of(id_, count), []).append(id_)
        return [(self._by_shard[shard], mine) for shard, mine in by_shard.items()]

    async def all_of(self, answers: Iterable[Answer[T]]) -> list[T]:
        """The values of answers, in their order. Raises DeadlineExceeded."""
        return await all_of(answers, self.deadline)


async def pin(
    collection: Collection,
    replicas: Sequence[Replica],
    positions: Mapping[TopicPartition, int],
    wait_s: float,
    work_s: float,
    pool: Pool[Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
    as_of: AsOf | None = None,
) -> Pinned:
    """Takes leases on all shards of a collection, each on a view in which everything below `positions` is applied.

    With `as_of`, on the shards as they were; `collection` is the collection as it was then.

    Waits for these positions for `wait_s` at most; from then on the request has `work_s`. Raises NotCaughtUp. Answers of many
    points are put together in `pool`.
    """
    asked = Deadline(wait_s + work_s, clock)
    leases = await all_of((replica.read(positions, wait_s, as_of) for replica in replicas), asked)
    return Pinned(collection, leases, Deadline(work_s, clock), pool)


async def all_of(answers: Iterable[Answer[T]], deadline: Deadline) -> list[T]:
    """The values of answers, in their order. Awaits those that are awaitable, until the deadline; the others need no event loop.

    Raises DeadlineExceeded. When one answer fails, the others are cancelled.
    """
    started: list[Answer[T]] = []
    try:
        started.extend(answers)
        return [await _in_time(answer, deadline) if isinstance(answer, Awaitable) else answer for answer in started]
    except BaseException:
        abandon(started)
        raise


def abandon(answers: Iterable[Answer[Any]]) -> None:
    """Cancels answers that are not wanted any more. Work that is already running stops at its next check of the deadline."""
    for answer in answers:
        if isinstance(answer, asyncio.Future) and not answer.cancel() and not answer.cancelled():
            answer.exception()  # or asyncio would log that nobody asked for it
        elif isinstance(answer, Coroutine):
            answer.close()


async def _in_time(answer: Awaitable[T], deadline: Deadline) -> T:
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            return await answer
    except TimeoutError as error:
        raise deadline.exceeded() from error
