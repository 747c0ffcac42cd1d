"""`?explain=true`: what was done to answer, step by step, with times (V11)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

VECTOR = [1.0, 2, 3, 4]
TAG = {"must": [{"key": "tag", "match": {"value": "a"}}]}


@pytest.fixture
def filled(http: httpx.Client) -> str:
    name = f"explained-{uuid4().hex[:8]}"
    vectors = {"": {"size": 4, "distance": "Dot"}, "many": {"size": 4, "distance": "Dot", "multivector_config": {}}}
    http.put(f"/collections/{name}", json={"vectors": vectors, "sparse_vectors": {"s": {}}}).raise_for_status()
    points = [
        {
            "id": at,
            "vector": {"": [at, 1, 1, 1], "many": [[at, 1, 1, 1]], "s": {"indices": [at], "values": [1]}},
            "payload": {"tag": "ab"[at % 2]},
        }
        for at in range(10)
    ]
    http.put(f"/collections/{name}/points?wait=true", json={"points": points}).raise_for_status()
    return name


def explained(http: httpx.Client, path: str, body: Any) -> list[dict[str, Any]]:
    response = http.post(f"/collections/{path}?explain=true", json=body)
    assert response.status_code == 200, response.text
    steps = response.json()["explain"]
    assert all(step["ms"] >= 0 for step in steps)
    return steps


SCANS = {
    "filtered": {"query": VECTOR, "filter": TAG},
    "exact": {"query": VECTOR, "params": {"exact": True}},
    "sparse": {"query": {"indices": [1], "values": [1]}, "using": "s"},
    "multi": {"query": [VECTOR, VECTOR], "using": "many"},
}


@pytest.mark.parametrize("label", SCANS)
def test_a_search_says_how_it_went_about_it(http: httpx.Client, filled: str, label: str) -> None:
    steps = explained(http, f"{filled}/points/query", SCANS[label])
    assert [step["step"] for step in steps] == ["view", *(["filter"] if label == "filtered" else []), "search", "points"]
    search = steps[-2]
    assert (search["plan"], search["among"]) == ("scan", 5 if label == "filtered" else 10)


def test_each_stage_is_a_step(http: httpx.Client, filled: str) -> None:
    """Inner ones first."""
    prefetch = [{"query": VECTOR, "filter": TAG}, {"query": {"recommend": {"positive": [1], "strategy": "best_score"}}}]
    steps = explained(http, f"{filled}/points/query", {"query": {"fusion": "rrf"}, "prefetch": prefetch})
    assert [step["step"] for step in steps] == ["view", "filter", "search", "score", "rrf", "points"]
    formula = {"query": {"formula": {"mult": [2, "$score"]}}, "prefetch": {"query": VECTOR}}
    assert [step["step"] for step in explained(http, f"{filled}/points/query", formula)][-2:] == ["formula", "points"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("points/search", {"vector": VECTOR, "limit": 3}),
        ("points/search/batch", {"searches": [{"vector": VECTOR, "limit": 3}]}),
        ("points/query/batch", {"searches": [{"query": VECTOR}]}),
        ("points/recommend", {"positive": [1], "limit": 3}),
        ("points/discover", {"target": 1, "limit": 3}),
    ],
)
def test_every_search_can_be_explained(http: httpx.Client, filled: str, path: str, body: Any) -> None:
    assert len(explained(http, f"{filled}/{path}", body)) >= 3


def test_nobody_pays_who_does_not_ask(http: httpx.Client, filled: str) -> None:
    """The answer is the same but for the steps."""
    plain = http.post(f"/collections/{filled}/points/query", json={"query": VECTOR}).json()
    told = http.post(f"/collections/{filled}/points/query?explain=true", json={"query": VECTOR}).json()
    assert "explain" not in plain
    assert told["result"] == plain["result"]
