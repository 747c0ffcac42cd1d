"""Searches: the plan for one shard, fan-out over a collection's shards, and the merge.

The plan: a filter becomes a bitmap of rows; few matches are compared one by one; otherwise the graphs are asked, with the bitmap
as their selector, and when they find too few the answer comes from comparing all after all. So a search gives
min(limit, matches) hits, with exact scores (I10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pyroaring import BitMap

from catalog.collection import Collection, Distance
from journal.records import Vectors
from query.filters import Candidate, Filter
from shard.contract import vector_error
from shard.segments import Found, VectorView
from shard.shard import Shard, ShardView, normalised
from shard.store import Row

EF_SEARCH = 128
"""Candidates a graph looks at unless the request says otherwise: recall 0.98 and more on real embeddings."""

EXACT_BELOW = 10_000
"""Matches of a filter that are compared one by one."""

MAX_LIMIT = 10_000
"""The bound of limit and offset together."""

QUICK_FLOATS = 2_000_000
"""A search that compares fewer floats than this one by one takes about a millisecond."""

_TEST_CHUNK = 500


class QueryError(ValueError):
    """A read that cannot be answered as asked. The text names the field and the bound."""


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A search of one vector name. `vector` is prepared by `prepare`; points in `exclude` are left out of the answer."""

    name: str
    vector: Vectors
    limit: int
    filter: Filter | None = None
    ef: int = EF_SEARCH
    exact: bool = False
    score_threshold: float | None = None
    exclude: frozenset[bytes] = frozenset()


class Hit(NamedTuple):
    """A point found, its score, and the view it was found in."""

    point: Row
    score: float
    view: ShardView


def prepare(collection: Collection, name: str, vector: Vectors) -> Vectors:
    """A query vector in the form the collection compares: checked, and of unit length for Cosine. Raises QueryError."""
    if error := vector_error(collection, name, len(vector)):
        raise QueryError(error)
    if not np.isfinite(vector @ vector):
        raise QueryError("query vector has values that are not finite, or too large for float32")
    if collection.config.vectors[name].distance is Distance.COSINE:
        unit: Vectors = normalised(vector[np.newaxis])[0]
        return unit
    return vector


def is_quick(shards: Sequence[Shard], query: VectorQuery) -> bool:
    """Whether the search surely takes about a millisecond, so that it may run on the event loop."""
    if query.filter is not None or query.exact or query.limit > 100 or query.ef > 2 * EF_SEARCH:
        return False
    segments = [view for shard in shards for view in shard.view.vectors[query.name].segments]
    flat = sum(view.end for view in segments if view.segment.graph is None)
    return flat * len(query.vector) < QUICK_FLOATS and len(segments) <= 4 * len(shards)


def search(shards: Sequence[Shard], query: VectorQuery) -> list[Hit]:
    """The best hits of all shards, closest first; equal scores are ordered by id."""
    hits = [hit for shard in shards for hit in search_shard(shard, query)]
    closer_first = -1 if _distance(shards, query).higher_is_closer else 1
    hits.sort(key=lambda hit: (closer_first * hit.score, hit.point.id))
    return hits[: query.limit]


def search_shard(shard: Shard, query: VectorQuery) -> list[Hit]:
    """The best hits of one shard, all at one moment."""
    view, found = _find(shard, query, query.limit + len(query.exclude))
    points = view.rows.rows(found.rows.tolist())
    hits = [
        Hit(point, score, view)
        for point, score in zip(points, found.scores.tolist(), strict=True)
        if point.id not in query.exclude
    ]
    if query.score_threshold is not None:
        if view.vectors[query.name].distance.higher_is_closer:
            hits = [hit for hit in hits if hit.score >= query.score_threshold]
        else:
            hits = [hit for hit in hits if hit.score <= query.score_threshold]
    return hits[: query.limit]


def matching(shard: Shard, filter_: Filter | None) -> tuple[ShardView, BitMap]:
    """The rows of a shard that pass a filter, and the view of the same moment."""
    if filter_ is None:
        view = shard.view
        return view, view.alive
    with shard.lock:
        view = shard.view
        selection = filter_.select(shard)
        rows = BitMap(selection.rows)
    return view, rows if selection.exact else _tested(view, rows, filter_)


def _find(shard: Shard, query: VectorQuery, limit: int) -> tuple[ShardView, Found]:
    if query.filter is None:
        view = shard.view
        return view, _find_any(view.vectors[query.name], query, limit)
    view, rows = matching(shard, query.filter)
    return view, _find_among(view.vectors[query.name], query, limit, rows)


def _find_any(view: VectorView, query: VectorQuery, limit: int) -> Found:
    if query.exact:
        return view.scan(query.vector, limit)
    found = view.search(query.vector, limit, query.ef)
    return found if len(found.rows) >= min(limit, view.size()) else view.scan(query.vector, limit)


def _find_among(view: VectorView, query: VectorQuery, limit: int, rows: BitMap) -> Found:
    matches = np.array(rows.to_array(), np.int64) if rows else np.empty(0, np.int64)
    if query.exact or len(matches) <= EXACT_BELOW:
        return view.scan(query.vector, limit, matches)
    # Where few points pass, the graph must look at more to meet as many of them.
    widened = int(query.ef * min(4.0, max(1.0, 0.5 * view.size() / len(matches))))
    found = view.search(query.vector, limit, widened, matches)
    return found if len(found.rows) >= min(limit, len(matches)) else view.scan(query.vector, limit, matches)


def _tested(view: ShardView, rows: BitMap, filter_: Filter) -> BitMap:
    """The rows that pass, tested one by one."""
    passed = BitMap()
    numbers = rows.to_array()
    for start in range(0, len(numbers), _TEST_CHUNK):
        points = view.rows.rows(numbers[start : start + _TEST_CHUNK])
        passed.update(point.row for point in points if filter_.test(Candidate(point, view)))
    return passed


def _distance(shards: Sequence[Shard], query: VectorQuery) -> Distance:
    return shards[0].collection.config.vectors[query.name].distance
