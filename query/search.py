"""Searches: the plan for one shard, fan-out over a collection's shards, the merge, and the stages of a query, inner ones first.

The plan of a search by one vector: a filter becomes a set of rows; few of them are compared one by one; otherwise the graphs are
asked, with the set as their selector, and when they find too few the answer comes from comparing all after all. So a search
gives min(limit, matches) hits, with exact scores (I10). Scores of several vectors are computed for every row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import isfinite, sqrt
from typing import Any, NamedTuple

import numpy as np
import orjson
from pyroaring import BitMap

from catalog.collection import Collection, Distance
from journal.records import SPARSE, Vector
from payload.paths import as_number, values_at
from query.diversity import diversified
from query.fusion import fuse
from query.points import in_id_order
from query.reading import Place, Reading, is_selected
from query.stages import ById, Fusion, Nearest, OrderBy, Sample, Stage
from shard.contract import vector_error
from shard.filters.conditions import Candidate
from shard.ranking.examples import Scored, scored
from shard.ranking.formula import Formula
from shard.shard import Shard
from shard.store import Row
from shard.vectors.index import RowSet, ScoredRows, View, closest, normalised
from shard.vectors.segments import VectorView
from shard.vectors.sparse import SparseView, idf
from shard.view import ShardView

EXACT_BELOW = 10_000
"""Matches of a filter that are compared one by one."""

QUICK_FLOATS = 8_000_000
"""A search that compares fewer floats than this one by one takes about a millisecond."""

QUICK_LIMIT = 100


class QueryError(ValueError):
    """A read that cannot be answered as asked. The text names the field and the bound."""


class Hit(NamedTuple):
    """A point found, its score, and the view it was found in; `value` is what it was ordered by."""

    point: Row
    score: float
    view: ShardView
    value: float | None = None


class Ranked(NamedTuple):
    """A point of a stage."""

    place: Place
    score: float
    value: float | None = None


class Trace:
    """What was done to answer, step by step, with times; for people (`?explain=true`)."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    @contextmanager
    def step(self, **facts: Any) -> Any:
        """Times a step; what is put into the dictionary given is shown too."""
        begun_s = time.perf_counter()
        yield facts
        self.steps.append(facts | {"ms": round(1000 * (time.perf_counter() - begun_s), 3)})


class _NoTrace(Trace):
    @contextmanager
    def step(self, **facts: Any) -> Any:
        yield facts


NO_TRACE = _NoTrace()


def prepare(collection: Collection, name: str, vector: Vector) -> Vector:
    """A query vector in the form the collection compares: checked, and of unit length for Cosine. Raises QueryError."""
    config = collection.config
    if name in config.sparse_vectors:
        if vector.dtype != SPARSE:
            raise QueryError(f"Wrong input: vector {name!r} is sparse: give indices and values")
        if not np.isfinite(vector["value"] @ vector["value"]):
            raise QueryError("query vector has values that are not finite, or too large for float32")
        return vector
    size = 0 if vector.dtype == SPARSE else vector.shape[-1]
    if error := vector_error(collection, name, size):
        raise QueryError(error)
    params = config.vectors[name]
    if params.multi:
        vector = vector[np.newaxis] if vector.ndim == 1 else vector
    elif vector.ndim != 1:
        raise QueryError(f"Wrong input: vector {name!r} is not a multi-vector: give one list of numbers")
    square = float(np.vdot(vector, vector))
    if not isfinite(square):
        raise QueryError("query vector has values that are not finite, or too large for float32")
    if params.distance is not Distance.COSINE or not square:
        return vector
    return normalised(vector) if params.multi else vector / np.float32(sqrt(square))


def is_quick(shards: Sequence[Shard], stage: Stage) -> bool:
    """Whether the search surely takes about a millisecond, so that it may run on the event loop."""
    query = stage.query
    if not isinstance(query, Nearest) or query.diversity or stage.inner or stage.params.idf_among:
        return False
    if stage.limit > QUICK_LIMIT or not is_selected(shards, stage.where):
        return False
    floats = 0
    for shard in shards:
        view = shard.view
        index = view.vectors[query.name]
        rows = None if stage.where is None else view.selections.get(stage.where.key)
        if stage.params.exact or (rows is not None and len(rows) <= EXACT_BELOW) or not isinstance(index, VectorView):
            floats += index.scan_floats(query.vector, rows)
        elif rows is None:
            floats += index.search_floats(stage.limit, stage.params.ef, stage.params.use)
        else:
            return False
    return floats < QUICK_FLOATS


