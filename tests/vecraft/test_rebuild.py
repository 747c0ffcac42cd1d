"""State is a function of the journal (I1): caches or all of it removed, every read answers the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.conftest import result, start_node

COUNT = 25_000
SIZE = 32


def answers(url: str) -> list[object]:
    """What a fixed set of reads says."""
    random = np.random.default_rng(3)
    queries = [random.normal(size=SIZE).round(3).tolist() for _ in range(20)]
    low = {"must": [{"key": "n", "range": {"lt": 300}}]}
    with httpx.Client(base_url=url, timeout=60) as client:
        reads: list[object] = [result(client.post("/collections/c/points/count", json={"filter": low}))]
        reads.append(result(client.post("/collections/c/points/scroll", json={"limit": 50, "with_vector": True})))
        reads.append(result(client.get("/collections/c"))["points_count"])
        for query in queries:
            body = {"vector": query, "limit": 10, "with_payload": True, "params": {"exact": True}}
            reads.append(result(client.post("/collections/c/points/search", json=body)))
            reads.append(result(client.post("/collections/c/points/search", json=body | {"filter": low})))
    return reads


def found_by_graph(url: str) -> int:
    """How many of 200 stored vectors find themselves through the graphs."""
    with httpx.Client(base_url=url, timeout=60) as client:
        stored = result(client.post("/collections/c/points/scroll", json={"limit": 200, "with_vector": True}))["points"]
        hits = [result(client.post("/collections/c/points/search", json={"vector": p["vector"], "limit": 1})) for p in stored]
    return sum(hit[0]["id"] == point["id"] for hit, point in zip(hits, stored, strict=True))


@pytest.mark.slow
def test_caches_and_state_can_be_removed(tmp_path: Path) -> None:
    node, thread = start_node(tmp_path)
    random = np.random.default_rng(1)
    with httpx.Client(base_url=node.url, timeout=60) as client:
        result(client.put("/collections/c", json={"vectors": {"size": SIZE, "distance": "Euclid"}}))
        result(client.put("/collections/c/index", json={"field_name": "n", "field_schema": "integer"}))
        for start in range(0, COUNT, 1000):
            vectors = random.normal(size=(1000, SIZE)).round(3).tolist()
            rows = [{"id": start + i, "vector": vector, "payload": {"n": start + i}} for i, vector in enumerate(vectors)]
            result(client.put("/collections/c/points?wait=true", json={"points": rows}))
        result(client.post("/collections/c/points/delete?wait=true", json={"points": list(range(0, COUNT, 7))}))
        while result(client.get("/collections/c"))["indexed_vectors_count"] == 0:
            pass
    expected = answers(node.url)
    for damage in (_nothing, _remove_segments, _damage_a_graph, _remove_state):
        node.stop()
        thread.join(15)
        damage(tmp_path)
        node, thread = start_node(tmp_path)
        assert answers(node.url) == expected, damage.__name__
        assert found_by_graph(node.url) >= 195, damage.__name__
    node.stop()
    thread.join(15)


def _nothing(data_dir: Path) -> None:
    pass


def _remove_segments(data_dir: Path) -> None:
    folders = list(data_dir.glob("state/*/*/segments"))
    assert any(list(folder.rglob("*.faiss")) for folder in folders)
    for folder in folders:
        shutil.rmtree(folder)


def _damage_a_graph(data_dir: Path) -> None:
    graph = next(data_dir.glob("state/*/*/segments/*/*/graph.faiss"), None)
    if graph is not None:
        graph.write_bytes(graph.read_bytes()[:1000])


def _remove_state(data_dir: Path) -> None:
    shutil.rmtree(data_dir / "state")
