"""The write service: appends operations to the journal, and waits until they are acknowledged or applied, as requested."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial

from catalog.catalog import Outcome, OutcomeKind
from catalog.collection import Collection
from gateway.admission.budget import Budget
from gateway.dialect.bodies import UpsertBody
from gateway.dialect.bulk_parser import LARGE_BODY_BYTES, BulkParser
from gateway.dialect.upserts import ParsedUpsert, parse_upsert
from gateway.http.errors import BadRequest, Conflict, NotFound
from gateway.request import ApiRequest, Response
from journal.log import Indefinite
from journal.records import CatalogOperation, Delete, PointOperation, UnsetVectors
from journal.writer import Decided, Destination, Origin, PartlyWritten, Receipt, Writer
from query.consistency import Gate, NotCaughtUp
from replayer.replayer import Replayer
from shard.contract import contract_error
from shard.shards import Shards, ShardUnavailable

UpdateResult = dict[str, object]
"""The dialect's answer to a write."""

QUICK_WRITES = 50
"""Up to this many points are checked and encoded on the event loop; more in the thread pool."""

BARRIER = Origin("")
"""Barriers belong to no request."""

APPLY_S = 30.0
"""How long a write with `wait` waits to be applied, if the client gives no timeout."""


@dataclass(frozen=True, slots=True)
class WriteService:
    """Belongs to one event loop."""

    replayer: Replayer
    shards: Shards
    gate: Gate
    writer: Writer
    executor: Executor
    bulk_parser: BulkParser
    budget: Budget
    append_s: float

    async def parse_upsert(self, request: ApiRequest, kind: type[UpsertBody]) -> ParsedUpsert:
        """Parses the body of an upsert; a large one in the process for bulk bodies."""
        if request.body is not None:
            return parse_upsert(request.body, request.packed)
        return await asyncio.wrap_future(self.bulk_parser.parse(request.content, request.packed, kind))

    async def write(
        self, request: ApiRequest, response: Response, collection: Collection, *operations: PointOperation
    ) -> UpdateResult:
        """Writes operations on points. With `wait` it returns when they are applied on this node."""
        if not any(operation.ids for operation in operations):
            return {"operation_id": 0, "status": "completed"}
        self.shards.of(collection.id)  # raises ShardUnavailable when one of them is in quarantine
        many = sum(len(operation.ids) for operation in operations) > QUICK_WRITES
        if many or len(request.content) > LARGE_BODY_BYTES:
            loop = asyncio.get_running_loop()
            writing = await loop.run_in_executor(self.executor, self._begin, request, collection, operations)
        else:
            writing = self._begin(request, collection, operations)
        receipt = await self.acknowledged(response, writing)
        offset = receipt.written[-1].appended.offset
        if request.params.wait:
            try:
                await self.gate.reached(receipt.token().positions, request.timeout_s or APPLY_S)
                self.shards.of(collection.id)  # one in quarantine has not applied it
            except (NotCaughtUp, ShardUnavailable):
                return {"operation_id": offset, "status": "acknowledged"}  # durable; its position is in the token
        return {"operation_id": offset, "status": "completed" if request.params.wait else "acknowledged"}

    async def begin_decided(
        self, request: ApiRequest, collection: Collection, decisions: Sequence[Decided], attempt: int
    ) -> Future[Receipt]:
        """Checks decided operations and passes them to the journal writer; the result is their acknowledgement."""
        begin = partial(self._begin_decided, request, collection, decisions, attempt)
        if sum(len(decided.expected) for decided in decisions) > QUICK_WRITES:
            return await asyncio.get_running_loop().run_in_executor(self.executor, begin)
        return begin()

    def begin_result(
        self, request: ApiRequest, collection: Collection, shard: int, result: bytes, attempt: int
    ) -> Future[Receipt]:
        """Passes the result of a request to the journal writer, for its retries."""
        return self.writer.write_result(self._destination(collection), shard, request.tier, result, request.origin, attempt)

    async def write_barriers(self, collection: Collection, shard: int, tiers: Sequence[int]) -> None:
        """Writes a barrier to the shard's home partition in each tier. Returns when they are applied here."""
        writing = self.writer.write_barriers(self._destination(collection), shard, tiers, BARRIER)
        receipt = await self._in_time(writing)
        await self.gate.reached(receipt.token().positions, APPLY_S)

    async def command(self, request: ApiRequest, response: Response, operation: CatalogOperation) -> Outcome:
        """Writes a catalog command and returns its outcome, which the replay decides. Raises an ApiError if it was refused."""
        receipt = await self.acknowledged(response, self.writer.write_catalog(operation, request.origin))
        try:
            await self.gate.reached(receipt.token().positions, request.timeout_s or APPLY_S)
        except NotCaughtUp as error:
            raise Indefinite(f"the command is in the log, and its outcome is not known yet: {error}") from error
        outcome = self.replayer.catalog.outcome(receipt.written[0].appended.offset)
        if outcome is None:
            raise Indefinite("the command is applied, but its outcome is no longer kept")
        match outcome.kind:
            case OutcomeKind.EXISTS:
                raise Conflict(f"Wrong input: {outcome.text}")
            case OutcomeKind.NOT_FOUND:
                raise NotFound(outcome.text)
            case OutcomeKind.INVALID:
                raise BadRequest(f"Wrong input: {outcome.text}")
        return outcome

    def _begin(self, request: ApiRequest, collection: Collection, operations: Sequence[PointOperation]) -> Future[Receipt]:
        """Checks operations and passes them to the journal writer. Called from any thread."""
        self._check(collection, operations)
        return self.writer.write_points(self._destination(collection), operations, request.tier, request.origin)

    def _begin_decided(
        self, request: ApiRequest, collection: Collection, decisions: Sequence[Decided], attempt: int
    ) -> Future[Receipt]:
        self._check(collection, [decided.operation for decided in decisions])
        return self.writer.write_decided(self._destination(collection), decisions, request.tier, request.origin, attempt)

    def _check(self, collection: Collection, operations: Sequence[PointOperation]) -> None:
        for operation in operations:
            if not isinstance(operation, Delete | UnsetVectors):
                self.budget.check()
            if error := contract_error(collection, operation):
                raise BadRequest(error)

    def _destination(self, collection: Collection) -> Destination:
        return Destination("", collection.id, self.replayer.catalog.view.position, collection.homes)

    async def acknowledged(self, response: Response, writing: Future[Receipt]) -> Receipt:
        """The receipt, when all records are durable. Raises Indefinite when that takes too long."""
        started_s = time.perf_counter()
        try:
            receipt = await self._in_time(writing)
        except PartlyWritten as error:
            response.wrote_more(error.receipt.token())
            raise
        response.acknowledged_s = time.perf_counter() - started_s
        response.wrote_more(receipt.token())
        return receipt

    async def _in_time(self, writing: Future[Receipt]) -> Receipt:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(writing), self.append_s)
        except TimeoutError:
            raise Indefinite(f"no acknowledgement within {self.append_s} s") from None
