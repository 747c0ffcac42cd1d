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

from catalog.collection import Collection, Consistency
from gateway.barriers import Barriers
from gateway.http.errors import ApiError, Conflict, Unavailable
from gateway.reads import ReadService
from gateway.request import ApiRequest, Response
from gateway.turns import NoTurn, TooManyWaiting, Turns
from gateway.writes import APPLY_S, UpdateResult, WriteService
from journal.log import Definite, Indefinite, JournalError
from journal.split import check_sizes, take
from journal.topics import shard_of
from journal.writer import CONDITION_BYTES, Decided, Written, operation_key
from query.consistency import NotCaughtUp
from query.pinned import Pinned, all_of
from shard.deadline import Deadline, DeadlineExceeded
from shard.replica import Answer, Attempted, Closable, Replica
from shard.shard import ShardClosed
from shard.shards import ShardUnavailable

MAX_ROUNDS = 20
"""How often a request is decided before it gives up."""

MAX_BACKOFF_S = 0.1
OTHERS_CHECK_S = 0.05
ATTEMPT_BITS = 32
UNKNOWN_OUTCOME = (JournalError, NotCaughtUp, ShardUnavailable, ShardClosed, DeadlineExceeded, TimeoutError)
"""What may happen to a record that is already in the log, before its outcome is known."""

MAX_TURN_POINTS = 1000
"""A request that decides about more points takes no turn."""

POINTS_PER_STEP = 250
"""Points that are written at once: the next ones are written when these are applied, so that other writes get in between."""

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


class _Superseded(Exception):
    """A later attempt of the request has begun: this one's further records are ignored."""


class _Request:
    """One request during its rounds."""

    def __init__(self, request: ApiRequest, response: Response, collection: Collection) -> None:
        self.request = request
        self.response = response
        self.collection = collection
        self.key = operation_key(request.origin)
        self.attempt = 0
        self.written = 0
        """Points in the records that are applied, whatever their outcome."""
        self.last_offset = 0
        self._deadline_s = time.monotonic() + (request.timeout_s or APPLY_S)

    def went_on(self) -> None:
        """Each step of a request without a timeout of its own gets APPLY_S, so that a change of many points may take longer."""
        if self.request.timeout_s is None:
            self._deadline_s = time.monotonic() + APPLY_S

    def left_s(self) -> float:
        """The time that is left."""
        return max(0.0, self._deadline_s - time.monotonic())

    def takes_over(self, known: int) -> None:
        """Numbers this attempt above a known one. The lower bits are random: two attempts that begin at once are told apart."""
        self.attempt = (known >> ATTEMPT_BITS) + 1 << ATTEMPT_BITS | random.getrandbits(ATTEMPT_BITS)

    def shard_of_key(self) -> int:
        """The shard that keeps the result."""
        return zlib.crc32(self.key.encode()) % len(self.collection.homes)

    def unknown(self, error: Exception) -> Indefinite:
        """The error for a request whose records are in the log, and whose outcome is not known."""
        retry = "a retry with the same Idempotency-Key gets it" if self.key else "without an Idempotency-Key a retry decides anew"
        return Indefinite(f"the outcome is not known yet: {str(error) or 'the time is over'}; {retry}")


