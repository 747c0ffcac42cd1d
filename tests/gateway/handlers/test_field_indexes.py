"""Payload indexes over HTTP: their types and options, what is given back and what refused; the filters they serve (V12, N6)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conftest import refusal, result

SCHEMAS = [
    "geo",
    "text",
    {"type": "keyword", "is_tenant": True, "on_disk": True, "prefix": True},
    {"type": "integer", "lookup": True, "range": False, "is_principal": True},
    {"type": "float", "is_principal": False, "enable_hnsw": False},
    {"type": "datetime", "is_principal": True, "memory": "pinned"},
    {"type": "uuid", "is_tenant": True},
    {"type": "bool", "on_disk": False},
    {"type": "geo", "on_disk": True},
    {"type": "text", "tokenizer": "prefix", "min_token_len": 0, "max_token_len": 300, "lowercase": True},
    {"type": "text", "phrase_matching": True, "ascii_folding": True, "stopwords": "english"},
    {
        "type": "text",
        "stopwords": {"languages": ["english", "german"], "custom": ["foo"]},
        "stemmer": {"type": "snowball", "language": "english"},
    },
    {"type": "text", "tokenizer": "multilingual", "stemmer": {"type": "none"}},
]


def index(http: httpx.Client, name: str, field: str, schema: object) -> httpx.Response:
    return http.put(f"/collections/{name}/index?wait=true", json={"field_name": field, "field_schema": schema})


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_a_schema_is_given_back_as_it_came(http: httpx.Client, name: str, schema: object) -> None:
    result(index(http, name, "f", schema))
    info = result(http.get(f"/collections/{name}"))["payload_schema"]["f"]
    if isinstance(schema, str):
        assert info == {"data_type": schema, "points": 0}
    else:
        assert info == {"data_type": schema["type"], "params": schema, "points": 0}  # type: ignore[index]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (None, "field_schema: is missing"),
        ("colour", "must be one of keyword, integer, float, bool, datetime, uuid, text, geo"),
        ({"type": "text", "tokenizer": "code"}, "must be one of word, whitespace, prefix, multilingual"),
        ({"type": "text", "min_token_len": 5, "max_token_len": 4}, "min_token_len: is 5, must be at most max_token_len, 4"),
        ({"type": "text", "stopwords": "klingon"}, "stopwords"),
        ({"type": "text", "stemmer": {"type": "snowball"}}, "needs a language"),
        ({"type": "keyword", "lookup": True}, "field_schema.lookup: is no option of type keyword"),
        ({"type": "integer", "tokenizer": "word"}, "field_schema.tokenizer: is no option of type integer"),
        ({"type": "integer", "lookup": False, "range": False}, "at least one must be true"),
        ({"type": "keyword", "nested": "a"}, "nested"),
        ({"type": "text", "scoring": True}, "scoring"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(http: httpx.Client, name: str, schema: object, text: str) -> None:
    response = index(http, name, "f", schema)
    assert text in refusal(response)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ({"geo_radius": {"center": {"lon": 181, "lat": 0}, "radius": 1}}, "center.lon: is 181.0, must be between -180 and 180"),
        ({"geo_radius": {"center": {"lon": 0, "lat": 0}, "radius": -1}}, "radius: is -1.0, must be at least 0"),
        (
            {"geo_bounding_box": {"top_left": {"lon": 0, "lat": 91}, "bottom_right": {"lon": 0, "lat": 0}}},
            "top_left.lat: is 91.0, must be between -90 and 90",
        ),
        ({"geo_polygon": {"exterior": {"points": [{"lon": 0, "lat": 0}] * 3}}}, "exterior: has 3 points, must have 4 to"),
        (
            {"geo_polygon": {"exterior": {"points": [{"lon": n, "lat": 0} for n in range(4)]}}},
            "exterior: the last point must be equal to the first",
        ),
        (
            {
                "geo_polygon": {
                    "exterior": {"points": [{"lon": 0, "lat": 0}] * 4},
                    "interiors": [{"points": [{"lon": 0, "lat": 0}] * 3 + [{"lon": 0, "lat": 99}]}],
                }
            },
            "interiors[0].points[3].lat: is 99.0",
        ),
        ({"match": {"text": "a", "phrase": "b"}}, "exactly one of value, any, except, text, text_any, phrase, prefix, substring"),
    ],
)
def test_a_condition_that_means_nothing_is_refused(http: httpx.Client, name: str, condition: dict[str, Any], text: str) -> None:
    response = http.post(f"/collections/{name}/points/count", json={"filter": {"must": [{"key": "k"} | condition]}})
    assert text in refusal(response)


@pytest.mark.parametrize("part", [{"total": 0, "index": 0}, {"total": 2, "index": 2}, {"total": 2, "index": -1}])
def test_a_slice_that_is_none_is_refused(http: httpx.Client, name: str, part: dict[str, int]) -> None:
    response = http.post(f"/collections/{name}/points/count", json={"filter": {"must": [{"slice": part}]}})
    assert "slice" in refusal(response)


def found(http: httpx.Client, name: str, condition: dict[str, Any]) -> list[int]:
    points = result(http.post(f"/collections/{name}/points/scroll", json={"filter": {"must": [condition]}}))["points"]
    return [point["id"] for point in points]


PAYLOADS: list[dict[str, Any]] = [
    {"text": "The Café of running dogs", "uuid": "b7a9c2c0-0000-4000-8000-00000000000a", "at": {"lon": 13.4, "lat": 52.5}},
    {"text": ["a dog", "runs to the cafe"], "uuid": "B7A9C2C000004000800000000000000A", "at": [{"lon": 2.3, "lat": 48.9}]},
    {"text": "running", "uuid": "nonsense", "at": {"lon": 500, "lat": 0}, "n": 5, "list": [{"t": "Two dogs"}, {"t": None}]},
]


@pytest.fixture
def filled(http: httpx.Client, name: str) -> str:
    points = [{"id": n, "vector": [1, 2, 3, 4], "payload": payload} for n, payload in enumerate(PAYLOADS)]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": points}))
    return name


def test_a_text_index_decides_what_its_words_are(http: httpx.Client, filled: str) -> None:
    asked = {"key": "text", "match": {"text": "THE dog run"}}
    assert found(http, filled, asked) == []
    options = {"stopwords": "english", "ascii_folding": True, "phrase_matching": True}
    english = {"type": "snowball", "language": "english"}
    result(index(http, filled, "text", {"type": "text", "stemmer": english} | options))
    assert found(http, filled, asked) == [0]  # in point 1 no text has both words
    assert found(http, filled, {"key": "text", "match": {"text_any": "dog run"}}) == [0, 1, 2]
    assert found(http, filled, {"key": "text", "match": {"phrase": "ran cafes of running"}}) == []
    assert found(http, filled, {"key": "text", "match": {"phrase": "cafes of running"}}) == [0]
    result(index(http, filled, "list[].t", {"type": "text", "stemmer": english}))
    nested = {"nested": {"key": "list", "filter": {"must": [{"key": "t", "match": {"text": "dog"}}]}}}
    assert found(http, filled, nested) == [2]


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexed"])
def test_uuids_equal_in_any_notation_where_the_field_is_of_that_type(http: httpx.Client, filled: str, indexed: bool) -> None:
    if indexed:
        result(index(http, filled, "uuid", "uuid"))
    in_capitals = PAYLOADS[0]["uuid"].upper()
    both = [0, 1] if indexed else []
    assert found(http, filled, {"key": "uuid", "match": {"value": in_capitals}}) == both
    assert found(http, filled, {"key": "uuid", "match": {"any": [in_capitals, "nonsense"]}}) == [*both, 2]
    assert found(http, filled, {"key": "uuid", "match": {"except": [in_capitals]}}) == [n for n in range(3) if n not in both]


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexed"])
def test_places(http: httpx.Client, filled: str, indexed: bool) -> None:
    if indexed:
        result(index(http, filled, "at", "geo"))
        assert result(http.get(f"/collections/{filled}"))["payload_schema"]["at"]["points"] == 2
    near = {"key": "at", "geo_radius": {"center": {"lon": 13, "lat": 52}, "radius": 100_000}}
    assert found(http, filled, near) == [0]
    europe = {"top_left": {"lon": -10, "lat": 60}, "bottom_right": {"lon": 30, "lat": 40}}
    assert found(http, filled, {"key": "at", "geo_bounding_box": europe}) == [0, 1]
    corners = [(0, 45), (5, 45), (5, 50), (0, 50), (0, 45)]
    france = {"exterior": {"points": [{"lon": lon, "lat": lat} for lon, lat in corners]}}
    assert found(http, filled, {"key": "at", "geo_polygon": france}) == [1]


def test_integers_without_lookup_or_without_range(http: httpx.Client, filled: str) -> None:
    """What an index does not serve is tested point by point, and a facet counts the payloads."""
    for schema in ({"type": "integer", "lookup": False}, {"type": "integer", "range": False}):
        result(index(http, filled, "n", schema))
        assert found(http, filled, {"key": "n", "match": {"value": 5}}) == [2]
        assert found(http, filled, {"key": "n", "range": {"gt": 4}}) == [2]
        facet = result(http.post(f"/collections/{filled}/facet", json={"key": "n"}))
        assert facet == {"hits": [{"value": 5, "count": 1}]}


def test_slices_share_the_points_out(http: httpx.Client, filled: str) -> None:
    parts = [found(http, filled, {"slice": {"total": 2, "index": part}}) for part in range(2)]
    assert sorted(parts[0] + parts[1]) == [0, 1, 2]
