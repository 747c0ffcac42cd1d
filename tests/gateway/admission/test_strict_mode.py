"""Strict mode: each limit at and beyond its bound, filters without an index, rates, and what the limits themselves may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
import pytest
from qdrant_client import models

from catalog.errors import InvalidConfig
from catalog.strict_mode import MultivectorLimit, SparseLimit, StrictMode
from gateway.admission import strict_mode
from gateway.admission.strict_mode import InsufficientStorage, RateLimiter, StrictModeBody, TooManyRequests
from gateway.http.errors import BadRequest, status_of
from payload.schema import FieldSchema, FieldType
from shard.filters.conditions import Condition, parse_filter
from shard.ranking.formula import FormulaBody, parse_formula

INDEXES = {
    "word": FieldSchema(FieldType.KEYWORD),
    "int": FieldSchema(FieldType.INTEGER),
    "float": FieldSchema(FieldType.FLOAT),
    "bool": FieldSchema(FieldType.BOOL),
    "at": FieldSchema(FieldType.DATETIME),
    "uuid": FieldSchema(FieldType.UUID),
    "text": FieldSchema(FieldType.TEXT),
    "place": FieldSchema(FieldType.GEO),
    "parts[].name": FieldSchema(FieldType.KEYWORD),
    "parts[].inner[].size": FieldSchema(FieldType.INTEGER),
}
BOX = {"top_left": {"lon": 0, "lat": 1}, "bottom_right": {"lon": 1, "lat": 0}}
UUID = "b7a9c2c0-0000-4000-8000-000000000001"


def condition(body: Any) -> Condition:
    parsed = msgspec.convert(body, Condition)
    parse_filter(parsed)
    return parsed


def match(key: str, **how: Any) -> dict[str, Any]:
    return {"key": key, "match": {name.rstrip("_"): value for name, value in how.items()}}


FOUR_CONDITIONS = {
    "must": [match("word", value="a"), {"should": [{"has_id": [1]}, {"has_vector": "image"}]}],
    "must_not": {"nested": {"key": "parts", "filter": {"must": [match("name", value="a")]}}},
}
Check = Callable[[StrictMode | None, Any], None]


@pytest.mark.parametrize(
    ("limit", "bound", "check", "beyond", "said"),
    [
        ("max_query_limit", 10, strict_mode.check_limit, 11, "limit is 11, must be at most 10"),
        ("max_timeout", 5, strict_mode.check_timeout, 6, "timeout is 6, must be at most 5"),
        ("search_max_hnsw_ef", 64, strict_mode.check_search_params, 65, "params.hnsw_ef is 65, must be at most 64"),
        (
            "search_max_oversampling",
            1.5,
            lambda strict, value: strict_mode.check_search_params(strict, oversampling=value),
            2.0,
            "params.quantization.oversampling is 2.0, must be at most 1.5",
        ),
        ("search_max_batchsize", 3, strict_mode.check_batch, 4, "number of searches is 4, must be at most 3"),
        ("upsert_max_batchsize", 100, strict_mode.check_upsert, 101, "number of points is 101, must be at most 100"),
        (
            "max_points_count",
            5,
            lambda strict, value: strict_mode.check_collection_size(strict, value, 0, 0),
            6,
            "number of points in the collection is 6, must be at most 5",
        ),
        (
            "max_collection_vector_size_bytes",
            1024,
            lambda strict, value: strict_mode.check_collection_size(strict, 0, value, 0),
            1025,
            "size of the collection's vectors in bytes is 1025, must be at most 1024",
        ),
        (
            "max_collection_payload_size_bytes",
            1024,
            lambda strict, value: strict_mode.check_collection_size(strict, 0, 0, value),
            1025,
            "size of the collection's payloads in bytes is 1025, must be at most 1024",
        ),
        ("max_payload_index_count", 2, strict_mode.check_payload_index_count, 3, "number of payload indexes is 3"),
    ],
)
def test_a_limit_takes_its_bound_and_nothing_beyond(limit: str, bound: Any, check: Check, beyond: Any, said: str) -> None:
    strict = StrictMode(enabled=True, **{limit: bound})
    check(strict, bound)
    check(strict, 0)
    with pytest.raises(BadRequest) as raised:
        check(strict, beyond)
    assert str(raised.value).startswith(said)
    assert f"strict_mode_config.{limit}" in str(raised.value)
    for off in (None, StrictMode(enabled=True), StrictMode(**{limit: bound}), StrictMode(enabled=False, **{limit: bound})):
        check(off, beyond)


def test_what_a_request_does_not_give_is_within_any_limit() -> None:
    strict = StrictMode(True, max_query_limit=1, max_timeout=1, search_max_hnsw_ef=0, search_max_oversampling=0)
    strict_mode.check_limit(strict, None)
    strict_mode.check_timeout(strict, None)
    strict_mode.check_search_params(strict)
    strict_mode.check_filter(strict, None, {})


def test_exact_search_is_refused_only_when_it_is_not_allowed() -> None:
    forbids = StrictMode(enabled=True, search_allow_exact=False)
    strict_mode.check_search_params(forbids, exact=False)
    with pytest.raises(BadRequest, match=r"params.exact is true, must be false \(strict_mode_config.search_allow_exact\)"):
        strict_mode.check_search_params(forbids, exact=True)
    for allows in (None, StrictMode(True), StrictMode(True, search_allow_exact=True), StrictMode(search_allow_exact=False)):
        strict_mode.check_search_params(allows, exact=True)


# Filters.


def test_conditions_are_counted_through_clauses_and_nested_filters() -> None:
    filter_ = condition(FOUR_CONDITIONS)
    strict_mode.check_filter(StrictMode(True, filter_max_conditions=4), filter_, {})
    with pytest.raises(BadRequest, match=r"number of conditions in the filter is 4, must be at most 3 .*filter_max_conditions"):
        strict_mode.check_filter(StrictMode(True, filter_max_conditions=3), filter_, {})
    strict_mode.check_filter(StrictMode(filter_max_conditions=3), filter_, {})


@pytest.mark.parametrize(("body", "count"), [({}, 0), ({"must": []}, 0), (match("a", value=1), 1)])
def test_a_filter_without_clauses_has_as_many_conditions_as_it_says(body: Any, count: int) -> None:
    strict_mode.check_filter(StrictMode(True, filter_max_conditions=count), condition(body), {})
    if count:
        with pytest.raises(BadRequest):
            strict_mode.check_filter(StrictMode(True, filter_max_conditions=count - 1), condition(body), {})


def test_min_should_counts_too() -> None:
    filter_ = condition({"min_should": {"conditions": [match("a", value=1), match("b", value=1)], "min_count": 1}})
    with pytest.raises(BadRequest, match="conditions in the filter is 2"):
        strict_mode.check_filter(StrictMode(True, filter_max_conditions=1), filter_, {})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (match("word", any=["a", "b", "c"]), "size of the condition on 'word' is 3, must be at most 2"),
        (match("word", except_=["a", "b", "c"]), "size of the condition on 'word' is 3, must be at most 2"),
        ({"has_id": [1, 2, 3]}, "size of has_id is 3, must be at most 2"),
        (
            {"must": {"nested": {"key": "parts[]", "filter": match("name", any=["a", "b", "c"])}}},
            "size of the condition on 'parts[].name' is 3, must be at most 2",
        ),
    ],
)
def test_a_condition_lists_at_most_so_many_values(body: Any, said: str) -> None:
    strict_mode.check_filter(StrictMode(True, condition_max_size=3), condition(body), {})
    with pytest.raises(BadRequest) as raised:
        strict_mode.check_filter(StrictMode(True, condition_max_size=2), condition(body), {})
    assert str(raised.value) == f"{said} (strict_mode_config.condition_max_size)"


@pytest.mark.parametrize(
    "body",
    [
        match("word", value="a"),
        match("word", value=UUID),
        match("word", any=["a", "b"]),
        match("word", except_=["a"]),
        match("uuid", value=UUID),
        match("uuid", any=[UUID]),
        match("int", value=1),
        match("int", any=[1, 2]),
        match("bool", value=True),
        match("text", text="some words"),
        match("text", text_any="some words"),
        match("text", phrase="some words"),
        match("word", prefix="a"),
        match("word", substring="a"),
        {"key": "place", "geo_radius": {"center": {"lon": 0, "lat": 0}, "radius": 1}},
        {"slice": {"total": 2, "index": 1}},
        match("none", any=[]),
        {"key": "int", "range": {"gt": 1}},
        {"key": "float", "range": {"lte": 0.5}},
        {"key": "at", "range": {"gte": "2024-01-01"}},
        {"key": "word", "values_count": {"gt": 1}},
        {"key": "text", "is_empty": True},
        {"is_null": {"key": "uuid"}},
        {"has_id": [1]},
        {"has_vector": "image"},
        {"nested": {"key": "parts", "filter": {"must": [match("name", value="a")]}}},
        {"nested": {"key": "parts[]", "filter": {"must": [{"nested": {"key": "inner", "filter": match("size", value=1)}}]}}},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("update", [False, True])
def test_a_filter_that_an_index_answers_is_taken(body: Any, update: bool) -> None:
    strict = StrictMode(True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False)
    strict_mode.check_filter(strict, condition(body), INDEXES, update)


@pytest.mark.parametrize(
    ("body", "key", "types"),
    [
        (match("none", value="a"), "none", "keyword"),
        (match("int", value="a"), "int", "keyword"),
        (match("uuid", value="no uuid"), "uuid", "keyword"),
        (match("none", value=UUID), "none", "keyword, uuid"),
        (match("word", any=[1]), "word", "integer"),
        (match("float", value=1), "float", "integer"),
        (match("int", value=True), "int", "bool"),
        (match("word", text="a"), "word", "text"),
        (match("word", phrase="a"), "word", "text"),
        (match("text", value="a"), "text", "keyword"),
        (match("text", prefix="a"), "text", "keyword"),
        (match("uuid", substring=UUID), "uuid", "keyword"),
        ({"key": "word", "geo_bounding_box": BOX}, "word", "geo"),
        ({"key": "none", "geo_radius": {"center": {"lon": 0, "lat": 0}, "radius": 1}}, "none", "geo"),
        ({"key": "at", "range": {"gt": 1}}, "at", "integer, float"),
        ({"key": "int", "range": {"gt": "2024-01-01"}}, "int", "datetime"),
        ({"key": "none", "values_count": {"gt": 1}}, "none", None),
        ({"key": "none", "is_null": False}, "none", None),
        ({"is_empty": {"key": "none"}}, "none", None),
        ({"must_not": [{"should": match("none", value=1)}]}, "none", "integer"),
        ({"nested": {"key": "parts", "filter": match("size", value=1)}}, "parts[].size", "integer"),
        ({"must": [match("word", value="a"), match("parts.name", value="a")]}, "parts.name", "keyword"),
    ],
    ids=str,
)
def test_a_filter_without_an_index_is_refused_with_what_to_create(body: Any, key: str, types: str | None) -> None:
    needed = f" of one of the following types: [{types}]" if types else ""
    for update, limit in ((False, "unindexed_filtering_retrieve"), (True, "unindexed_filtering_update")):
        with pytest.raises(BadRequest) as raised:
            strict_mode.check_filter(StrictMode(True, **{limit: False}), condition(body), INDEXES, update)
        assert str(raised.value).startswith(f'Index required but not found for "{key}"{needed}. Create')
        assert str(raised.value).endswith(f"(strict_mode_config.{limit} is false)")
        for allows in (None, StrictMode(True), StrictMode(True, **{limit: True}), StrictMode(**{limit: False})):
            strict_mode.check_filter(allows, condition(body), INDEXES, update)
        other = {"unindexed_filtering_retrieve", "unindexed_filtering_update"} - {limit}
        strict_mode.check_filter(StrictMode(True, **{other.pop(): False}), condition(body), INDEXES, update)


def test_what_is_grouped_or_scored_by_needs_an_index() -> None:
    strict = StrictMode(True, unindexed_filtering_retrieve=False, filter_max_conditions=1)
    strict_mode.check_key(strict, "word", INDEXES)
    with pytest.raises(BadRequest, match=r'Index required but not found for "none"\. Create'):
        strict_mode.check_key(strict, "none", INDEXES)
    strict_mode.check_key(StrictMode(unindexed_filtering_retrieve=False), "none", INDEXES)

    def check(formula: Any, limits: StrictMode | None = strict) -> None:
        parsed = parse_formula(msgspec.convert({"formula": formula}, FormulaBody))
        strict_mode.check_formula(limits, parsed, INDEXES)

    check({"sum": ["$score", "int", match("word", value="a")]})
    for refused in ("none", {"neg": match("none", value="a")}, {"must": [match("word", value="a"), match("int", value=1)]}):
        with pytest.raises(BadRequest):
            check(refused)
        check(refused, None)


# Writes.


def test_vectors_of_a_name_have_their_own_bounds() -> None:
    strict = StrictMode(
        True,
        multivector_config={"page": MultivectorLimit(2), "free": MultivectorLimit()},
        sparse_config={"words": SparseLimit(max_length=3)},
    )
    strict_mode.check_vectors(strict, [("page", 2), ("free", 999), ("other", 999)], [("words", 3), ("page", 999)])
    with pytest.raises(BadRequest, match=r"number of vectors in multivector 'page' is 3, must be at most 2 .*page.max_vectors"):
        strict_mode.check_vectors(strict, multivectors=[("page", 1), ("page", 3)])
    with pytest.raises(BadRequest, match=r"length of sparse vector 'words' is 4, must be at most 3 .*words.max_length"):
        strict_mode.check_vectors(strict, sparse=[("words", 4)])


def test_vectors_are_not_looked_at_without_limits() -> None:
    def unread() -> Any:
        raise AssertionError("read")
        yield

    sparse_only = StrictMode(True, sparse_config={"words": SparseLimit(3)})
    strict_mode.check_vectors(sparse_only, multivectors=unread())
    for off in (None, StrictMode(True), StrictMode(sparse_config={"words": SparseLimit(3)})):
        strict_mode.check_vectors(off, unread(), unread())


def test_memory_beyond_its_share_refuses_what_adds_data() -> None:
    strict = StrictMode(True, max_resident_memory_percent=80)
    strict_mode.check_memory(strict, lambda: 80.0)
    with pytest.raises(InsufficientStorage, match=r"resident memory is 80\.1 percent, must be at most 80") as raised:
        strict_mode.check_memory(strict, lambda: 80.1)
    assert status_of(raised.value)[0] == 507

    def unasked() -> NoReturn:
        raise AssertionError("asked")

    for off in (None, StrictMode(True), StrictMode(max_resident_memory_percent=80)):
        strict_mode.check_memory(off, unasked)


# Rates.


def test_a_rate_is_a_bucket_that_a_minute_fills() -> None:
    strict, limiter = StrictMode(True, read_rate_limit=6), RateLimiter("read_rate_limit")
    for _ in range(6):
        limiter.check_rate(strict, 100.0)
    with pytest.raises(TooManyRequests, match=r"Read rate limit exceeded, at most 6 a minute .*read_rate_limit") as raised:
        limiter.check_rate(strict, 100.0)
    assert status_of(raised.value)[::2] == (429, pytest.approx(10.0))
    with pytest.raises(TooManyRequests) as raised:
        limiter.check_rate(strict, 105.0)
    assert raised.value.retry_after_s == pytest.approx(5.0)
    limiter.check_rate(strict, 110.0)
    with pytest.raises(TooManyRequests):
        limiter.check_rate(strict, 110.0)
    limiter.check_rate(strict, 1000.0, cost=6)
    with pytest.raises(TooManyRequests):
        limiter.check_rate(strict, 999.0)  # a clock that steps back fills nothing


def test_who_waits_as_told_is_served() -> None:
    strict, limiter, now_s = StrictMode(True, write_rate_limit=7), RateLimiter("write_rate_limit"), 0.3
    limiter.check_rate(strict, now_s, cost=7)
    for cost in (1, 3, 7, 2, 5):
        with pytest.raises(TooManyRequests, match="Write rate") as raised:
            limiter.check_rate(strict, now_s, cost)
        assert raised.value.retry_after_s is not None
        now_s += raised.value.retry_after_s
        limiter.check_rate(strict, now_s, cost)


def test_a_request_larger_than_the_bucket_is_told_to_split() -> None:
    strict, limiter = StrictMode(True, read_rate_limit=5), RateLimiter("read_rate_limit")
    with pytest.raises(TooManyRequests, match="this request costs 6, more than a whole minute; split it") as raised:
        limiter.check_rate(strict, 0.0, cost=6)
    assert raised.value.retry_after_s is None
    limiter.check_rate(strict, 0.0, cost=5)


def test_a_new_limit_starts_with_a_full_bucket() -> None:
    limiter = RateLimiter("read_rate_limit")
    limiter.check_rate(StrictMode(True, read_rate_limit=1), 0.0)
    limiter.check_rate(StrictMode(True, read_rate_limit=2), 0.0, cost=2)


@pytest.mark.parametrize("off", [None, StrictMode(True), StrictMode(read_rate_limit=1), StrictMode(True, write_rate_limit=1)])
def test_a_rate_that_is_not_limited_takes_all(off: StrictMode | None) -> None:
    limiter = RateLimiter("read_rate_limit")
    for _ in range(10):
        limiter.check_rate(off, 0.0, cost=100)


# The limits themselves.


def test_the_fields_are_those_of_the_dialect() -> None:
    assert set(StrictMode.__struct_fields__) == set(models.StrictModeConfig.model_fields)
    assert set(MultivectorLimit.__struct_fields__) == set(models.StrictModeMultivector.model_fields)
    assert set(SparseLimit.__struct_fields__) == set(models.StrictModeSparse.model_fields)


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        *[
            (field, 1, 2**63 - 1)
            for field in ("max_query_limit", "max_timeout", "max_points_count", "read_rate_limit", "write_rate_limit")
        ],
        *[
            (field, 0, 2**63 - 1)
            for field in (
                "search_max_hnsw_ef",
                "search_max_oversampling",
                "search_max_batchsize",
                "upsert_max_batchsize",
                "max_collection_vector_size_bytes",
                "max_collection_payload_size_bytes",
                "filter_max_conditions",
                "condition_max_size",
                "max_payload_index_count",
            )
        ],
        ("max_resident_memory_percent", 1, 100),
    ],
)
def test_a_limit_has_bounds_of_its_own(field: str, low: int, high: int) -> None:
    for fine in (low, high):
        StrictMode(**{field: fine}).validate()
    for wrong in (low - 1, high + 1):
        with pytest.raises(InvalidConfig, match=f"strict_mode_config: {field} is {wrong}, must be between {low} and {high}"):
            StrictMode(**{field: wrong}).validate()


@pytest.mark.parametrize(
    ("strict", "said"),
    [
        (StrictMode(multivector_config={"a": MultivectorLimit(0)}), "multivector_config.a.max_vectors is 0, must be between 1"),
        (StrictMode(sparse_config={"a": SparseLimit(0)}), "sparse_config.a.max_length is 0, must be between 1"),
        (
            StrictMode(sparse_config={str(n): SparseLimit() for n in range(65)}),
            "number of names in sparse_config is 65, must be between 0 and 64",
        ),
    ],
)
def test_limits_by_name_have_bounds_too(strict: StrictMode, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        strict.validate()


def test_a_change_keeps_what_it_does_not_give() -> None:
    before = StrictMode(True, max_query_limit=10, search_allow_exact=True)
    after = before.updated(StrictMode(max_query_limit=20, search_allow_exact=False))
    assert after == StrictMode(True, max_query_limit=20, search_allow_exact=False)
    assert before.updated(StrictMode(enabled=False)) == StrictMode(False, max_query_limit=10, search_allow_exact=True)


def test_the_body_refuses_unknown_fields_and_becomes_limits_that_the_catalog_keeps() -> None:
    sent = b'{"enabled":true,"search_max_oversampling":2,"multivector_config":{"a":{"max_vectors":3}},"sparse_config":null}'
    kept = StrictMode().updated(msgspec.json.decode(sent, type=StrictModeBody))
    assert type(kept) is StrictMode
    assert msgspec.json.decode(msgspec.json.encode(kept), type=StrictMode) == StrictMode(
        True, search_max_oversampling=2.0, multivector_config={"a": MultivectorLimit(3)}
    )
    for unknown in ({"max_limit": 1}, {"multivector_config": {"a": {"max": 1}}}, {"sparse_config": {"a": {"max": 1}}}):
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.convert(unknown, StrictModeBody)
