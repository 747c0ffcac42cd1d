"""Request bodies of searches and queries. Vectors stay raw until `gateway.dialect.vectors` converts them to arrays."""

from __future__ import annotations

from binascii import b2a_base64
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.dialect.bodies import Body, Limit, Offset, OrderByBody, Share, Shown
from gateway.dialect.documents import DOCUMENT_SCHEMA
from shard.filters.conditions import Condition
from shard.ranking.formula import Expression

_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_VECTOR_FORMS: list[dict[str, Any]] = [
    _NUMBERS,
    {"type": "array", "items": _NUMBERS, "minItems": 1},
    {
        "type": "object",
        "properties": {"indices": {"type": "array", "items": {"type": "integer", "minimum": 0}}, "values": _NUMBERS},
        "required": ["indices", "values"],
    },
    DOCUMENT_SCHEMA,
]
_BASE64 = {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"}
_ID = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}

RawVector = Annotated[msgspec.Raw, Meta(extra_json_schema={"anyOf": [*_VECTOR_FORMS, _BASE64]})]
"""A vector, or base64."""

RawExample = Annotated[msgspec.Raw, Meta(extra_json_schema={"anyOf": [*_VECTOR_FORMS, _ID]})]
"""A vector, or the id of a point that has one."""

RawQuery = Annotated[msgspec.Raw, Meta(extra_json_schema={"anyOf": [*_VECTOR_FORMS, _ID, {"type": "object"}]})]

MAX_CANDIDATES = 16_384
"""The largest number of points among which `mmr` chooses."""

MAX_EF = 10_000
"""The largest beam width of a search in a graph."""

Factor = Annotated[float, Meta(ge=1, le=100)]


class QuantizationParams(Body):
    ignore: bool | None = None
    rescore: bool | None = None
    oversampling: Factor | None = None


class Acorn(Body):
    enable: bool | None = None
    max_selectivity: Share | None = None


class IdfCorpus(Body):
    corpus: Condition


class SearchParams(Body):
    hints = ("indexed_only", "acorn")

    hnsw_ef: Annotated[int, Meta(ge=1, le=MAX_EF)] | None = None
    exact: bool | None = None
    quantization: QuantizationParams | None = None
    indexed_only: bool | None = None
    acorn: Acorn | None = None
    idf: Literal["global"] | IdfCorpus | None = None


class LookupLocation(Body):
    """The collection and vector from which examples are read, instead of the searched ones."""

    collection: str
    vector: str | None = None
    shard_key: None = None


class NamedVector(Body):
    """A named vector; a sparse one is an object."""

    name: str
    vector: RawVector


class Narrowed(Shown, kw_only=True):
    """The base of all searches."""

    filter: Condition | None = None
    params: SearchParams | None = None
    shard_key: None = None


class Ranked(Narrowed, kw_only=True):
    """The base of searches with a score threshold."""

    score_threshold: float | None = None


class SearchBody(Ranked, kw_only=True):
    vector: Annotated[msgspec.Raw, Meta(extra_json_schema={"anyOf": [*_VECTOR_FORMS[:2], _BASE64, {"type": "object"}]})]
    limit: Limit
    offset: Offset | None = None


def octet_search(content: bytes, limit: int | None, using: str | None) -> bytes:
    """Converts a body that is only a vector to an equivalent JSON body."""
    vector = b2a_base64(content, newline=False).decode()
    return msgspec.json.encode(
        {"vector": {"name": using, "vector": vector} if using else vector, "limit": 10 if limit is None else limit}
    )


class CollectionSearchBody(SearchBody, kw_only=True):
    collection: str


class SearchBatchBody(Body):
    searches: Annotated[list[SearchBody], Meta(max_length=1000)]


# Queries as objects.


class Mmr(Body):
    diversity: Share | None = None
    candidates_limit: Annotated[int, Meta(ge=0, le=MAX_CANDIDATES)] | None = None


class Recommend(Body):
    positive: list[RawExample] | None = None
    negative: list[RawExample] | None = None
    strategy: Literal["average_vector", "best_score", "sum_scores"] | None = None


class ContextPair(Body):
    positive: RawExample
    negative: RawExample


