"""Writes that depend on what is stored: decided from a read, written with conditions, and decided anew where these do not hold.

One round: read, decide, write records that name the version of each point that was read, wait until their outcome is final, which
means that the shards are closed up to their stamps (I7). The next round is about the points that had changed meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from prometheus_client import Counter

from catalog.collection import Collection, Consistency
from gateway.barriers import Barriers
from gateway.http.errors import ApiError, Conflict, Unavailable
from gateway.reads import ReadService
from gateway.request import ApiRequest, Response
from gateway.turns import MAX_POINTS, TooManyWaiting, Turns
from gateway.writes import APPLY_S, UpdateResult, WriteService
from journal.log import Definite, Indefinite, JournalError
from journal.split import take
from journal.topics import shard_of
from journal.writer import Decided, Written, operation_key
from query.consistency import NotCaughtUp
from query.pinned import Pinned, all_of
from shard.deadline import Deadline, DeadlineExceeded
from shard.replica import Answer, Closable, Replica
from shard.shard import ShardClosed
from shard.shards import ShardUnavailable

MAX_ROUNDS = 20
"""How often a request is decided before it gives up."""

MAX_BACKOFF_S = 0.1
UNKNOWN_OUTCOME = (JournalError, NotCaughtUp, ShardUnavailable, ShardClosed, DeadlineExceeded, TimeoutError)
"""What may happen to a record that is already in the log, before its outcome is known."""

POINTS_PER_STEP = 250
"""Points that are written at once: the next ones are written when these are applied, so that other writes get in between."""

ROUNDS = Counter("vecraft_decided_rounds", "Rounds of writes that depend on what is stored.", ["outcome"])

Decide = Callable[[Pinned, Sequence[bytes] | None], Awaitable[Sequence[Decided]]]
"""(pinned, among) -> the operations, each on distinct ids. `among`: decide only about these points; None in the first round."""


class _Ended(msgspec.Struct):
    """How a request ended, for its retries: its answer, or the status and text of its error."""

    answer: UpdateResult = {}
    status: int = 200
    error: str = ""

    def repeat(self) -> UpdateResult:
        """The answer of the first attempt. Raises ApiError when that was an error."""
        if self.error:
            raise AnsweredError(self.status, self.error)
        return self.answer


class AnsweredError(ApiError):
    """The error with which the first attempt of a request was answered."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Request:
    """One request during its rounds."""

    def __init__(self, request: ApiRequest, response: Response, collection: Collection) -> None:
        self.request = request
        self.response = response
        self.collection = collection
        self.key = operation_key(request.origin)
        self.attempt = 0
        self.changed = 0
        self.last_offset = 0
        self._deadline_s = time.monotonic() + (request.timeout_s or APPLY_S)

    def left_s(self) -> float:
        """The time that is left."""
        return max(0.0, self._deadline_s - time.monotonic())

    def shard_of_key(self) -> int:
        """The shard that keeps the result."""
        return zlib.crc32(self.key.encode()) % len(self.collection.homes)


