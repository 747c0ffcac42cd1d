"""Reads of points that are not searches: by id, in order, counted, and by value."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import orjson

from catalog.collection import FieldType
from catalog.payload import values_at
from journal.topics import shard_of
from query.filters import Filter
from query.search import matching
from shard.shard import Shard, ShardView
from shard.store import Row

SORTED_BELOW = 5_000
"""Matches of a filter that are read and sorted by id; more are met in id order, and tested."""

_FACETED = (FieldType.KEYWORD, FieldType.INTEGER, FieldType.BOOL, FieldType.UUID)


class Point(NamedTuple):
    """A point, and the view it was read from."""

    row: Row
    view: ShardView


def retrieve(shards: Sequence[Shard], ids: Sequence[bytes]) -> list[Point]:
    """The points of these ids, in their order; those that do not exist are left out."""
    found: dict[bytes, Point] = {}
    for number, shard in enumerate(shards):
        view = shard.view
        mine = [point_id for point_id in ids if shard_of(point_id, len(shards)) == number]
        found |= {row.id: Point(row, view) for row in view.rows.find(mine)}
    return [found[point_id] for point_id in ids if point_id in found]


def scroll(shards: Sequence[Shard], filter_: Filter | None, start: bytes, limit: int) -> tuple[list[Point], bytes | None]:
    """Up to `limit` points in id order from `start` on, and the id to go on from, None at the end."""
    streams = [_ordered(shard, filter_, start) for shard in shards]
    points = list(islice(heapq.merge(*streams, key=lambda point: point.row.id), limit + 1))
    return points[:limit], points[limit].row.id if len(points) > limit else None


def count(shards: Sequence[Shard], filter_: Filter | None) -> int:
    """How many points pass."""
    return sum(len(matching(shard, filter_)[1]) for shard in shards)


def matching_ids(shards: Sequence[Shard], filter_: Filter | None) -> list[bytes]:
    """The ids of all points that pass."""
    ids: list[bytes] = []
    for shard in shards:
        view, rows = matching(shard, filter_)
        ids.extend(row.id for row in view.rows.rows(rows))
    return ids


def facet(shards: Sequence[Shard], key: str, filter_: Filter | None, limit: int) -> list[tuple[str | int | bool, int]]:
    """The most frequent values of a field among the points that pass, with their numbers of points."""
    totals: Counter[tuple[str, str | int | bool]] = Counter()
    for shard in shards:
        for value, number in _facet_shard(shard, key, filter_).items():
            totals[value] += number
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [(value, number) for (_, value), number in ranked[:limit]]


def _facet_shard(shard: Shard, key: str, filter_: Filter | None) -> Counter[tuple[str, str | int | bool]]:
    view, rows = matching(shard, filter_)
    with shard.lock:
        index = shard.payload.fields.get(key)
        if index is not None and index.schema.type in _FACETED:
            counted = index.postings.counts(rows)
            return Counter({(type(value).__name__, value): number for value, number in counted.items()})
    totals: Counter[tuple[str, str | int | bool]] = Counter()
    for row in view.rows.rows(rows):
        values = values_at(orjson.loads(row.payload), key) if row.payload else []
        totals.update({(type(value).__name__, value) for value in values if isinstance(value, str | int)})
    return totals


def _ordered(shard: Shard, filter_: Filter | None, start: bytes) -> Iterator[Point]:
    """The points of a shard that pass, in id order from `start` on."""
    view, rows = matching(shard, filter_)
    if filter_ is not None and len(rows) < SORTED_BELOW:
        found = sorted((row for row in view.rows.rows(rows) if row.id >= start), key=lambda row: row.id)
        yield from (Point(row, view) for row in found)
        return
    for _, number in view.rows.scan_points(start):
        if filter_ is None or number in rows:
            yield Point(view.rows.rows([number])[0], view)
