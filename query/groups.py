"""Hits in groups by a payload value: the best hits of each of the groups with the best hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import orjson

from payload.paths import values_at
from query.search import Hit, search
from query.stages import Stage
from shard.shard import Shard

GroupId = str | int


class Group(NamedTuple):
    """A value, and its best hits."""

    id: GroupId
    hits: list[Hit]


def grouped(shards: Sequence[Shard], stage: Stage, key: str, groups: int, size: int) -> list[Group]:
    """The groups in order of their best hits. A point with several values stands in several groups.

    Looks at more and more hits until enough groups are full or all points are seen.
    """
    every = sum(len(shard.view.alive) for shard in shards)
    limit = min(every, 4 * groups * size)
    while True:
        hits = search(shards, _widened(stage, limit, every))
        found = _groups(hits, key, size)
        full = len(found) >= groups and all(len(group.hits) >= size for group in found[:groups])
        if full or limit >= every or len(hits) < limit:
            return found[:groups]
        limit = min(every, 8 * limit)


def _widened(stage: Stage, limit: int, every: int) -> Stage:
    """The stage with this limit, and no limits inside: an inner limit would cut groups short."""
    return replace(stage, limit=max(1, limit), inner=[_widened(each, every, every) for each in stage.inner])


def _groups(hits: Sequence[Hit], key: str, size: int) -> list[Group]:
    found: dict[GroupId, Group] = {}
    for hit in hits:
        values = values_at(orjson.loads(hit.point.payload), key) if hit.point.payload else []
        if any(isinstance(value, bool) or not isinstance(value, str | int) for value in values):
            continue
        for value in dict.fromkeys(values):
            group = found.setdefault(value, Group(value, []))
            if len(group.hits) < size:
                group.hits.append(hit)
    return list(found.values())
