"""Applies strict mode to requests: which checks of `strict_mode` each request gets, in a collection that sets limits.

For a collection without limits this costs one lookup in its configuration. The limits apply to requests, not to records of the
ingest topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from catalog.collection import Collection
from catalog.strict_mode import StrictMode
from gateway.admission import strict_mode
from gateway.admission.budget import status_bytes, total_bytes
from gateway.admission.strict_mode import Rates
from gateway.dialect.bodies import CountBody, FacetBody, OrderByBody, RetrieveBody, ScrollBody
from gateway.dialect.queries import DEFAULT_LIMIT, both, prefetches_of, query_object_of
from gateway.dialect.query_bodies import (
    DiscoverBatchBody,
    DiscoverBody,
    Grouped,
    IdfCorpus,
    MatrixBody,
    NamedVector,
    Prefetch,
    QueryBatchBody,
    QueryBody,
    QueryGroupsBody,
    RecommendBatchBody,
    RecommendBody,
    RecommendGroupsBody,
    SearchBatchBody,
    SearchBody,
    SearchGroupsBody,
    SearchParams,
)
from gateway.dialect.vectors import Packed, object_of, raw_of
from gateway.reads import ReadService
from gateway.request import ApiRequest
from journal.records import PatchPayload, PatchVectors, PointOperation, ReplacePayload, Upsert, VectorColumn
from payload.schema import FieldSchema
from query import points
from query.pinned import Pinned
from shard.filters.conditions import Condition, parse_filter
from shard.ranking.formula import FormulaBody, parse_formula

GROUP_SIZE = 3
SAMPLE, NEIGHBOURS = 10, 3
"""Defaults of grouped searches and of distance matrices."""

_BATCHES = (SearchBatchBody, QueryBatchBody, RecommendBatchBody, DiscoverBatchBody)


# Reads.


def check_read(request: ApiRequest, rates: Rates, collection: Collection) -> None:
    """Refuses a read that exceeds the collection's limits."""
    strict = _limits_of(collection)
    if strict is None:
        return
    body = request.body
    bodies = body.searches if isinstance(body, _BATCHES) else [body]
    rates.check(collection, "read_rate_limit", len(body.ids) if isinstance(body, RetrieveBody) else len(bodies))
    strict_mode.check_timeout(strict, request.params.timeout)
    if isinstance(body, _BATCHES):
        strict_mode.check_batch(strict, len(bodies))
    for one in bodies:
        strict_mode.check_limit(strict, _limit(one))
        _check_body(strict, collection, one, request.packed)


def check_feed(request: ApiRequest, rates: Rates, collection: Collection, limit: int, condition: Condition | None) -> None:
    """Refuses to follow the changes of a collection beyond its limits."""
    strict = _limits_of(collection)
    if strict is None:
        return
    rates.check(collection, "read_rate_limit", 1)
    strict_mode.check_timeout(strict, request.params.timeout)
    strict_mode.check_limit(strict, limit)
    _check_filter(strict, collection.fields, condition)


def _limit(body: Any) -> int | None:
    """The largest number of points that a read may return; None if it is not limited."""
    match body:
        case None | RetrieveBody() | CountBody():
            return None
        case Grouped(limit=limit, group_size=size):
            return _or(limit, DEFAULT_LIMIT) * _or(size, GROUP_SIZE)
        case MatrixBody(limit=limit, sample=sample):
            return _or(limit, NEIGHBOURS) * _or(sample, SAMPLE)
    return _or(body.limit, DEFAULT_LIMIT)


def _check_body(strict: StrictMode, collection: Collection, body: Any, packed: bool, outer: Condition | None = None) -> None:
    """`outer`: the filter of the queries that this one is an inner one of."""
    fields = collection.fields
    _check_filter(strict, fields, getattr(body, "filter", None))
    _check_params(strict, fields, getattr(body, "params", None))
    for key in _keys(body):
        strict_mode.check_key(strict, key, fields)
    wanted = both(outer, getattr(body, "filter", None))
    if (name := _scanned(body, packed)) is not None:
        _check_full_scan(strict, collection, name, wanted)
    if isinstance(body, QueryBody | QueryGroupsBody | Prefetch):
        _check_query(strict, fields, bytes(body.query) if body.query else b"", packed)
        for inner in prefetches_of(body):
            strict_mode.check_limit(strict, _or(inner.limit, DEFAULT_LIMIT))
            _check_body(strict, collection, inner, packed, wanted)


def _scanned(body: Any, packed: bool) -> str | None:
    """The vector by which a body searches all points; None if it searches by none, or ranks only what inner queries found."""
    match body:
        case SearchBody(vector=raw) | SearchGroupsBody(vector=raw):
            named = object_of(raw_of(raw, packed), NamedVector)
            return "" if named is None else named.name
        case RecommendBody() | RecommendGroupsBody() | DiscoverBody():
            return body.using or ""
        case QueryBody() | QueryGroupsBody() | Prefetch() if body.query and not prefetches_of(body):
            given = query_object_of(raw_of(body.query, packed), "query")
            by_vector = given is None or not (given.order_by or given.sample or given.fusion or given.rrf or given.formula)
            return body.using or "" if by_vector else None
    return None


