"""Strict mode over HTTP: each limit refuses what is beyond it, lets through what is not, and is off unless enabled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.admission import limits
from tests.conftest import result

VECTOR = [1.0, 0, 0, 0]
POINTS = [
    {
        "id": at,
        "vector": {"": VECTOR, "many": [VECTOR, VECTOR], "sparse": {"indices": [1, 2], "values": [1, 1]}},
        "payload": {"tag": "a", "n": at},
    }
    for at in range(5)
]
MORE = {"points": [{"id": 100 + at, "vector": VECTOR} for at in range(3)]}
TAG, FREE = ({"must": [{"key": key, "match": {"value": "a"}}]} for key in ("tag", "free"))
IDS = {"must": [{"has_id": [1, 2, 3]}]}
FORMULA = {"formula": {"sum": ["$score", "free"]}, "defaults": {"free": 1}}


@pytest.fixture(scope="module")
def limited(node_url: str) -> Iterator[tuple[httpx.Client, str]]:
    """A collection with points and an index of `tag`."""
    name = f"limited-{uuid4().hex[:8]}"
    vectors = {"": {"size": 4, "distance": "Dot"}, "many": {"size": 4, "distance": "Dot", "multivector_config": {}}}
    with httpx.Client(base_url=node_url, timeout=30) as client:
        result(client.put(f"/collections/{name}", json={"vectors": vectors, "sparse_vectors": {"sparse": {}}}))
        result(client.put(f"/collections/{name}/points?wait=true", json={"points": POINTS}))
        result(client.put(f"/collections/{name}/index?wait=true", json={"field_name": "tag", "field_schema": "keyword"}))
        yield client, name
        client.delete(f"/collections/{name}")


WIDE = [
    "max_query_limit",
    "max_timeout",
    "search_max_hnsw_ef",
    "search_max_batchsize",
    "upsert_max_batchsize",
    "filter_max_conditions",
    "condition_max_size",
    "max_points_count",
    "max_collection_vector_size_bytes",
    "max_collection_payload_size_bytes",
    "max_payload_index_count",
]
Request = tuple[str, str, Any]


def post(path: str, **body: Any) -> Request:
    return "POST", f"/points/{path}", body


def put(path: str, **body: Any) -> Request:
    return "PUT", f"/points{path}", body


def search(**body: Any) -> Request:
    return post("query", query=VECTOR, **body)


BATCH = {"searches": [{"query": VECTOR}] * 2}
REFUSED: list[tuple[dict[str, Any], Request, str]] = [
    ({"max_query_limit": 9}, search(), "limit is 10"),
    ({"max_query_limit": 10}, search(limit=11), "limit is 11"),
    ({"max_query_limit": 10}, search(limit=5, prefetch={"query": VECTOR, "limit": 50}), "limit is 50"),
    ({"max_query_limit": 10}, post("query/batch", searches=[{"query": VECTOR, "limit": 11}]), "limit is 11"),
    ({"max_query_limit": 10}, post("scroll", limit=11), "limit is 11"),
    ({"max_query_limit": 10}, post("search", vector=VECTOR, limit=11), "limit is 11"),
    ({"max_query_limit": 10}, post("recommend", positive=[1], limit=11), "limit is 11"),
    ({"max_query_limit": 10}, post("query/groups", query=VECTOR, group_by="tag", limit=4), "limit is 12"),
    ({"max_query_limit": 29}, post("search/matrix/pairs"), "limit is 30"),
    ({"max_query_limit": 9}, ("POST", "/facet", {"key": "tag"}), "limit is 10"),
    ({"max_timeout": 5}, ("POST", "/points/query?timeout=6", {"query": VECTOR}), "timeout is 6"),
    ({"max_timeout": 5}, ("POST", "/points/delete?timeout=6", {"points": [77]}), "timeout is 6"),
    ({"search_max_hnsw_ef": 64}, search(params={"hnsw_ef": 65}), "params.hnsw_ef is 65"),
    ({"search_allow_exact": False}, search(params={"exact": True}), "params.exact is true"),
    ({"search_max_oversampling": 2}, search(params={"quantization": {"oversampling": 3}}), "oversampling is 3"),
    ({"search_max_batchsize": 1}, post("query/batch", **BATCH), "number of searches is 2"),
    ({"filter_max_conditions": 1}, search(filter={"must": [*TAG["must"], *IDS["must"]]}), "conditions in the filter is 2"),
    ({"condition_max_size": 2}, search(filter=IDS), "size of has_id is 3"),
    ({"condition_max_size": 2}, post("delete", filter=IDS), "size of has_id is 3"),
    ({"unindexed_filtering_retrieve": False}, search(filter=FREE), '"free"'),
    ({"unindexed_filtering_retrieve": False}, search(prefetch=[{"query": VECTOR, "filter": FREE}]), '"free"'),
    ({"unindexed_filtering_retrieve": False}, search(using="sparse", params={"idf": {"corpus": FREE}}), '"free"'),
    ({"unindexed_filtering_retrieve": False}, post("scroll", filter=FREE), '"free"'),
    ({"unindexed_filtering_retrieve": False}, post("count", filter=FREE), '"free"'),
    ({"unindexed_filtering_retrieve": False}, post("scroll", order_by="free"), '"free"'),
    ({"unindexed_filtering_retrieve": False}, post("query", query={"order_by": {"key": "free"}}), '"free"'),
    ({"unindexed_filtering_retrieve": False}, post("query/groups", query=VECTOR, group_by="free"), '"free"'),
    ({"unindexed_filtering_retrieve": False}, ("POST", "/facet", {"key": "free"}), '"free"'),
    ({"unindexed_filtering_retrieve": False}, post("query", query=FORMULA, prefetch={"query": VECTOR}), '"free"'),
    ({"unindexed_filtering_update": False}, post("delete", filter=FREE), '"free"'),
    ({"unindexed_filtering_update": False}, post("payload", filter=FREE, payload={"a": 1}), '"free"'),
    ({"unindexed_filtering_update": False}, put("", **MORE, update_filter=FREE), '"free"'),
    ({"unindexed_filtering_update": False}, put("/vectors", points=MORE["points"], update_filter=FREE), '"free"'),
    ({"unindexed_filtering_update": False}, post("batch", operations=[{"delete": {"filter": FREE}}]), '"free"'),
    ({"upsert_max_batchsize": 2}, put("", **MORE), "number of points is 3"),
    ({"upsert_max_batchsize": 2}, post("batch", operations=[{"upsert": MORE}]), "number of points is 3"),
    ({"multivector_config": {"many": {"max_vectors": 1}}}, put("", points=POINTS), "multivector 'many' is 2"),
    ({"sparse_config": {"sparse": {"max_length": 1}}}, put("", points=POINTS), "sparse vector 'sparse' is 2"),
    (
        {"sparse_config": {"sparse": {"max_length": 1}}},
        put("/vectors", points=[{"id": 1, "vector": POINTS[1]["vector"]}]),
        "is 2",
    ),
    ({"max_points_count": 7}, put("", **MORE), "number of points in the collection is 8"),
    ({"max_collection_vector_size_bytes": 350}, put("", **MORE), "size of the collection's vectors in bytes is"),
    ({"max_collection_payload_size_bytes": 120}, post("payload", points=[1, 2], payload={"x": "y" * 50}), "payloads in bytes"),
    ({"max_payload_index_count": 1}, ("PUT", "/index", {"field_name": "n", "field_schema": "integer"}), "payload indexes is 2"),
    ({"unindexed_filtering_retrieve": False}, search(filter={"must": {"key": "tag", "match": {"prefix": "a"}}}), '"tag"'),
]


@pytest.mark.parametrize(
    ("strict", "request_", "said"), REFUSED, ids=[f"{next(iter(s))}-{at}" for at, (s, *_) in enumerate(REFUSED)]
)
def test_what_is_beyond_a_limit_is_refused(
    limited: tuple[httpx.Client, str], strict: dict[str, Any], request_: Request, said: str
) -> None:
    """With the limit's name and bound; and nothing is refused once strict mode is off."""
    client, name = limited
    method, path, body = request_
    configure(client, name, strict)
    response = client.request(method, f"/collections/{name}{path}", json=body)
    assert response.status_code == 400, response.text
    assert said in response.json()["status"]["error"]
    assert next(iter(strict)) in response.json()["status"]["error"]
    assert result(client.post(f"/collections/{name}/points/count", json={})) == {"count": len(POINTS)}


