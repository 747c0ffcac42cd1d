"""The read service: finds collections, waits for the positions that a read requires, and pins their shards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from catalog.catalog import CatalogView
from catalog.collection import Collection, Consistency
from catalog.history import CatalogHistory
from gateway.as_of import TAG, Instant, parse_as_of, time_of
from gateway.barriers import Barriers
from gateway.dialect.bodies import ReadParams
from gateway.dialect.bulk_parser import LARGE_BODY_BYTES
from gateway.http.errors import BadRequest, Conflict, Gone, NotFound, Unavailable
from gateway.request import ApiRequest, Response, number_of
from journal.hlc import Clock, millis_of
from journal.log import JournalError, Positions
from journal.topics import Topics
from payload.errors import BoundError
from query.consistency import Demand, Gate, NotCaughtUp
from query.pinned import Pinned, all_of, pin
from replayer.replayer import Replayer
from shard.deadline import Deadline
from shard.filters.conditions import Condition
from shard.filters.where import Where, where
from shard.local import LocalReplica, pool_of
from shard.past import PastGone, Unrepeatable
from shard.replica import AsOf, Replica, ShardStatus
from shard.shard import Shard, ShardClosed
from shard.shards import AppliedPositions, Shards, ShardUnavailable
from shard.vectors.index import SegmentList

T = TypeVar("T")

MAX_ANSWER_POINTS = 100_000
"""The largest number of points in one answer, unless the node's settings say otherwise."""

QUICK_POINTS = 100
"""Up to this many points are put into an answer on the event loop; more in the thread pool."""

WORK_S = 30.0
"""The deadline of a read on which a write depends, and of those that operators ask."""

_LEVELS = {
    **{level.value: level for level in Consistency},
    "majority": Consistency.STRONG,
    "quorum": Consistency.STRONG,
    "all": Consistency.STRONG,
}

MakeReplica = Callable[[Shard, AppliedPositions, Gate, Executor], Replica]
"""Creates the replica of a shard of this process."""


def local_replica(shard: Shard, applied: AppliedPositions, gate: Gate, executor: Executor) -> Replica:
    """A replica without a network."""
    return LocalReplica(shard, applied, gate.reached, pool_of(executor))


