"""Reads of points that are not searches: by id, in order, counted, and by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

from journal.records import Vector
from journal.stamps import Version
from query.pinned import Pinned
from query.search import search
from query.stages import Stage
from shard.filters.where import Where
from shard.ranking.rankings import ById, Ranking
from shard.replica import FacetCount, Lease, PayloadPart, Points
from shard.view import Value, facet_key

MAX_IDS = 2**31
"""More points than a collection can have."""


class Point(NamedTuple):
    """A point: its payload as JSON, empty for none, and its vectors by name; only the requested parts."""

    id: bytes
    version: Version
    payload: bytes
    vectors: dict[str, Vector]


async def retrieve(
    pinned: Pinned, ids: Sequence[bytes], payload: PayloadPart | None = None, vectors: bool | Sequence[str] = False
) -> list[Point]:
    """The existing points among these ids, in the given order."""
    asked = await pinned.by_lease(ids)
    parts = await pinned.all_of(lease.fetch(mine, payload, vectors) for lease, mine in asked)
    return await pinned.run(len(ids), partial(_in_order, parts, ids))


def _in_order(parts: Sequence[Points], ids: Sequence[bytes]) -> list[Point]:
    """The points of several shards in the order of `ids`."""
    columns = [map(Point, part.ids, part.versions, part.payloads, part.vectors) for part in parts]
    if len(columns) == 1:
        return list(columns[0])
    points = {point.id: point for point in chain.from_iterable(columns)}
    return [points[id_] for id_ in ids if id_ in points]


async def scroll(pinned: Pinned, where: Where | None, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
    """A page of up to `limit` ids in order, from `start` (inclusive), and the start of the next page, None at the end."""
    ids = (await search(pinned, Stage(ById(start), limit + 1, where))).ids
    return ids[:limit], ids[limit] if len(ids) > limit else None


async def count(pinned: Pinned, where: Where | None) -> int:
    """How many points pass the filter."""
    return sum(await pinned.all_of(lease.count(where) for lease in pinned.leases))


async def matching(
    pinned: Pinned, where: Where | None, among: Sequence[bytes] | None = None
) -> tuple[list[bytes], list[Version]]:
    """The ids and versions of the points that pass the filter, of all or of those among `among`; in order by shard."""
    ranking = Ranking(ById(), MAX_IDS, where)
    if among is None:
        asked: list[tuple[Lease, Sequence[bytes] | None]] = [(lease, None) for lease in pinned.leases]
    else:
        asked = [(lease, mine) for lease, mine in await pinned.by_lease(among) if mine]
    parts = await pinned.all_of(lease.rank(ranking, mine) for lease, mine in asked)
    count = sum(len(part.ids) for part in parts)
    return await pinned.run(
        count,
        lambda: (
            list(chain.from_iterable(part.ids for part in parts)),
            list(chain.from_iterable(part.versions for part in parts)),
        ),
    )


async def facet(pinned: Pinned, key: str, where: Where | None, limit: int) -> list[tuple[Value, int]]:
    """The most frequent values of a field among the points that pass the filter, with their counts."""
    parts = await pinned.all_of(lease.facet(key, where) for lease in pinned.leases)
    return await pinned.run(sum(map(len, parts)), partial(_most_frequent, parts, limit))


def _most_frequent(parts: Sequence[Sequence[FacetCount]], limit: int) -> list[tuple[Value, int]]:
    totals: Counter[tuple[str, Value]] = Counter()
    for counted in chain.from_iterable(parts):
        totals[facet_key(counted.value)] += counted.count
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [(value, number) for (_, value), number in ranked[:limit]]