ALLOWED: list[tuple[dict[str, Any], Request]] = [
    ({"max_query_limit": 10}, search()),
    ({"max_query_limit": 1}, ("GET", "/points/1", None)),
    ({"max_query_limit": 1}, ("POST", "/points", {"ids": [1, 2, 3]})),
    ({"search_allow_exact": False, "search_max_hnsw_ef": 64}, search(params={"hnsw_ef": 64, "exact": False})),
    ({"unindexed_filtering_retrieve": False, "condition_max_size": 3}, search(filter=TAG | {"should": IDS["must"]})),
    ({"unindexed_filtering_update": False}, post("count", filter=FREE)),
    ({"unindexed_filtering_retrieve": False}, post("delete", filter=FREE)),
    ({"upsert_max_batchsize": 5, "max_points_count": 5, "max_collection_vector_size_bytes": 10_000}, put("", points=POINTS)),
    ({"max_payload_index_count": 1}, ("PUT", "/index", {"field_name": "tag", "field_schema": "keyword"})),
]


@pytest.mark.parametrize(("strict", "request_"), ALLOWED)
def test_what_is_within_the_limits_is_done(limited: tuple[httpx.Client, str], strict: dict[str, Any], request_: Request) -> None:
    client, name = limited
    method, path, body = request_
    configure(client, name, strict)
    result(client.request(method, f"/collections/{name}{path}", json=body))


