"""A replica that encodes and decodes every request and every result on its way, as one on another node would (I13).

What it is asked, and what it answers, is made of bytes: nothing in this process can be meant by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from journal.log import Positions, TopicPartition
from journal.records import Vectors
from shard.deadline import Deadline
from shard.filters.where import Where
from shard.ranking.formula import Formula
from shard.ranking.rankings import Ranking
from shard.replica import (
    Answer,
    AsOf,
    Attempted,
    Changes,
    Cursor,
    FacetCount,
    Held,
    Lease,
    Outcome,
    PayloadPart,
    Points,
    RankedPoints,
    Replica,
    ShardStatus,
    Terms,
)
from shard.vectors.index import SegmentList
from shard.wire import decode, encode

T = TypeVar("T")


def passed(value: Any, kind: Any) -> Any:
    """A value as it arrives on the other side."""
    return decode(encode(value), kind)


def answered(answer: Answer[Any], kind: Any) -> Answer[Any]:
    """An answer as it comes back. To cancel it cancels the inner one."""

    async def later(awaitable: Awaitable[Any]) -> Any:
        return passed(await awaitable, kind)

    return asyncio.ensure_future(later(answer)) if isinstance(answer, Awaitable) else passed(answer, kind)


def _passed_positions(positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    sent = passed([(*partition, offset) for partition, offset in positions.items()], list[tuple[str, int, int]])
    return {TopicPartition(topic, number): at for topic, number, at in sent}


class EncodingReplica:
    def __init__(self, inner: Replica) -> None:
        self.shard = inner.shard
        self._inner = inner

    def read(self, positions: Mapping[TopicPartition, int], wait_s: float, as_of: AsOf | None = None) -> Answer[Lease]:
        if as_of is not None:
            as_of = msgspec.structs.replace(
                passed(msgspec.structs.replace(as_of, positions=None), AsOf),
                positions=None if as_of.positions is None else _passed_positions(as_of.positions),
            )
        answer = self._inner.read(_passed_positions(positions), wait_s, as_of)

        async def later(awaitable: Awaitable[Lease]) -> Lease:
            return EncodingLease(await awaitable)

        return asyncio.ensure_future(later(answer)) if isinstance(answer, Awaitable) else EncodingLease(answer)

    def outcome(self, tier: int, offsets: Sequence[int]) -> Answer[Outcome | None]:
        return answered(self._inner.outcome(*passed((tier, offsets), tuple[int, list[int]])), Outcome | None)

    def attempted(self, tier: int, key: str) -> Answer[Attempted | None]:
        return answered(self._inner.attempted(*passed((tier, key), tuple[int, str])), Attempted | None)

    def closed(self) -> Answer[int]:
        return answered(self._inner.closed(), int)

    def held_for(self, stamps: Sequence[int]) -> Answer[list[int]]:
        return answered(self._inner.held_for(passed(stamps, list[int])), list[int])

    def status(self) -> Answer[ShardStatus]:
        return answered(self._inner.status(), ShardStatus)

    def segments(self) -> Answer[dict[str, SegmentList]]:
        return answered(self._inner.segments(), dict[str, SegmentList])

    def sizes(self) -> Answer[dict[str, int]]:
        return answered(self._inner.sizes(), dict[str, int])


class EncodingLease:
    def __init__(self, inner: Lease) -> None:
        self._inner = inner
        self.shard = inner.shard

    @property
    def version(self) -> Hashable:
        return self._inner.version

    @property
    def positions(self) -> Positions:
        return self._inner.positions

    def begin(self, deadline: Deadline) -> None:
        self._inner.begin(deadline)

    def rank(self, ranking: Ranking, among: Sequence[bytes] | None = None) -> Answer[RankedPoints]:
        sent = passed((ranking, among), tuple[Ranking, list[bytes] | None])
        return answered(self._inner.rank(*sent), RankedPoints)

    def score(self, formula: Formula, ids: Sequence[bytes], scores: Sequence[Sequence[float | None]]) -> Answer[Vectors]:
        sent = passed((formula, ids, scores), tuple[Formula, list[bytes], list[list[float | None]]])
        return answered(self._inner.score(*sent), Vectors)

    def terms(self, name: str, indexes: Sequence[int], where: Where | None) -> Answer[Terms]:
        return answered(self._inner.terms(*passed((name, indexes, where), tuple[str, list[int], Where | None])), Terms)

    def fetch(
        self, ids: Sequence[bytes], payload: PayloadPart | None = None, vectors: bool | Sequence[str] = False
    ) -> Answer[Points]:
        sent = passed((ids, payload, vectors), tuple[list[bytes], PayloadPart | None, bool | list[str]])
        return answered(self._inner.fetch(*sent), Points)

    def values(self, ids: Sequence[bytes], key: str) -> Answer[list[list[Any]]]:
        return answered(self._inner.values(*passed((ids, key), tuple[list[bytes], str])), list[list[Any]])

    def count(self, where: Where | None) -> Answer[int]:
        return answered(self._inner.count(passed(where, Where | None)), int)

    def facet(self, key: str, where: Where | None) -> Answer[list[FacetCount]]:
        return answered(self._inner.facet(*passed((key, where), tuple[str, Where | None])), list[FacetCount])

    def history(self, point_id: bytes, before: int, limit: int, vectors: bool | Sequence[str] = False) -> Answer[Changes]:
        sent = passed((point_id, before, limit, vectors), tuple[bytes, int, int, bool | list[str]])
        return answered(self._inner.history(*sent), Changes)

    def changes(
        self,
        after: Cursor,
        until: int,
        limit: int,
        where: Where | None = None,
        vectors: bool | Sequence[str] = False,
        with_before: bool = False,
    ) -> Answer[Changes]:
        kind = tuple[Cursor, int, int, Where | None, bool | list[str], bool]
        return answered(self._inner.changes(*passed((after, until, limit, where, vectors, with_before), kind)), Changes)

    def held(self) -> Answer[Held]:
        return answered(self._inner.held(), Held)
