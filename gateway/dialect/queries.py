"""From the bodies of searches to stages: vectors are read, examples are looked up, filters are handed down to inner stages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from catalog.collection import Collection
from gateway.dialect.bodies import OrderByBody
from gateway.dialect.query_bodies import (
    AnyQuery,
    ContextPair,
    Discover,
    IdfCorpus,
    LookupLocation,
    Mmr,
    Prefetch,
    QueryObject,
    Recommend,
    RelevanceFeedback,
    SearchParams,
)
from gateway.dialect.vectors import Packed, SparseBody, object_of, of_base64, raw_of, sparse_of, vector_of
from gateway.http.errors import BadRequest, NotFound
from journal.ids import ExternalId, encode_id
from journal.records import SPARSE, Vector
from payload.paths import as_micros, as_number, steps_of
from query import points
from query.reading import Where, where
from query.search import prepare
from query.stages import (
    MAX_LIMIT,
    BestScore,
    ById,
    Context,
    Diversity,
    Feedback,
    Fusion,
    Nearest,
    OrderBy,
    Params,
    Query,
    Sample,
    Stage,
    SumScores,
)
from query.stages import Discover as DiscoverQuery
from shard.contract import name_error
from shard.filters.conditions import Condition
from shard.ranking.formula import FormulaBody, parse_formula
from shard.shard import Shard
from shard.vectors.graph import DEFAULT_USE, CodeUse

DEFAULT_LIMIT = 10
MAX_DEPTH = 16


class Source(NamedTuple):
    """A collection whose points can stand as examples."""

    collection: Collection
    shards: Sequence[Shard]


def lookups_of(body: AnyQuery) -> set[str]:
    """The other collections that a query looks up examples in."""
    mine = set() if body.lookup_from is None else {body.lookup_from.collection}
    return mine.union(*(lookups_of(inner) for inner in prefetches_of(body)))


@dataclass(frozen=True, slots=True)
class Translator:
    """Makes stages for a collection. `lookups` are the other collections that examples come from, by name."""

    source: Source
    lookups: Mapping[str, Source]
    packed: bool = False

    def stage(
        self,
        body: AnyQuery,
        limit: int,
        outer: Condition | None = None,
        excluded: frozenset[bytes] = frozenset(),
        depth: int = 1,
    ) -> Stage:
        """The stage of a query and its inner ones. Inside too filters narrow, and examples are left out."""
        if depth > MAX_DEPTH:
            raise BadRequest(f"prefetch is nested deeper than {MAX_DEPTH}")
        condition = both(outer, body.filter)
        query, examples = self._query(body, limit)
        exclude = excluded | examples
        inner = [
            self.stage(prefetch, DEFAULT_LIMIT if prefetch.limit is None else prefetch.limit, condition, exclude, depth + 1)
            for prefetch in prefetches_of(body)
        ]
        if inner and isinstance(query, ById):
            raise BadRequest("query is missing: it says how the points of the prefetch are ranked")
        if isinstance(query, Fusion) and query.weights is not None and len(query.weights) != len(inner):
            raise BadRequest(f"query.rrf.weights has {len(query.weights)} weights for {len(inner)} prefetches")
        return Stage(query, limit, where(condition), params_of(body.params), body.score_threshold, exclude, inner)

    def nearest(self, name: str, raw: bytes, place: str) -> Nearest:
        """By a vector that the body holds."""
        return Nearest(name, self._prepared(name, vector_of(raw, place)))

    def recommend(self, body: Recommend, using: str, lookup: LookupLocation | None) -> tuple[Query, frozenset[bytes]]:
        """By examples; those of the collection itself are left out of the answer."""
        examples = _Examples(self, using, lookup)
        positive = [examples.vector(raw, f"positive[{at}]") for at, raw in enumerate(body.positive or [])]
        negative = [examples.vector(raw, f"negative[{at}]") for at, raw in enumerate(body.negative or [])]
        if body.strategy in (None, "average_vector"):
            if not positive:
                raise BadRequest("Wrong input: At least one positive vector ID required with this strategy")
            return Nearest(using, self._prepared(using, average(positive, negative))), examples.met()
        if not positive and not negative:
            raise BadRequest("Wrong input: At least one positive or negative vector ID required with this strategy")
        kind = BestScore if body.strategy == "best_score" else SumScores
        return kind(using, self._all(using, positive), self._all(using, negative)), examples.met()

    def discover(self, body: Discover, using: str, lookup: LookupLocation | None) -> tuple[Query, frozenset[bytes]]:
        """By a target, among the points on the positive side of pairs."""
        examples = _Examples(self, using, lookup)
        target = self._prepared(using, examples.vector(body.target, "target"))
        return DiscoverQuery(using, target, self._pairs(body.context or [], using, examples)), examples.met()

    def context(
        self, context: Sequence[ContextPair] | ContextPair, using: str, lookup: LookupLocation | None
    ) -> tuple[Query, frozenset[bytes]]:
        """By pairs alone."""
        examples = _Examples(self, using, lookup)
        pairs = self._pairs(context, using, examples)
        if not pairs:
            raise BadRequest("Wrong input: No target or context given")
        return Context(using, pairs), examples.met()

    def _query(self, body: AnyQuery, limit: int) -> tuple[Query, frozenset[bytes]]:
        using, raw = body.using or "", self.raw(body.query)
        if raw in (b"", b"null", b"\xc0"):
            return ById(), frozenset()
        given = object_of(raw, QueryObject)
        if given is None:
            return self._by_example(raw, using, body.lookup_from)
        kinds = [name for name in _KINDS if getattr(given, name) not in (None, UNSET)]
        if len(kinds) != 1:
            raise BadRequest(f"query: needs exactly one of {', '.join(_KINDS)}")
        match kinds[0]:
            case "nearest":
                query, exclude = self._by_example(self.raw(given.nearest), using, body.lookup_from)
                return _with_diversity(query, given.mmr, limit), exclude
            case "recommend":
                return self.recommend(_given(given.recommend), using, body.lookup_from)
            case "discover":
                return self.discover(_given(given.discover), using, body.lookup_from)
            case "context":
                return self.context(_given(given.context), using, body.lookup_from)
            case "relevance_feedback":
                return self._feedback(_given(given.relevance_feedback), using, body.lookup_from)
            case "order_by":
                return self.order_by(_given(given.order_by)), frozenset()
            case "sample":
                return Sample(random.getrandbits(32)), frozenset()
            case "indices":
                vector = sparse_of(SparseBody(given.indices or [], given.values or []), "query")
                return Nearest(using, self._prepared(using, vector)), frozenset()
            case "base64":
                return Nearest(using, self._prepared(using, of_base64(given.base64 or "", "query.base64"))), frozenset()
        if not prefetches_of(body):
            raise BadRequest(f"query.{kinds[0]}: needs a prefetch")
        if kinds[0] == "formula":
            return parse_formula(FormulaBody(_given(given.formula), given.defaults)), frozenset()
        rrf = given.rrf
        if rrf is not None:
            return Fusion("rrf", 2 if rrf.k is None else rrf.k, rrf.weights), frozenset()
        return Fusion(_given(given.fusion)), frozenset()

    def order_by(self, body: str | OrderByBody) -> OrderBy:
        """By a payload value."""
        given = OrderByBody(body) if isinstance(body, str) else body
        steps_of(given.key)
        start = given.start_from
        if start is not None:
            start = as_micros(start) if isinstance(start, str) else as_number(start)
            if start is None:
                raise BadRequest(f"order_by.start_from {given.start_from!r} is neither a number nor a date and time")
        return OrderBy(given.key, given.direction == "desc", start)

    def raw(self, part: msgspec.Raw | UnsetType) -> bytes:
        """A raw part of the body, that knows which form it has."""
        return raw_of(part, self.packed)

    def _by_example(self, raw: bytes, using: str, lookup: LookupLocation | None) -> tuple[Nearest, frozenset[bytes]]:
        examples = _Examples(self, using, lookup)
        return Nearest(using, self._prepared(using, examples.vector(raw, "query"))), examples.met()

    def _feedback(self, body: RelevanceFeedback, using: str, lookup: LookupLocation | None) -> tuple[Query, frozenset[bytes]]:
        examples = _Examples(self, using, lookup)
        target = self._prepared(using, examples.vector(body.target, "target"))
        judged = [
            (self._prepared(using, examples.vector(item.example, f"feedback[{at}].example")), item.score)
            for at, item in enumerate(body.feedback)
        ]
        naive = body.strategy.naive
        return Feedback(using, target, judged, naive.a, naive.b, naive.c), examples.met()

    def _pairs(
        self, context: Sequence[ContextPair] | ContextPair, using: str, examples: _Examples
    ) -> list[tuple[Vector, Vector]]:
        pairs = [context] if isinstance(context, ContextPair) else context
        found = []
        for at, pair in enumerate(pairs):
            positive = examples.vector(pair.positive, f"context[{at}].positive")
            negative = examples.vector(pair.negative, f"context[{at}].negative")
            found.append((self._prepared(using, positive), self._prepared(using, negative)))
        return found

    def _prepared(self, name: str, vector: Vector) -> Vector:
        return prepare(self.source.collection, name, vector)

    def _all(self, name: str, vectors: Sequence[Vector]) -> list[Vector]:
        return [self._prepared(name, vector) for vector in vectors]


_KINDS = (
    "nearest",
    "recommend",
    "discover",
    "context",
    "order_by",
    "fusion",
    "rrf",
    "formula",
    "sample",
    "relevance_feedback",
    "indices",
    "base64",
)


class _Examples:
    """Vectors of a query, given or those of points; notes which points of the searched collection were met."""

    def __init__(self, translator: Translator, using: str, lookup: LookupLocation | None) -> None:
        self._translator = translator
        self._source = translator.source if lookup is None else translator.lookups[lookup.collection]
        self._name = using if lookup is None or lookup.vector is None else lookup.vector
        self._own = self._source.collection.id == translator.source.collection.id
        self._met: set[bytes] = set()

    def vector(self, raw: msgspec.Raw | UnsetType | bytes, place: str) -> Vector:
        """As given, or as the point of that id has it."""
        data = raw if isinstance(raw, bytes) else self._translator.raw(raw)
        point_id = _id_of(data)
        if point_id is None:
            return vector_of(data, place)
        if error := name_error(self._source.collection, self._name):
            raise BadRequest(error)
        encoded = encode_id(point_id)
        found = points.retrieve(self._source.shards, [encoded])
        if not found:
            raise NotFound(f"Not found: No point with id {point_id} found")
        vectors = found[0].view.rows.vectors(found[0].row.row)
        if self._name not in vectors:
            raise BadRequest(f"Wrong input: point {point_id} has no vector {self._name!r}")
        if self._own:
            self._met.add(encoded)
        return vectors[self._name]

    def met(self) -> frozenset[bytes]:
        return frozenset(self._met)


def params_of(body: SearchParams | None) -> Params:
    """How a search may go about it."""
    if body is None:
        return Params()
    codes = body.quantization
    among: Where | None = where(body.idf.corpus) if isinstance(body.idf, IdfCorpus) else None
    return Params(
        body.hnsw_ef or None,
        bool(body.exact),
        codes is not None and bool(codes.ignore),
        DEFAULT_USE if codes is None else CodeUse(codes.rescore is not False, codes.oversampling or DEFAULT_USE.oversampling),
        among,
    )


def window(offset: int | None, limit: int | None) -> tuple[int, int]:
    """Offset, and offset and limit together."""
    begin = offset or 0
    end = begin + (DEFAULT_LIMIT if limit is None else limit)
    if end > MAX_LIMIT:
        raise BadRequest(f"limit and offset together are {end}, must be at most {MAX_LIMIT}")
    return begin, end


def both(outer: Condition | None, inner: Condition | None) -> Condition | None:
    """The filter that asks for both."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return Condition(must=[outer, inner])


