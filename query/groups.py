"""Grouping of hits by a payload value: the groups with the best hits, and the best hits of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from query.pinned import Pinned
from query.points import count
from query.search import search
from query.stages import Stage
from shard.replica import RankedPoints

GroupId = str | int


class Group(NamedTuple):
    """A value, and its best hits as indexes in the ranking."""

    id: GroupId
    hits: list[int]


async def grouped(pinned: Pinned, stage: Stage, key: str, groups: int, size: int) -> tuple[RankedPoints, list[Group]]:
    """A ranking, and its groups in the order of their best hits. A point with several values is in several groups.

    Repeats the search with larger limits until enough groups are full or all points are ranked.
    """
    every = await count(pinned, None)
    limit = min(every, 4 * groups * size)
    while True:
        ranked = await search(pinned, msgspec.structs.replace(stage, limit=max(1, limit)))
        values = await _values(pinned, ranked.ids, key)
        ranked_groups = await pinned.run(len(values), partial(_groups, values, size))
        full = len(ranked_groups) >= groups and all(len(group.hits) >= size for group in ranked_groups[:groups])
        if full or limit >= every or len(ranked.ids) < limit:
            return ranked, ranked_groups[:groups]
        limit = min(every, 8 * limit)


async def _values(pinned: Pinned, ids: Sequence[bytes], key: str) -> list[list[Any]]:
    """The values at a path of each point."""
    asked = await pinned.by_lease(ids)
    parts = await pinned.all_of(lease.values(mine, key) for lease, mine in asked)
    by_id = {id_: values for (_, mine), part in zip(asked, parts, strict=True) for id_, values in zip(mine, part, strict=True)}
    return [by_id[id_] for id_ in ids]


def _groups(values: Sequence[Sequence[Any]], size: int) -> list[Group]:
    groups: dict[GroupId, Group] = {}
    for at, mine in enumerate(values):
        if any(isinstance(value, bool) or not isinstance(value, str | int) for value in mine):
            continue
        for value in dict.fromkeys(mine):
            group = groups.setdefault(value, Group(value, []))
            if len(group.hits) < size:
                group.hits.append(at)
    return list(groups.values())