def search(shards: Sequence[Shard], stage: Stage, trace: Trace = NO_TRACE, payloads: bool = True) -> list[Hit]:
    """The points that the last stage ranks first, best first, equal ones by id; `payloads` says if those are read."""
    with trace.step(step="view", shards=len(shards)):
        reading = Reading(shards, stage.filters(), list(stage.orders()))
    ranked = _Search(reading, trace).ranked(stage)
    with trace.step(step="points", points=len(ranked)):
        return _resolved(reading, stage, ranked, payloads)


def rank(reading: Reading, stage: Stage, among: Sequence[RowSet | None]) -> list[Ranked]:
    """The ranking of a stage without inner ones, of these rows of each shard."""
    return _Search(reading, NO_TRACE).of(stage, among)


def _resolved(reading: Reading, stage: Stage, ranked: Sequence[Ranked], payloads: bool) -> list[Hit]:
    """The points of a ranking. Where it is by score, equal ones are ordered by id."""
    places = [r.place for r in ranked]
    rows = reading.rows(places) if payloads else reading.without_payloads(places)
    hits = [Hit(row, r.score, reading.views[r.place.shard], r.value) for row, r in zip(rows, ranked, strict=True)]
    is_by_score = isinstance(stage.query, Nearest) and not stage.query.diversity
    if is_by_score and len({hit.score for hit in hits}) < len(hits):
        closer_first = -1 if hits[0].score >= hits[-1].score else 1
        hits.sort(key=lambda hit: (closer_first * hit.score, hit.point.id))
    return hits


def _higher_is_closer(reading: Reading, query: Nearest) -> bool:
    return reading.views[0].vectors[query.name].distance.higher_is_closer


