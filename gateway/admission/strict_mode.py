"""Strict mode: refuses requests that exceed the limits of their collection (catalog/strict_mode.py defines the limits).

The first argument of every check is the collection's limits; if they are None or not enabled, the check does nothing. A check
raises an ApiError that names the limit, the value and the bound, with the statuses of the reference implementation: 400, 429
for a rate (with Retry-After) and 507 for memory.

    reads    check_rate of `RateLimiter("read_rate_limit")`, check_timeout, check_limit, check_search_params, check_filter,
             check_full_scan, check_formula, check_key for paths to group or sort by, check_batch for a batch
    writes   check_rate of `RateLimiter("write_rate_limit")`, check_timeout, check_filter(update=True); writes that add data also
             check_upsert, check_vectors, check_collection_size, check_memory; an index check_payload_index_count
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import UNSET

from catalog.collection import Collection
from catalog.strict_mode import MultivectorLimit, SparseLimit, StrictMode
from gateway.http.errors import BadRequest, InsufficientStorage, TooManyRequests
from payload.paths import as_uuid
from payload.schema import FieldSchema, FieldType
from shard.filters.conditions import Condition, Key
from shard.filters.fields import Match, Range
from shard.ranking.formula import CompiledFormula

Fields = Mapping[str, FieldSchema]
"""The indexed fields of a collection."""

_TEXTS = frozenset({"text", "text_any", "phrase"})
_GEO = frozenset({"geo_bounding_box", "geo_radius", "geo_polygon"})
_CLAUSES = ("must", "should", "must_not")

MAX_LIMITERS = 10_000
"""The largest number of rate limiters; the least recently used are evicted."""


# The JSON form: that of the catalog, but unknown fields are refused.


class MultivectorLimitBody(MultivectorLimit, frozen=True, forbid_unknown_fields=True):
    """Limits of one multivector."""


class SparseLimitBody(SparseLimit, frozen=True, forbid_unknown_fields=True):
    """Limits of one sparse vector."""


class StrictModeBody(StrictMode, frozen=True, forbid_unknown_fields=True):
    """`strict_mode_config` of a request; the catalog stores `StrictMode().updated(body)`."""

    multivector_config: Mapping[str, MultivectorLimitBody] | None = None
    sparse_config: Mapping[str, SparseLimitBody] | None = None


# Reads.


def check_limit(strict: StrictMode | None, limit: int | None) -> None:
    """`limit`: the largest number of points that the request may return, with its default applied."""
    _at_most(strict, "max_query_limit", "limit", limit)


def check_timeout(strict: StrictMode | None, timeout_s: int | None) -> None:
    """The timeout of a request."""
    _at_most(strict, "max_timeout", "timeout", timeout_s)


def check_batch(strict: StrictMode | None, searches: int) -> None:
    """The number of searches in one request."""
    _at_most(strict, "search_max_batchsize", "number of searches", searches)


def check_search_params(
    strict: StrictMode | None, hnsw_ef: int | None = None, exact: bool | None = None, oversampling: float | None = None
) -> None:
    """The parameters of a search; None for those that the request does not set."""
    _at_most(strict, "search_max_hnsw_ef", "params.hnsw_ef", hnsw_ef)
    _at_most(strict, "search_max_oversampling", "params.quantization.oversampling", oversampling)
    if exact and strict is not None and strict.enabled and strict.search_allow_exact is False:
        raise BadRequest("params.exact is true, must be false (strict_mode_config.search_allow_exact)")


def check_full_scan(
    strict: StrictMode | None, vector: str, links: int, tenant_links: int, condition: Condition | None, fields: Fields
) -> None:
    """A search by a dense vector that has `links` of its graph per point, and `tenant_links` of those of the tenants.

    Without a graph every search is a full scan, unless it is one of a tenant's points, which a filter must name.
    """
    if strict is None or not strict.enabled or strict.search_allow_exact is not False or links > 0:
        return
    if tenant_links > 0 and _is_of_tenant(condition, fields):
        return
    needed = "filter by a field with is_tenant, or set hnsw_config.m" if tenant_links > 0 else "set hnsw_config.m above 0"
    raise BadRequest(
        f"a full scan of vector {vector!r} is forbidden, it has no graph (hnsw_config.m is 0): {needed} "
        "(strict_mode_config.search_allow_exact is false)"
    )


def _is_of_tenant(condition: Condition | None, fields: Fields) -> bool:
    """Whether only points of a tenant, or of some, can pass."""
    if condition is None:
        return False
    if condition.key is not UNSET:
        match, schema = condition.match, fields.get(condition.key)
        named = match is not None and (match.value is not UNSET or match.any is not UNSET)
        return named and schema is not None and bool(schema.is_tenant)
    must = condition.must if isinstance(condition.must, list) else [condition.must]
    return any(_is_of_tenant(inner, fields) for inner in must)


def check_formula(strict: StrictMode | None, formula: CompiledFormula, fields: Mapping[str, FieldSchema]) -> None:
    """The conditions of a formula, and the payload paths it reads."""
    if _is_on(strict):
        for condition in formula.conditions:
            check_filter(strict, condition, fields)
        for key in sorted(formula.keys):
            check_key(strict, key, fields)


def check_key(strict: StrictMode | None, key: str, fields: Mapping[str, FieldSchema]) -> None:
    """A payload path that a read groups, sorts or scores by; it needs an index of any type."""
    if strict is not None and strict.enabled and strict.unindexed_filtering_retrieve is False and key not in fields:
        raise _unindexed(key, (), "unindexed_filtering_retrieve")


# Filters.


class _Leaf(NamedTuple):
    """A condition without inner conditions, and the path prefix of the array elements that it applies to."""

    condition: Condition
    within: str

    @property
    def key(self) -> str | None:
        """The payload path that the condition tests; None for a condition on the point itself."""
        condition = self.condition
        if condition.key is not UNSET:
            return self.within + condition.key
        for named in (condition.is_empty, condition.is_null):
            if isinstance(named, Key):
                return self.within + named.key
        return None


def check_filter(
    strict: StrictMode | None, condition: Condition | None, fields: Mapping[str, FieldSchema], update: bool = False
) -> None:
    """A valid filter: the number of its conditions, their sizes, and whether the fields have suitable indexes.

    `update`: the filter selects points to write, not points to read.
    """
    if strict is None or not strict.enabled or condition is None:
        return
    leaves = list(_leaves(condition, ""))
    _at_most(strict, "filter_max_conditions", "number of conditions in the filter", len(leaves))
    for leaf in leaves:
        what = "has_id" if leaf.key is None else f"the condition on {leaf.key!r}"
        _at_most(strict, "condition_max_size", f"size of {what}", _size(leaf.condition))
    limit = "unindexed_filtering_update" if update else "unindexed_filtering_retrieve"
    if getattr(strict, limit) is False:
        for leaf in leaves:
            _check_indexed(leaf, fields, limit)


def _leaves(condition: Condition, within: str) -> Iterator[_Leaf]:
    least = [] if condition.min_should is None else condition.min_should.conditions
    clauses = [clause for name in _CLAUSES if (clause := getattr(condition, name)) is not None]
    for clause in [*clauses, least]:
        for inner in clause if isinstance(clause, list) else [clause]:
            yield from _leaves(inner, within)
    if condition.nested is not None:
        yield from _leaves(condition.nested.filter, f"{within}{condition.nested.key.removesuffix('[]')}[].")
    elif not clauses and condition.min_should is None and _given(condition):
        yield _Leaf(condition, within)


def _size(condition: Condition) -> int:
    """The number of values in a condition's list."""
    match = condition.match
    lists = [condition.has_id, *((match.any, match.except_) if match is not None else ())]
    return max(len(listed) if isinstance(listed, list) else 0 for listed in lists)


