"""The coordinator of a search: sends its stages to all shards in rounds, inner stages first, on pinned views.

A leaf stage takes one round to every shard. An outer stage takes another round, with the candidates of its inner stages. Fusion
takes no round; diversity takes one that fetches vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from math import isfinite
from typing import Any

import msgspec
import numpy as np

from catalog.collection import Collection, Distance
from journal.records import SPARSE, Vector
from query.diversity import diversified
from query.fusion import fuse
from query.pinned import Pinned, abandon
from query.stages import Fusion, Stage
from shard.contract import vector_error
from shard.ranking.execution import Steps, breadth, step
from shard.ranking.formula import Formula
from shard.ranking.rankings import ById, Nearest, OrderBy, Ranking, Sample
from shard.replica import Answer, RankedPoints
from shard.vectors.datatypes import Encoding, normalises
from shard.vectors.index import finite, normalised, sum_of_squares, unit
from shard.vectors.sparse import idf


class QueryError(ValueError):
    """An invalid read request. The text names the field and the bound."""


def prepare(collection: Collection, name: str, vector: Vector) -> Vector:
    """Prepares a query vector for the collection: checked, and scaled to unit length where vectors are. Raises QueryError."""
    config = collection.config
    if name in config.sparse_vectors:
        if vector.dtype != SPARSE:
            raise QueryError(f"Wrong input: vector {name!r} is sparse: give indices and values")
        if not np.isfinite(vector["value"]).all():
            raise QueryError("query vector has values that are not finite, or too large for float32")
        return np.sort(vector, order="index")  # the rounding of a sum depends on its order
    size = 0 if vector.dtype == SPARSE else vector.shape[-1]
    if error := vector_error(collection, name, size):
        raise QueryError(error)
    params = config.vectors[name]
    if params.multi:
        vector = vector[np.newaxis] if vector.ndim == 1 else vector
    elif vector.ndim != 1:
        raise QueryError(f"Wrong input: vector {name!r} is not a multi-vector: give one list of numbers")
    square = sum_of_squares(vector)
    if not isfinite(square):
        raise QueryError("query vector has values that are not finite, or too large for float32")
    if not normalises(params.datatype, params.distance):
        return vector
    return normalised(vector) if params.multi else unit(vector, square)


async def search(pinned: Pinned, stage: Stage, steps: Steps | None = None, among: Sequence[bytes] | None = None) -> RankedPoints:
    """The first points of the outermost stage, best first; points with equal scores are ordered by id.

    `steps`: a trace to append to. `among` limits a stage without inner stages to these ids.
    """
    query = _Search(pinned, steps)
    return await (query.ranked(stage) if among is None else query.leaf(stage, among))


async def page(pinned: Pinned, stage: Stage, offset: int, steps: Steps | None = None) -> RankedPoints:
    """The points of `search` from `offset` on; the pages of one list have no point twice and miss none.

    A wider walk through graphs may find points that a narrower one has missed, which would move others to the next page. So a
    page has what the walks for the pages before it have not found.
    """
    query = _Search(pinned, steps)
    ranked = await query.ranked(stage)
    if not offset:
        return ranked
    if not ranked.walked or stage.inner or stage.diversity:
        return ranked.since(offset)
    listed = RankedPoints([], np.empty(0, np.float32), [])
    limit = breadth(1)
    while limit < stage.limit:
        listed = _extended(listed, await query.ranked(msgspec.structs.replace(stage, limit=limit)), limit)
        limit *= 2
    listed = _extended(listed, ranked, stage.limit).since(offset)
    sign = -1 if query.closer_first(stage) else 1
    order = sorted(range(len(listed.ids)), key=lambda at: (sign * listed.scores[at], listed.ids[at]))
    return _taken(listed, order)


def _extended(listed: RankedPoints, wider: RankedPoints, limit: int) -> RankedPoints:
    """A list of at most `limit` points: those listed, and then the others of a wider search."""
    known = set(listed.ids)
    new = _taken(wider, [at for at, id_ in enumerate(wider.ids) if id_ not in known][: limit - len(listed.ids)])
    return RankedPoints(listed.ids + new.ids, np.concatenate([listed.scores, new.scores]), listed.versions + new.versions)


class _Search:
    """One query on a pinned collection."""

    def __init__(self, pinned: Pinned, steps: Steps | None) -> None:
        self._pinned = pinned
        self._steps = steps

    async def ranked(self, stage: Stage) -> RankedPoints:
        """Executes a stage and its inner stages: at most `stage.limit` points, best first."""
        if not stage.inner:
            return await self.leaf(stage, None)
        lists = await self._inner(stage.inner)
        match stage.query:
            case Fusion() as fusion:
                count = sum(len(ranked.ids) for ranked in lists)
                with step(self._steps, fusion.method, lists=len(lists)):
                    fused = await self._pinned.run(count, partial(_fused, lists, fusion))
                return _cut(fused, stage, or_equal=True)
            case Formula() as formula:
                return _cut(await self._formula(formula, lists), stage, or_equal=True)
        return await self.leaf(stage, list(dict.fromkeys(chain.from_iterable(ranked.ids for ranked in lists))))

    async def _inner(self, stages: Sequence[Stage]) -> list[RankedPoints]:
        """Executes inner stages; those without inner stages run concurrently."""
        stages = [await self._weighed(stage) for stage in stages]
        started: list[list[Answer[RankedPoints]] | None] = []
        lists = []
        try:
            for stage in stages:
                started.append(None if stage.inner or stage.diversity else await self._ask(stage, None))
                await self._pinned.give_way()
            for stage, answers in zip(stages, started, strict=True):
                lists.append(await self.ranked(stage) if answers is None else await self._merged(stage, answers))
        except BaseException:
            abandon(chain.from_iterable(answers or () for answers in started))
            raise
        return lists

    async def leaf(self, stage: Stage, among: Sequence[bytes] | None) -> RankedPoints:
        """Executes a stage without its inner stages, on the points `among`; None for all."""
        if isinstance(stage.query, Fusion | Formula):
            raise QueryError("query: fusion and formula need a prefetch")
        stage = await self._weighed(stage)
        if stage.diversity is not None and isinstance(stage.query, Nearest):
            return await self._diverse(stage, stage.query, among)
        return await self._merged(stage, await self._ask(stage, among))

    async def _ask(self, stage: Stage, among: Sequence[bytes] | None) -> list[Answer[RankedPoints]]:
        """Starts a leaf stage on every shard."""
        if isinstance(stage.query, Fusion | Formula):
            raise QueryError("query: fusion and formula need a prefetch")
        ranking = Ranking(stage.query, stage.limit, stage.where, list(stage.exclude), stage.params, self._steps is not None)
        if among is not None:
            asked = await self._pinned.by_lease(among)
            return [lease.rank(_for_shard(ranking, lease.shard), ids) for lease, ids in asked]
        return [lease.rank(_for_shard(ranking, lease.shard)) for lease in self._pinned.leases]

    async def _merged(self, stage: Stage, answers: list[Answer[RankedPoints]]) -> RankedPoints:
        parts = await self._pinned.all_of(answers)
        if not parts:  # `among` is empty
            return RankedPoints([], np.empty(0, np.float32), [])
        if self._steps is not None:
            self._steps.extend(step for part in parts for step in part.steps)
        merged = parts[0]
        if len(parts) > 1:
            count = sum(len(part.ids) for part in parts)
            merged = await self._pinned.run(count, partial(_merge, stage, parts, self.closer_first(stage)))
        if isinstance(stage.query, Sample):
            merged.values = None  # only needed for the merge
        return _cut(merged, stage, lower_is_closer=stage.score_threshold is not None and not self.closer_first(stage))

    def closer_first(self, stage: Stage) -> bool:
        """Whether a higher score is a better one."""
        if not isinstance(stage.query, Nearest):
            return True
        params = self._pinned.collection.config.vectors.get(stage.query.name)
        return params is None or params.distance.higher_is_closer

    async def _weighed(self, stage: Stage) -> Stage:
        """The stage with its sparse query vectors multiplied by inverse document frequencies, if the collection uses them."""
        name: str = getattr(stage.query, "name", "")  # sparse vectors have one
        params = self._pinned.collection.config.sparse_vectors.get(name)
        if params is None or not params.idf or stage.inner or stage.is_weighed:
            return stage
        vectors = list(_vectors_of(stage.query))
        indexes = sorted({index for vector in vectors for index in vector["index"].tolist()})
        answers = [lease.terms(name, indexes, stage.corpus) for lease in self._pinned.leases]
        terms = await self._pinned.all_of(answers)
        total = sum(part.total for part in terms)
        weights = {index: idf(sum(part.having[at] for part in terms), total) for at, index in enumerate(indexes)}
        return msgspec.structs.replace(stage, query=_with_weights(stage.query, weights), is_weighed=True)

    async def _diverse(self, stage: Stage, query: Nearest, among: Sequence[bytes] | None) -> RankedPoints:
        assert stage.diversity is not None
        wide = msgspec.structs.replace(stage, limit=stage.diversity.candidates, diversity=None)
        candidates = await self._merged(wide, await self._ask(wide, among))
        asked = await self._pinned.by_lease(candidates.ids)
        fetched = await self._pinned.all_of(lease.fetch(ids, vectors=[query.name]) for lease, ids in asked)
        vectors = {id_: vectors[query.name] for part in fetched for id_, vectors in zip(part.ids, part.vectors, strict=True)}
        params = self._pinned.collection.config.vectors.get(query.name)
        distance = Distance.DOT if params is None else params.distance
        with step(self._steps, "diversity", candidates=len(candidates.ids)):
            target, ordered = query.vector, [vectors[id_] for id_ in candidates.ids]
            if params is not None:
                encoding = Encoding(params.datatype, distance, params.size)
                target, ordered = encoding.compared_query(target), list(map(encoding.compared_read, ordered))
            diversity, deadline = stage.diversity.diversity, self._pinned.deadline
            work = partial(diversified, distance, target, ordered, diversity, stage.limit, deadline)
            order = await self._pinned.run(len(ordered) * stage.limit, work)
        return _taken(candidates, order)

    async def _formula(self, formula: Formula, lists: Sequence[RankedPoints]) -> RankedPoints:
        """All points of the inner lists, ordered by the value of a formula of their scores in these lists."""
        scores = [dict(zip(ranked.ids, ranked.scores.tolist(), strict=True)) for ranked in lists]
        points = _union(lists)
        with step(self._steps, "formula", lists=len(lists)):
            asked = await self._pinned.by_lease(points.ids)
            parts = await self._pinned.all_of(
                lease.score(formula, ids, [[by_id.get(id_) for by_id in scores] for id_ in ids]) for lease, ids in asked
            )
        values = {id_: score for (_, ids), part in zip(asked, parts, strict=True) for id_, score in zip(ids, part, strict=True)}
        points.scores = finite(np.array([values[id_] for id_ in points.ids], np.float64))
        order = sorted(range(len(points.ids)), key=lambda at: (-points.scores[at], points.ids[at]))
        return _taken(points, order)


def _for_shard(ranking: Ranking, shard: int) -> Ranking:
    """The ranking for one shard: a sample gets another seed for each shard."""
    if not isinstance(ranking.by, Sample):
        return ranking
    return msgspec.structs.replace(ranking, by=Sample(ranking.by.seed * 1009 + shard))


def _merge(stage: Stage, parts: Sequence[RankedPoints], closer_first: bool) -> RankedPoints:
    """Merges the lists of several shards in the order of the stage; equal points are ordered by id."""
    ids = list(chain.from_iterable(part.ids for part in parts))
    versions = list(chain.from_iterable(part.versions for part in parts))
    scores = np.concatenate([part.scores for part in parts])
    by_value = isinstance(stage.query, OrderBy | Sample)
    values = list(chain.from_iterable(part.values or () for part in parts)) if by_value else None
    keys: Sequence[Any] = values if values is not None else scores.tolist()
    falling = stage.query.descending if isinstance(stage.query, OrderBy) else closer_first and not by_value
    sign = -1 if falling else 1
    if isinstance(stage.query, ById):
        order = sorted(range(len(ids)), key=ids.__getitem__)
    else:
        order = sorted(range(len(ids)), key=lambda at: (sign * keys[at], ids[at]))
    walked = any(part.walked for part in parts)
    return _taken(RankedPoints(ids, scores, versions, values, walked=walked), order[: stage.limit])


def _cut(ranked: RankedPoints, stage: Stage, lower_is_closer: bool = False, or_equal: bool = False) -> RankedPoints:
    """Applies the score threshold and the limit of the stage. `or_equal`: the threshold is inclusive."""
    if (least := stage.score_threshold) is not None:
        sign = -1 if lower_is_closer else 1
        scores = ranked.scores.tolist()
        kept = [at for at, score in enumerate(scores) if sign * score > sign * least or (or_equal and score == least)]
        ranked = _taken(ranked, kept)
    return _taken(ranked, range(stage.limit)) if len(ranked.ids) > stage.limit else ranked


def _taken(ranked: RankedPoints, order: Sequence[int]) -> RankedPoints:
    """The points of a ranking at the indexes `order`."""
    values = None if ranked.values is None else [ranked.values[at] for at in order]
    versions = [ranked.versions[at] for at in order]
    return RankedPoints([ranked.ids[at] for at in order], ranked.scores[list(order)], versions, values, walked=ranked.walked)


def _union(lists: Sequence[RankedPoints]) -> RankedPoints:
    """The points of all lists without repetition, in the order of their first occurrence. The scores are zero."""
    versions = {id_: version for ranked in lists for id_, version in zip(ranked.ids, ranked.versions, strict=True)}
    return RankedPoints(list(versions), np.zeros(len(versions), np.float32), list(versions.values()))


def _fused(lists: Sequence[RankedPoints], fusion: Fusion) -> RankedPoints:
    fused = fuse([list(zip(ranked.ids, ranked.scores.tolist(), strict=True)) for ranked in lists], fusion)
    union = _union(lists)
    versions = dict(zip(union.ids, union.versions, strict=True))
    scores = finite(np.array([score for _, score in fused], np.float64))
    return RankedPoints([id_ for id_, _ in fused], scores, [versions[id_] for id_, _ in fused])


def _vectors_of(value: Any) -> Iterable[Vector]:
    """All vectors in a query."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _vectors_of(inner)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _vectors_of(getattr(value, name))


def _with_weights(value: Any, weights: dict[int, float]) -> Any:
    """The query, with the values of its sparse vectors multiplied by the weights of their indexes."""
    if isinstance(value, np.ndarray):
        weighed = value.copy()
        weighed["value"] *= [weights[index] for index in value["index"].tolist()]
        return weighed
    if isinstance(value, list | tuple):
        return type(value)(_with_weights(inner, weights) for inner in value)
    if isinstance(value, msgspec.Struct):
        fields = {name: _with_weights(getattr(value, name), weights) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    return value