@dataclass(frozen=True, slots=True)
class DecidedWrites:
    """Belongs to one event loop; `turns` are shared by all loops."""

    reads: ReadService
    writes: WriteService
    turns: Turns
    barriers: Barriers

    def on_this_loop(self, reads: ReadService, writes: WriteService) -> DecidedWrites:
        """The same for the running event loop, with its services."""
        return DecidedWrites(reads, writes, self.turns, reads.barriers)

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
            if ended is None:
                ended = await self._end(mine, conclude)
        except _Superseded:
            ended = await self._end_of_others(mine)
        except Exception as error:
            if mine.written:
                error.add_note(f"{mine.written} points of it are written")
            raise
        return ended.repeat()

    async def _rounds(self, mine: _Request, decide: Decide, ids: Sequence[bytes] | None) -> _Ended | None:
        """Decides until all is done. Returns how an earlier attempt ended, if it has: then this one does nothing."""
        among, failed = ids, list[bytes]()
        for number in range(MAX_ROUNDS):
            async with self._turn(mine, among):
                pinned = await self._pinned(mine)
                done, ended = await self._earlier_attempts(mine, number)
                if ended is not None:
                    return ended
                decisions = await decide(pinned, among if number else None)
                failed = await self._write(mine, await pinned.run(_count(decisions), partial(_steps, decisions, done)))
            self.turns.count("repeated" if failed else "final")
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
        if ids is None or len(ids) > MAX_TURN_POINTS:
            yield
            return
        try:
            async with self.turns.take([(mine.collection.id, id_) for id_ in ids], mine.left_s()):
                yield
        except (TooManyWaiting, NoTurn) as error:
            raise Unavailable(f"not written: {error}", retry_after_s=1.0) from error

    async def _earlier_attempts(self, mine: _Request, number: int) -> tuple[set[bytes], _Ended | None]:
        """The points that earlier attempts of the request have changed, and how it ended, if it has."""
        done: set[bytes] = set()
        if not mine.key:
            return done, None
        latest = 0
        for replica in self.reads.replicas(mine.collection):
            known: Attempted | None
            try:
                known = await self._final(mine, replica, partial(replica.attempted, mine.request.tier, mine.key))
            except UNKNOWN_OUTCOME as error:
                raise Unavailable(f"not written: what earlier attempts did is not known: {error}", retry_after_s=1.0) from error
            if known is None:
                continue
            if known.result is not None and replica.shard == mine.shard_of_key():
                return done, msgspec.json.decode(known.result, type=_Ended)
            latest = max(latest, known.number)
            done.update(known.done)
        if number == 0:
            mine.takes_over(latest)
        elif latest > mine.attempt:
            raise _Superseded
        return done, None

    async def _write(self, mine: _Request, steps: Sequence[Sequence[Decided]]) -> list[bytes]:
        """Writes decisions, and waits until their outcome is final. Returns the points whose conditions did not hold."""
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
                mine.written += _count(step)
                mine.went_on()
            await asyncio.gather(*closing)
            failed = await self._failed(mine, written)
        except UNKNOWN_OUTCOME as error:
            if not written and isinstance(error, Definite):
                raise
            raise mine.unknown(error) from error
        finally:
            for task in closing:
                task.cancel()
        if written:
            mine.last_offset = written[-1].appended.offset
        mine.written -= len(failed)
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
                    raise _Superseded
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

    async def _end(self, mine: _Request, conclude: Callable[[UpdateResult], UpdateResult]) -> _Ended:
        """How the request ends. With an idempotency key this is written to the log; of several attempts the first one counts."""
        status = "completed" if mine.request.params.wait else "acknowledged"
        try:
            ended = _Ended(conclude({"operation_id": mine.last_offset, "status": status}))
        except ApiError as error:
            ended = _Ended(status=error.status, error=str(error))
        if not mine.key:
            return ended
        try:
            writing = self.writes.begin_result(
                mine.request, mine.collection, mine.shard_of_key(), msgspec.json.encode(ended), mine.attempt
            )
            receipt = await self.writes.acknowledged(mine.response, writing)
            await self.writes.gate.reached(receipt.token().positions, mine.left_s())
            recorded = await self._recorded(mine)
        except UNKNOWN_OUTCOME as error:
            raise Indefinite(f"all points are written, but not the result for retries: {error}") from error
        if recorded is None:
            raise _Superseded
        return recorded

    async def _recorded(self, mine: _Request) -> _Ended | None:
        """The result of the request, if an attempt has ended."""
        replica = self.reads.replicas(mine.collection)[mine.shard_of_key()]
        (known,) = await all_of([replica.attempted(mine.request.tier, mine.key)], Deadline(mine.left_s()))
        return None if known is None or known.result is None else msgspec.json.decode(known.result, type=_Ended)

    async def _end_of_others(self, mine: _Request) -> _Ended:
        """How a later attempt of this request ends, which has taken over."""
        try:
            while (ended := await self._recorded(mine)) is None:
                if not mine.left_s():
                    raise Indefinite("another attempt of this request has taken over, and has not ended yet")
                await asyncio.sleep(OTHERS_CHECK_S)
        except UNKNOWN_OUTCOME as error:
            raise mine.unknown(error) from error
        return ended


def _count(decisions: Sequence[Decided]) -> int:
    return sum(len(decided.expected) for decided in decisions)


def _without(decisions: Sequence[Decided], done: set[bytes]) -> Sequence[Decided]:
    """The decisions about all points but these."""
    if not done:
        return decisions
    kept = [(one, [at for at, id_ in enumerate(one.operation.ids) if id_ not in done]) for one in decisions]
    return [_take(one, at) for one, at in kept]


def _steps(decisions: Sequence[Decided], done: set[bytes]) -> list[list[Decided]]:
    """The decisions about all points but those that are done, in steps of at most POINTS_PER_STEP points.

    Raises PointTooLarge if one of them cannot be written.
    """
    kept = _without(decisions, done)
    for one in kept:
        check_sizes(one.operation, CONDITION_BYTES)
    return list(_cut(kept))


def _cut(decisions: Sequence[Decided]) -> Iterable[list[Decided]]:
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