def _check_indexed(leaf: _Leaf, fields: Mapping[str, FieldSchema], limit: str) -> None:
    key = leaf.key
    types = _index_types(leaf.condition)
    if key is None or types is None:
        return
    schema = fields.get(key)
    if schema is None or (types and schema.type not in types):
        raise _unindexed(key, types, limit)
    match = leaf.condition.match
    if match is not None and match.prefix is not UNSET and not schema.prefix:
        raise _unindexed(key, ["keyword with prefix"], limit)


def _index_types(condition: Condition) -> tuple[FieldType, ...] | None:
    """The types of index of which the field needs one: empty for any type, None when the condition needs no index."""
    if condition.match is not None:
        return _match_types(condition.match)
    if condition.range is not None:
        return (FieldType.DATETIME,) if _is_of_moments(condition.range) else (FieldType.INTEGER, FieldType.FLOAT)
    return (FieldType.GEO,) if not _GEO.isdisjoint(_given(condition)) else ()


def _match_types(match: Match) -> tuple[FieldType, ...] | None:
    how = _given(match)[0]
    if how in _TEXTS:
        return (FieldType.TEXT,)
    listed = getattr(match, how)
    values: Sequence[Any] = listed if isinstance(listed, list) else [listed]
    if not values:
        return None
    if all(isinstance(value, bool) for value in values):
        return (FieldType.BOOL,)
    if all(isinstance(value, int) for value in values):
        return (FieldType.INTEGER,)
    whole = how in ("value", "any", "except_")
    return (FieldType.KEYWORD, FieldType.UUID) if whole and all(map(as_uuid, values)) else (FieldType.KEYWORD,)


