"""What is refused gets a 4xx in the project's own words, whatever the route and the field; and what is kept can be read again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from gateway.admission import ids as admission
from gateway.admission.ids import MAX_IDS
from gateway.dialect.bulk_parser import LARGE_BODY_BYTES
from gateway.dialect.queries import MAX_EXAMPLES
from gateway.http.routes import ROUTES
from shard.contract import MAX_DEPTH
from tests.conftest import refusal, result

PYTHON = re.compile(
    r"invalid literal|[a-z]Error\b|Traceback|object at 0x|<class|\bb'|\bcodec\b|\(char \d|not supported between|has no attribute"
    r"|inhomogeneous|NoneType|Exceeds the limit|argument|INCORRECT_TYPE|internal error"
)
"""What errors of Python and of libraries look like."""

BODIES = [b"", b"{", b"\xff", b"1e999", b'"\xff"', b"[" * 2000 + b"]" * 2000, b"9" * 5000]
PACKED = [b"", b"\xc1", b"\x81\xa1\xff", b"\x91" * 3000 + b"\x01", b"\xdf\xff\xff\xff\xff"]
VALUES = [b"true", b"1e999", b'[[1],"x",[null]]', '"\u0663"'.encode(), b"9" * 5000, b'{"a":{}}']
OTHERS: dict[str, Any] = {
    "actions": [],
    "context": [],
    "field_name": "f",
    "group_by": "a",
    "ids": [1],
    "key": "a",
    "keys": ["a"],
    "limit": 1,
    "operations": [],
    "payload": {},
    "points": [1],
    "positive": [1],
    "searches": [],
    "target": 1,
    "vector": [1, 2, 3, 4],
}
"""Values of the other fields, so that the one in question is looked at."""

POINT = {"id": 1, "vector": [1, 2, 3, 4]}
NUMBERS = ["\u0663", "\u00b2", "5_0", "+5", "%205", "5%20", "1.0", "-1", "9" * 30, "9" * 5000, "%ED%A0%80"]
HEADERS = ["X-Vecraft-Tier", "X-Request-Id", "Idempotency-Key", "X-Vecraft-Position", "traceparent", "api-key", "cookie"]


@pytest.fixture(scope="module")
def paths(node_url: str) -> Iterator[tuple[httpx.Client, str]]:
    """A client that keeps no cookies, and a collection with a point."""
    with httpx.Client(base_url=node_url, timeout=30) as client:
        client.put("/collections/refusals", json={"vectors": {"size": 4, "distance": "Dot"}}).raise_for_status()
        yield client, "refusals"
        client.delete("/collections/refusals")


def of_route(path: str, name: str) -> str:
    return re.sub(r"\{\w+\}", "1", path.replace("{collection_name}", name))


def check(response: httpx.Response) -> None:
    """A success, or a refusal in plain words."""
    client = response.request
    if response.status_code != 200:
        assert response.status_code < 500, f"{client.method} {client.url}: {response.text[:200]}"
        text = response.json()["status"]["error"]
        assert not PYTHON.search(text), f"{client.method} {client.url}: {text}"


def fields() -> list[tuple[str, str, str, dict[str, Any]]]:
    """Every field of a body, once for each type that it has: method, path, name, and the other fields of the body."""
    found = {}
    for route in ROUTES:
        for field in () if route.body is None else msgspec.structs.fields(route.body):
            names = {other.encode_name for other in msgspec.structs.fields(route.body)} - {field.encode_name}
            others = {name: value for name, value in OTHERS.items() if name in names}
            found.setdefault((field.encode_name, str(field.type)), (route.method, route.path, field.encode_name, others))
    return list(found.values())


def test_bodies_of_every_route(paths: tuple[httpx.Client, str]) -> None:
    client, name = paths
    for route in ROUTES:
        if route.body is None:
            continue
        for body in BODIES:
            check(client.request(route.method, of_route(route.path, name), content=body))
        for body in PACKED:
            headers = {"content-type": "application/msgpack"}
            check(client.request(route.method, of_route(route.path, name), content=body, headers=headers))


def test_fields_of_every_body(paths: tuple[httpx.Client, str]) -> None:
    client, name = paths
    for method, path, field, others in fields():
        rest = b"".join(b',"%s":%s' % (other.encode(), msgspec.json.encode(value)) for other, value in others.items())
        for value in VALUES:
            check(client.request(method, of_route(path, name), content=b'{"%s":%s%s}' % (field.encode(), value, rest)))


def test_packed_vectors(paths: tuple[httpx.Client, str]) -> None:
    client, name = paths
    lists = ([[1, 2], [3]], [b"abc", b"abcd"], ["x"], [[[1]]], [None])
    for vector in (*lists, {"indices": [2**63], "values": [1]}, {"indices": [1], "values": ["x"]}, 1, b""):
        body = msgspec.msgpack.encode({"points": [{"id": 1, "vector": vector}]})
        headers = {"content-type": "application/msgpack"}
        response = client.put(f"/collections/{name}/points", content=body, headers=headers)
        refusal(response)
        check(response)


def test_numbers_are_ascii_digits(paths: tuple[httpx.Client, str]) -> None:
    client, name = paths
    client.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": 5, "vector": [1, 2, 3, 4]}]}).raise_for_status()
    assert client.get(f"/collections/{name}/points/5").status_code == 200
    for number in NUMBERS:
        for path in (f"/collections/{name}/points/{number}", f"/admin/dlq/{number}"):
            response = client.get(path)
            assert response.status_code in (400, 404), path
            check(response)
        for parameter in ("timeout", "max_staleness_ms", "consistency"):
            response = client.get(f"/collections/{name}?{parameter}={number}")
            assert (response.status_code, parameter) in ((400, parameter), (200, "consistency")), response.text
            check(response)


def test_headers_of_any_kind(paths: tuple[httpx.Client, str]) -> None:
    client, name = paths
    for header in HEADERS:
        for value in (b"\xb2", "\u0663".encode(), b"+1", b"1_0", b"9" * 5000, b"\xff\xfe", b"vecraft_position=\xff; a"):
            check(client.post(f"/collections/{name}/points/count", json={}, headers={header: value}))
            check(client.put(f"/collections/{name}/points", json={"points": []}, headers={header: value}))


def test_head_is_answered_where_get_is(paths: tuple[httpx.Client, str]) -> None:
    client, name = paths
    pages = ["/", "/healthz", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"]
    for path in [*pages, *(of_route(route.path, name) for route in ROUTES if route.method == "GET")]:
        head, get = client.head(path), client.get(path)
        assert head.status_code == get.status_code, path
        assert head.content == b""


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for at in range(depth - 1):
        value = [value] if at % 2 else {"a": value}
    return {"b": value}


KEPT = {
    "points": ("PUT", "/points", lambda deep: {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": deep}]}),
    "batch": ("PUT", "/points", lambda deep: {"batch": {"ids": [1], "vectors": [[1, 2, 3, 4]], "payloads": [deep]}}),
    "bulk": (
        "PUT",
        "/points",
        lambda deep: {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": deep | {"x": "y" * 300_000}}]},
    ),
    "set": ("POST", "/points/payload", lambda deep: {"points": [1], "payload": deep}),
    "set at a path": ("POST", "/points/payload", lambda deep: {"points": [1], "payload": deep, "key": "p.q"}),
    "overwrite": ("PUT", "/points/payload", lambda deep: {"points": [1], "payload": deep}),
    "operations": ("POST", "/points/batch", lambda deep: {"operations": [{"set_payload": {"points": [1], "payload": deep}}]}),
    "metadata": ("PATCH", "", lambda deep: {"metadata": deep}),
}
"""Everywhere where JSON of a client is kept."""


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
@pytest.mark.parametrize("place", KEPT)
def test_json_that_is_kept_has_a_bounded_depth(http: httpx.Client, name: str, place: str, packed: bool) -> None:
    """What is deeper could not be written into an answer: every read of the point or the collection would fail."""
    http.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}).raise_for_status()
    method, path, body = KEPT[place]
    for depth, status in ((MAX_DEPTH + 1, 400), (260, 400), (900, 400), (MAX_DEPTH - 3, 200)):
        content = (msgspec.msgpack if packed else msgspec.json).encode(body(nested(depth)))
        headers = {"content-type": "application/msgpack" if packed else "application/json"}
        response = http.request(method, f"/collections/{name}{path}?wait=true", content=content, headers=headers)
        assert response.status_code == status if status == 200 else refusal(response), response.text
        check(response)
        assert http.get(f"/collections/{name}").status_code == 200
        assert http.get(f"/collections/{name}/points/1").status_code == 200
    shown = result(http.get(f"/collections/{name}")), result(http.get(f"/collections/{name}/points/1"))
    assert msgspec.json.encode(nested(MAX_DEPTH - 3))[1:-1] in msgspec.json.encode(shown)


def test_metadata_of_a_new_collection_has_a_bounded_depth(http: httpx.Client) -> None:
    body = {"vectors": {"size": 4, "distance": "Dot"}, "metadata": nested(260)}
    response = http.put("/collections/deep", json=body)
    assert refusal(response) == f"Validation error in JSON body: [metadata: is nested 260 deep, the bound is {MAX_DEPTH}]"
    assert result(http.get("/collections/deep/exists")) == {"exists": False}


MANY = list(range(MAX_IDS + 1))
HALF = MANY[: MAX_IDS // 2 + 1]
TOO_MANY = {
    "retrieve": ("POST", "/points", {"ids": MANY}),
    "delete": ("POST", "/points/delete", {"points": MANY}),
    "set payload": ("POST", "/points/payload", {"points": MANY, "payload": {"a": 1}}),
    "overwrite payload": ("PUT", "/points/payload", {"points": MANY, "payload": {"a": 1}}),
    "delete payload": ("POST", "/points/payload/delete", {"points": MANY, "keys": ["a"]}),
    "clear payload": ("POST", "/points/payload/clear", {"points": MANY}),
    "delete vectors": ("POST", "/points/vectors/delete", {"points": MANY, "vector": [""]}),
    "update vectors": ("PUT", "/points/vectors", {"points": [POINT] * len(MANY)}),
    "upsert": ("PUT", "/points", {"points": [POINT] * len(MANY)}),
    "upsert in columns": ("PUT", "/points", {"batch": {"ids": MANY, "vectors": [[1]]}}),
    "update filter": ("PUT", "/points", {"points": [POINT], "update_filter": {"must": [{"has_id": MANY}]}}),
    "filter": ("POST", "/points/search", {"vector": [1, 2, 3, 4], "limit": 1, "filter": {"must": {"has_id": MANY}}}),
    "filters in sum": ("POST", "/points/count", {"filter": {"should": [{"has_id": HALF}, {"must_not": [{"has_id": HALF}]}]}}),
    "operations in sum": (
        "POST",
        "/points/batch",
        {"operations": [{"delete": {"points": HALF}}, {"clear_payload": {"points": HALF}}]},
    ),
}


@pytest.mark.parametrize("case", TOO_MANY)
def test_ids_of_a_request_are_bounded(http: httpx.Client, name: str, case: str) -> None:
    """One request of millions of ids took the node from all others for half a minute."""
    method, path, body = TOO_MANY[case]
    response = http.request(method, f"/collections/{name}{path}", json=body)
    assert f"must be at most {MAX_IDS}" in refusal(response)


def test_examples_of_a_query_are_bounded(http: httpx.Client, name: str) -> None:
    many = list(range(MAX_EXAMPLES // 2 + 1))
    for path, body in (
        ("recommend", {"positive": many, "negative": many, "limit": 1}),
        ("query", {"query": {"recommend": {"positive": many, "negative": many}}}),
        ("query", {"query": {"context": [{"positive": 1, "negative": 2}] * len(many)}}),
    ):
        response = http.post(f"/collections/{name}/points/{path}", json=body)
        assert f"must be at most {MAX_EXAMPLES}" in refusal(response)


def test_as_many_ids_as_allowed(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"{number:0200}" for number in range(LARGE_BODY_BYTES // 200)]
    monkeypatch.setattr(admission, "MAX_IDS", len(ids))
    deleted = http.post(f"/collections/{name}/points/delete?wait=true", json={"points": ids})
    assert deleted.status_code == 200, deleted.text
    assert http.post(f"/collections/{name}/points/delete", json={"points": [*ids, 1]}).status_code == 422