def average(positive: Sequence[Vector], negative: Sequence[Vector]) -> Vector:
    """What the examples come to: twice the mean of the positive less the mean of the negative ones."""
    if positive[0].dtype == SPARSE:
        return _sparse_sum(positive, 2 / len(positive) if negative else 1 / len(positive), negative, -1 / max(1, len(negative)))
    if positive[0].ndim == 2:
        return np.concatenate([*positive, *(-vector for vector in negative)])
    try:
        mean = np.mean(positive, axis=0)
        found: Vector = 2 * mean - np.mean(negative, axis=0) if negative else mean
    except ValueError as error:
        raise BadRequest("Wrong input: Vector dimension error: examples have different dimensions") from error
    return found.astype(np.float32)


def _sparse_sum(positive: Sequence[Vector], share: float, negative: Sequence[Vector], other: float) -> Vector:
    every = np.concatenate([*positive, *negative])
    weights = np.repeat([share] * len(positive) + [other] * len(negative), [len(vector) for vector in (*positive, *negative)])
    indexes, at = np.unique(every["index"], return_inverse=True)
    found = np.empty(len(indexes), SPARSE)
    found["index"], found["value"] = indexes, np.bincount(at, every["value"] * weights, len(indexes))
    return found


def prefetches_of(body: AnyQuery) -> Sequence[Prefetch]:
    """The inner queries."""
    given = body.prefetch
    return [given] if isinstance(given, Prefetch) else given or ()


def _id_of(raw: bytes) -> ExternalId | None:
    """The id when it is one."""
    if isinstance(raw, Packed):
        value = msgspec.msgpack.decode(raw)
    elif raw[:1] == b'"' or raw[:1].isdigit() or raw[:1] == b"-":
        value = msgspec.json.decode(raw)
    else:
        return None
    return value if isinstance(value, int | str) else None


def _with_diversity(query: Nearest, mmr: Mmr | None, limit: int) -> Nearest:
    if mmr is None:
        return query
    diversity = 0.5 if mmr.diversity is None else mmr.diversity
    return Nearest(query.name, query.vector, Diversity(diversity, mmr.candidates_limit or limit))


def _given(value: Any) -> Any:
    assert value is not None
    return value
