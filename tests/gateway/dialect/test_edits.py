"""Changes of points through the dialect's own client, unchanged (N6, U1)."""

from __future__ import annotations

import httpx
from qdrant_client import QdrantClient, models

from tests.conftest import result
from tests.gateway.dialect.numbered_points import COUNT, field


def test_payload_edits(client: QdrantClient, filled: str) -> None:
    def payload() -> dict[str, object]:
        return client.retrieve(filled, [1])[0].payload

    client.set_payload(filled, {"n": 100, "new": {"x": 1}}, points=[1, 2])
    assert payload()["n"] == 100
    assert payload()["tag"] == "b"
    client.set_payload(filled, {"y": 2}, points=[1], key="new")
    assert payload()["new"] == {"x": 1, "y": 2}
    client.delete_payload(filled, ["tag", "new.x"], points=[1])
    assert "tag" not in payload()
    assert payload()["new"] == {"y": 2}
    client.overwrite_payload(filled, {"only": True}, points=models.Filter(must=[field("n", match=models.MatchValue(value=100))]))
    assert payload() == {"only": True}
    assert client.retrieve(filled, [2])[0].payload == {"only": True}
    client.clear_payload(filled, points_selector=[1])
    assert payload() == {}
    assert client.count(filled).count == COUNT


def test_points_that_are_not_there(http: httpx.Client, name: str) -> None:
    """Changes of absent points are said so, by the first id; those that are there are changed all the same."""
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": 1, "vector": [1, 1, 1, 1]}]}))
    for path, body in (
        ("payload", {"payload": {"a": 1}, "points": [1, 7]}),
        ("payload/delete", {"keys": ["b"], "points": [1, 7]}),
    ):
        response = http.post(f"/collections/{name}/points/{path}?wait=true", json=body)
        assert response.status_code == 404
        assert "7" in response.json()["status"]["error"]
    absent = {"points": [{"id": 8, "vector": [1, 2, 3, 4]}]}
    assert http.put(f"/collections/{name}/points/vectors?wait=true", json=absent).status_code == 404
    assert result(http.get(f"/collections/{name}/points/1"))["payload"] == {"a": 1}


def test_deletes(client: QdrantClient, filled: str) -> None:
    client.delete(filled, [0, 1, 12345])
    client.delete(filled, models.FilterSelector(filter=models.Filter(must=[field("n", range=models.Range(gte=30))])))
    assert client.count(filled).count == 28
    assert client.retrieve(filled, [0, 1, 30, 2]) == client.retrieve(filled, [2])
    assert 30 not in {hit.id for hit in client.query_points(filled, query=[1.0, 2, 3, 4], limit=COUNT).points}


def test_batch_form_and_own_paths(http: httpx.Client, name: str) -> None:
    batch = {"ids": [1, 2], "vectors": [[1, 0, 0, 0], [0, 1, 0, 0]], "payloads": [{"a": 1}, None]}
    result(http.put(f"/v1/collections/{name}/points?wait=true", json={"batch": batch}))
    bulk = {"collection": name, "points": [{"id": 3, "vector": [0, 0, 1, 0]}]}
    result(http.post("/v1/vectors/bulk?wait=true", json=bulk, headers={"X-Request-Id": f"bulk-{name}"}))
    assert result(http.get(f"/v1/operations/bulk-{name}"))["records"][0]["topic"] == "vecraft.tier2"
    hits = result(
        http.post("/v1/vectors/search", json={"collection": name, "vector": [0, 1, 0, 0], "limit": 1, "with_payload": True})
    )
    assert hits[0].pop("version") > 0
    assert hits == [{"id": 2, "score": 1.0, "payload": {}}]
    assert result(http.get(f"/collections/{name}/points/1")) == {"id": 1, "payload": {"a": 1}, "vector": [1, 0, 0, 0]}
    assert http.get(f"/collections/{name}/points/77").status_code == 404
