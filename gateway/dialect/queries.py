"""Converts the bodies of searches to stages: parses vectors, looks up examples, applies filters to inner stages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from catalog.collection import Collection
from gateway.dialect.bodies import OrderByBody
from gateway.dialect.documents import Document, document_of
from gateway.dialect.query_bodies import (
    MAX_CANDIDATES,
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
from payload.errors import BoundError
from payload.paths import as_micros, as_number, steps_of
from query import points
from query.pinned import Pinned
from query.search import prepare
from query.stages import Diversity, Fusion, Query, Stage
from shard.contract import name_error
from shard.filters.conditions import Condition
from shard.filters.where import Where
from shard.ranking.formula import FormulaBody, formula_of
from shard.ranking.rankings import (
    DEFAULT_PARAMS,
    BestScore,
    ById,
    Context,
    Feedback,
    Nearest,
    OrderBy,
    Sample,
    SumScores,
)
from shard.ranking.rankings import Discover as DiscoverQuery
from shard.ranking.rankings import SearchParams as SearchRequest

CompileFilter = Callable[[Condition | None], Awaitable[Where | None]]
"""Compiles the filter of a condition; a large one in the thread pool."""

DEFAULT_LIMIT = 10
MAX_DEPTH = 16
MAX_RANKED = 2**31 - 1
"""More points than a collection can have."""


def lookups_of(body: AnyQuery) -> set[str]:
    """The other collections that a query looks up examples in."""
    mine = set() if body.lookup_from is None else {body.lookup_from.collection}
    return mine.union(*(lookups_of(inner) for inner in prefetches_of(body)))


MakeVectors = Callable[[Sequence[tuple[Document, str]]], Awaitable[list[Vector]]]
"""Makes the query vectors of documents, which are given with their places in the request."""


def nearest(collection: Collection, name: str, vector: Vector) -> Nearest:
    """A query by a vector."""
    return Nearest(name, prepare(collection, name, vector))


def query_object_of(raw: bytes, place: str) -> QueryObject | None:
    """The query in a raw part of a body, if it is an object of the kind of query; None for an id, a vector or a document."""
    return None if document_of(raw, place) is not None else object_of(raw, QueryObject)


def is_repeatable(body: Any, packed: bool) -> bool:
    """Whether the answer to a search depends only on the state of the searched collection: it has no random sample, and no
    examples from another collection."""
    if getattr(body, "lookup_from", None) is not None:
        return False
    if not isinstance(body, AnyQuery):
        return True
    given = query_object_of(raw_of(body.query, packed), "query")
    return (given is None or given.sample is None) and all(is_repeatable(inner, packed) for inner in prefetches_of(body))


@dataclass(frozen=True, slots=True)
class Translator:
    """Converts bodies to stages for a collection. `lookups` are the other collections of examples, by name."""

    source: Pinned
    lookups: Mapping[str, Pinned]
    packed: bool
    where: CompileFilter
    make_vectors: MakeVectors
    seed: int

    async def stage(
        self,
        body: AnyQuery,
        limit: int,
        outer: Condition | None = None,
        excluded: frozenset[bytes] = frozenset(),
        depth: int = 1,
    ) -> Stage:
        """The stage of a query with its inner stages. The filter and the exclusion of examples also apply to inner stages."""
        if depth > MAX_DEPTH:
            raise BoundError(f"prefetch: is nested deeper than {MAX_DEPTH}")
        condition = both(outer, body.filter)
        query, examples = await self._query(body)
        exclude = excluded | examples
        inner = [
            await self.stage(prefetch, limit_of(prefetch.limit), condition, exclude, depth + 1)
            for prefetch in prefetches_of(body)
        ]
        if inner and isinstance(query, ById):
            raise BoundError("query: is missing, it says how the points of the prefetch are ranked")
        if isinstance(query, Fusion) and query.weights is not None and len(query.weights) != len(inner):
            raise BoundError(f"query.rrf.weights: has {len(query.weights)} weights for {len(inner)} prefetches")
        if isinstance(query, Diverse):
            query, mmr = query
            candidates = min(mmr.candidates_limit or limit, MAX_CANDIDATES)
            diversity = Diversity(0.5 if mmr.diversity is None else mmr.diversity, candidates)
        else:
            diversity = None
        if isinstance(query, OrderBy) and body.score_threshold is not None:
            raise BadRequest("score_threshold: cannot be used with order_by, which gives no scores")
        check_idf(self.source.collection, body.params, getattr(query, "name", None))
        params = params_of(body.params)
        corpus = await self.where(corpus_of(body.params))
        return Stage(query, limit, await self.where(condition), params, body.score_threshold, exclude, inner, diversity, corpus)

    async def recommend(self, body: Recommend, using: str, lookup: LookupLocation | None) -> tuple[Query, frozenset[bytes]]:
        """A query by examples, and the examples of the collection itself, which are excluded from the answer."""
        averaged = body.strategy in (None, "average_vector")
        if not body.positive and (averaged or not body.negative):
            raise BoundError(f"positive: at least one positive{'' if averaged else ' or negative'} vector ID is required")
        given = [*_placed("positive", body.positive), *_placed("negative", body.negative)]
        examples = await self._examples(given, using, lookup)
        positive = [examples.vector(*one) for one in _placed("positive", body.positive)]
        negative = [examples.vector(*one) for one in _placed("negative", body.negative)]
        if averaged:
            return Nearest(using, self._prepared(using, average(positive, negative))), examples.met()
        kind = BestScore if body.strategy == "best_score" else SumScores
        return kind(using, self._all(using, positive), self._all(using, negative)), examples.met()

    async def discover(self, body: Discover, using: str, lookup: LookupLocation | None) -> tuple[Query, frozenset[bytes]]:
        """A query by a target and by pairs of examples, and the examples to exclude."""
        pairs = _listed(body.context)
        examples = await self._examples([(body.target, "target"), *_of_pairs(pairs)], using, lookup)
        target = self._prepared(using, examples.vector(body.target, "target"))
        return DiscoverQuery(using, target, self._pairs(pairs, using, examples)), examples.met()

    async def context(
        self, context: list[ContextPair] | ContextPair, using: str, lookup: LookupLocation | None
    ) -> tuple[Query, frozenset[bytes]]:
        """A query only by pairs of examples, and the examples to exclude."""
        given = _listed(context)
        examples = await self._examples(_of_pairs(given), using, lookup)
        pairs = self._pairs(given, using, examples)
        if not pairs:
            raise BoundError("context: no target and no context are given")
        return Context(using, pairs), examples.met()

    async def _query(self, body: AnyQuery) -> tuple[Query | Diverse, frozenset[bytes]]:
        using, raw = body.using or "", self.raw(body.query)
        if raw in (b"", b"null", b"\xc0"):
            return ById(), frozenset()
        given = query_object_of(raw, "query")
        if given is None:
            return await self._by_example(raw, using, body.lookup_from)
        kinds = [name for name in _KINDS if getattr(given, name) not in (None, UNSET)]
        if len(kinds) != 1:
            raise BadRequest(f"query: needs exactly one of {', '.join(_KINDS)}")
        match kinds[0]:
            case "nearest":
                query, exclude = await self._by_example(self.raw(given.nearest), using, body.lookup_from)
                return query if given.mmr is None else Diverse(query, given.mmr), exclude
            case "recommend":
                return await self.recommend(_given(given.recommend), using, body.lookup_from)
            case "discover":
                return await self.discover(_given(given.discover), using, body.lookup_from)
            case "context":
                return await self.context(_given(given.context), using, body.lookup_from)
            case "relevance_feedback":
                return await self._feedback(_given(given.relevance_feedback), using, body.lookup_from)
            case "order_by":
                return order_by_of(_given(given.order_by)), frozenset()
            case "sample":
                return Sample(self.seed), frozenset()
            case "indices":
                vector = sparse_of(SparseBody(given.indices or [], given.values or []), "query")
                return Nearest(using, self._prepared(using, vector)), frozenset()
            case "base64":
                return Nearest(using, self._prepared(using, of_base64(given.base64 or "", "query.base64"))), frozenset()
        if not prefetches_of(body):
            raise BoundError(f"query.{kinds[0]}: needs a prefetch")
        if kinds[0] == "formula":
            return formula_of(FormulaBody(_given(given.formula), given.defaults)), frozenset()
        if body.using is not None:
            raise BadRequest(f"query.{kinds[0]}: cannot be used with using, the prefetches name their vectors")
        rrf = given.rrf
        if rrf is not None:
            return Fusion("rrf", 2 if rrf.k is None else rrf.k, rrf.weights), frozenset()
        return Fusion(_given(given.fusion)), frozenset()

    def raw(self, part: msgspec.Raw | UnsetType) -> bytes:
        """A raw part of the body; of type Packed if it is msgpack."""
        return raw_of(part, self.packed)

    async def _examples(self, given: Sequence[Placed], using: str, lookup: LookupLocation | None) -> _Examples:
        """The examples of a query; those that are ids of points are read in one request. Raises BadRequest for too many."""
        if len(given) > MAX_EXAMPLES:
            raise BoundError(
                f"query: has {len(given)} examples (positive, negative, context, feedback), must be at most {MAX_EXAMPLES}"
            )
        examples = _Examples(self, using, lookup)
        await examples.read(given)
        return examples

    async def _by_example(self, raw: bytes, using: str, lookup: LookupLocation | None) -> tuple[Nearest, frozenset[bytes]]:
        examples = await self._examples([(raw, "query")], using, lookup)
        return Nearest(using, self._prepared(using, examples.vector(raw, "query"))), examples.met()

    async def _feedback(
        self, body: RelevanceFeedback, using: str, lookup: LookupLocation | None
    ) -> tuple[Query, frozenset[bytes]]:
        if not body.feedback:
            raise BoundError("query.relevance_feedback.feedback: must have at least one example")
        given: list[Placed] = [(item.example, f"feedback[{at}].example") for at, item in enumerate(body.feedback)]
        examples = await self._examples([(body.target, "target"), *given], using, lookup)
        target = self._prepared(using, examples.vector(body.target, "target"))
        judged = [
            (self._prepared(using, examples.vector(*one)), item.score) for one, item in zip(given, body.feedback, strict=True)
        ]
        naive = body.strategy.naive
        return Feedback(using, target, judged, naive.a, naive.b, naive.c), examples.met()

    def _pairs(self, pairs: Sequence[ContextPair], using: str, examples: _Examples) -> list[tuple[Vector, Vector]]:
        prepared = [self._prepared(using, examples.vector(*one)) for one in _of_pairs(pairs)]
        return list(zip(prepared[::2], prepared[1::2], strict=True))

    def _prepared(self, name: str, vector: Vector) -> Vector:
        return prepare(self.source.collection, name, vector)

    def _all(self, name: str, vectors: Sequence[Vector]) -> list[Vector]:
        return [self._prepared(name, vector) for vector in vectors]


MAX_EXAMPLES = 10_000
"""The bound of vectors and ids of points by which one query ranks."""

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


RawPart = msgspec.Raw | UnsetType | bytes

Placed = tuple[RawPart, str]
"""An example in the body, and its place, for errors."""


class _Examples:
    """The example vectors of a query: from the body, made of documents, or from points. Collects the points of the searched
    collection."""

    def __init__(self, translator: Translator, using: str, lookup: LookupLocation | None) -> None:
        self._translator = translator
        self._source = translator.source if lookup is None else translator.lookups[lookup.collection]
        self._name = using if lookup is None or lookup.vector is None else lookup.vector
        self._own = self._source.collection.id == translator.source.collection.id
        self._stored: dict[bytes, dict[str, Vector]] = {}
        self._made: dict[str, Vector] = {}
        """Vectors of documents, by their place."""
        self._met: set[bytes] = set()

    async def read(self, placed: Sequence[Placed]) -> None:
        """Reads the points whose ids are among the raw parts, and makes the vectors of documents among them."""
        documents = [(document, place) for raw, place in placed if (document := document_of(self._raw(raw), place)) is not None]
        if documents:
            vectors = await self._translator.make_vectors(documents)
            self._made = {place: vector for (_, place), vector in zip(documents, vectors, strict=True)}
        given = [_id_of(self._raw(raw)) for raw, _ in placed]
        ids = list(dict.fromkeys(encode_id(point_id) for point_id in given if point_id is not None))
        if not ids:
            return
        if error := name_error(self._source.collection, self._name):
            raise BadRequest(error)
        for point in await points.retrieve(self._source, ids, vectors=[self._name]):
            self._stored[point.id] = point.vectors

    def vector(self, raw: RawPart, place: str) -> Vector:
        """The vector at a place of the body: given there, made of a document, or that of the point with the id there."""
        if (made := self._made.get(place)) is not None:
            return made
        data = self._raw(raw)
        point_id = _id_of(data)
        if point_id is None:
            return vector_of(data, place)
        encoded = encode_id(point_id)
        if (vectors := self._stored.get(encoded)) is None:
            raise NotFound(f"Not found: No point with id {point_id} found")
        if self._name not in vectors:
            raise NotFound(f"Not found: Vector with name {self._name!r} for point {point_id}")
        if self._own:
            self._met.add(encoded)
        return vectors[self._name]

    def met(self) -> frozenset[bytes]:
        return frozenset(self._met)

    def _raw(self, raw: RawPart) -> bytes:
        return raw if isinstance(raw, bytes) else self._translator.raw(raw)


def _listed(context: list[ContextPair] | ContextPair | None) -> list[ContextPair]:
    return [context] if isinstance(context, ContextPair) else context or []


def _of_pairs(pairs: Sequence[ContextPair]) -> list[Placed]:
    """The examples of pairs, of each pair the positive one and then the negative one."""
    return [
        (raw, f"context[{at}].{side}")
        for at, pair in enumerate(pairs)
        for raw, side in ((pair.positive, "positive"), (pair.negative, "negative"))
    ]


def _placed(name: str, examples: Sequence[msgspec.Raw] | None) -> list[Placed]:
    return [(raw, f"{name}[{at}]") for at, raw in enumerate(examples or ())]


class Diverse(NamedTuple):
    """A query by one vector with diversity."""

    query: Nearest
    mmr: Mmr


def params_of(body: SearchParams | None) -> SearchRequest:
    """The options of a search."""
    if body is None:
        return DEFAULT_PARAMS
    codes = body.quantization
    if codes is None:
        return SearchRequest(body.hnsw_ef, bool(body.exact))
    oversampling = codes.oversampling or DEFAULT_PARAMS.oversampling
    return SearchRequest(body.hnsw_ef, bool(body.exact), bool(codes.ignore), codes.rescore is not False, oversampling)


def check_idf(collection: Collection, params: SearchParams | None, name: str | None) -> None:
    """Refuses settings of inverse document frequencies for a vector that has none. Raises BadRequest."""
    if params is None or params.idf is None:
        return
    sparse = None if name is None else collection.config.sparse_vectors.get(name)
    if sparse is None or not sparse.idf:
        raise BadRequest(
            f"params.idf: is for a sparse vector with modifier idf, {'there is none' if name is None else f'{name!r} is not'}"
        )


def corpus_of(body: SearchParams | None) -> Condition | None:
    """The points from which inverse document frequencies are computed; None for all."""
    return body.idf.corpus if body is not None and isinstance(body.idf, IdfCorpus) else None


def order_by_of(body: str | OrderByBody) -> OrderBy:
    """An order by a payload value. Raises BadRequest."""
    given = OrderByBody(body) if isinstance(body, str) else body
    steps_of(given.key)
    start = given.start_from
    if start is not None:
        start = as_micros(start) if isinstance(start, str) else as_number(start)
        if start is None:
            raise BadRequest(f"order_by.start_from {given.start_from!r} is neither a number nor a date and time")
    return OrderBy(given.key, given.direction == "desc", start)


def window(offset: int | None, limit: int | None, most: int) -> tuple[int, int]:
    """The start and the end of the requested hits: of one more than `most`, if so many are asked for."""
    begin = min(offset or 0, MAX_RANKED)
    return begin, min(begin + min(limit_of(limit), most + 1), MAX_RANKED)


def limit_of(limit: int | None) -> int:
    """How many points a ranking may have: as many as are asked for, though never more than a collection can have."""
    return min(DEFAULT_LIMIT if limit is None else limit, MAX_RANKED)


def both(outer: Condition | None, inner: Condition | None) -> Condition | None:
    """The conjunction of two filters."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    return Condition(must=[outer, inner])