class _Search:
    """One query on one reading."""

    def __init__(self, reading: Reading, trace: Trace) -> None:
        self._reading = reading
        self._trace = trace

    def ranked(self, stage: Stage) -> list[Ranked]:
        """At most `stage.limit` points, best first."""
        if not stage.inner:
            with self._trace.step(step="filter") if stage.where else NO_TRACE.step() as facts:
                among = [self._reading.among(shard, stage.where) for shard in range(len(self._reading.views))]
                facts["matches"] = [None if rows is None else len(rows) for rows in among]
            return self.of(stage, among)
        lists = [self.ranked(inner) for inner in stage.inner]
        match stage.query:
            case Fusion() as fusion:
                with self._trace.step(step=fusion.method, lists=len(lists)):
                    fused = fuse([[(r.place, r.score) for r in ranked] for ranked in lists], fusion)
                    return _cut([Ranked(place, score) for place, score in fused], stage, or_equal=True)
            case Formula() as formula:
                with self._trace.step(step="formula", lists=len(lists)):
                    return _cut(self._formula(formula, lists), stage, or_equal=True)
        return self.of(stage, self._candidates(stage, lists))

    def of(self, stage: Stage, among: Sequence[RowSet | None]) -> list[Ranked]:
        """The stage's ranking of these rows of each shard; None for all rows."""
        match stage.query:
            case Nearest(diversity=None) as query:
                return self._nearest(stage, query, among)
            case Nearest(diversity=diversity) as query:
                assert diversity is not None
                nearest = replace(stage, query=replace(query, diversity=None), limit=diversity.candidates)
                candidates = self._nearest(nearest, nearest.query, among)  # type: ignore[arg-type]
                with self._trace.step(step="diversity", candidates=len(candidates)):
                    return self._diversified(query, candidates)[: stage.limit]
            case OrderBy() as query:
                return self._ordered(stage, query, among)
            case Sample(seed):
                return self._sampled(stage, seed, among)
            case ById():
                return self._by_id(stage, among)
            case Fusion() | Formula():
                raise QueryError("query: fusion and formula need a prefetch")
        with self._trace.step(step="score", query=type(stage.query).__name__):
            return self._scored(stage, stage.query, among)

    def _nearest(self, stage: Stage, query: Nearest, among: Sequence[RowSet | None]) -> list[Ranked]:
        vector = self._weighted(query.name, stage, query.vector)
        merged: list[Ranked] = []
        for shard, (view, rows) in enumerate(zip(self._reading.views, among, strict=True)):
            excluded = self._excluded(view, stage)
            found = self._closest(view.vectors[query.name], vector, stage, stage.limit + len(excluded), rows)
            merged.extend(_ranked(shard, found, excluded))
        if len(self._reading.views) > 1:
            closer_first = -1 if _higher_is_closer(self._reading, query) else 1
            merged.sort(key=lambda r: (closer_first * r.score, r.place))
        return _cut(merged, stage, lower_is_closer=not _higher_is_closer(self._reading, query))

    def _closest(self, view: View, vector: Vector, stage: Stage, limit: int, rows: RowSet | None) -> ScoredRows:
        """The plan for one shard."""
        size = view.size() if rows is None else len(rows)
        params = stage.params
        with self._trace.step(step="search", among=size) as facts:
            if (
                params.exact
                or params.ignore_codes
                or not isinstance(view, VectorView)
                or (rows is not None and size <= EXACT_BELOW)
            ):
                facts["plan"] = "scan"
                return view.scan(vector, limit, rows)
            facts |= {"plan": "graph", "ef": view.widths(limit, params.ef, rows, params.use)}
            found = view.search(vector, limit, params.ef, rows, params.use)
            if len(found.rows) < min(limit, size):
                facts["plan"] = "graph, then scan"
                found = view.scan(vector, limit, rows)
            return found

    def _weighted(self, name: str, stage: Stage, vector: Vector) -> Vector:
        """A sparse query vector under the `idf` modifier: its values by how rare their indexes are in the collection."""
        params = self._reading.collection.config.sparse_vectors.get(name)
        if params is None or not params.idf:
            return vector
        total, having = 0, np.zeros(len(vector), np.int64)
        for shard, view in enumerate(self._reading.views):
            index = view.vectors[name]
            assert isinstance(index, SparseView)
            count, found = index.frequencies(vector["index"].tolist(), self._reading.among(shard, stage.params.idf_among))
            total, having = total + count, having + found
        weighted = vector.copy()
        weighted["value"] *= [idf(count, total) for count in having.tolist()]
        return weighted

    def _scored(self, stage: Stage, query: Scored, among: Sequence[RowSet | None]) -> list[Ranked]:
        merged: list[Ranked] = []
        query = _with_vectors(query, partial(self._weighted, query.name, stage))
        for shard, (view, rows) in enumerate(zip(self._reading.views, among, strict=True)):
            excluded = self._excluded(view, stage)
            found = closest(Distance.DOT, scored(view.vectors[query.name], query, rows), stage.limit + len(excluded))
            merged.extend(_ranked(shard, found, excluded))
        merged.sort(key=lambda r: (-r.score, r.place))
        return _cut(merged, stage)

    def _diversified(self, query: Nearest, candidates: Sequence[Ranked]) -> list[Ranked]:
        assert query.diversity is not None
        views = self._reading.views
        vectors = [views[r.place.shard].rows.vectors(r.place.row)[query.name] for r in candidates]
        distance = views[0].vectors[query.name].distance
        return [candidates[at] for at in diversified(distance, query.vector, vectors, query.diversity.diversity)]

    def _ordered(self, stage: Stage, by: OrderBy, among: Sequence[RowSet | None]) -> list[Ranked]:
        merged: list[Ranked] = []
        for shard, view in enumerate(self._reading.views):
            excluded = self._excluded(view, stage)
            if stage.inner:
                items = _values(self._reading, shard, among[shard] or RowSet(BitMap()), by)
            else:
                items = self._reading.ordered(shard, stage.order(by))
            merged.extend(Ranked(Place(shard, row), 1.0, value) for value, row in items if row not in excluded)
        merged.sort(key=lambda r: r.value, reverse=by.descending)  # type: ignore[arg-type,return-value]
        return merged[: stage.limit]

    def _sampled(self, stage: Stage, seed: int, among: Sequence[RowSet | None]) -> list[Ranked]:
        chance = np.random.default_rng(seed)
        rows = [view.alive if some is None else some.rows for view, some in zip(self._reading.views, among, strict=True)]
        rows = [found - self._excluded(view, stage) for view, found in zip(self._reading.views, rows, strict=True)]
        total = sum(map(len, rows))
        places = []
        for number in chance.permutation(chance.choice(total, min(stage.limit, total), replace=False)).tolist():
            shard = 0
            while number >= len(rows[shard]):
                number, shard = number - len(rows[shard]), shard + 1
            places.append(Ranked(Place(shard, rows[shard][number]), 1.0))
        return places

    def _by_id(self, stage: Stage, among: Sequence[RowSet | None]) -> list[Ranked]:
        return [Ranked(place, 1.0) for place in in_id_order(self._reading, among, b"", stage.limit)]

    def _formula(self, formula: Formula, lists: Sequence[Sequence[Ranked]]) -> list[Ranked]:
        scores = [{r.place: r.score for r in ranked} for ranked in lists]
        places = list(dict.fromkeys(r.place for ranked in lists for r in ranked))
        found = []
        for place, row in zip(places, self._reading.rows(places), strict=True):
            candidate = Candidate(row, self._reading.views[place.shard])
            found.append(Ranked(place, formula.score(candidate, [by_place.get(place) for by_place in scores])))
        return sorted(found, key=lambda r: (-r.score, r.place))

    def _candidates(self, stage: Stage, lists: Sequence[Sequence[Ranked]]) -> list[RowSet | None]:
        """The points that the inner stages give, by shard."""
        rows = [BitMap() for _ in self._reading.views]
        for ranked in lists:
            for place, *_ in ranked:
                rows[place.shard].add(place.row)
        passing = [self._reading.among(shard, stage.where) for shard in range(len(rows))]
        return [RowSet(mine if some is None else mine & some.rows) for mine, some in zip(rows, passing, strict=True)]

    def _excluded(self, view: ShardView, stage: Stage) -> BitMap:
        return BitMap(row.row for row in view.rows.find(stage.exclude)) if stage.exclude else _NO_ROWS


