"""What is refused, with which status; what is no error; and what of a request is done when a part of it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from qdrant_client import models

from tests.conftest import START_S, refusal, result, start_node

PLAIN: dict[str, Any] = {"size": 4, "distance": "Dot"}
NAMED = {"vectors": {"a": PLAIN, "many": PLAIN | {"multivector_config": {"comparator": "max_sim"}}}, "sparse_vectors": {"s": {}}}
ONE = [1, 0, 0, 0]
ABSENT = {"with_vector": ["absent"]}
READS = {
    "/points": {"ids": [1]},
    "/points/scroll": {},
    "/points/query": {"query": ONE, "using": "a"},
    "/points/query/groups": {"query": ONE, "using": "a", "group_by": "g"},
    "/points/search": {"vector": {"name": "a", "vector": ONE}, "limit": 1},
    "/points/search/groups": {"vector": {"name": "a", "vector": ONE}, "group_by": "g"},
    "/points/recommend": {"positive": [1], "using": "a", "limit": 1},
    "/points/recommend/groups": {"positive": [1], "using": "a", "group_by": "g"},
    "/points/discover": {"target": 1, "using": "a", "limit": 1},
}


@pytest.fixture(scope="module")
def shared(node_url: str) -> Iterator[str]:
    """A collection of named vectors, for tests that change nothing; with ten points, of which the tenth has no vector."""
    with httpx.Client(base_url=node_url, timeout=30) as http:
        path = made(http)
        result(http.put(f"{path}/index?wait=true", json={"field_name": "n", "field_schema": "integer"}))
        yield path
        result(http.delete(path))


@pytest.fixture
def named(http: httpx.Client) -> Iterator[str]:
    """Another one, for a test that changes it."""
    path = made(http)
    yield path
    result(http.delete(path))


def made(http: httpx.Client) -> str:
    path = f"/collections/n{uuid4().hex[:8]}"
    result(http.put(path, json=NAMED))
    points = [{"id": n, "vector": {"a": [n, 1, 0, 0]} if n < 10 else {}, "payload": {"g": n % 2, "n": n}} for n in range(1, 11)]
    result(http.put(f"{path}/points?wait=true", json={"points": points}))
    return path


@pytest.mark.parametrize("path", READS)
def test_a_vector_name_that_does_not_exist_is_refused_in_every_with_vector(http: httpx.Client, shared: str, path: str) -> None:
    body = READS[path]
    for key in ("with_vector", "with_vectors"):
        assert "Not existing vector name error: absent" in refusal(http.post(shared + path, json={**body, key: ["a", "absent"]}))
        assert result(http.post(shared + path, json={**body, key: ["a"]}))
    if f"{path}/batch" in ("/points/query/batch", "/points/search/batch", "/points/recommend/batch", "/points/discover/batch"):
        assert "absent" in refusal(http.post(f"{shared}{path}/batch", json={"searches": [body, {**body, **ABSENT}]}))
    if path.endswith("/groups"):
        lookup = {"with_lookup": {"collection": shared.split("/")[-1], **ABSENT}}
        assert "absent" in refusal(http.post(shared + path, json={**body, **lookup}))


CHANGES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/points/payload"): {"payload": {"k": 1}},
    ("POST", "/points/payload deep"): {"payload": {"k": 1}, "key": "deep"},
    ("PUT", "/points/payload"): {"payload": {"k": 1}},
    ("POST", "/points/payload/delete"): {"keys": ["n"]},
    ("POST", "/points/payload/clear"): {},
    ("POST", "/points/vectors/delete"): {"vector": ["a"]},
    ("PUT", "/points/vectors"): {},
}


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_unknown_ids_are_404_after_the_known_ones_are_changed(http: httpx.Client, named: str, method: str, path: str) -> None:
    body = {"points": [999, 1], **CHANGES[method, path]}
    if path == "/points/vectors":
        body = {"points": [{"id": id_, "vector": {"a": [7, 7, 7, 7]}} for id_ in (999, 1)]}
    before = result(http.get(f"{named}/points/1"))
    answer = http.request(method, f"{named}{path.split()[0]}?wait=true", json=body)
    assert (answer.status_code, "No point with id 999" in answer.text) == (404, True)
    assert result(http.get(f"{named}/points/1")) != before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/points/query", {"query": 999, "using": "a"}),
        ("/points/query", {"query": 10, "using": "a"}),
        ("/points/query", {"query": {"recommend": {"positive": [1, 999]}}, "using": "a"}),
        ("/points/query", {"query": {"context": [{"positive": 1, "negative": 999}]}, "using": "a"}),
        ("/points/query", {"query": 1, "using": "a", "lookup_from": {"collection": "nowhere"}}),
        ("/points/query/groups", {"query": 1, "using": "a", "group_by": "g", "with_lookup": "nowhere"}),
        ("/points/recommend", {"positive": [1], "using": "a", "limit": 1, "lookup_from": {"collection": "nowhere"}}),
    ],
)
def test_what_is_not_there_is_404(http: httpx.Client, shared: str, path: str, body: Any) -> None:
    answer = http.post(shared + path, json=body)
    assert answer.status_code == 404, answer.text
    assert "Not found" in answer.text


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            422,
            {"query": {"relevance_feedback": {"target": 1, "feedback": [], "strategy": {"naive": {"a": 1, "b": 1, "c": 1}}}}},
            "one",
        ),
        (422, {"query": {"recommend": {"negative": [1]}}}, "positive"),
        (422, {"query": {"context": []}}, "context"),
        (422, {"query": {"rrf": {"k": 0}}, "prefetch": {"query": 1}}, "rrf.k"),
        (400, {"query": ONE, "using": "a", "params": {"idf": "global"}}, "modifier idf"),
        (400, {"query": {"indices": [1], "values": [1]}, "using": "s", "params": {"idf": "global"}}, "modifier idf"),
        (400, {"query": {"fusion": "rrf"}, "using": "a", "prefetch": {"query": ONE, "using": "a"}}, "using"),
        (400, {"query": {"order_by": "n"}, "score_threshold": 1}, "score_threshold"),
        (400, {"query": {}, "using": "a"}, "exactly one"),
        (400, {"query": {"nearest": {}}, "using": "a"}, "not a sparse vector"),
        (400, {"query": ONE, "using": "a", "lookup_from": {"collection": "", "vector": "absent"}}, "absent"),
    ],
)
def test_bounds_and_combinations(http: httpx.Client, shared: str, status: int, body: Any, said: str) -> None:
    if "lookup_from" in body:
        body = {"query": 1, "using": "a", "lookup_from": {"collection": shared.split("/")[-1], "vector": "absent"}}
    answer = http.post(f"{shared}/points/query", json=body)
    assert said in refusal(answer)
    assert answer.status_code == status


@pytest.mark.parametrize("vector", [{"a": {}}, {"s": {}}, {"many": []}, {"many": [[]]}, {"a": []}, {}])
def test_vectors_that_are_none_are_refused_in_an_update(http: httpx.Client, shared: str, vector: Any) -> None:
    for body in ({"points": [{"id": 1, "vector": vector}]},) if vector else ():
        refusal(http.put(f"{shared}/points?wait=true", json=body))
    before = result(http.get(f"{shared}/points/1"))
    refusal(http.put(f"{shared}/points/vectors?wait=true", json={"points": [{"id": 1, "vector": vector}]}))
    assert result(http.get(f"{shared}/points/1")) == before
    refusal(http.post(f"{shared}/points/vectors/delete", json={"points": [1], "vector": []}))


@pytest.mark.parametrize("form", [{"many": [[ONE, ONE], [ONE]]}, [[ONE, ONE], [ONE]]], ids=["named", "unnamed"])
def test_multi_vectors_in_the_column_form(http: httpx.Client, named: str, form: Any) -> None:
    path = named
    if isinstance(form, list):
        path = f"/collections/m{uuid4().hex[:8]}"
        result(http.put(path, json={"vectors": PLAIN | {"multivector_config": {"comparator": "max_sim"}}}))
    result(http.put(f"{path}/points?wait=true", json={"batch": {"ids": [21, 22], "vectors": form}}))
    shown = [point["vector"] for point in result(http.post(f"{path}/points", json={"ids": [21, 22], "with_vector": True}))]  # type: ignore[attr-defined]
    expected = [[ONE, ONE], [ONE]]
    assert shown == (expected if isinstance(form, list) else [{"many": vectors} for vectors in expected])
    if path != named:
        result(http.delete(path))


LONG = "[ 10000000000000000000 , -9223372036854775809, 1.5, 0]"


@pytest.mark.parametrize("place", ["dense", "multi"])
def test_integers_of_any_length_are_numbers_whatever_spaces_stand_between(http: httpx.Client, named: str, place: str) -> None:
    stored = [1e19, -(2.0**63), 1.5, 0]
    body = f'{{"a": {LONG}}}' if place == "dense" else f'{{"many": [{" " * 99}{LONG} , \n{LONG}]}}'
    result(http.put(f"{named}/points?wait=true", content=f'{{"points": [{{"id": 31, "vector": {body}}}]}}'))
    shown = result(http.get(f"{named}/points/31"))["vector"]  # type: ignore[index]
    for vector in [shown["a"]] if place == "dense" else shown["many"]:
        assert vector == pytest.approx(stored, rel=1e-6)
    for number in ("100000000000000000000", "18446744073709551615"):
        body = f'{{"points": [{{"id": 31, "vector": {{"a": [{number}, 1, 1, 1]}}}}]}}'
        result(http.put(f"{named}/points?wait=true", content=body))
        shown = result(http.get(f"{named}/points/31"))["vector"]  # type: ignore[index]
        assert shown["a"] == pytest.approx([float(number), 1, 1, 1])
    too_large = f'{{"points": [{{"id": 31, "vector": {{"a": [{10**39}, 1, 1, 1]}}}}]}}'
    assert "too large for float32" in refusal(http.put(f"{named}/points", content=too_large))


@pytest.mark.parametrize("path", ["/points/query", "/points/search", "/points/scroll", "/points/recommend", "/points/discover"])
def test_a_limit_or_offset_above_the_number_of_points_is_no_error(http: httpx.Client, shared: str, path: str) -> None:
    body = {**READS[path], "limit": 2**64}
    answer = result(http.post(shared + path, json=body))
    hits = answer["points"] if isinstance(answer, dict) else answer
    assert len(hits) in (8, 9, 10), "without examples, and those that have no vector"  # type: ignore[arg-type]
    if path != "/points/scroll":
        beyond = result(http.post(shared + path, json={**body, "offset": 10**12}))
        assert beyond in ([], {"points": []})
        prefetch = {"prefetch": {**READS["/points/query"], "limit": 2**64}, "query": {"fusion": "rrf"}, "limit": 3}
        assert len(result(http.post(f"{shared}/points/query", json=prefetch))["points"]) == 3  # type: ignore[index]
    diverse = {"query": {"nearest": ONE, "mmr": {}}, "using": "a", "limit": 10**9}
    assert len(result(http.post(f"{shared}/points/query", json=diverse))["points"]) == 9  # type: ignore[index]


def test_the_number_of_points_in_an_answer_is_bounded(tmp_path: Any) -> None:
    """By a setting, which the text names; a page of a scroll ends there."""
    node, thread = start_node(tmp_path, max_answer_points=5)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        result(http.put("/collections/c", json={"vectors": PLAIN}))
        points = [{"id": n, "vector": [n, 1, 0, 0], "payload": {"n": n, "many": [*range(6)]}} for n in range(1, 11)]
        result(http.put("/collections/c/points?wait=true", json={"points": points}))
        path, five = "/collections/c/points", {"vector": ONE, "limit": 5}
        assert len(result(http.post(f"{path}/search", json=five))) == 5  # type: ignore[arg-type]
        assert len(result(http.post(f"{path}/search", json={**five, "limit": 100, "offset": 5}))) == 5  # type: ignore[arg-type]
        for refused in (
            http.post(f"{path}/search", json={**five, "limit": 6}),
            http.post(f"{path}/search/batch", json={"searches": [five, {**five, "limit": 1}]}),
            http.post(f"{path}/query", json={"limit": 10**9}),
            http.post(f"{path}/search/groups", json={"vector": ONE, "group_by": "n", "limit": 6}),
            http.post(f"{path}/search/groups", json={"vector": ONE, "group_by": "many", "limit": 6, "group_size": 1}),
            http.post(path, json={"ids": [1, 2, 3, 4, 5, 6]}),
            http.post(f"{path}/search/matrix/pairs", json={"sample": 10, "limit": 9}),
            http.post("/collections/c/facet", json={"key": "n"}),
        ):
            assert refused.status_code == 422, refused.text
            assert "more than 5 points, the bound of an answer (max_answer_points)" in refusal(refused)
        page = result(http.post(f"{path}/scroll", json={"limit": 100}))
        assert (len(page["points"]), page["next_page_offset"]) == (5, 6)  # type: ignore[index]
    node.stop()
    thread.join(START_S)


def test_a_sample_with_an_offset_has_as_many_points_as_asked_for(http: httpx.Client, shared: str) -> None:
    for offset, limit, count in ((0, 4, 4), (9, 4, 4), (100, 10, 10)):
        body = {"query": {"sample": "random"}, "limit": limit, "offset": offset}
        assert len(result(http.post(f"{shared}/points/query", json=body))["points"]) == count  # type: ignore[index]


def test_a_null_takes_the_default_of_a_formula(http: httpx.Client, named: str) -> None:
    result(http.post(f"{named}/points/payload?wait=true", json={"points": [1, 2], "payload": {"f": [None]}}))
    result(http.put(f"{named}/points/payload?wait=true", json={"points": [3], "payload": {"f": 5}}))
    result(http.put(f"{named}/points?wait=true", json={"points": [{"id": 4, "vector": {"a": ONE}, "payload": {"f": None}}]}))
    body = {"prefetch": {"query": ONE, "using": "a"}, "query": {"formula": "f", "defaults": {"f": 2}}}
    scores = {hit["id"]: hit["score"] for hit in result(http.post(f"{named}/points/query", json=body))["points"]}  # type: ignore[index]
    assert scores == {3: 5} | dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9), 2)


def test_group_lookups_take_vectors_under_both_names(http: httpx.Client, shared: str) -> None:
    collection = shared.split("/")[-1]
    for key, wanted, shown in (("with_vectors", True, True), ("with_vector", ["a"], True), ("with_vector", False, False)):
        lookup = {"collection": collection, "with_payload": True, key: wanted}
        body = {"query": ONE, "using": "a", "group_by": "n", "with_lookup": lookup, "limit": 1}
        (group,) = result(http.post(f"{shared}/points/query/groups", json=body))["groups"]  # type: ignore[index]
        assert group["lookup"]["payload"]["n"] == group["id"]
        assert ("vector" in group["lookup"]) == shown


TYPED = {1: 1, 2: [1.0, 2**63, 2**64 - 1], 3: True, 4: "1", 5: [1, "1", 1.5], 6: None, 7: 1, 8: -(2**63)}
KINDS = ["integer", "keyword", "bool", "float", "uuid", "datetime", "text", None]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_values_of_several_types_in_one_field(http: httpx.Client, named: str, kind: str | None) -> None:
    """A facet counts them apart, as far as the dialect's client can read them, and match takes no 1.0 for 1: with any index and
    without."""
    if kind is not None:
        result(http.put(f"{named}/index?wait=true", json={"field_name": "v", "field_schema": kind}))
    for id_, value in TYPED.items():
        result(http.put(f"{named}/points/payload?wait=true", json={"points": [id_], "payload": {"v": value}}))
    hits = models.FacetResponse.model_validate(result(http.post(f"{named}/facet", json={"key": "v"}))).hits
    assert sorted((type(hit.value).__name__, hit.value, hit.count) for hit in hits) == [
        ("bool", True, 1),
        ("int", -(2**63), 1),
        ("int", 1, 3),
        ("str", "1", 2),
    ]
    for wanted, ids in (
        ({"value": 1}, [1, 5, 7]),
        ({"value": True}, [3]),
        ({"any": ["1"]}, [4, 5]),
        ({"any": [1, 2]}, [1, 5, 7]),
    ):
        body = {"filter": {"must": [{"key": "v", "match": wanted}]}}
        found = result(http.post(f"{named}/points/scroll", json=body))["points"]  # type: ignore[index]
        assert [point["id"] for point in found] == ids, wanted
    refused = http.post(f"{named}/points/count", json={"filter": {"must": [{"key": "v", "match": {"value": 1.0}}]}})
    assert "got `float`" in refusal(refused)


def test_a_key_of_one_element_is_removed_from_that_one_only(http: httpx.Client, named: str) -> None:
    items = [{"b": 1, "c": 2}, {"b": 3}, 4]
    for path, left in (
        ("l[0].b", [{"c": 2}, {"b": 3}, 4]),
        ("l[].b", [{"c": 2}, {}, 4]),
        ("l[1]", items),
        ("l[7].b", items),
        ("l[]", []),
    ):
        result(http.put(f"{named}/points/payload?wait=true", json={"points": [1], "payload": {"l": items}}))
        result(http.post(f"{named}/points/payload/delete?wait=true", json={"points": [1], "keys": [path]}))
        assert result(http.get(f"{named}/points/1"))["payload"] == {"l": left}, path  # type: ignore[index]


@pytest.mark.parametrize(
    "kind", ["application/msgpack; charset=binary", "Application/MsgPack", "APPLICATION/X-MSGPACK ;v=1", "application/msgpack ;"]
)
def test_content_types_are_read_as_what_they_are(http: httpx.Client, named: str, kind: str) -> None:
    body = msgspec.msgpack.encode({"points": [{"id": 41, "vector": {"a": [1.0, 2.0, 3.0, 4.0]}}]})
    result(http.put(f"{named}/points?wait=true", content=body, headers={"content-type": kind}))
    octets = {"content-type": f"{'application/OCTET-stream'}; a=b"}
    floats = b"\0\0\x80\x3f" * 4
    assert result(http.post(f"{named}/points/search?using=a&limit=1", content=floats, headers=octets))
    json_body = {"points": [{"id": 41, "vector": {"a": [1, 2, 3, 4]}}]}
    result(
        http.put(
            f"{named}/points", content=msgspec.json.encode(json_body), headers={"content-type": "Application/JSON; charset=utf-8"}
        )
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused_in_msgpack(http: httpx.Client, named: str, number: float) -> None:
    headers = {"content-type": "application/msgpack"}
    for method, path, body in (
        ("PUT", "/points", {"points": [{"id": 51, "vector": {}, "payload": {"deep": [{"x": number}]}}]}),
        ("POST", "/points/payload", {"points": [1], "payload": {"x": number}}),
        ("PATCH", "", {"metadata": {"x": number}}),
        ("POST", "/points/query", {"query": ONE, "using": "a", "score_threshold": number}),
    ):
        answer = http.request(method, f"{named}{path}?wait=true", content=msgspec.msgpack.encode(body), headers=headers)
        assert "is not a finite number" in refusal(answer)
    large = {"points": [{"id": 51, "vector": {}, "payload": {"x": number, "text": "x" * 300_000}}]}
    answer = http.put(f"{named}/points?wait=true", content=msgspec.msgpack.encode(large), headers=headers)
    assert "points[0].payload.x is not a finite number" in refusal(answer)
    binary = {"points": [{"id": 51, "vector": {"a": b"\xcb\x7f\xf8\0" * 3 + b"\0\0\0\0"}}]}
    result(http.put(f"{named}/points?wait=true", content=msgspec.msgpack.encode(binary), headers=headers))


def test_a_leap_second_is_a_moment(http: httpx.Client, named: str) -> None:
    for id_, moment in ((1, "2016-12-31T23:59:60Z"), (2, "2016-12-31T18:59:60.5-05:00"), (3, "2016-12-31T23:58:60Z")):
        result(http.post(f"{named}/points/payload?wait=true", json={"points": [id_], "payload": {"at": moment}}))
    condition = {"key": "at", "range": {"gt": "2016-12-31T23:59:59.9Z", "lt": "2017-01-01T00:00:01Z"}}
    body = {"filter": {"must": [condition]}}
    for _ in ("without an index", "with one"):
        found = result(http.post(f"{named}/points/scroll", json=body))["points"]  # type: ignore[index]
        assert [point["id"] for point in found] == [1, 2]
        result(http.put(f"{named}/index?wait=true", json={"field_name": "at", "field_schema": "datetime"}))
    bound = {"filter": {"must": [{"key": "at", "range": {"gte": "2016-12-31T23:59:60Z"}}]}}
    assert result(http.post(f"{named}/points/count", json=bound)) == {"count": 2}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "keyword", "made_up": True},
        {"type": "keyword", "lookup": True},
        {"type": "integer", "lookup": False, "range": False},
        {"type": "text", "min_token_len": 4, "max_token_len": 2},
    ],
)
def test_conflicting_or_unknown_options_of_an_index_are_422(http: httpx.Client, shared: str, schema: Any) -> None:
    answer = http.put(f"{shared}/index?wait=true", json={"field_name": "f", "field_schema": schema})
    assert answer.status_code == 422
    assert "field_schema." in refusal(answer)
