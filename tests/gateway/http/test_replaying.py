"""While a node replays what the log held at its start, it gives no part of an answer for the whole (I9)."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import start_node
from vecraft.node import Node

READS = [
    ("POST", "/collections/c/points/search", {"vector": [1, 2], "limit": 1}),
    ("POST", "/collections/c/points/query", {"query": [1, 2]}),
    ("POST", "/collections/c/points", {"ids": [1]}),
    ("POST", "/collections/c/points/scroll", {}),
    ("POST", "/collections/c/points/count", {}),
    ("POST", "/collections/c/facet", {"key": "word"}),
    ("GET", "/collections/c/points/1", None),
    ("GET", "/collections/c", None),
]


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node that has applied 5 of 10 records."""
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    with httpx.Client(base_url=node.url) as http:
        http.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        http.put("/collections/c/points?wait=true", json={"points": [{"id": 1, "vector": [1, 2]}]}).raise_for_status()
    assert node._services is not None
    replayer = node._services.node.replayer
    monkeypatch.setattr(replayer, "caught_up", lambda: False)
    monkeypatch.setattr(replayer, "behind", lambda: (5, 10))
    yield node
    node.stop()
    thread.join(15)


def test_reads_are_refused_until_it_has_caught_up(node: Node) -> None:
    with httpx.Client(base_url=node.url) as http:
        for method, path, body in READS:
            answer = http.request(method, path, json=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
            assert "this node is replaying the log: 5 of 10 records are applied" in answer.text


def test_a_read_that_takes_what_there_is_says_how_far_that_is(node: Node) -> None:
    with httpx.Client(base_url=node.url) as http:
        for method, path, body in READS:
            answer = http.request(method, f"{path}?consistency=eventual", json=body)
            assert answer.status_code == 200, path
            assert answer.headers["X-Vecraft-Sync"].endswith("; replayed=5/10")


def test_a_point_that_is_not_there_yet_says_so_too(node: Node) -> None:
    """404 may be wrong then, and the header says why."""
    with httpx.Client(base_url=node.url) as http:
        answer = http.get("/collections/c/points/7?consistency=eventual")
        assert answer.status_code == 404
        assert answer.headers["X-Vecraft-Sync"].endswith("; replayed=5/10")
        assert answer.headers["X-Vecraft-Position"]


def test_writes_go_on(node: Node) -> None:
    """They go into the log, and need nothing of this node's state."""
    with httpx.Client(base_url=node.url) as http:
        http.put("/collections/c/points", json={"points": [{"id": 2, "vector": [1, 2]}]}).raise_for_status()