def _is_of_moments(range_: Range) -> bool:
    return any(isinstance(getattr(range_, name), str) for name in _given(range_))


def _given(body: Condition | Match | Range) -> list[str]:
    values = ((name, getattr(body, name)) for name in body.__struct_fields__)
    return [name for name, value in values if value is not None and value is not UNSET]


def _unindexed(key: str, types: Sequence[str], limit: str) -> BadRequest:
    kinds = f" of one of the following types: [{', '.join(types)}]" if types else ""
    return BadRequest(
        f'Index required but not found for "{key[:64]}"{kinds}. '
        f"Create such an index on the field, or leave the field out (strict_mode_config.{limit} is false)"
    )


# Writes.


def check_upsert(strict: StrictMode | None, points: int) -> None:
    """The number of points that one request writes."""
    _at_most(strict, "upsert_max_batchsize", "number of points", points)


def check_collection_size(strict: StrictMode | None, points: int, vector_bytes: int, payload_bytes: int) -> None:
    """The size of the collection after the write; estimates are sufficient."""
    _at_most(strict, "max_points_count", "number of points in the collection", points)
    _at_most(strict, "max_collection_vector_size_bytes", "size of the collection's vectors in bytes", vector_bytes)
    _at_most(strict, "max_collection_payload_size_bytes", "size of the collection's payloads in bytes", payload_bytes)


def check_vectors(
    strict: StrictMode | None, multivectors: Iterable[tuple[str, int]] = (), sparse: Iterable[tuple[str, int]] = ()
) -> None:
    """The vectors of a write: pairs of name and number of vectors in a multivector, or number of values in a sparse vector.

    An iterable is only read if there is a limit for it, so pass generators.
    """
    if strict is None or not strict.enabled:
        return
    if strict.multivector_config:
        most = {name: limit.max_vectors for name, limit in strict.multivector_config.items()}
        _check_each("multivector_config", "max_vectors", "number of vectors in multivector", most, multivectors)
    if strict.sparse_config:
        longest = {name: limit.max_length for name, limit in strict.sparse_config.items()}
        _check_each("sparse_config", "max_length", "length of sparse vector", longest, sparse)


def check_payload_index_count(strict: StrictMode | None, indexes: int) -> None:
    """The number of payload indexes after the request."""
    _at_most(strict, "max_payload_index_count", "number of payload indexes", indexes)


