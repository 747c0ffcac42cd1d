"""Reads of points that are not searches: by id, in order, counted, and by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from journal.records import Vector
from query.pinned import Pinned
from query.search import search
from query.stages import Stage
from shard.filters.where import Where
from shard.ranking.rankings import ById, Ranking
from shard.replica import PayloadPart
from shard.view import facet_key

MAX_IDS = 2**31
"""More points than a collection can have."""


class Point(NamedTuple):
    """A point: its payload as JSON, empty for none, and its vectors by name; only the requested parts."""

    id: bytes
    stamp: int
    payload: bytes
    vectors: dict[str, Vector]


async def retrieve(
    pinned: Pinned, ids: Sequence[bytes], payload: PayloadPart | None = None, vectors: bool | Sequence[str] = False
) -> list[Point]:
    """The existing points among these ids, in the given order."""
    parts = await pinned.all_of(lease.fetch(mine, payload, vectors) for lease, mine in pinned.by_lease(ids))
    columns = [zip(part.ids, part.stamps, part.payloads, part.vectors, strict=True) for part in parts]
    if len(columns) == 1:
        return [Point(*point) for point in columns[0]]
    by_id = {point[0]: Point(*point) for column in columns for point in column}
    return [by_id[id_] for id_ in ids if id_ in by_id]


async def scroll(pinned: Pinned, where: Where | None, start: bytes, limit: int) -> tuple[list[bytes], bytes | None]:
    """A page of up to `limit` ids in order, from `start` (inclusive), and the start of the next page, None at the end."""
    ids = (await search(pinned, Stage(ById(start), limit + 1, where))).ids
    return ids[:limit], ids[limit] if len(ids) > limit else None


async def count(pinned: Pinned, where: Where | None) -> int:
    """How many points pass the filter."""
    return sum(await pinned.all_of(lease.count(where) for lease in pinned.leases))


async def matching_ids(pinned: Pinned, where: Where | None) -> list[bytes]:
    """The ids of all points that pass the filter, in order."""
    return (await search(pinned, Stage(ById(), MAX_IDS, where))).ids


async def passing(pinned: Pinned, ids: Iterable[bytes], where: Where | None) -> set[bytes]:
    """The ids of the points among these that exist and pass the filter."""
    asked = [(lease, mine) for lease, mine in pinned.by_lease(ids) if mine]
    ranking = Ranking(ById(), MAX_IDS, where)
    parts = await pinned.all_of(lease.rank(ranking, mine) for lease, mine in asked)
    return {id_ for part in parts for id_ in part.ids}


async def facet(pinned: Pinned, key: str, where: Where | None, limit: int) -> list[tuple[str | int | bool, int]]:
    """The most frequent values of a field among the points that pass the filter, with their counts."""
    totals: Counter[tuple[str, str | int | bool]] = Counter()
    for part in await pinned.all_of(lease.facet(key, where) for lease in pinned.leases):
        for counted in part:
            totals[facet_key(counted.value)] += counted.count
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [(value, number) for (_, value), number in ranked[:limit]]
