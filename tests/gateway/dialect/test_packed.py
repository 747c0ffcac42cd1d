"""Vectors as JSON numbers, as base64 and in msgpack: the same points, the same answers, and errors that name the place."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import numpy as np
import pytest

from tests.conftest import refusal, result

RANDOM = np.random.default_rng(3)
DENSE = RANDOM.normal(size=(6, 4)).astype(np.float32)
MULTI = RANDOM.normal(size=(6, 3, 2)).astype(np.float32)
SPARSE = [{"indices": [at, 7], "values": [0.5, float(np.float32(at) / 4)]} for at in range(6)]
QUERY = RANDOM.normal(size=4).astype(np.float32)
PAYLOAD = {"tag": "a", "deep": {"list": [1, 2.5, None, True, "ü"]}, "big": 2**40}
MSGPACK = {"content-type": "application/msgpack"}

Form = Callable[[Any], Any]


def numbers(vector: Any) -> Any:
    return vector.tolist() if isinstance(vector, np.ndarray) else vector


def base64(vector: Any) -> Any:
    return b64encode(vector.astype("<f4").tobytes()).decode() if vector.ndim == 1 else vector.tolist()


def packed(vector: Any) -> Any:
    return vector.astype("<f4").tobytes() if vector.ndim == 1 else [packed(row) for row in vector]


FORMS: dict[str, Form] = {"numbers": numbers, "base64": base64, "packed": packed, "packed numbers": numbers}


def send(http: httpx.Client, method: str, path: str, body: Any, form: str) -> httpx.Response:
    if form.startswith("packed"):
        return http.request(method, path, content=msgspec.msgpack.encode(body), headers=MSGPACK)
    return http.request(method, path, json=body)


@pytest.fixture(scope="module")
def filled(node_url: str) -> Iterator[dict[str, str]]:
    """For each form a collection that was written in it."""
    names = {form: f"packed-{uuid4().hex[:8]}" for form in FORMS}
    vectors = {"": {"size": 4, "distance": "Cosine"}, "many": {"size": 2, "distance": "Dot", "multivector_config": {}}}
    with httpx.Client(base_url=node_url) as http:
        for form, name in names.items():
            result(http.put(f"/collections/{name}", json={"vectors": vectors, "sparse_vectors": {"s": {}}}))
            points = [
                {
                    "id": at if at % 2 else str(at) * 3,
                    "vector": {"": FORMS[form](DENSE[at]), "many": FORMS[form](MULTI[at]), "s": SPARSE[at]},
                    "payload": PAYLOAD | {"n": at},
                }
                for at in range(5)
            ]
            result(send(http, "PUT", f"/collections/{name}/points?wait=true", {"points": points}, form))
            batch = {"ids": [5], "vectors": {"": [FORMS[form](DENSE[5])]}, "payloads": [PAYLOAD]}
            result(send(http, "PUT", f"/collections/{name}/points?wait=true", {"batch": batch}, form))
            moved = [{"id": 5, "vector": {"many": FORMS[form](MULTI[5]), "s": SPARSE[5]}}]
            result(send(http, "PUT", f"/collections/{name}/points/vectors?wait=true", {"points": moved}, form))
        yield names
        for name in names.values():
            http.delete(f"/collections/{name}")


def test_points_are_the_same_whatever_they_were_sent_as(http: httpx.Client, filled: dict[str, str]) -> None:
    found = {
        form: result(http.post(f"/collections/{name}/points/scroll", json={"with_vector": True})) for form, name in filled.items()
    }
    assert [point["payload"]["big"] for point in found["numbers"]["points"]] == [2**40] * 6
    assert all(answer == found["numbers"] for answer in found.values())


def queries(form: str) -> dict[str, Any]:
    shape = FORMS[form]
    pairs = [{"positive": shape(DENSE[0]), "negative": 1}]
    return {
        "plain": {"query": shape(QUERY)},
        "object": {"query": {"nearest": shape(QUERY)}},
        "multi": {"query": shape(MULTI[0]), "using": "many"},
        "sparse": {"query": {"indices": [1, 7], "values": [1, 2]}, "using": "s"},
        "id": {"query": 1},
        "text id": {"query": {"nearest": "222"}},
        "filter": {"query": shape(QUERY), "filter": {"must": [{"key": "n", "range": {"gte": 2}}]}},
        "recommend": {"query": {"recommend": {"positive": [shape(DENSE[1]), 3], "negative": ["000"]}}},
        "discover": {"query": {"discover": {"target": shape(QUERY), "context": pairs}}},
        "context": {"query": {"context": pairs}},
        "fusion": {"query": {"fusion": "rrf"}, "prefetch": [{"query": shape(QUERY)}, {"query": SPARSE[1], "using": "s"}]},
        "formula": {"query": {"formula": {"sum": ["$score", "n"]}, "defaults": {"n": 1}}, "prefetch": {"query": shape(QUERY)}},
        "all": {"query": None},
    }


@pytest.mark.parametrize("label", queries("numbers"))
def test_queries_are_the_same_whatever_they_are_sent_as(http: httpx.Client, filled: dict[str, str], label: str) -> None:
    path = f"/collections/{filled['numbers']}/points/query"
    plain = result(send(http, "POST", path, queries("numbers")[label], "numbers"))
    assert plain["points"]
    for form in FORMS:
        body = queries(form)[label]
        if form == "base64" and label in ("object", "recommend", "discover", "context", "fusion", "formula"):
            continue  # a text there is an id
        if form == "base64" and isinstance(body["query"], str):
            body["query"] = {"base64": body["query"]}
        assert result(send(http, "POST", path, body, form)) == plain, form


def test_searches_are_the_same_whatever_they_are_sent_as(http: httpx.Client, filled: dict[str, str]) -> None:
    path = f"/collections/{filled['numbers']}/points/search"
    for name, vector in (("", QUERY), ("many", MULTI[2])):
        bodies = {form: {"vector": {"name": name, "vector": FORMS[form](vector)}, "limit": 6} for form in FORMS}
        answers = [result(send(http, "POST", path, body, form)) for form, body in bodies.items()]
        assert all(answer == answers[0] for answer in answers)
    bare = [result(send(http, "POST", path, {"vector": FORMS[form](QUERY), "limit": 6}, form)) for form in FORMS]
    assert all(answer == bare[0] for answer in bare)


WRONG = [
    ("base64", "PUT", "", {"points": [{"id": 1, "vector": [1, 2, 3, 4]}, {"id": 2, "vector": "@@@"}]}, "points[1].vector"),
    ("base64", "PUT", "", {"points": [{"id": 1, "vector": "AAAA"}]}, "points[0].vector: 3 bytes"),
    ("base64", "PUT", "", {"points": [{"id": 1, "vector": "AACAPw=="}]}, "expected dim: 4, got 1"),
    ("packed", "PUT", "", {"points": [{"id": 1, "vector": b"123"}]}, "points[0].vector"),
    ("packed", "PUT", "", {"points": [{"id": 1, "vector": {"many": [b"1234", b"12345678"]}}]}, "points[0].vector.many"),
    ("packed", "PUT", "", {"points": [{"id": 1, "vector": [1, "x"]}]}, "points[0].vector"),
    ("packed", "PUT", "", {"points": [{"id": 1, "vector": {"s": {"indices": [1], "values": [1, 2]}}}]}, "points[0].vector.s"),
    ("packed", "PUT", "", {"points": [{"id": -1, "vector": b"1234" * 4}]}, "points[0].id"),
    ("packed", "PUT", "", {"points": [{"id": 1, "payload": [1]}]}, "points[0].payload"),
    ("packed", "PUT", "", {"batch": {"ids": [1, 2], "vectors": [b"1234" * 4, b"1"]}}, "batch.vectors[1]"),
    ("packed", "PUT", "/vectors", {"points": [{"id": 1, "vector": b"12"}]}, "points[0].vector"),
    ("packed", "POST", "/query", {"query": b"12"}, "query"),
    ("packed", "POST", "/query", {"query": {"recommend": {"positive": [1, b"12"]}}}, "positive[1]"),
    ("packed", "POST", "/search", {"vector": b"12", "limit": 1}, "vector"),
    ("packed", "POST", "/query", {"query": [1.0], "limit": "x"}, "limit"),
    ("base64", "POST", "/query", {"query": {"base64": "A"}}, "query.base64"),
]


@pytest.mark.parametrize(("form", "method", "path", "body", "place"), WRONG)
def test_errors_name_the_place(
    http: httpx.Client, filled: dict[str, str], form: str, method: str, path: str, body: Any, place: str
) -> None:
    response = send(http, method, f"/collections/{filled['numbers']}/points{path}", body, form)
    assert place in refusal(response)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x81\xa5query", b"\x93\x01\x02\x03", b"\x81\xa5query\xc7"])
def test_what_is_no_msgpack_is_refused(http: httpx.Client, filled: dict[str, str], content: bytes) -> None:
    response = http.post(f"/collections/{filled['numbers']}/points/query", content=content, headers=MSGPACK)
    assert response.status_code == 400


def test_a_packed_query_without_a_query(http: httpx.Client, filled: dict[str, str]) -> None:
    answers = [send(http, "POST", f"/collections/{name}/points/query", {"limit": 3}, form) for form, name in filled.items()]
    assert all(len(result(answer)["points"]) == 3 for answer in answers)


def test_a_body_that_is_nothing_but_a_vector(http: httpx.Client, filled: dict[str, str]) -> None:
    """V12: little-endian float32 as `application/octet-stream`; the query string says the rest."""
    path = f"/collections/{filled['numbers']}/points/search"
    octets = {"content-type": "application/octet-stream"}
    asked = result(http.post(path, json={"vector": QUERY.tolist(), "limit": 3}))
    assert result(http.post(f"{path}?limit=3", content=QUERY.astype("<f4").tobytes(), headers=octets)) == asked
    refused = http.post(path, content=b"abc", headers=octets)
    assert refused.status_code == 400
    assert "not a vector of float32" in refused.json()["status"]["error"]
    named = http.post(f"{path}?using=nope", content=QUERY.astype("<f4").tobytes(), headers=octets)
    assert "nope" in named.json()["status"]["error"]
    ignored = http.post(f"{path}?limit=3", json={"vector": QUERY.tolist(), "limit": 1})
    assert ignored.headers["X-Vecraft-Ignored"] == "limit"
    assert len(ignored.json()["result"]) == 1


def test_a_sample_is_never_kept(http: httpx.Client, filled: dict[str, str]) -> None:
    """T4: the same request for random points is answered anew, in either form of body, also within a prefetch."""
    sampled = {"query": {"sample": "random"}, "limit": 3}
    for body in (sampled, {"prefetch": [sampled], "query": {"fusion": "rrf"}, "limit": 3}):
        for form, name in filled.items():
            path = f"/collections/{name}/points/query"
            samples = {tuple(str(hit["id"]) for hit in result(send(http, "POST", path, body, form))["points"]) for _ in range(30)}
            assert len(samples) > 1, form


@pytest.mark.parametrize("key", ["sample", "s\\u0061mple"], ids=["plain", "escaped"])
def test_a_sample_is_known_by_what_it_means(http: httpx.Client, filled: dict[str, str], key: str) -> None:
    """T4: not by how it is written."""
    body = '{"query": {"KEY": "random"}, "limit": 3}'.replace("KEY", key)
    path = f"/collections/{filled['numbers']}/points/query"
    samples = {tuple(str(hit["id"]) for hit in result(http.post(path, content=body))["points"]) for _ in range(30)}
    assert len(samples) > 1


@pytest.mark.parametrize("key", ["lookup_from", "lookup\\u005ffrom"], ids=["plain", "escaped"])
def test_what_another_collection_has_a_share_in_is_not_kept(http: httpx.Client, filled: dict[str, str], key: str) -> None:
    """T4: a point of another collection is the query, and changes."""
    searched, other = filled["numbers"], f"examples-{uuid4().hex[:8]}"
    http.put(f"/collections/{other}", json={"vectors": {"size": 4, "distance": "Dot"}}).raise_for_status()
    body = '{"query": 1, "limit": 3, "KEY": {"collection": "OTHER"}}'.replace("KEY", key).replace("OTHER", other)
    answers = []
    for vector in ([1, 0, 0, 0], [-1, 0, 0, 0]):
        http.put(f"/collections/{other}/points?wait=true", json={"points": [{"id": 1, "vector": vector}]}).raise_for_status()
        answers.append(result(http.post(f"/collections/{searched}/points/query", content=body)))
    assert answers[0] != answers[1]


def test_the_projects_own_parameters_are_not_called_ignored(http: httpx.Client) -> None:
    """V12: `limit` means something to the dead letters."""
    assert "X-Vecraft-Ignored" not in http.get("/admin/dlq?limit=5").headers
