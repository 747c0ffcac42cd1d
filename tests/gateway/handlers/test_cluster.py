"""What clients ask of a server beside its collections: true answers where there are any, else what to use instead (N6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from inspect import getsource
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http import api
from qdrant_client.http.exceptions import UnexpectedResponse

from gateway.handlers.unsupported import REFUSED
from gateway.http.routes import ROUTES
from tests.conftest import result


@pytest.fixture
def client(node_url: str) -> Iterator[QdrantClient]:
    client = QdrantClient(url=node_url, timeout=30)
    yield client
    client.close()


def test_every_call_of_the_client_has_an_answer() -> None:
    """All operations that the dialect's client knows are served, or refused by name."""
    served = {(route.method, shape(route.path)) for route in (*ROUTES, *REFUSED)}
    served |= {("GET", path) for path in ("/", "/healthz", "/livez", "/readyz", "/metrics")}
    known = {
        (method, shape(path))
        for module in vars(api).values()
        if hasattr(module, "__file__")
        for method, path in re.findall(r'method="(\w+)",\s+url="([^"]+)"', getsource(module))
    }
    assert len(known) > 60
    assert known <= served


def shape(path: str) -> str:
    """A path with its parameters unnamed."""
    return re.sub(r"\{\w+\}", "{}", path)


def test_what_is_there_is_told(client: QdrantClient, name: str) -> None:
    """The client parses every answer."""
    client.upsert(name, [models.PointStruct(id=at, vector=[at, 1, 1, 1]) for at in range(5)])
    assert client.cluster_status().status == "disabled"
    where = client.collection_cluster_info(name)
    assert (where.shard_count, len(where.local_shards), where.remote_shards) == (1, 1, [])
    assert (where.local_shards[0].points_count, where.local_shards[0].state) == (5, models.ReplicaState.ACTIVE)
    building = client.get_optimizations(name, with_="queued")
    assert (building.summary.queued_points, building.running) == (0, [])
    assert client.list_shard_keys(name).shard_keys == []
    assert client.http.beta_api.get_issues()["result"] == {"issues": []}
    assert client.http.beta_api.clear_issues()
    telemetry = client.http.service_api.telemetry(details_level=3).result
    assert telemetry.collections.number_of_collections >= 1
    assert telemetry.cluster.enabled is False
    assert timedelta(0) < datetime.now(UTC) - telemetry.app.startup < timedelta(hours=1)


def test_a_collection_says_when_it_was_made_and_how_far_it_is(client: QdrantClient, name: str) -> None:
    client.upsert(name, [models.PointStruct(id=1, vector=[1, 1, 1, 1])])
    info = client.get_collection(name)
    assert abs(datetime.now(UTC) - info.created_at) < timedelta(minutes=5)
    assert (info.update_queue.length, info.points_count, info.warnings) == (0, 1, None)
    assert (info.status, info.optimizer_status) == (models.CollectionStatus.GREEN, models.OptimizersStatusOneOf.OK)


@pytest.mark.parametrize(
    "path", ["/collections/nowhere/cluster", "/collections/nowhere/shards", "/collections/nowhere/optimizations"]
)
def test_of_a_collection_that_is_not_there_nothing_is_told(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


def test_what_is_accepted_without_effect_is_named(http: httpx.Client, name: str) -> None:
    assert http.get("/telemetry?made_up=2").headers["x-vecraft-ignored"] == "made_up"
    for understood in ("/telemetry?details_level=2&anonymize=true", f"/collections/{name}/optimizations?with=queued"):
        assert "x-vecraft-ignored" not in http.get(understood).headers


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: f"{refused.method} {refused.path}")
def test_what_is_not_built_says_what_to_use(http: httpx.Client, name: str, refused: Any) -> None:
    path = re.sub(r"\{(\w+)\}", lambda found: name if found[1] == "collection_name" else "1", refused.path)
    for prefix in ("", "/v1"):
        response = http.request(refused.method, prefix + path, json={})
        assert response.status_code == refused.status
        assert ("allow" in response.headers) == (refused.status == 405)
        assert response.json() == {"status": {"error": f"Not supported: {refused.text}"}, "time": 0.0}


def test_the_client_sees_a_refusal_as_one(client: QdrantClient, http: httpx.Client, name: str) -> None:
    for call in (
        lambda: client.create_shard_key(name, "a"),
        lambda: client.remove_peer(1),
    ):
        with pytest.raises(UnexpectedResponse, match="Not supported"):
            call()
    assert result(http.get(f"/collections/{name}"))["points_count"] == 0
