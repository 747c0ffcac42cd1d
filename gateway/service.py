"""What a handler works with: the node's parts, and one request's way through them.

`Service` is the node as the gateway sees it. `Call` is one request: its typed body and parameters, the client's token, the
consistency it asks for, and what the answer will say about positions.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from catalog.catalog import Outcome, Verdict
from catalog.collection import Collection, Consistency
from gateway.admission.budget import Budget
from gateway.admission.strict_mode import RateLimiter
from gateway.dialect.bodies import ReadParams, UpsertBody
from gateway.dialect.bulk_parser import BulkParser
from gateway.dialect.upserts import GivenUpsert, given_upsert
from gateway.http.errors import BadRequest, Conflict, NotFound, Unavailable
from gateway.result_cache import ResultCache
from journal.hlc import Clock
from journal.log import Indefinite, Journal, JournalError, Positions, TopicPartition
from journal.records import CatalogOperation, Delete, PointOperation, UnsetVectors
from journal.token import Token, merge
from journal.topics import INGEST_PARTITIONS, Topics
from journal.writer import Destination, Receipt, Request, Writer
from query.consistency import Demand, Gate, NotCaughtUp
from query.search import NO_TRACE, Trace
from replayer.ingest.member import Ingest
from replayer.lag import Measured
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.contract import contract_error
from shard.shard import Shard
from shard.shards import Shards, ShardUnavailable

T = TypeVar("T")

QUICK_WRITES = 50
"""Points that are checked and encoded on the event loop; more by a thread of the pool."""

RESULT_CACHE_BYTES = 16 << 20

MAX_SESSIONS = 10_000
"""API keys whose last position is remembered; the least recently used leave."""

_LEVELS = {
    **{level.value: level for level in Consistency},
    "majority": Consistency.STRONG,
    "quorum": Consistency.STRONG,
    "all": Consistency.STRONG,
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on waiting, in seconds."""

    append_s: float = 5.0
    read_s: float = 5.0
    apply_s: float = 30.0


class Sessions:
    """The last position of each API key, for clients that hand back neither header nor cookie."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, Token] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, api_key: str) -> Token | None:
        return self._tokens.get(api_key)

    def advance(self, api_key: str, token: Token) -> None:
        with self._lock:
            known = self._tokens.pop(api_key, None)
            self._tokens[api_key] = token if known is None else merge([known, token])
            if len(self._tokens) > MAX_SESSIONS:
                self._tokens.popitem(last=False)


@dataclass(slots=True)
class Service:
    """The node, as the gateway sees it. Belongs to one event loop; what loops share is thread-safe."""

    journal: Journal
    topics: Topics
    clock: Clock
    writer: Writer
    replayer: Replayer
    ingest: Ingest
    shards: Shards
    gate: Gate
    pool: ThreadPoolExecutor
    bulk_parser: BulkParser
    budget: Budget
    node: str
    version: str
    timeouts: Timeouts = field(default_factory=Timeouts)
    sessions: Sessions = field(default_factory=Sessions)
    results: ResultCache = field(default_factory=lambda: ResultCache(RESULT_CACHE_BYTES))
    running: dict[Hashable, asyncio.Future[bytes]] = field(default_factory=dict)
    """Searches that run now, for those that ask the same meanwhile."""
    rates: dict[tuple[int, str], RateLimiter] = field(default_factory=dict)
    """Of collections that limit them, by id and limit."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    stopping: threading.Event = field(default_factory=threading.Event)
    homes_by_id: dict[int, frozenset[TopicPartition]] = field(default_factory=dict)

    def on_this_loop(self) -> Service:
        """The same node for another event loop."""
        gate = Gate(self.journal, self.topics, self.replayer.applied, self.timeouts.read_s)
        return replace(self, gate=gate, running={})

    def ready(self) -> bool:
        """Whether this node has replayed what the log held at its start, and is not on its way out.

        Shards in quarantine do not change that while others are served.
        """
        served = bool(self.shards.all()) or not self.shards.quarantined()
        return not self.stopping.is_set() and self.replayer.failure is None and self.replayer.caught_up() and served

    def letters(self) -> DeadLetters:
        """The dead letters, less those that have been kept long enough."""
        letters = self.replayer.letters
        letters.expire(self.clock.physical_ms(), self.replayer.catalog.view.collections)
        return letters

    def homes(self, collection: Collection) -> frozenset[TopicPartition]:
        """The partitions that hold the collection's points."""
        found = self.homes_by_id.get(collection.id)
        if found is None:
            found = frozenset(partition for home in collection.homes for partition in self.topics.home_partitions(home))
            self.homes_by_id[collection.id] = found
        return found

    def buried(self) -> int:
        """Records that this node has written to the dead letters."""
        return self.replayer.buried + self.ingest.dead

    def measured_lag(self) -> dict[TopicPartition, Measured]:
        """How far the replay is behind, by partition; nothing when the log cannot be asked."""
        applied = self.replayer.applied.get()
        try:
            ends = self.journal.end_offsets(list(applied))
        except JournalError:
            return {}
        return self.replayer.lag.measure(ends, applied, self.clock.physical_ms())

    def ingest_lag(self) -> Positions:
        """Records of the ingest topic that are not written yet, by partition; nothing when the log cannot be asked."""
        partitions = [TopicPartition(self.topics.ingest, number) for number in range(INGEST_PARTITIONS)]
        try:
            ends = self.journal.end_offsets(partitions)
            done = self.journal.start_offsets(partitions) | self.journal.committed(self.ingest.group, partitions)
        except JournalError:
            return {}
        return {partition: max(0, end - done[partition]) for partition, end in ends.items()}


