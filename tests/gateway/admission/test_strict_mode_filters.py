"""Strict mode: how large a filter may be, and filters, keys and formulas without an index."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from catalog.strict_mode import StrictMode
from gateway.admission import strict_mode
from gateway.http.errors import BadRequest
from payload.schema import FieldSchema, FieldType
from shard.filters.conditions import Condition, parse_filter
from shard.ranking.formula import FormulaBody, parse_formula

INDEXES = {
    "word": FieldSchema(FieldType.KEYWORD, prefix=True),
    "whole": FieldSchema(FieldType.KEYWORD),
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
        (match("whole", prefix="a"), "whole", "keyword with prefix"),
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
