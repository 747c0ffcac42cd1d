"""The replica of a shard in this process. Quick requests run in the caller's thread, others in a thread pool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import orjson
from pyroaring import BitMap

from journal.log import Positions, TopicPartition
from journal.records import Vectors
from journal.stamps import Version
from payload.paths import only, steps_of, values_at, without
from shard.changes import Change, changes, described, history, passing
from shard.deadline import NEVER, Deadline
from shard.filters.subjects import PointSubject
from shard.filters.where import Where
from shard.ranking.execution import Plan, Steps, quick_plan, rank
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
    Pool,
    RankedPoints,
    ShardStatus,
    Terms,
)
from shard.shard import Shard
from shard.shards import AppliedPositions
from shard.store import Row
from shard.vectors.index import SegmentList, finite
from shard.vectors.joined import JoinedView
from shard.vectors.sparse import SparseView
from shard.view import ROWS_PER_STEP, ShardView

T = TypeVar("T")

QUICK_POINTS = 100
"""Up to this many points are fetched in the caller's thread."""

QUICK_RECORDS = 10
"""The outcome of up to this many records is read in the caller's thread."""

CHANGE_STEPS = 10
"""How many times as many changes as are asked for are tested by a filter in one request."""

QUICK_TERMS = 10_000
"""The terms of up to this many sparse vectors are counted in the caller's thread."""

SAMPLED_POINTS = 64
"""The sample of points from which the size of all points is estimated."""

Reached = Callable[[Mapping[TopicPartition, int], float], Awaitable[None]]
"""(positions, timeout_s): returns when everything below the positions is applied. Raises NotCaughtUp after the timeout."""


class LocalReplica:
    """A shard of this process. Without a `pool` all work runs in the caller's thread; without `reached` it does not wait."""

    def __init__(
        self, shard: Shard, applied: AppliedPositions, reached: Reached | None = None, pool: Pool[Any] | None = None
    ) -> None:
        self.shard = shard.number
        self._shard = shard
        self._applied = applied
        self._reached = reached
        self._pool = pool

    def read(self, positions: Mapping[TopicPartition, int], wait_s: float, as_of: AsOf | None = None) -> Answer[Lease]:
        if positions:
            homes = self._shard.home_partitions()
            positions = {partition: offset for partition, offset in positions.items() if partition in homes}
        if self._reached is None or self._applied.covers(positions):
            return self._lease() if as_of is None else self._past_lease(as_of)
        return asyncio.ensure_future(self._later(self._reached, positions, wait_s, as_of))

    def outcome(self, tier: int, offsets: Sequence[int]) -> Answer[Outcome | None]:
        work = partial(self._shard.outcome, tier, offsets)
        return work() if len(offsets) <= QUICK_RECORDS else self._answer(work)

    def attempted(self, tier: int, key: str) -> Answer[Attempted | None]:
        return self._answer(partial(self._shard.attempted, tier, key))

    def closed(self) -> Answer[int]:
        return self._shard.closed()

    def held_for(self, stamps: Sequence[int]) -> Answer[list[int]]:
        return self._answer(partial(self._shard.guarded, partial(self._held_for, stamps)))

    def status(self) -> Answer[ShardStatus]:
        return self._answer(self._status)

    def _held_for(self, stamps: Sequence[int]) -> list[int]:
        view = self._shard.view
        return [_sampled_bytes(view, view.past.held_for(stamp)) for stamp in stamps]

    def _status(self) -> ShardStatus:
        shard = self._shard
        counts = shard.status()
        fields = {name: shard.payload.points(name) for name in shard.payload.fields}
        return ShardStatus(
            **counts, seal_rows=shard.policy.seal_rows, fields=fields, closed=shard.closed(), unsettled=shard.unsettled()
        )

    def segments(self) -> Answer[dict[str, SegmentList]]:
        return self._answer(self._shard.segments)

    def sizes(self) -> Answer[dict[str, int]]:
        return self._answer(self._shard.sizes_bytes)

    async def _later(self, reached: Reached, positions: Mapping[TopicPartition, int], wait_s: float, as_of: AsOf | None) -> Lease:
        await reached(positions, wait_s)
        if as_of is None:
            return self._lease()
        lease = self._past_lease(as_of)
        return await lease if isinstance(lease, Awaitable) else lease

    def _answer(self, work: Callable[[], T]) -> Answer[T]:
        return work() if self._pool is None else self._pool(work)

    def _past_lease(self, as_of: AsOf) -> Answer[Lease]:
        known = self._shard.known_as_of(as_of)
        if known is not None:
            return self._lease_of(known)
        return self._answer(lambda: self._lease_of(self._shard.guarded(partial(self._shard.view_as_of, as_of))))

    def _lease(self) -> Lease:
        applied = self._applied.get()  # read before the view is taken, so the view contains at least these positions
        return self._lease_of(self._shard.view, applied)

    def _lease_of(self, view: ShardView, applied: Positions | None = None) -> Lease:
        """A lease on a view; that of the past contains nothing of what is applied now.

        `applied` may be less than the view has, if it has advanced since, or more, by records that are not for this shard.
        """
        applied, seen = applied or {}, view.positions
        positions = {p: max(applied.get(p, 0), seen.get(p, 0)) for p in self._shard.home_partitions()}
        return LocalLease(self._shard, view, positions, self._pool)