@dataclass(slots=True)
class Call:
    """One request."""

    service: Service
    path: dict[str, str]
    params: Any
    body: Any
    content: bytes
    request: Request
    token: Token
    tier: int
    api_key: str = ""
    wrote: Token | None = None
    served: Positions | None = None
    level: Consistency | None = None
    waited_s: float = 0.0
    hints: list[str] = field(default_factory=list)
    packed: bool = False
    trace: Trace = NO_TRACE
    pooled: bool = False
    acknowledged_s: float | None = None

    # Reads.

    async def read(self, name: str, level: Consistency | None = None) -> tuple[Collection, list[Shard]]:
        """The collection and its shards, once they are as new as the request demands, or as `level` does."""
        service = self.service
        started_s = time.perf_counter()
        collection = await self.find(name)
        self.level = level or self._level(collection)
        demand = Demand(self.level, self.token.positions, self._params().max_staleness_ms)
        homes = service.homes(collection)
        if required := await service.gate.required(demand):
            timeout_s = self._timeout_s(service.timeouts.read_s)
            system = service.topics.system_partition
            if system in required:
                await service.gate.reached({system: required[system]}, timeout_s)
                collection = _found(self._known(name), name)
                homes = service.homes(collection)
            await service.gate.reached({p: offset for p, offset in required.items() if p in homes}, timeout_s)
        if not (applied := service.replayer.applied.get()):
            raise Unavailable("the node is opening its state", retry_after_s=1.0)
        self.served = (self.served or {}) | {partition: applied[partition] for partition in homes}
        self.waited_s = time.perf_counter() - started_s
        return collection, self.shards(collection)

    async def find(self, name: str) -> Collection:
        """The collection of that name or alias; a node that does not know it asks the log before it says so."""
        if (collection := self._known(name)) is None:
            await self.catch_up_catalog()
            collection = self._known(name)
        return _found(collection, name)

    async def catch_up_catalog(self) -> None:
        """Returns once all catalog commands are applied that the log held when this was called."""
        system = self.service.topics.system_partition
        required = await self.service.gate.required(Demand(Consistency.STRONG, {}))
        await self.service.gate.reached({system: required.get(system, 0)}, self._timeout_s(self.service.timeouts.read_s))

    def shards(self, collection: Collection) -> list[Shard]:
        """The open shards of a collection."""
        if shards := self.service.shards.of(collection.id):
            return shards
        if collection.id in self.service.replayer.catalog.view.by_id:
            raise Unavailable("the collection's state is being opened", retry_after_s=1.0)
        return _found(None, collection.name)

    async def in_pool(self, work: Callable[..., T], *args: Any) -> T:
        """Runs a longer read in the pool."""
        self.pooled = True
        return await asyncio.get_running_loop().run_in_executor(self.service.pool, partial(work, *args))

    # Writes.

    async def given_upsert(self, kind: type[UpsertBody]) -> GivenUpsert:
        """What the body asks for; a large one is read by the helper process."""
        if self.body is not None:
            return given_upsert(self.body, self.packed)
        return await asyncio.wrap_future(self.service.bulk_parser.parse(self.content, self.packed, kind))

    async def write(self, collection: Collection, *operations: PointOperation) -> dict[str, object]:
        """Writes operations on points; with `wait` returns once they are applied here. Gives the dialect's update result."""
        if not any(operation.ids for operation in operations):
            return {"operation_id": 0, "status": "completed"}
        self.service.shards.of(collection.id)  # raises when one of them is in quarantine
        if sum(len(operation.ids) for operation in operations) > QUICK_WRITES:
            loop = asyncio.get_running_loop()
            writing = await loop.run_in_executor(self.service.pool, self._begin, collection, operations)
        else:
            writing = self._begin(collection, operations)
        receipt = await self._acknowledged(writing)
        offset = receipt.written[-1].appended.offset
        if self.params.wait:
            try:
                await self.service.gate.reached(receipt.token().positions, self._timeout_s(self.service.timeouts.apply_s))
                self.service.shards.of(collection.id)  # one in quarantine has not applied it
            except (NotCaughtUp, ShardUnavailable):
                return {"operation_id": offset, "status": "acknowledged"}  # durable, and the token tells where
        return {"operation_id": offset, "status": "completed" if self.params.wait else "acknowledged"}

    def _begin(self, collection: Collection, operations: Sequence[PointOperation]) -> Future[Receipt]:
        """Checks operations and hands them to the journal. From any thread."""
        for operation in operations:
            if not isinstance(operation, Delete | UnsetVectors):
                self.service.budget.check()
            if error := contract_error(collection, operation):
                raise BadRequest(error)
        view = self.service.replayer.catalog.view
        destination = Destination("", collection.id, view.position, collection.homes)
        return self.service.writer.write_points(destination, operations, self.tier, self.request)

    async def command(self, operation: CatalogOperation) -> Outcome:
        """Writes a catalog command and returns its outcome, decided by replay. Raises for an outcome that is an error."""
        receipt = await self._acknowledged(self.service.writer.write_catalog(operation, self.request))
        await self.service.gate.reached(receipt.token().positions, self._timeout_s(self.service.timeouts.apply_s))
        outcome = self.service.replayer.catalog.outcome(receipt.written[0].appended.offset)
        if outcome is None:
            raise Indefinite("the command is applied, but its outcome is no longer kept")
        match outcome.verdict:
            case Verdict.EXISTS:
                raise Conflict(f"Wrong input: {outcome.text}")
            case Verdict.NOT_FOUND:
                raise NotFound(outcome.text)
            case Verdict.INVALID:
                raise BadRequest(f"Wrong input: {outcome.text}")
        return outcome

    async def _acknowledged(self, future: Future[Receipt]) -> Receipt:
        started_s = time.perf_counter()
        try:
            receipt = await asyncio.wait_for(asyncio.wrap_future(future), self.service.timeouts.append_s)
        except TimeoutError:
            raise Indefinite(f"no acknowledgement within {self.service.timeouts.append_s} s") from None
        self.acknowledged_s = time.perf_counter() - started_s
        self.wrote = receipt.token()
        return receipt

    # Parameters.

    def _level(self, collection: Collection) -> Consistency:
        asked = self._params().consistency
        if asked is None:
            return collection.config.consistency
        if asked.isdigit():
            return Consistency.STRONG if int(asked) > 1 else collection.config.consistency
        if asked not in _LEVELS:
            raise BadRequest(f"consistency {asked[:32]!r} must be one of {', '.join(_LEVELS)}, or a number of replicas")
        return _LEVELS[asked]

    def _params(self) -> ReadParams:
        return self.params if isinstance(self.params, ReadParams) else ReadParams()

    def _timeout_s(self, default_s: float) -> float:
        return getattr(self.params, "timeout", None) or default_s

    def _known(self, name: str) -> Collection | None:
        return self.service.replayer.catalog.view.find(name)


def _found(what: T | None, name: str) -> T:
    if what is None:
        raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
    return what