@dataclass(frozen=True, slots=True)
class ReadTimeouts:
    """Default timeouts of reads: for the wait for the required positions, and for the work after it."""

    wait_s: float = 5.0
    work_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ReadService:
    """Belongs to one event loop."""

    replayer: Replayer
    shards: Shards
    gate: Gate
    topics: Topics
    executor: Executor
    timeouts: ReadTimeouts
    clock: Clock
    barriers: Barriers
    history_s: int
    make_replica: MakeReplica = local_replica
    max_answer_points: int = MAX_ANSWER_POINTS
    given_up: threading.Event = field(default_factory=threading.Event)
    """Set when the node no longer answers: all deadlines have passed then."""

    @property
    def catalog(self) -> CatalogView:
        """The catalog, as far as it has been replayed on this node."""
        return self.replayer.catalog.view

    async def pin(
        self, request: ApiRequest, response: Response, name: str, level: Consistency | None = None, for_write: bool = False
    ) -> Pinned:
        """Pins the shards of a collection, with the consistency level of the request, or `level` if given.

        `for_write`: a write depends on the read, so its deadline is later.
        """
        started_s = time.perf_counter()
        if request.as_of:
            return await self.pin_as_of(request, response, name, request.as_of)
        collection = await self.find(request, name)
        level = level or self._level(request, collection)
        self._check_replayed(response, level)
        params = _params(request)
        wait_s = request.timeout_s or self.timeouts.wait_s
        required = await self.gate.required(Demand(level, request.token.positions, params.max_staleness_ms))
        system = self.topics.system_partition
        if collection.vectors_since:  # what the catalog names, the shards must have
            required = {**required, system: max(required.get(system, 0), collection.vectors_since)}
        if system in required:
            await self.gate.reached({system: required[system]}, wait_s)
            collection = _found(self.catalog.find(name), name)
        replicas = self.replicas(collection)
        work_s = WORK_S if for_write else request.timeout_s or self.timeouts.work_s
        pinned = await pin(collection, replicas, required, wait_s, work_s, pool_of(self.executor), self._clock)
        waited_s = time.perf_counter() - started_s
        response.saw(pinned.positions, level, waited_s)
        return pinned

    async def pin_as_of(
        self, request: ApiRequest, response: Response, name: str, as_of: str, for_write: bool = False, field: str = "as_of"
    ) -> Pinned:
        """Pins the shards of a collection as they were at the instant that `as_of` names (see `gateway.as_of`).

        `for_write`: a write depends on the read, so its deadline is later. Errors name `field`. Raises Gone for an
        instant before what is kept.
        """
        started_s = time.perf_counter()
        self._check_replayed(response, Consistency.STRONG)
        now_ms = self.clock.physical_ms()
        instant = await self.instant(request, as_of, lambda: self.catalog.find(name), field)
        then = self.history.find(name, instant.stamp)
        if then is None:
            raise NotFound(f"Not found: Collection `{name}` didn't exist at {time_of(instant.stamp)}")
        if (current := self.catalog.by_id.get(then.id)) is None:
            current = self.history.deleted[then.id].collection
            replicas = await self._deleted(current, instant.stamp, now_ms, field)
        else:
            replicas = self.replicas(current)
            if instant.positions is None:
                await self._close(current, replicas, instant.stamp)
        then = then.readable_in(current)
        if instant.positions is not None:
            self._check_covered(current, instant.positions, field)
        wait_s = request.timeout_s or self.timeouts.wait_s
        work_s = WORK_S if for_write else request.timeout_s or self.timeouts.work_s
        demanded, wanted = instant.positions or {}, AsOf(then, instant.stamp, instant.positions)
        try:
            pinned = await pin(then, replicas, demanded, wait_s, work_s, pool_of(self.executor), self._clock, wanted)
        except PastGone as error:
            kept_s = current.config.history_retention_s
            raise Gone(
                f"{field}: {time_of(instant.stamp)} is before what is kept; the oldest instant is {time_of(error.oldest)} "
                f"(stamp {error.oldest}), the retention is {self.history_s if kept_s is None else kept_s} s"
            ) from error
        except Unrepeatable as error:
            raise Conflict(
                f"{field}: a write that arrived later belongs before one that is included in this position, and changed its "
                f"effect; the state of its time is {instant.stamp}"
            ) from error
        response.saw(pinned.positions, Consistency.STRONG, time.perf_counter() - started_s)
        response.as_of = instant
        return pinned

    @property
    def history(self) -> CatalogHistory:
        """What names meant at earlier instants, as far as the catalog has been replayed on this node."""
        return self.replayer.catalog.history

    async def instant(
        self, request: ApiRequest, as_of: str, find: Callable[[], Collection | None], field: str = "as_of"
    ) -> Instant:
        """The instant that `as_of` names; the catalog has caught up with it. `find` finds the collection whose tags count.

        Errors name `field`.
        """
        if as_of.startswith(TAG):
            await self.catch_up_catalog(request)
        now_ms = self.clock.physical_ms()
        instant = parse_as_of(as_of, now_ms, self.clock.last, self.topics, self.replayer.log_name, find, field)
        if instant.positions is not None and not await self.gate.holds(instant.positions):
            raise BadRequest(f"{field}: the position is beyond the end of this log")
        await self.catch_up_catalog(request, now_ms - millis_of(instant.stamp))
        return instant

    def _check_covered(self, collection: Collection, positions: Positions, field: str) -> None:
        """Refuses a position that says nothing of some of the collection's partitions, as that of a write or of another one."""
        for home in collection.homes:
            for partition in self.topics.home_partitions(home):
                if partition not in positions:
                    raise BadRequest(
                        f"{field}: the position does not cover {partition}; use that of a read of `{collection.name}`, or a time"
                    )

    async def _deleted(self, collection: Collection, stamp: int, now_ms: int, field: str) -> list[Replica]:
        """The replicas of a deleted collection, which nothing closes any more. Raises Gone when it cannot be read at a stamp."""
        shards = await self.offload(False, partial(self.shards.deleted.shards, collection, now_ms))
        name = f"the deleted collection `{collection.name}`"
        if not shards:
            raise Gone(f"{field}: {name} is not kept on this node")
        if (closed := min(shard.closed() for shard in shards)) < stamp:
            raise Gone(f"{field}: the latest instant of {name} that can be read is {time_of(closed)} (stamp {closed})")
        return self._made(shards)

    async def _close(self, collection: Collection, replicas: Sequence[Replica], stamp: int) -> None:
        """Closes the shards of a collection up to a stamp (I7), by barriers where that is needed."""
        closed = await all_of((replica.closed() for replica in replicas), Deadline(WORK_S))
        late = [replica for replica, up_to in zip(replicas, closed, strict=True) if up_to < stamp]
        await asyncio.gather(*(self.barriers.round(collection, replica.shard) for replica in late))

    async def close(self, collection: Collection) -> None:
        """Closes the shards of a collection that is about to be deleted, so that its last moments can be read; if that works."""
        with suppress(JournalError, NotCaughtUp, ShardUnavailable, ShardClosed):
            await self._close(collection, self.replicas(collection), self.clock.last)

    def _clock(self) -> float:
        return float("inf") if self.given_up.is_set() else time.monotonic()

    def deadline(self, request: ApiRequest) -> Deadline:
        """The deadline of work in the pool that begins now: the request's `timeout`, or that of every read."""
        return Deadline(request.timeout_s or self.timeouts.work_s, self._clock)

    async def pin_now(self, collection: Collection) -> Pinned:
        """Pins the current shards of a collection, for a write that depends on them."""
        return await pin(collection, self.replicas(collection), {}, 0, WORK_S, pool_of(self.executor), self._clock)

    async def find(self, request: ApiRequest, name: str) -> Collection:
        """The collection with that name or alias. If it is unknown, catches up with the catalog first. Raises NotFound."""
        if (collection := self.catalog.find(name)) is None:
            await self.catch_up_catalog(request)
            collection = self.catalog.find(name)
        return _found(collection, name)

    async def find_or_retry(self, request: ApiRequest, name: str) -> Collection | None:
        """As `find`, for a command. None if this may be a retry, of a command that was done before the collection was deleted."""
        try:
            return await self.find(request, name)
        except NotFound:
            if request.origin.idempotency_key:
                return None
            raise

    async def catch_up_catalog(self, request: ApiRequest, staleness_ms: int = 0) -> None:
        """Returns when all catalog commands are applied that were in the log at the time of the call, or that long before."""
        system = self.topics.system_partition
        required = await self.gate.required(Demand(Consistency.BOUNDED, {}, max(0, staleness_ms)))
        await self.gate.reached({system: required.get(system, 0)}, request.timeout_s or self.timeouts.wait_s)

    def replicas(self, collection: Collection) -> list[Replica]:
        """A replica of each shard of a collection."""
        shards = self.shards.of(collection.id)
        if not shards:
            if collection.id in self.catalog.by_id:
                raise Unavailable("the collection's state is being opened", retry_after_s=1.0)
            _found(None, collection.name)
        return self._made(shards)

    def _made(self, shards: Sequence[Shard]) -> list[Replica]:
        return [self.make_replica(shard, self.replayer.applied, self.gate, self.executor) for shard in shards]

    async def statuses(self, collection: Collection) -> list[ShardStatus]:
        """The counts of each served shard of a collection."""
        replicas = self._made(self.shards.served(collection.id))
        return await all_of((replica.status() for replica in replicas), Deadline(WORK_S))

    async def held_for(self, collection: Collection, stamps: Sequence[int]) -> list[int]:
        """For each of some tagged stamps: the estimated bytes that are kept for it beyond the retention."""
        replicas = self._made(self.shards.served(collection.id))
        told = await all_of((replica.held_for(stamps) for replica in replicas), Deadline(WORK_S))
        return [sum(sizes) for sizes in zip(*told, strict=True)] if told else [0] * len(stamps)

    async def segments(self, collection: Collection) -> list[tuple[int, dict[str, SegmentList]]]:
        """The number of each served shard of a collection, and its segments by vector name."""
        replicas = self._made(self.shards.served(collection.id))
        told = await all_of((replica.segments() for replica in replicas), Deadline(WORK_S))
        return [(replica.shard, segments) for replica, segments in zip(replicas, told, strict=True)]

    async def sizes(self, collection: Collection) -> list[dict[str, int]]:
        """Bytes by part, for each served shard of a collection."""
        replicas = self._made(self.shards.served(collection.id))
        return await all_of((replica.sizes() for replica in replicas), Deadline(WORK_S))

    def check_answer(self, points: int, field: str) -> None:
        """Refuses an answer of too many points (or pairs of points, or values); `field` of the request asks for them."""
        if points > self.max_answer_points:
            raise BoundError(
                f"{field}: the answer has more than {self.max_answer_points} points, the bound of an answer (max_answer_points); "
                "ask for fewer, and for the rest in further requests"
            )

    async def where(self, request: ApiRequest, condition: Condition | None) -> Where | None:
        """Compiles a filter of the request. Raises FilterError."""
        if condition is None:
            return None
        return await self.offload(len(request.content) <= LARGE_BODY_BYTES, partial(where, condition))

    async def offload(self, quick: bool, work: Callable[[], T]) -> T:
        """Runs work in the thread pool, unless it is `quick` (about a millisecond at most)."""
        return work() if quick else await asyncio.get_running_loop().run_in_executor(self.executor, work)

    def _check_replayed(self, response: Response, level: Consistency) -> None:
        """Refuses reads until this node has replayed the log as of its start; eventual reads are answered with a note."""
        if self.replayer.caught_up():
            return
        if not self.replayer.applied.get():
            raise Unavailable("this node is opening its state", retry_after_s=1.0)
        done, total = self.replayer.behind()
        if level is not Consistency.EVENTUAL:
            raise Unavailable(f"this node is replaying the log: {done} of {total} records are applied", retry_after_s=1.0)
        response.note = f"; replayed={done}/{total}"

    def _level(self, request: ApiRequest, collection: Collection) -> Consistency:
        asked = _params(request).consistency
        if asked is None:
            return collection.config.consistency
        if (copies := number_of(asked)) is not None:
            return Consistency.STRONG if copies > 1 else collection.config.consistency
        if asked not in _LEVELS:
            raise BadRequest(f"consistency {asked[:32]!r} must be one of {', '.join(_LEVELS)}, or a number of replicas")
        return _LEVELS[asked]


def _params(request: ApiRequest) -> ReadParams:
    return request.params if isinstance(request.params, ReadParams) else _DEFAULTS


_DEFAULTS = ReadParams()


def _found(what: T | None, name: str) -> T:
    if what is None:
        raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
    return what
