"""Memory placements: what can be true is given back, the rest is refused with 422, the field and what is possible (N6)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import result

VECTOR = {"size": 4, "distance": "Dot"}
MULTI = VECTOR | {"multivector_config": {"comparator": "max_sim"}}


@pytest.fixture
def http(node_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node_url) as client:
        yield client


def vectors(**more: Any) -> dict[str, Any]:
    return {"vectors": VECTOR | more}


@pytest.mark.parametrize(
    ("config", "label", "possible"),
    [
        (vectors(memory="pinned"), "vectors.memory", "cold, cached"),
        ({"vectors": {"a": MULTI | {"memory": "cold"}}}, "vectors.a.memory", "cached, pinned"),
        (vectors(hnsw_config={"memory": "cold"}), "vectors.hnsw_config.memory", "cached, pinned"),
        (vectors() | {"hnsw_config": {"memory": "cold"}}, "hnsw_config.memory", "cached, pinned"),
        (
            vectors(quantization_config={"turbo": {"memory": "cold"}}),
            "vectors.quantization_config.turbo.memory",
            "cached, pinned",
        ),
        (vectors() | {"quantization_config": {"binary": {"memory": "cold"}}}, "quantization_config.binary.memory", "cached"),
        (vectors() | {"sparse_vectors": {"s": {"index": {"memory": "cold"}}}}, "sparse_vectors.s.index.memory", "cached"),
        (vectors() | {"payload": {"memory": "pinned"}}, "payload.memory", "cold"),
        (vectors() | {"id_tracker": {"memory": "cold"}}, "id_tracker.memory", "cached, pinned"),
    ],
)
def test_what_cannot_be_true_is_refused(http: httpx.Client, config: dict[str, Any], label: str, possible: str) -> None:
    answer = http.put("/collections/nowhere", json=config)
    assert answer.status_code == 422
    assert f"{label}: " in answer.json()["status"]["error"]
    assert f"possible: {possible}" in answer.json()["status"]["error"]
    assert http.get("/collections/nowhere/exists").json()["result"] == {"exists": False}


def test_what_is_true_is_given_back_and_can_be_changed(http: httpx.Client) -> None:
    path = f"/collections/t{uuid4().hex[:8]}"
    config = {
        "vectors": {
            "cached": VECTOR | {"memory": "cached", "hnsw_config": {"memory": "pinned"}},
            "disk": VECTOR | {"on_disk": True},
            "many": MULTI | {"memory": "pinned"},
        },
        "quantization_config": {"turbo": {"bits": "bits1_5", "memory": "pinned"}},
        "payload": {"memory": "cold"},
        "id_tracker": {"memory": "pinned"},
        "sparse_vectors": {"s": {"index": {"memory": "pinned"}}},
    }
    answer = http.put(path, json=config)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("x-vecraft-ignored") == "index"
    info = result(http.get(path))["config"]
    given = info["params"]["vectors"]
    assert (given["cached"]["memory"], given["cached"]["hnsw_config"]["memory"]) == ("cached", "pinned")
    assert (given["disk"]["memory"], given["disk"]["on_disk"]) == ("cold", True)
    assert given["many"]["memory"] == "pinned"
    assert info["quantization_config"] == {"turbo": {"bits": "bits1_5", "memory": "pinned"}}
    assert (info["params"]["payload"], info["params"]["id_tracker"]) == ({"memory": "cold"}, {"memory": "pinned"})
    refused = http.patch(path, json={"vectors": {"disk": {"memory": "pinned"}}})
    assert refused.status_code == 422
    changes = {"vectors": {"disk": {"memory": "cached"}}, "hnsw_config": {"memory": "pinned"}}
    assert http.patch(path, json=changes).status_code == 200
    info = result(http.get(path))["config"]
    assert info["params"]["vectors"]["disk"]["memory"] == "cached"
    assert info["hnsw_config"]["memory"] == "pinned"
    index = {"field_name": "f", "field_schema": {"type": "keyword", "memory": "cold"}}
    assert http.put(f"{path}/index", json=index).status_code == 422
    result(http.delete(path))