class Discover(Body):
    target: RawExample
    context: list[ContextPair] | ContextPair | None = None


class Rrf(Body):
    k: Annotated[int, Meta(ge=1)] | None = None
    weights: list[float] | None = None


class JudgedExample(Body):
    example: RawExample
    score: float


class NaiveFeedback(Body):
    a: float
    b: Annotated[float, Meta(ge=0)]
    c: float


class FeedbackStrategy(Body):
    naive: NaiveFeedback


class RelevanceFeedback(Body):
    target: RawExample
    feedback: list[JudgedExample]
    strategy: FeedbackStrategy


class QueryObject(Body):
    """Exactly one kind of query; `indices` and `values` are a sparse vector, `base64` is a dense vector."""

    nearest: RawExample | UnsetType = UNSET
    mmr: Mmr | None = None
    recommend: Recommend | None = None
    discover: Discover | None = None
    context: list[ContextPair] | ContextPair | None = None
    order_by: str | OrderByBody | None = None
    fusion: Literal["rrf", "dbsf"] | None = None
    rrf: Rrf | None = None
    formula: Expression | None = None
    defaults: dict[str, Any] | None = None
    sample: Literal["random"] | None = None
    relevance_feedback: RelevanceFeedback | None = None
    indices: list[int] | None = None
    values: list[float] | None = None
    base64: str | None = None
    text: None = None


class Prefetch(Body, kw_only=True):
    prefetch: list[Prefetch] | Prefetch | None = None
    query: RawQuery | UnsetType = UNSET
    using: str | None = None
    filter: Condition | None = None
    params: SearchParams | None = None
    score_threshold: float | None = None
    limit: Limit | None = None
    lookup_from: LookupLocation | None = None


class QueryBody(Ranked, kw_only=True):
    query: RawQuery | UnsetType = UNSET
    prefetch: list[Prefetch] | Prefetch | None = None
    using: str | None = None
    limit: Limit | None = None
    offset: Offset | None = None
    lookup_from: LookupLocation | None = None


class QueryBatchBody(Body):
    searches: Annotated[list[QueryBody], Meta(max_length=1000)]


# Groups.


class WithLookup(Shown, kw_only=True):
    collection: str


class Grouped(Ranked, kw_only=True):
    """The base of all grouped searches."""

    group_by: Annotated[str, Meta(min_length=1)]
    group_size: Limit | None = None
    limit: Limit | None = None
    with_lookup: str | WithLookup | None = None


class QueryGroupsBody(Grouped, kw_only=True):
    query: RawQuery | UnsetType = UNSET
    prefetch: list[Prefetch] | Prefetch | None = None
    using: str | None = None
    lookup_from: LookupLocation | None = None


class SearchGroupsBody(Grouped, kw_only=True):
    vector: RawVector


# The older forms of recommend and discover.


class RecommendBody(Ranked, kw_only=True):
    positive: list[RawExample] | None = None
    negative: list[RawExample] | None = None
    strategy: Literal["average_vector", "best_score", "sum_scores"] | None = None
    limit: Limit
    offset: Offset | None = None
    using: str | None = None
    lookup_from: LookupLocation | None = None


class RecommendBatchBody(Body):
    searches: Annotated[list[RecommendBody], Meta(max_length=1000)]


class RecommendGroupsBody(Grouped, kw_only=True):
    positive: list[RawExample] | None = None
    negative: list[RawExample] | None = None
    strategy: Literal["average_vector", "best_score", "sum_scores"] | None = None
    using: str | None = None
    lookup_from: LookupLocation | None = None


class DiscoverBody(Narrowed, kw_only=True):
    target: RawExample | UnsetType = UNSET
    context: list[ContextPair] | None = None
    limit: Limit
    offset: Offset | None = None
    using: str | None = None
    lookup_from: LookupLocation | None = None


class DiscoverBatchBody(Body):
    searches: Annotated[list[DiscoverBody], Meta(max_length=1000)]


class MatrixBody(Body):
    filter: Condition | None = None
    sample: Annotated[int, Meta(ge=2)] | None = None
    limit: Limit | None = None
    using: str | None = None
    shard_key: None = None


AnyQuery = QueryBody | QueryGroupsBody | Prefetch
