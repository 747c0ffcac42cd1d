"""Named vectors are added to and removed from a live collection through the API (N6, V12)."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from qdrant_client import QdrantClient, models

from tests.conftest import result, running


def put(http: httpx.Client, path: str, body: object) -> object:
    return result(http.put(path, json=body))


@pytest.fixture
def points(http: httpx.Client, name: str) -> str:
    """A collection with some points of the unnamed vector."""
    written = [{"id": number, "vector": [number, 1, 0, 0], "payload": {"n": number}} for number in range(5)]
    put(http, f"/collections/{name}/points?wait=true", {"points": written})
    return name


@pytest.mark.parametrize(
    ("config", "value", "query"),
    [
        ({"dense": {"size": 2, "distance": "Cosine"}}, [3, 4], [3, 4]),
        ({"dense": {"size": 2, "distance": "Dot", "datatype": "uint8"}}, [3, 4], [1, 1]),
        ({"dense": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}}, [[1, 0], [0, 1]], [[1, 1]]),
        ({"sparse": {"modifier": "idf"}}, {"indices": [3], "values": [2.0]}, {"indices": [3], "values": [1.0]}),
    ],
    ids=["dense", "datatype", "multi", "sparse"],
)
def test_a_new_vector_is_used_at_once(http: httpx.Client, points: str, config: object, value: object, query: object) -> None:
    path = f"/collections/{points}"
    search = {"query": query, "using": "new", "limit": 10}
    assert http.post(f"{path}/points/query", json=search).status_code == 400
    assert put(http, f"{path}/vectors/new?wait=true", config) == {"operation_id": 0, "status": "completed"}
    assert result(http.post(f"{path}/points/query", json=search)) == {"points": []}
    put(http, f"{path}/points/vectors?wait=true", {"points": [{"id": 2, "vector": {"new": value}}]})
    (hit,) = result(http.post(f"{path}/points/query", json=search))["points"]  # type: ignore[index]
    assert hit["id"] == 2
    assert put(http, f"{path}/vectors/new", config)["status"] == "completed"  # type: ignore[index]
    assert result(http.post(f"{path}/points/query", json=search))["points"] == [hit]  # type: ignore[index]
    described = result(http.get(path))["config"]["params"]  # type: ignore[index]
    assert "new" in described["vectors"] or "new" in described["sparse_vectors"]


def test_a_removed_vector_is_gone_and_stays_gone(http: httpx.Client, points: str) -> None:
    path = f"/collections/{points}"
    config = {"dense": {"size": 2, "distance": "Dot"}}
    put(http, f"{path}/vectors/new", config)
    put(http, f"{path}/points/vectors?wait=true", {"points": [{"id": 2, "vector": {"new": [1, 2]}}]})
    assert result(http.delete(f"{path}/vectors/new?wait=true"))["status"] == "completed"  # type: ignore[index]
    for body in ({"query": [1, 2], "using": "new"}, {"query": 2, "using": "new"}):
        assert http.post(f"{path}/points/query", json=body).status_code == 400
    refused = http.put(f"{path}/points/vectors?wait=true", json={"points": [{"id": 2, "vector": {"new": [1, 2]}}]})
    assert refused.status_code == 400
    (point,) = result(http.post(f"{path}/points", json={"ids": [2], "with_vector": True}))  # type: ignore[misc]
    assert point["vector"] == [2, 1, 0, 0]
    put(http, f"{path}/vectors/new", {"dense": {"size": 2, "distance": "Euclid"}})
    (point,) = result(http.post(f"{path}/points", json={"ids": [2], "with_vector": True}))  # type: ignore[misc]
    assert point["vector"] == [2, 1, 0, 0]
    assert result(http.post(f"{path}/points/count", json={"filter": {"must": [{"has_vector": "new"}]}})) == {"count": 0}


def test_what_is_refused_names_the_reason_and_changes_nothing(http: httpx.Client, points: str) -> None:
    path = f"/collections/{points}"
    put(http, f"{path}/vectors/new", {"dense": {"size": 2, "distance": "Dot"}})
    before = result(http.get(path))
    for name, body, text in (
        ("new", {"dense": {"size": 3, "distance": "Dot"}}, "already exists with other parameters"),
        ("new", {"sparse": {}}, "already exists with other parameters"),
        ("x", {}, "exactly one of dense, sparse"),
        ("x", {"dense": {"size": 2, "distance": "Dot"}, "sparse": {}}, "exactly one of dense, sparse"),
        ("x", {"dense": {"size": 0, "distance": "Dot"}}, "dense.size: must be at least 1"),
        ("x" * 256, {"sparse": {}}, "must have at most 255 characters"),
    ):
        answer = http.put(f"{path}/vectors/{name}", json=body)
        assert answer.status_code in (400, 422)
        assert text in answer.json()["status"]["error"]
    assert http.delete(f"{path}/vectors/absent").status_code == 400
    assert http.put("/collections/absent/vectors/x", json={"sparse": {}}).status_code == 404
    assert result(http.get(path)) == before


def test_the_names_are_there_after_a_restart(tmp_path: Path) -> None:
    """With segments of several vectors on disk, of which one is removed."""
    with running(tmp_path) as url:
        client = QdrantClient(url=url)
        client.create_collection("c", {name: models.VectorParams(size=2, distance="Dot") for name in ("a", "b", "c")})
        rows = [models.PointStruct(id=n, vector={"a": [n, 0], "b": [0, n], "c": [n, n]}) for n in range(50)]
        client.upsert("c", rows, wait=True)
        httpx.delete(f"{url}/collections/c/vectors/a").raise_for_status()
        httpx.put(f"{url}/collections/c/vectors/a", json={"dense": {"size": 3, "distance": "Dot"}}).raise_for_status()
        client.update_vectors("c", [models.PointVectors(id=7, vector={"a": [1, 2, 3]})], wait=True)
    with running(tmp_path) as url:
        client = QdrantClient(url=url)
        assert client.retrieve("c", [7, 8], with_vectors=True) == [
            models.Record(id=7, payload={}, vector={"a": [1, 2, 3], "b": [0, 7], "c": [7, 7]}),
            models.Record(id=8, payload={}, vector={"b": [0, 8], "c": [8, 8]}),
        ]
        assert [hit.id for hit in client.query_points("c", query=[1, 1, 1], using="a").points] == [7]
        assert client.query_points("c", query=[0, 1], using="b", limit=1).points[0].id == 49
