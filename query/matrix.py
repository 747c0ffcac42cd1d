"""A distance matrix: how close the points of a random sample are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyroaring import BitMap

from query.points import reading_of
from query.reading import Place, Reading, Where
from query.search import rank
from query.stages import Nearest, Params, Sample, Stage
from shard.shard import Shard
from shard.vectors.index import RowSet


class Matrix(NamedTuple):
    """The ids of the sample in order, and for each the nearest others: their indexes in `ids`, and scores."""

    ids: list[bytes]
    nearest: list[list[tuple[int, float]]]


def matrix(shards: Sequence[Shard], name: str, wanted: Where | None, sample: int, limit: int, seed: int) -> Matrix:
    """The `limit` nearest within a sample of the points that pass and have the vector."""
    reading = reading_of(shards, wanted)
    having = [RowSet(reading.passing(shard, wanted) & view.vectors[name].all_rows()) for shard, view in enumerate(reading.views)]
    places = [found.place for found in rank(reading, Stage(Sample(seed), sample), having)]
    if len(places) < 2:
        return Matrix([], [])
    by_id = sorted((row.id, place) for row, place in zip(reading.rows(places), places, strict=True))
    at = {place: number for number, (_, place) in enumerate(by_id)}
    nearest = [_nearest(reading, name, place, at, limit) for _, place in by_id]
    return Matrix([id_ for id_, _ in by_id], nearest)


def _nearest(reading: Reading, name: str, place: Place, at: dict[Place, int], limit: int) -> list[tuple[int, float]]:
    others = [BitMap() for _ in reading.views]
    for shard, row in at:
        others[shard].add(row)
    others[place.shard].discard(place.row)
    vector = reading.views[place.shard].rows.vectors(place.row)[name]
    found = rank(reading, Stage(Nearest(name, vector), limit, params=Params(exact=True)), [RowSet(rows) for rows in others])
    return [(at[ranked.place], ranked.score) for ranked in found]