def _check_full_scan(strict: StrictMode, collection: Collection, name: str, condition: Condition | None) -> None:
    config = collection.config
    if (params := config.vectors.get(name)) is None:  # sparse ones have no graph and need none
        return
    kept = config.kept.get("hnsw_config", {}) | params.kept.get("hnsw_config", {})
    links = (params.hnsw or config.hnsw).m
    strict_mode.check_full_scan(strict, name, links, kept.get("payload_m") or 0, condition, collection.fields)


def _check_filter(strict: StrictMode, fields: dict[str, FieldSchema], condition: Condition | None, update: bool = False) -> None:
    parse_filter(condition)  # an invalid filter is refused first
    strict_mode.check_filter(strict, condition, fields, update)


def _check_params(strict: StrictMode, fields: dict[str, FieldSchema], params: SearchParams | None) -> None:
    if params is None:
        return
    oversampling = None if params.quantization is None else params.quantization.oversampling
    strict_mode.check_search_params(strict, params.hnsw_ef, params.exact, oversampling)
    if isinstance(params.idf, IdfCorpus):
        _check_filter(strict, fields, params.idf.corpus)


def _keys(body: Any) -> list[str]:
    """The payload paths that a read sorts, groups or counts by."""
    match body:
        case ScrollBody(order_by=order) if order is not None:
            return [_key(order)]
        case FacetBody(key=key):
            return [key]
        case Grouped(group_by=key):
            return [key]
    return []


def _check_query(strict: StrictMode, fields: dict[str, FieldSchema], raw: bytes, packed: bool) -> None:
    given = query_object_of(Packed(raw) if packed else raw, "query")
    if given is not None and given.order_by is not None:
        strict_mode.check_key(strict, _key(given.order_by), fields)
    if given is not None and given.formula is not None:
        strict_mode.check_formula(strict, parse_formula(FormulaBody(given.formula, given.defaults)), fields)


def _key(order: str | OrderByBody) -> str:
    return order if isinstance(order, str) else order.key


# Writes.


def check_write(
    request: ApiRequest, rates: Rates, collection: Collection, condition: Condition | None, points_given: int = 0
) -> None:
    """Refuses a write that exceeds the collection's limits; `condition` is the filter that selects the points."""
    strict = _limits_of(collection)
    if strict is None:
        return
    rates.check(collection, "write_rate_limit", 1)
    strict_mode.check_timeout(strict, request.params.timeout)
    strict_mode.check_upsert(strict, points_given)
    _check_filter(strict, collection.fields, condition, update=True)


async def check_added(reads: ReadService, collection: Collection, operations: Sequence[PointOperation]) -> None:
    """Refuses a write after which the collection would exceed its size limits."""
    strict = _limits_of(collection)
    adding = [one for one in operations if isinstance(one, Upsert | PatchVectors | PatchPayload | ReplacePayload)]
    if strict is None or not adding:
        return
    strict_mode.check_memory(strict, resident_percent)
    columns = [column for one in adding if isinstance(one, Upsert | PatchVectors) for column in one.vectors]
    strict_mode.check_vectors(strict, _lengths(columns, sparse=False), _lengths(columns, sparse=True))
    bounds = strict.max_points_count, strict.max_collection_vector_size_bytes, strict.max_collection_payload_size_bytes
    if bounds == (None, None, None):
        return
    pinned = await reads.pin_now(collection)
    if strict.max_points_count is not None:
        strict_mode.check_collection_size(strict, await _points_after(pinned, adding), 0, 0)
    held = await pinned.all_of(lease.held() for lease in pinned.leases)
    vector_bytes = sum(part.vector_bytes for part in held) + sum(len(column.data) for column in columns)
    payload_bytes = sum(part.payload_bytes for part in held) + sum(map(_payload_bytes, adding))
    strict_mode.check_collection_size(strict, 0, vector_bytes, payload_bytes)


def check_index(request: ApiRequest, collection: Collection, field: str) -> None:
    """Refuses an index if the collection would exceed its number of indexes."""
    strict = _limits_of(collection)
    if strict is not None:
        strict_mode.check_timeout(strict, request.params.timeout)
        strict_mode.check_payload_index_count(strict, len(collection.fields.keys() | {field}))


def _lengths(columns: Sequence[VectorColumn], sparse: bool) -> Iterable[tuple[str, int]]:
    return ((column.name, length) for column in columns for length in column.lengths or () if (column.size == 0) == sparse)


async def _points_after(pinned: Pinned, operations: Sequence[PointOperation]) -> int:
    given = {id_ for one in operations if isinstance(one, Upsert) for id_ in one.ids}
    there = (await points.matching(pinned, None, sorted(given)))[0] if given else []
    return await points.count(pinned, None) + len(given) - len(there)


def _payload_bytes(operation: PointOperation) -> int:
    match operation:
        case Upsert(payloads=payloads):
            return sum(map(len, payloads))
        case PatchPayload(ids=ids, set=payload) | ReplacePayload(ids=ids, payload=payload):
            return len(ids) * len(payload)
    return 0


def resident_percent() -> float:
    """The resident memory of this process in percent of the total."""
    return 100 * status_bytes("VmRSS") / total_bytes()


def _limits_of(collection: Collection) -> StrictMode | None:
    strict = collection.config.strict_mode
    return strict if strict is not None and strict.enabled else None


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