def check_memory(strict: StrictMode | None, resident_percent: Callable[[], float]) -> None:
    """The resident memory of the process, before a write that adds data; only measured if it is limited."""
    if strict is None or not strict.enabled or (bound := strict.max_resident_memory_percent) is None:
        return
    if (used := resident_percent()) > bound:
        raise InsufficientStorage(
            f"resident memory is {used:.1f} percent, must be at most {bound} (strict_mode_config.max_resident_memory_percent)"
        )


# Rates.


class RateLimiter:
    """The read or write rate of one collection: a token bucket that is refilled in one minute.

    The caller has one for each collection and rate, and passes the time of a monotonic clock. After a change of the limit the
    bucket is full.
    """

    def __init__(self, limit: Literal["read_rate_limit", "write_rate_limit"]) -> None:
        self._limit = limit
        self._per_minute = 0
        self._tokens = 0.0
        self._filled_s = 0.0
        self._lock = threading.Lock()

    def check_rate(self, strict: StrictMode | None, now_s: float, cost: int = 1) -> None:
        """Takes `cost` tokens: one for each search of a batch, each id retrieved, each operation written.

        Raises TooManyRequests, and takes none, when there are fewer. The error has the time until there are enough, unless the
        cost exceeds the size of the bucket.
        """
        per_minute = getattr(strict, self._limit) if _is_on(strict) else None
        if per_minute is None:
            return
        with self._lock:
            self._fill(per_minute, now_s)
            if cost > per_minute:
                raise self._refusal(f"this request costs {cost}, more than a whole minute; split it")
            if (missing := cost - self._tokens) > 1e-6:
                wait_s = missing * 60 / per_minute
                raise self._refusal(f"this request costs {cost}, try again in {wait_s:.1f} s", wait_s)
            self._tokens -= cost

    def _fill(self, per_minute: int, now_s: float) -> None:
        if per_minute != self._per_minute:
            self._per_minute, self._tokens = per_minute, float(per_minute)
        else:
            gained = max(0.0, now_s - self._filled_s) * per_minute / 60
            self._tokens = min(float(per_minute), self._tokens + gained)
        self._filled_s = max(self._filled_s, now_s)

    def _refusal(self, advice: str, wait_s: float | None = None) -> TooManyRequests:
        kind = "Read" if self._limit == "read_rate_limit" else "Write"
        text = f"{kind} rate limit exceeded, at most {self._per_minute} a minute (strict_mode_config.{self._limit}): {advice}"
        return TooManyRequests(text, wait_s)


class Rates:
    """The rate limiters of all collections. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limiters: OrderedDict[tuple[int, str], RateLimiter] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, collection: Collection, limit: Literal["read_rate_limit", "write_rate_limit"], cost: int) -> None:
        """Takes tokens for a request; see `RateLimiter.check_rate`."""
        with self._lock:
            limiter = self._limiters.setdefault((collection.id, limit), RateLimiter(limit))
            self._limiters.move_to_end((collection.id, limit))
            if len(self._limiters) > MAX_LIMITERS:  # the least recently used bucket is full by now
                self._limiters.popitem(last=False)
        limiter.check_rate(collection.config.strict_mode, self._clock(), cost)


def _is_on(strict: StrictMode | None) -> bool:
    return strict is not None and bool(strict.enabled)


def _at_most(strict: StrictMode | None, limit: str, what: str, value: float | None) -> None:
    if strict is None or not strict.enabled or value is None:
        return
    if (bound := getattr(strict, limit)) is not None and value > bound:
        raise BadRequest(f"{what} is {value}, must be at most {bound} (strict_mode_config.{limit})")


def _check_each(config: str, limit: str, what: str, bounds: Mapping[str, int | None], lengths: Iterable[tuple[str, int]]) -> None:
    for name, length in lengths:
        if (bound := bounds.get(name)) is not None and length > bound:
            raise BadRequest(f"{what} {name!r} is {length}, must be at most {bound} (strict_mode_config.{config}.{name}.{limit})")
