"""Bad input gets a 4xx whose text names the field and the bound, and writes nothing."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.conftest import refusal, result

GOOD = {"id": 1, "vector": [1, 2, 3, 4]}
DEEP = {"must": []}
for _ in range(40):
    DEEP = {"must": [DEEP]}

WRITES = [
    ("wrong dimension", {"points": [{"id": 1, "vector": [1, 2]}]}, 400, "expected dim: 4, got 2"),
    ("mixed dimensions", {"points": [GOOD, {"id": 2, "vector": [1]}]}, 400, "different dimensions"),
    ("empty vector", {"points": [{"id": 1, "vector": []}]}, 422, "[points[0].vector: must not be empty]"),
    ("unknown vector name", {"points": [{"id": 1, "vector": {"nope": [1, 2, 3, 4]}}]}, 400, "nope"),
    ("too large for float32", {"points": [{"id": 1, "vector": [1e39, 0, 0, 0]}]}, 400, "finite"),
    ("negative id", {"points": [{"id": -1, "vector": [1, 2, 3, 4]}]}, 400, "points[0].id"),
    ("id above u64", {"points": [GOOD, {"id": 2**64, "vector": [1, 2, 3, 4]}]}, 400, "id"),
    ("id of the wrong kind", {"points": [{"id": 1.5, "vector": [1, 2, 3, 4]}]}, 400, "$.points[0].id"),
    ("empty id", {"points": [{"id": "", "vector": [1, 2, 3, 4]}]}, 400, "1 to 512"),
    ("payload no object", {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": [1]}]}, 400, "points[0].payload"),
    ("unknown field", {"points": [{"id": 1, "vector": [1, 2, 3, 4], "colour": "red"}]}, 400, "colour"),
    ("neither form", {}, 400, "exactly one of points, batch"),
    ("batch lengths", {"batch": {"ids": [1, 2], "vectors": [[1, 2, 3, 4]]}}, 422, "batch.ids has 2"),
    ("point too large", {"points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": {"a": "x" * 950_000}}]}, 400, "900"),
]


@pytest.mark.parametrize(("body", "status", "text"), [case[1:] for case in WRITES], ids=[case[0] for case in WRITES])
def test_a_bad_upsert_changes_nothing(http: httpx.Client, name: str, body: object, status: int, text: str) -> None:
    response = http.put(f"/collections/{name}/points?wait=true", json=body)
    assert response.status_code == status, response.text
    assert text in response.json()["status"]["error"]
    assert result(http.post(f"/collections/{name}/points/count", json={})) == {"count": 0}


READS = [
    ("wrong dimension", "search", {"vector": [1], "limit": 1}, "expected dim: 4, got 1"),
    ("limit too small", "search", {"vector": [1, 2, 3, 4], "limit": 0}, "JSON body: [limit: must be at least 1]"),
    ("only a key", "count", {"filter": {"must": [{"key": "a"}]}}, "JSON body: [filter.must[0]: a condition with key needs"),
    ("nothing positive", "recommend", {"negative": [1], "limit": 1}, "JSON body: [positive: at least one positive"),
    ("limit missing", "search", {"vector": [1, 2, 3, 4]}, "limit"),
    ("filter too deep", "search", {"vector": [1, 2, 3, 4], "limit": 1, "filter": DEEP}, "deeper than 32"),
    ("unknown condition", "count", {"filter": {"must": [{"key": "a", "like": 1}]}}, "like"),
    ("two in one", "count", {"filter": {"must": [{"key": "a", "match": {"value": 1}, "range": {"gt": 1}}]}}, "exactly one"),
    ("match empty", "count", {"filter": {"must": [{"key": "a", "match": {}}]}}, "exactly one of value, any, except, text"),
    ("range mixed", "count", {"filter": {"must": [{"key": "a", "range": {"gt": 1, "lt": "2020-01-01"}}]}}, "mixed"),
    ("range no moment", "count", {"filter": {"must": [{"key": "a", "range": {"gt": "soon"}}]}}, "RFC 3339"),
    ("bad path", "count", {"filter": {"must": [{"key": "a[", "match": {"value": 1}}]}}, "path"),
    ("bad id in filter", "count", {"filter": {"must": [{"has_id": [-5]}]}}, "has_id"),
    ("fusion of nothing", "query", {"query": {"fusion": "rrf"}}, "needs a prefetch"),
    ("prefetch for nothing", "query", {"prefetch": [{"query": [1, 2, 3, 4]}]}, "query: is missing"),
    ("inference", "query", {"query": {"text": "a word", "model": "some/model"}}, "'some/model' is not offered"),
    ("unknown point", "query", {"query": 77}, "No point with id 77"),
]


@pytest.mark.parametrize(("verb", "body", "text"), [case[1:] for case in READS], ids=[case[0] for case in READS])
def test_a_bad_read_is_told_so(http: httpx.Client, name: str, verb: str, body: object, text: str) -> None:
    response = http.post(f"/collections/{name}/points/{verb}", json=body)
    assert text in (refusal(response) if response.status_code != 404 else response.text)


@pytest.mark.parametrize(
    "raw", [b"{", b"[1", b"nonsense", b"\xff\xfe", b'{"points": NaN}', b"", b'{"points":[{"id":1,"vector":[NaN,1,1,1]}]}']
)
def test_broken_json(http: httpx.Client, name: str, raw: bytes) -> None:
    response = http.put(f"/collections/{name}/points", content=raw)
    assert response.status_code == 400
    assert "JSON" in response.json()["status"]["error"]


def test_a_body_above_the_bound(http: httpx.Client, name: str) -> None:
    response = http.put(f"/collections/{name}/points", content=b" " * (33 << 20))
    assert response.status_code == 413
    assert str(32 << 20) in response.json()["status"]["error"]


def test_an_unknown_collection(http: httpx.Client) -> None:
    for response in (
        http.get("/collections/nowhere"),
        http.put("/collections/nowhere/points", json={"points": [GOOD]}),
        http.post("/collections/nowhere/points/search", json={"vector": [1], "limit": 1}),
    ):
        assert response.status_code == 404
        assert "nowhere" in response.json()["status"]["error"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"vectors": {"size": 0, "distance": "Dot"}}, "vectors.size: must be at least 1"),
        ({"vectors": {"size": 4, "distance": "Far"}}, "distance"),
        ({"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 65}, "shard_number: is 65, must be between 1 and 64"),
        ({"vectors": {"size": 4, "distance": "Dot"}, "hnsw_config": {"m": 1}}, "hnsw_config.m: is 1"),
        ({"vectors": {"a/b": {"size": 4, "distance": "Dot"}}}, "a/b"),
        ({"vectors": {"size": 4, "distance": "Dot"}, "quantization_config": {"turbo": {"bits": "bits3"}}}, "turbo.bits"),
        ({"vectors": {"size": 4, "distance": "Dot"}, "consistency": "maybe"}, "maybe"),
    ],
)
def test_a_collection_that_cannot_be(http: httpx.Client, config: object, text: str) -> None:
    assert text in refusal(http.put("/collections/impossible", json=config))
    assert result(http.get("/collections/impossible/exists")) == {"exists": False}


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"X-Vecraft-Position": "no token!"}, "position token"),
        ({"X-Vecraft-Tier": "7"}, "between 0 and 3"),
        ({"X-Request-Id": "x" * 200}, "at most 128"),
        ({"Idempotency-Key": "two words"}, "without blanks"),
    ],
)
def test_headers_are_checked(http: httpx.Client, name: str, headers: dict[str, str], text: str) -> None:
    response = http.put(f"/collections/{name}/points", json={"points": [GOOD]}, headers=headers)
    assert response.status_code == 400
    assert text in response.json()["status"]["error"]


def test_a_position_from_the_far_future_is_refused(http: httpx.Client, name: str) -> None:
    """V2: its clock would become that of all writes."""
    read = http.post(f"/collections/{name}/points/count", json={})
    log = read.headers["X-Vecraft-Position"].split(".")[0]
    response = http.put(
        f"/collections/{name}/points", json={"points": [GOOD]}, headers={"X-Vecraft-Position": f"{log}.zzzzzzzzzzzz.0-0-0"}
    )
    assert response.status_code == 400
    assert "ahead of physical time" in response.json()["status"]["error"]


def test_unknown_parameters_and_paths(http: httpx.Client, name: str) -> None:
    response = http.get(f"/collections/{name}?colour=red")
    assert response.status_code == 200, "clients send parameters where they mean nothing"
    assert response.headers["X-Vecraft-Ignored"] == "colour"
    assert http.get(f"/collections/{name}?timeout=soon").status_code == 400
    assert http.get("/nothing/here").json()["status"]["error"].startswith("Not Found")
    assert http.delete(f"/collections/{name}/points").status_code == 405
    assert json.loads(http.post(f"/collections/{name}/points/count?consistency=huge", json={}).text)["status"]["error"]
