"""Planning and execution of a ranking on one view.

A search by one vector first evaluates its filter to a set of rows. A small set is scanned. Otherwise the graphs are searched,
with the set as their selector; when they return too few candidates, the set is scanned after all. So a search returns
min(limit, matches) points, with exact scores (I10). A ranking by several examples computes the score of every row.

Points with equal scores are ordered by id, also at the limit, so that an answer does not depend on rows, segments or shards.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice, takewhile
from typing import Any, Literal, NamedTuple

import numpy as np
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vectors
from shard.deadline import Deadline
from shard.ranking.examples import ByExamples, scored
from shard.ranking.rankings import ById, Nearest, OrderBy, Ranking, Sample, SearchParams
from shard.store import NO_ROW
from shard.vectors.graph import CodeUse
from shard.vectors.index import RowSet, ScoredRows, VectorView, closest
from shard.vectors.multi import MultiView
from shard.vectors.segments import DenseView
from shard.view import ROWS_PER_STEP, ShardView

EXACT_BELOW = 10_000
"""Up to this many matches of a filter are scanned."""

SCAN_FLOATS = 1_000_000
"""A scan of up to this many floats takes no longer than a walk through a graph, and is exact."""

QUICK_FLOATS = 8_000_000
"""A scan of this many floats, in all shards together, takes about a millisecond; a search with a higher cost is not quick."""

WALK_COST = 3
"""The cost of comparing one float in a graph search, in floats of a scan: graph searches read memory at random."""

QUICK_LIMIT = 100

LEAST_BREADTH = 16

KEY_COST = 4
"""The cost of reading the next key in id order, in rows that are sorted by their ids."""


class RankedRows(NamedTuple):
    """Rows in the order of a ranking, their scores (float32), and for an order or a sample their sort keys.

    `walked`: by a plan that finds them approximately, maybe not for this limit.
    """

    rows: list[int]
    scores: Vectors
    values: list[float | int] | None = None
    walked: bool = False


class Plan(NamedTuple):
    """The method of a search by one vector, and its cost in floats of a scan."""

    method: Literal["scan", "graph", "codes"]
    floats: int


Steps = list[dict[str, Any]]
"""The trace of an execution, with times, for `?explain=true`."""


def step(steps: Steps | None, name: str, **facts: Any) -> AbstractContextManager[dict[str, Any]]:
    """Adds a timed step to the trace, if there is one. The body of the `with` may add facts to the returned dict."""
    return nullcontext(facts) if steps is None else _timed(steps, {"step": name} | facts)


@contextmanager
def _timed(steps: Steps, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun_s = time.perf_counter()
    yield facts
    steps.append(facts | {"ms": round(1000 * (time.perf_counter() - begun_s), 3)})


def planned(index: VectorView, by: Nearest, limit: int, params: SearchParams, rows: RowSet | None) -> Plan:
    """The plan of a search of `rows`, or of all."""
    exact = params.exact or params.ignore_codes or (rows is not None and len(rows) <= EXACT_BELOW)
    if isinstance(index, MultiView) and index.is_coded and not exact:
        return Plan("codes", index.search_floats(by.vector))
    scan = Plan("scan", index.scan_floats(by.vector, rows))
    if exact or not isinstance(index, DenseView) or scan.floats <= SCAN_FLOATS:
        return scan
    return Plan("graph", WALK_COST * index.search_floats(limit, params.ef, _use(params)))


def breadth(limit: int) -> int:
    """The limit for which graphs are searched: the next power of two. So the pages of one answer are cut from few walks, and the
    candidates of a walk are the same for all limits up to its breadth."""
    return max(LEAST_BREADTH, 1 << (limit - 1).bit_length())


def _use(params: SearchParams) -> CodeUse:
    return CodeUse(params.rescore, params.oversampling)


def quick_plan(view: ShardView, ranking: Ranking) -> Plan | None:
    """The plan of a ranking that takes about a millisecond at most, so that it may run on an event loop; None for others."""
    by = ranking.by
    limit = breadth(ranking.limit) + len(ranking.exclude)
    if not isinstance(by, Nearest) or ranking.limit + len(ranking.exclude) > QUICK_LIMIT or not view.is_selected(ranking.where):
        return None
    rows = view.select(ranking.where)
    plan = planned(view.vectors[by.name], by, limit, ranking.params, rows)
    if plan.method == "graph" and rows is not None:
        return None
    return plan if plan.floats < QUICK_FLOATS / view.collection.config.shard_number else None


def rank(
    view: ShardView,
    ranking: Ranking,
    among: BitMap | None,
    deadline: Deadline,
    plan: Plan | None = None,
    steps: Steps | None = None,
) -> RankedRows:
    """The first `ranking.limit` rows, among `among` or all, in order. `plan`: the result of `quick_plan`, if known."""
    deadline.check()
    walked = False
    without = BitMap(point.row for point in view.find(ranking.exclude)) if ranking.exclude else _NO_ROWS
    if isinstance(ranking.by, OrderBy) and among is None:
        return _in_order(view, ranking, ranking.by, without, deadline)
    rows = _rows(view, ranking, among, deadline, steps)
    match ranking.by:
        case Nearest() as by:
            candidates, walked = _nearest(view, ranking, by, rows, len(without), deadline, plan, steps)
        case OrderBy() as by:
            return _by_values(view, ranking, by, (view.alive if rows is None else rows.rows) - without, deadline)
        case Sample(seed):
            return _sampled((view.alive if rows is None else rows.rows) - without, ranking.limit, seed)
        case ById(start):
            some = (view.alive if rows is None else rows.rows) - without
            return _unscored(_by_id(view, some, start, ranking.limit, deadline))
        case by:
            candidates = _by_examples(view, ranking, by, rows, len(without), deadline, steps)
    if without:
        keep = np.array([row not in without for row in candidates.rows.tolist()], np.bool_)
        candidates = ScoredRows(candidates.rows[keep], candidates.scores[keep])
    higher_first = not isinstance(ranking.by, Nearest) or view.vectors[ranking.by.name].distance.higher_is_closer
    return _cut(view, candidates, ranking.limit, higher_first)._replace(walked=walked)


_NO_ROWS = BitMap()


def _rows(view: ShardView, ranking: Ranking, among: BitMap | None, deadline: Deadline, steps: Steps | None) -> RowSet | None:
    """The rows to rank; None for all."""
    if ranking.where is None:
        return None if among is None else RowSet(among)
    if among is not None and not view.is_selected(ranking.where):  # testing few points is cheaper than selecting from all
        rows, exact = view.may_pass(ranking.where, deadline)
        return RowSet(rows & among if exact else view.tested(rows & among, ranking.where.filter, deadline))
    with step(steps, "filter") as facts:
        selected = view.select(ranking.where, deadline)
        assert selected is not None
        facts["matches"] = len(selected)
    return selected if among is None else RowSet(selected.rows & among)


def _nearest(
    view: ShardView,
    ranking: Ranking,
    by: Nearest,
    rows: RowSet | None,
    more: int,
    deadline: Deadline,
    plan: Plan | None,
    steps: Steps | None,
) -> tuple[ScoredRows, bool]:
    """The `ranking.limit` + `more` closest rows, and whether the plan is an approximate one.

    Also those that tie with the last of them; from graphs, those of the whole breadth.
    """
    index, limit, params = view.vectors[by.name], ranking.limit + more, ranking.params
    size = index.size() if rows is None else len(rows)
    wide = breadth(ranking.limit) + more
    plan = planned(index, by, wide, params, rows) if plan is None else plan
    with step(steps, "search", among=size) as facts:
        facts["plan"] = plan.method
        if plan.method == "scan":
            return index.scan(by.vector, limit, rows, deadline), False
        use = _use(params)
        if isinstance(index, MultiView):
            candidates = index.search(by.vector, wide, None, rows, use, deadline)
        else:
            assert isinstance(index, DenseView)
            if steps is not None:
                facts["ef"] = index.widths(wide, params.ef, rows, use)
            candidates = index.search(by.vector, wide, params.ef, rows, use)
        if len(candidates.rows) < min(wide, size):
            facts["plan"] = f"{plan.method}, then scan"
            candidates = index.scan(by.vector, limit, rows, deadline)
        return candidates, True


def _by_examples(
    view: ShardView, ranking: Ranking, by: ByExamples, rows: RowSet | None, more: int, deadline: Deadline, steps: Steps | None
) -> ScoredRows:
    with step(steps, "score", query=type(by).__name__):
        return closest(Distance.DOT, scored(view.vectors[by.name], by, rows, deadline), ranking.limit + more)


def _cut(view: ShardView, candidates: ScoredRows, limit: int, higher_first: bool) -> RankedRows:
    """The first `limit` of rows that are ordered by score; rows with equal scores are ordered by id."""
    rows, scores = candidates
    if len(scores) > limit and scores[limit] != (last := scores[limit - 1]):
        rows, scores = rows[:limit], scores[:limit]
    elif len(scores) > limit:
        begin, end = int(np.argmax(scores == last)), len(scores) - int(np.argmax(scores[::-1] == last))
        tied = view.known.first_by_id(np.sort(rows[begin:end]), limit - begin)
        rows = np.concatenate([rows[:begin], tied])
        scores = np.concatenate([scores[:begin], np.full(len(tied), last)])
    if len(set(scores.tolist())) == len(scores):
        return RankedRows(rows.tolist(), scores)
    keys = view.ids(rows.tolist())[0]
    sign = -1 if higher_first else 1
    order = sorted(range(len(rows)), key=lambda at: (sign * scores[at], keys[at]))[:limit]
    return RankedRows(rows[order].tolist(), scores[order])


def _in_order(view: ShardView, ranking: Ranking, by: OrderBy, without: BitMap, deadline: Deadline) -> RankedRows:
    """Orders by an index, which is read until the limit is reached. An inexact filter is tested for each row that is read."""
    items = view.in_order(by.key, by.descending, by.start, deadline)
    items = (item for item in items if item[1] not in without)
    if ranking.where is not None:
        rows, exact = view.may_pass(ranking.where, deadline)
        items = (item for item in items if item[1] in rows)
        if not exact:
            passes = ranking.where.filter
            items = (item for item in items if view.passes(item[1], passes))
    return _first(view, _checked(items, deadline), ranking.limit, by.descending)


def _by_values(view: ShardView, ranking: Ranking, by: OrderBy, rows: BitMap, deadline: Deadline) -> RankedRows:
    """Orders given rows by values that are read from their payloads."""
    items: list[tuple[float | int, int]] = []
    for row, numbers in view.numbers(rows, by.key, deadline):
        if by.start is not None:
            start = by.start
            numbers = [number for number in numbers if (number <= start if by.descending else number >= start)]
        items.extend((number, row) for number in numbers)
    items.sort(reverse=by.descending)
    return _first(view, iter(items), ranking.limit, by.descending)


def _first(view: ShardView, items: Iterator[tuple[float | int, int]], limit: int, descending: bool) -> RankedRows:
    """The first `limit` of ordered items; items with equal values are ordered by id."""
    first = list(islice(items, limit))
    if len(first) == limit:
        last = first[-1][0]
        ahead = [item for item in first if item[0] != last]
        tied = {row for _, row in first[len(ahead) :]} | {row for _, row in takewhile(lambda item: item[0] == last, items)}
        chosen = view.known.first_by_id(np.array(sorted(tied), np.int64), limit - len(ahead))
        first = ahead + [(last, row) for row in chosen.tolist()]
    ids, _ = view.ids([row for _, row in first])
    sign = -1 if descending else 1
    ordered = sorted(zip(first, ids, strict=True), key=lambda pair: (sign * pair[0][0], pair[1]))[:limit]
    rows = [row for (_, row), _ in ordered]
    return RankedRows(rows, np.ones(len(rows), np.float32), [value for (value, _), _ in ordered])


def _checked(items: Iterator[tuple[float | int, int]], deadline: Deadline) -> Iterator[tuple[float | int, int]]:
    for count, item in enumerate(items):
        if count % ROWS_PER_STEP == 0:
            deadline.check()
        yield item


def _sampled(rows: BitMap, limit: int, seed: int) -> RankedRows:
    """A random sample of rows, with values in ascending order: the smallest of len(rows) exponentially distributed numbers.

    When the samples of several shards are merged by these values, the result is a uniform sample of all rows (Rényi, 1953).
    """
    chance = np.random.default_rng(seed)
    count = min(limit, len(rows))
    chosen = chance.permutation(chance.choice(len(rows), count, replace=False)).tolist()
    values = np.cumsum(chance.exponential(size=count) / (len(rows) - np.arange(count)))
    return RankedRows([rows[at] for at in chosen], np.ones(count, np.float32), values.tolist())


def _by_id(view: ShardView, rows: BitMap, start: bytes, limit: int, deadline: Deadline) -> list[int]:
    """The first `limit` of rows in the order of their ids, from `start` on.

    A small page of many rows is read in id order. If that passes over too many keys of deleted points and other rows, the rest
    is sorted instead: so the work is bounded by the number of rows.
    """
    page: list[int] = []
    most = len(rows) // KEY_COST
    if limit <= most:
        for passed, (id_, row) in enumerate(view.ids_from(start, deadline)):
            if passed > most:
                start = id_
                break
            if row != NO_ROW and row in rows:
                page.append(row)
                if len(page) == limit:
                    return page
        else:
            return page
    numbers = rows.to_array().tolist()
    ids = view.ids(numbers)[0]
    deadline.check()
    shown = set(page)
    rest = sorted((id_, row) for id_, row in zip(ids, numbers, strict=True) if id_ >= start and row not in shown)
    return page + [row for _, row in rest[: limit - len(page)]]


def _unscored(rows: Sequence[int]) -> RankedRows:
    return RankedRows(list(rows), np.ones(len(rows), np.float32))