class LocalLease:
    """A pinned view of a shard of this process; released by garbage collection."""

    def __init__(self, shard: Shard, view: ShardView, positions: Positions, pool: Pool[Any] | None) -> None:
        self.shard = shard.number
        self._guarded = shard.guarded
        self._offset_of = shard.offset_of
        self.version = view.version
        self.positions = positions
        self._view = view
        self._deadline = NEVER
        self._pool = pool
        self._rows: dict[bytes, int] = {}
        """Rows of ranked points by id: they are usually fetched next."""

    def begin(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def rank(self, ranking: Ranking, among: Sequence[bytes] | None = None) -> Answer[RankedPoints]:
        plan = quick_plan(self._view, ranking) if among is None else None
        return self._answer(plan is not None, partial(self._rank, ranking, among, plan))

    def score(self, formula: Formula, ids: Sequence[bytes], scores: Sequence[Sequence[float | None]]) -> Answer[Vectors]:
        return self._answer(len(ids) <= QUICK_POINTS, partial(self._score, formula, ids, scores))

    def terms(self, name: str, indexes: Sequence[int], where: Where | None) -> Answer[Terms]:
        quick = where is None and self._view.vectors[name].size() <= QUICK_TERMS
        return self._answer(quick, partial(self._terms, name, indexes, where))

    def fetch(
        self, ids: Sequence[bytes], payload: PayloadPart | None = None, vectors: bool | Sequence[str] = False
    ) -> Answer[Points]:
        return self._answer(len(ids) <= QUICK_POINTS, partial(self._fetch, ids, payload, vectors))

    def values(self, ids: Sequence[bytes], key: str) -> Answer[list[list[Any]]]:
        return self._answer(len(ids) <= QUICK_POINTS, partial(self._values, ids, key))

    def count(self, where: Where | None) -> Answer[int]:
        return self._answer(self._view.is_selected(where), partial(self._count, where))

    def facet(self, key: str, where: Where | None) -> Answer[list[FacetCount]]:
        return self._answer(False, partial(self._facet, key, where))

    def history(self, point_id: bytes, before: Version, limit: int, vectors: bool | Sequence[str] = False) -> Answer[Changes]:
        return self._answer(False, partial(self._history, point_id, before, limit, vectors))

    def changes(
        self,
        after: Cursor,
        until: Version,
        limit: int,
        where: Where | None = None,
        vectors: bool | Sequence[str] = False,
        with_before: bool = False,
    ) -> Answer[Changes]:
        return self._answer(False, partial(self._changes, after, until, limit, where, vectors, with_before))

    def held(self) -> Answer[Held]:
        return self._answer(True, self._held)

    def _answer(self, quick: bool, work: Callable[[], T]) -> Answer[T]:
        return self._guarded(work) if quick or self._pool is None else self._pool(partial(self._guarded, work))

    def _rank(self, ranking: Ranking, among: Sequence[bytes] | None, plan: Plan | None) -> RankedPoints:
        steps = Steps() if ranking.explain else None
        rows = None if among is None else BitMap(self._rows_of(among).values())
        ranked = rank(self._view, ranking, rows, self._deadline, plan, steps)
        ids, versions = self._view.ids(ranked.rows)
        self._rows.update(zip(ids, ranked.rows, strict=True))
        return RankedPoints(ids, ranked.scores, versions, ranked.values, steps or [], ranked.walked)

    def _score(self, formula: Formula, ids: Sequence[bytes], scores: Sequence[Sequence[float | None]]) -> Vectors:
        values = np.empty(len(ids), np.float64)
        for at, point in enumerate(self._points(ids)):
            self._deadline.check()
            values[at] = formula.compiled.score(PointSubject(point, self._view), scores[at])
        return finite(values)

    def _terms(self, name: str, indexes: Sequence[int], where: Where | None) -> Terms:
        vectors = self._view.vectors[name]
        assert isinstance(vectors, SparseView | JoinedView)
        return Terms(*vectors.frequencies(indexes, self._view.select(where, self._deadline)))

    def _fetch(self, ids: Sequence[bytes], payload: PayloadPart | None, vectors: bool | Sequence[str]) -> Points:
        points = list(self._points(ids))
        return Points(
            [point.id for point in points],
            [point.version for point in points],
            [b""] * len(points) if payload is None else parts_of([point.payload for point in points], payload),
            [self._vectors(point.row, vectors) for point in points] if vectors else [{}] * len(points),
        )

    def _values(self, ids: Sequence[bytes], key: str) -> list[list[Any]]:
        return [values_at(orjson.loads(point.payload), key) if point.payload else [] for point in self._points(ids)]

    def _count(self, where: Where | None) -> int:
        rows = self._view.select(where, self._deadline)
        return len(self._view.alive if rows is None else rows)

    def _facet(self, key: str, where: Where | None) -> list[FacetCount]:
        counts = self._view.facet(key, self._view.select(where, self._deadline), self._deadline)
        return [FacetCount(value, count) for (_, value), count in counts.items()]

    def _history(self, point_id: bytes, before: Version, limit: int, vectors: bool | Sequence[str]) -> Changes:
        return described(self._view, history(self._view, point_id, before, limit), vectors, True, self._offset_of)

    def _changes(
        self,
        after: Cursor,
        until: Version,
        limit: int,
        where: Where | None,
        vectors: bool | Sequence[str],
        with_before: bool,
    ) -> Changes:
        found: list[Change] = []
        reached: Cursor | None = after
        for _ in range(CHANGE_STEPS):
            self._deadline.check()
            some = changes(self._view, reached or after, until, limit)
            reached = Cursor(some[-1].version, some[-1].id) if len(some) == limit else None
            found += some if where is None else passing(self._view, some, where.filter)
            if reached is None or len(found) >= limit:
                break
        if len(found) > limit:
            reached = Cursor(found[limit - 1].version, found[limit - 1].id)
        answer = described(self._view, found[:limit], vectors, with_before)
        answer.reached = reached
        return answer

    def _held(self) -> Held:
        return _sampled(self._view, self._view.alive)

    def _points(self, ids: Sequence[bytes]) -> Iterable[Row]:
        """The existing points among these ids, in the given order."""
        for start in range(0, len(ids), ROWS_PER_STEP):
            self._deadline.check()
            step = ids[start : start + ROWS_PER_STEP]
            rows = self._rows
            if all(id_ in rows for id_ in step):  # as after a ranking
                yield from self._view.points([rows[id_] for id_ in step])
            else:
                yield from self._view.find(step)

    def _rows_of(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """The rows of the existing points among these ids."""
        known = self._rows
        rows = {id_: known[id_] for id_ in ids if id_ in known}
        if len(rows) < len(ids):
            rows |= {point.id: point.row for point in self._view.find(id_ for id_ in ids if id_ not in rows)}
        return rows

    def _vectors(self, row: int, names: bool | Sequence[str]) -> dict[str, Any]:
        vectors = self._view.vectors_of(row)
        return vectors if isinstance(names, bool) else {name: vectors[name] for name in vectors if name in names}


def _sampled(view: ShardView, rows: Sequence[int] | BitMap) -> Held:
    """The size of the data of rows, estimated from some of them."""
    some = [rows[at] for at in range(0, len(rows), max(1, len(rows) // SAMPLED_POINTS))]
    if not some:
        return Held(0, 0)
    share = len(rows) / len(some)
    vectors = sum(map(view.vector_bytes, some))
    payload = sum(len(point.payload) for point in view.points(some))
    return Held(int(share * vectors), int(share * payload))


def _sampled_bytes(view: ShardView, rows: Sequence[int]) -> int:
    held = _sampled(view, rows)
    return held.vector_bytes + held.payload_bytes


def parts_of(payloads: list[bytes], part: PayloadPart) -> list[bytes]:
    """A part of each payload, as JSON; empty for an empty payload."""
    if part.include is None and part.exclude is None:
        return payloads
    if part.exclude is not None:
        chosen = partial(without, paths=[steps_of(path) for path in part.exclude])
    else:
        chosen = partial(only, paths=[steps_of(path) for path in part.include or []])
    return [orjson.dumps(chosen(orjson.loads(payload))) if payload else b"" for payload in payloads]


def pool_of(executor: Any) -> Pool[Any]:
    """Runs work in the executor; results are awaited on the caller's event loop."""

    def run(work: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(executor, work)

    return run