SCANS: list[tuple[Request, bool]] = [
    (search(), True),
    (post("search", vector=VECTOR, limit=1), True),
    (post("search", vector={"name": "graph", "vector": VECTOR}, limit=1), False),
    (post("recommend", positive=[1], limit=1), True),
    (post("query/groups", query=1, group_by="tag"), True),
    (post("query/batch", searches=[{"query": 1}]), True),
    (search(using="graph"), False),
    (search(using="graph", prefetch={"query": VECTOR}), True),
    (search(prefetch={"query": VECTOR, "using": "graph"}), False),
    (post("query", query={"order_by": "n"}), False),
    (post("query", query={"sample": "random"}), False),
    (post("scroll"), False),
]


@pytest.mark.parametrize("tenants", [False, True])
@pytest.mark.parametrize(("request_", "is_scan"), SCANS)
def test_a_full_scan_is_refused_unless_it_is_of_a_tenant(
    http: httpx.Client, request_: Request, is_scan: bool, tenants: bool
) -> None:
    path = f"/collections/{uuid4().hex[:8]}"
    dense = {"size": 4, "distance": "Dot"}
    hnsw = {"m": 0} | ({"payload_m": 16} if tenants else {})
    strict = {"enabled": True, "search_allow_exact": False}
    vectors = {"": dense | {"hnsw_config": hnsw}, "graph": dense}
    result(http.put(path, json={"vectors": vectors, "strict_mode_config": strict}))
    for field, schema in (("tenant", {"type": "keyword", "is_tenant": True}), ("tag", "keyword"), ("n", "integer")):
        result(http.put(f"{path}/index?wait=true", json={"field_name": field, "field_schema": schema}))
    point = {"id": 1, "vector": {"": VECTOR, "graph": VECTOR}, "payload": {"tenant": "a"}}
    result(http.put(f"{path}/points?wait=true", json={"points": [point]}))
    method, route, body = request_
    of_tenant, of_tag = ({"must": [{"key": key, "match": {"value": "a"}}]} for key in ("tenant", "tag"))

    def with_filter(condition: Any) -> Any:
        if "searches" in body:
            return {"searches": [one | {"filter": condition} for one in body["searches"]]}
        return body | {"filter": condition}

    for asked, is_refused in (
        (body, is_scan),
        (with_filter(of_tag), is_scan),
        (with_filter({"must": [of_tenant]}), is_scan and not tenants),
        (with_filter({"should": [of_tenant]}), is_scan),
    ):
        answer = http.request(method, path + route, json=asked)
        assert answer.status_code == (400 if is_refused else 200), answer.text
        assert not is_refused or "a full scan of vector '' is forbidden" in answer.text
    result(http.patch(path, json={"strict_mode_config": {"search_allow_exact": True}}))
    result(http.request(method, path + route, json=body))
    result(http.delete(path))


def test_limits_that_are_not_enabled_hold_nothing(limited: tuple[httpx.Client, str]) -> None:
    client, name = limited
    configure(client, name, {"max_query_limit": 1}, enabled=False)
    assert len(result(client.post(f"/collections/{name}/points/query", json={"query": VECTOR}))["points"]) == 5


def test_rates_are_counted_by_collection_and_kind(http: httpx.Client, name: str) -> None:
    """A batch costs its searches, a retrieval its ids; the answer says when to come again."""
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": 1, "vector": VECTOR}]}))
    configure(http, name, {"read_rate_limit": 5, "write_rate_limit": 2})
    result(http.post(f"/collections/{name}/points/query/batch", json=BATCH))
    result(http.post(f"/collections/{name}/points", json={"ids": [1, 2, 3]}))
    refused = http.post(f"/collections/{name}/points/query", json={"query": VECTOR})
    assert refused.status_code == 429
    assert "read_rate_limit" in refused.json()["status"]["error"]
    assert 1 <= int(refused.headers["retry-after"]) <= 12
    for wanted in (200, 200, 429):
        assert http.post(f"/collections/{name}/points/delete", json={"points": [1]}).status_code == wanted


def test_memory_is_asked_for_before_data_is_added(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "resident_percent", lambda: 81.0)
    configure(http, name, {"max_resident_memory_percent": 80})
    refused = http.put(f"/collections/{name}/points", json=MORE)
    assert refused.status_code == 507
    assert "max_resident_memory_percent" in refused.json()["status"]["error"]
    result(http.post(f"/collections/{name}/points/delete", json={"points": [1]}))


def test_the_memory_that_is_used_is_a_share() -> None:
    assert 0 <= limits.resident_percent() <= 100


def configure(client: httpx.Client, name: str, strict: dict[str, Any], enabled: bool = True) -> None:
    """Sets these limits and takes those of other tests back, as far as limits can be."""
    wide = dict.fromkeys(WIDE, 10_000_000)
    free = dict.fromkeys(("search_allow_exact", "unindexed_filtering_retrieve", "unindexed_filtering_update"), True)
    none = {"search_max_oversampling": 100, "multivector_config": {}, "sparse_config": {}}
    config = {"enabled": enabled, **wide, **free, **none, **strict}
    result(client.patch(f"/collections/{name}", json={"strict_mode_config": config}))