@dataclass(frozen=True, slots=True)
class DecidedWrites:
    """Belongs to one event loop; `turns` are shared by all loops."""

    reads: ReadService
    writes: WriteService
    turns: Turns
    barriers: Barriers

    def on_this_loop(self, reads: ReadService, writes: WriteService) -> DecidedWrites:
        """The same for the running event loop, with its services."""
        return DecidedWrites(reads, writes, self.turns, Barriers(writes.write_barriers))

    async def write(
        self,
        request: ApiRequest,
        response: Response,
        collection: Collection,
        decide: Decide,
        ids: Sequence[bytes] | None = None,
        conclude: Callable[[UpdateResult], UpdateResult] = lambda answer: answer,
    ) -> UpdateResult:
        """Writes what `decide` decides. Returns when the outcome is final, whether or not the client waits.

        `ids` are the points it may decide about, if the request names them. `conclude` makes the answer of it, or raises an
        ApiError. Raises Conflict when points keep changing, and Indefinite when the outcome is not known.
        """
        mine = _Request(request, response, collection)
        try:
            ended = await self._rounds(mine, decide, ids)
        except Exception as error:
            if mine.changed:
                error.add_note(f"{mine.changed} points were changed before")
            raise
        return await self._end(mine, conclude) if ended is None else ended.repeat()

    async def _rounds(self, mine: _Request, decide: Decide, ids: Sequence[bytes] | None) -> _Ended | None:
        """Decides until all is done. Returns how an earlier attempt ended, if it has: then this one does nothing."""
        among, failed = ids, list[bytes]()
        for number in range(MAX_ROUNDS):
            async with self._turn(mine, among):
                pinned = await self.reads.pin(
                    mine.request, mine.response, mine.collection.name, Consistency.STRONG, for_write=True
                )
                done, ended = await self._earlier_attempts(mine, number)
                if ended is not None:
                    return ended
                decisions = await decide(pinned, among if number else None)
                failed = await self._write(mine, await pinned.run(_count(decisions), partial(_without, decisions, done)))
            ROUNDS.labels("repeated" if failed else "final").inc()
            if not failed:
                return None
            among = failed
            await asyncio.sleep(random.uniform(0, min(MAX_BACKOFF_S, 0.001 * 2**number)))
        raise Conflict(
            f"{len(failed)} points were changed by others each of the {MAX_ROUNDS} times that this was decided; they are not "
            "changed by this request"
        )

    async def _pinned(self, mine: _Request) -> Pinned:
        """A strong read: it sees all writes that were acknowledged before."""
        pinned = await self.reads.pin(mine.request, mine.response, mine.collection.name, Consistency.STRONG, for_write=True)
        if pinned.collection.id != mine.collection.id:
            raise Conflict("the collection was replaced meanwhile by another of the same name")
        return pinned

    @asynccontextmanager
    async def _turn(self, mine: _Request, ids: Sequence[bytes] | None) -> AsyncIterator[None]:
        if ids is None or len(ids) > MAX_POINTS:
            yield
            return
        try:
            async with self.turns.take([(mine.collection.id, id_) for id_ in ids], mine.left_s()):
                yield
        except TooManyWaiting as error:
            raise Unavailable(str(error), retry_after_s=1.0) from error

    async def _earlier_attempts(self, mine: _Request, number: int) -> tuple[set[bytes], _Ended | None]:
        """The points that earlier attempts of the request have changed, and how it ended, if it has."""
        done: set[bytes] = set()
        if not mine.key:
            return done, None
        for replica in self.reads.replicas(mine.collection):
            known = await self._final(mine, replica, partial(replica.attempted, mine.request.tier, mine.key))
            if known is None:
                continue
            if known.result is not None and replica.shard == mine.shard_of_key():
                return done, msgspec.json.decode(known.result, type=_Ended)
            if number == 0:
                mine.attempt = max(mine.attempt, known.number + 1)
            elif known.number > mine.attempt or (known.number == mine.attempt and known.request_id != mine.request.origin.id):
                raise _superseded()
            done.update(known.done)
        return done, None

    async def _write(self, mine: _Request, decisions: Sequence[Decided]) -> list[bytes]:
        """Writes decisions, and waits until their outcome is final. Returns the points whose conditions did not hold."""
        steps = list(_steps(decisions))
        written: list[Written] = []
        closing: list[asyncio.Task[None]] = []
        try:
            for number, step in enumerate(steps):
                writing = await self.writes.begin_decided(mine.request, mine.collection, step, mine.attempt)
                if number == len(steps) - 1:  # barriers may go out together with the last records
                    shards = {shard_of(id_, len(mine.collection.homes)) for one in step for id_ in one.operation.ids}
                    shards |= {record.shard for record in written}
                    closing = [asyncio.create_task(self._round_of_barriers(mine, shard)) for shard in shards]
                receipt = await self.writes.acknowledged(mine.response, writing)
                written += receipt.written
                await self.writes.gate.reached(receipt.token().positions, mine.left_s())
            await asyncio.gather(*closing)
            failed = await self._failed(mine, written)
        except UNKNOWN_OUTCOME as error:
            if not written and isinstance(error, Definite):
                raise
            raise Indefinite(f"the outcome is not known yet: {error}; a retry with the same Idempotency-Key gets it") from error
        finally:
            for task in closing:
                task.cancel()
        if written:
            mine.last_offset = written[-1].appended.offset
        mine.changed += _count(decisions) - len(failed)
        return failed

    async def _failed(self, mine: _Request, written: Iterable[Written]) -> list[bytes]:
        by_shard: dict[int, list[int]] = {}
        for record in written:
            by_shard.setdefault(record.shard, []).append(record.appended.offset)
        failed: list[bytes] = []
        for replica in self.reads.replicas(mine.collection):
            if offsets := by_shard.get(replica.shard):
                outcome = await self._final(mine, replica, partial(replica.outcome, mine.request.tier, offsets))
                if outcome is None:
                    raise _superseded()
                failed += outcome.failed
        return failed

    async def _final(self, mine: _Request, replica: Replica, ask: Callable[[], Answer[Closable | None]]) -> Any:
        """What a replica answers about decisions, when they are final: not before the shard is closed up to their stamps."""
        while True:
            (found,) = await all_of([ask()], Deadline(mine.left_s()))
            if found is None or found.stamp <= found.closed:
                return found
            await self._round_of_barriers(mine, replica.shard)

    async def _round_of_barriers(self, mine: _Request, shard: int) -> None:
        async with asyncio.timeout(mine.left_s()):
            await self.barriers.round(mine.collection, shard, mine.request.tier)

    async def _end(self, mine: _Request, conclude: Callable[[UpdateResult], UpdateResult]) -> UpdateResult:
        """The answer; for a request with an idempotency key it is written to the log first, for retries."""
        status = "completed" if mine.request.params.wait else "acknowledged"
        error: ApiError | None = None
        answer: UpdateResult = {"operation_id": mine.last_offset, "status": status}
        try:
            answer = conclude(answer)
        except ApiError as failed:
            error = failed
        if mine.key:
            ended = _Ended(answer) if error is None else _Ended(status=error.status, error=str(error))
            writing = self.writes.begin_result(
                mine.request, mine.collection, mine.shard_of_key(), msgspec.json.encode(ended), mine.attempt
            )
            await self.writes.acknowledged(mine.response, writing)
        if error is not None:
            raise error
        return answer


def _superseded() -> Conflict:
    return Conflict("another attempt of the request with this Idempotency-Key has taken over; its answer holds")


def _count(decisions: Sequence[Decided]) -> int:
    return sum(len(decided.expected) for decided in decisions)


def _without(decisions: Sequence[Decided], done: set[bytes]) -> Sequence[Decided]:
    """The decisions about all points but these."""
    if not done:
        return decisions
    kept = [(one, [at for at, id_ in enumerate(one.operation.ids) if id_ not in done]) for one in decisions]
    return [_take(one, at) for one, at in kept]


def _steps(decisions: Sequence[Decided]) -> Iterable[list[Decided]]:
    """The decisions in steps of at most POINTS_PER_STEP points."""
    step: list[Decided] = []
    room = POINTS_PER_STEP
    for decided in decisions:
        start, count = 0, len(decided.expected)
        while start < count:
            part = range(start, min(count, start + room))
            step.append(decided if len(part) == count else _take(decided, part))
            room -= len(part)
            start = part.stop
            if not room:
                yield step
                step, room = [], POINTS_PER_STEP
    if step:
        yield step


def _take(decided: Decided, indexes: Sequence[int]) -> Decided:
    return Decided(take(decided.operation, indexes), [decided.expected[at] for at in indexes])
