"""Reads of points that are not searches: by id, in order, counted, and by value."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import orjson

from journal.topics import shard_of
from payload.paths import values_at
from query.reading import Place, Reading, Where
from shard.shard import Shard
from shard.store import Row
from shard.vectors.index import RowSet
from shard.view import ShardView

SORTED_BELOW = 5_000
"""Matches of a filter that are read and sorted by id; more are met in id order, and tested."""


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


def scroll(shards: Sequence[Shard], wanted: Where | None, start: bytes, limit: int) -> tuple[list[Point], bytes | None]:
    """Up to `limit` points in id order from `start` on, and the id to go on from, None at the end."""
    reading = reading_of(shards, wanted)
    among = [reading.among(shard, wanted) for shard in range(len(shards))]
    places = in_id_order(reading, among, start, limit + 1)
    found = [Point(row, reading.views[place.shard]) for place, row in zip(places, reading.rows(places), strict=True)]
    return found[:limit], found[limit].row.id if len(found) > limit else None


def count(shards: Sequence[Shard], wanted: Where | None) -> int:
    """How many points pass."""
    reading = reading_of(shards, wanted)
    return sum(len(reading.passing(shard, wanted)) for shard in range(len(shards)))


def matching_ids(shards: Sequence[Shard], wanted: Where | None) -> list[bytes]:
    """The ids of all points that pass."""
    reading = reading_of(shards, wanted)
    return [row.id for shard, view in enumerate(reading.views) for row in view.rows.rows(reading.passing(shard, wanted))]


def facet(shards: Sequence[Shard], key: str, wanted: Where | None, limit: int) -> list[tuple[str | int | bool, int]]:
    """The most frequent values of a field among the points that pass, with their numbers of points."""
    totals: Counter[tuple[str, str | int | bool]] = Counter()
    for shard in shards:
        for value, number in _facet_shard(shard, key, wanted).items():
            totals[value] += number
    ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [(value, number) for (_, value), number in ranked[:limit]]


def in_id_order(reading: Reading, among: Sequence[RowSet | None], start: bytes, limit: int) -> list[Place]:
    """The first of these rows (None: all) in the order of their ids, from `start` on."""
    streams = [_ordered(shard, view, rows, start) for shard, (view, rows) in enumerate(zip(reading.views, among, strict=True))]
    return [place for _, place in islice(heapq.merge(*streams), limit)]


def reading_of(shards: Sequence[Shard], wanted: Where | None) -> Reading:
    """A reading that can be asked for one filter, or none."""
    return Reading(shards, [] if wanted is None else [wanted])


def _facet_shard(shard: Shard, key: str, wanted: Where | None) -> Counter[tuple[str, str | int | bool]]:
    with shard.lock:  # so that the index is that of the reading
        reading = reading_of([shard], wanted)
        index = shard.payload.fields.get(key)
        if index is not None and index.keeps_values and reading.is_known(0, wanted):
            counted = index.postings.counts(reading.passing(0, wanted))
            return Counter({(type(value).__name__, value): number for value, number in counted.items()})
    totals: Counter[tuple[str, str | int | bool]] = Counter()
    for row in reading.views[0].rows.rows(reading.passing(0, wanted)):
        values = values_at(orjson.loads(row.payload), key) if row.payload else []
        totals.update({(type(value).__name__, value) for value in values if isinstance(value, str | int)})
    return totals


def _ordered(shard: int, view: ShardView, rows: RowSet | None, start: bytes) -> Iterator[tuple[bytes, Place]]:
    """Ids and places of a shard's rows, in id order from `start` on."""
    if rows is not None and len(rows) < SORTED_BELOW:
        found = sorted((row.id, Place(shard, row.row)) for row in view.rows.rows(rows.rows) if row.id >= start)
        yield from found
        return
    for id_, number in view.rows.scan_points(start):
        if rows is None or number in rows.rows:
            yield id_, Place(shard, number)