def average(positive: Sequence[Vector], negative: Sequence[Vector]) -> Vector:
    """The average of the examples: twice the mean of the positive minus the mean of the negative ones."""
    if positive[0].dtype == SPARSE:
        return _sparse_sum(positive, 2 / len(positive) if negative else 1 / len(positive), negative, -1 / max(1, len(negative)))
    if positive[0].ndim == 2:
        return np.concatenate([*positive, *(-vector for vector in negative)])
    try:
        mean = np.mean(positive, axis=0)
        result: Vector = 2 * mean - np.mean(negative, axis=0) if negative else mean
    except ValueError as error:
        raise BadRequest("Wrong input: Vector dimension error: examples have different dimensions") from error
    return result.astype(np.float32)


def _sparse_sum(positive: Sequence[Vector], share: float, negative: Sequence[Vector], other: float) -> Vector:
    every = np.concatenate([*positive, *negative])
    weights = np.repeat([share] * len(positive) + [other] * len(negative), [len(vector) for vector in (*positive, *negative)])
    indexes, at = np.unique(every["index"], return_inverse=True)
    result = np.empty(len(indexes), SPARSE)
    result["index"], result["value"] = indexes, np.bincount(at, every["value"] * weights, len(indexes))
    return result


def prefetches_of(body: AnyQuery) -> Sequence[Prefetch]:
    """The inner queries."""
    given = body.prefetch
    return [given] if isinstance(given, Prefetch) else given or ()


def _id_of(raw: bytes) -> ExternalId | None:
    """The id in a raw part; None when it is something else."""
    if isinstance(raw, Packed):
        value = msgspec.msgpack.decode(raw)
    elif raw[:1] == b'"' or raw[:1].isdigit() or raw[:1] == b"-":
        value = msgspec.json.decode(raw)
    else:
        return None
    return value if isinstance(value, int | str) else None


def _given(value: Any) -> Any:
    assert value is not None
    return value