_NO_ROWS = BitMap()


def _ranked(shard: int, found: ScoredRows, excluded: BitMap) -> list[Ranked]:
    pairs = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
    return [Ranked(Place(shard, row), score) for row, score in pairs if not excluded or row not in excluded]


def _cut(ranked: list[Ranked], stage: Stage, lower_is_closer: bool = False, or_equal: bool = False) -> list[Ranked]:
    """The stage's share of a ranking: what is better than its threshold, within its limit."""
    if (least := stage.score_threshold) is not None:
        sign = -1 if lower_is_closer else 1
        ranked = [r for r in ranked if sign * r.score > sign * least or (or_equal and r.score == least)]
    return ranked[: stage.limit]


def _with_vectors(query: Scored, change: Any) -> Scored:
    """The query with each of its vectors changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return change(value)
        return type(value)(changed(inner) for inner in value) if isinstance(value, list | tuple) else value

    return replace(query, **{name: changed(getattr(query, name)) for name in query.__slots__ if name != "name"})


def _values(reading: Reading, shard: int, rows: RowSet, by: OrderBy) -> list[tuple[float, int]]:
    """Values and rows of the points of a prefetch, read from their payloads."""
    schema = reading.collection.fields.get(by.key)
    as_value = as_number if schema is None else schema.number
    items: list[tuple[float, int]] = []
    for row in reading.rows(Place(shard, number) for number in rows.array().tolist()):
        values = values_at(orjson.loads(row.payload), by.key) if row.payload else []
        numbers = [n for value in values if (n := as_value(value)) is not None]
        if by.start is not None:
            numbers = [n for n in numbers if (n <= by.start if by.descending else n >= by.start)]
        items.extend((number, row.row) for number in dict.fromkeys(numbers))
    return items
