"""Every read has a time limit: 408 with a text when it is over, and the work stops (I11)."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from shard.filters.fields import MatchTest
from tests.conftest import refusal, start_node, until

WAIT_S = 20
COUNT = 2_000
UNINDEXED = {"must": [{"key": "word", "match": {"value": "a"}}]}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a node whose reads have no time at all, unless they name a timeout."""
    node, thread = start_node(tmp_path_factory.mktemp("node"), search_timeout_s=1e-9)
    with httpx.Client(base_url=node.url, timeout=30) as client:
        fill(client)
        yield client
    node.stop()
    thread.join(15)


def fill(client: httpx.Client) -> None:
    client.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
    schema = {"field_name": "n", "field_schema": "integer"}
    client.put("/collections/c/index?wait=true", json=schema).raise_for_status()
    points = [{"id": n, "vector": [n, 1], "payload": {"word": "ab"[n % 2], "n": n}} for n in range(COUNT)]
    client.put("/collections/c/points?wait=true", json={"points": points}).raise_for_status()


READS: dict[str, tuple[str, dict[str, Any]]] = {
    "search": ("points/search", {"vector": [1, 1], "limit": 3}),
    "search with a filter": ("points/search", {"vector": [1, 1], "limit": 3, "filter": UNINDEXED}),
    "query": ("points/query", {"query": [1, 1]}),
    "by examples": ("points/query", {"query": {"recommend": {"positive": [1], "strategy": "best_score"}}}),
    "prefetch": ("points/query", {"prefetch": [{"query": [1, 1]}], "query": {"fusion": "rrf"}}),
    "diversity": ("points/query", {"query": {"nearest": [1, 1], "mmr": {"diversity": 0.5}}}),
    "formula": ("points/query", {"prefetch": [{"query": [1, 1]}], "query": {"formula": {"sum": ["$score", "n"]}}}),
    "order": ("points/query", {"query": {"order_by": "n"}}),
    "sample": ("points/query", {"query": {"sample": "random"}}),
    "batch": ("points/search/batch", {"searches": [{"vector": [1, 1], "limit": 3}]}),
    "groups": ("points/search/groups", {"vector": [1, 1], "group_by": "word"}),
    "matrix": ("points/search/matrix/pairs", {"sample": 5}),
    "retrieve": ("points", {"ids": [1, 2, 3]}),
    "scroll": ("points/scroll", {}),
    "scroll in order": ("points/scroll", {"order_by": "n"}),
    "count": ("points/count", {"filter": UNINDEXED}),
    "facet": ("facet", {"key": "word"}),
}


@pytest.mark.parametrize("read", READS)
def test_a_read_that_takes_too_long_is_given_up(slow: httpx.Client, read: str) -> None:
    path, body = READS[read]
    answer = slow.post(f"/collections/c/{path}", json=body)
    assert answer.status_code == 408, answer.text
    assert "Timeout: not answered within" in answer.json()["status"]["error"]
    with_time = slow.post(f"/collections/c/{path}?timeout=60", json=body)
    assert with_time.status_code == 200, with_time.text


def test_a_point(slow: httpx.Client) -> None:
    assert slow.get("/collections/c/points/1").status_code == 408
    assert slow.get("/collections/c/points/1?timeout=60").status_code == 200


def test_a_write_that_depends_on_a_read_has_more_time(slow: httpx.Client) -> None:
    slow.post("/collections/c/points/payload?wait=true", json={"payload": {"x": 1}, "filter": UNINDEXED}).raise_for_status()


def test_the_work_stops(slow: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a filter that is tested point by point: within some hundred points of the deadline."""
    tested = threading.Semaphore(0)
    go_on = threading.Event()
    test = MatchTest.test

    def test_slowly(self: MatchTest, subject: Any) -> bool:
        tested.release()
        go_on.wait(WAIT_S)
        return test(self, subject)

    monkeypatch.setattr(MatchTest, "test", test_slowly)
    body = {"filter": {"must": [{"key": "word", "match": {"value": "never asked before"}}]}}
    answer = slow.post("/collections/c/points/count?timeout=1", json=body)
    assert answer.status_code == 408, "although the thread that works has not looked at the time yet"
    go_on.set()
    monkeypatch.undo()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("pool")]
    assert threads
    until(lambda: slow.post("/collections/c/points/count?timeout=60", json={"filter": UNINDEXED}).status_code == 200, WAIT_S)
    assert tested._value < COUNT / 2, "points that were tested in all"


def test_the_work_of_a_node_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N3: stops too, however long the request may take: the process could not end before."""
    node, thread = start_node(tmp_path)
    tested, go_on, test = threading.Semaphore(0), threading.Event(), MatchTest.test

    def test_slowly(self: MatchTest, subject: Any) -> bool:
        tested.release()
        go_on.wait(WAIT_S)
        return test(self, subject)

    def count() -> None:
        with suppress(httpx.TransportError):
            httpx.post(f"{node.url}/collections/c/points/count?timeout=3600", json={"filter": UNINDEXED}, timeout=30)

    with httpx.Client(base_url=node.url, timeout=30) as client:
        fill(client)
    monkeypatch.setattr(MatchTest, "test", test_slowly)
    asking = threading.Thread(target=count)
    asking.start()
    assert tested.acquire(timeout=WAIT_S)
    node.stop()
    assert node._services is not None
    assert node._services.reads.given_up.wait(WAIT_S)
    go_on.set()
    asking.join(WAIT_S)
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert tested._value < COUNT / 2, "points that were tested"


def test_what_fails_together_is_logged_once(slow: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    """One failure is the answer; the others of the same request are nobody's."""
    prefetch = [{"query": [1, 1], "filter": {"must": [{"key": "word", "match": {"value": f"w{n}"}}]}} for n in range(50)]
    body = {"prefetch": prefetch, "query": {"fusion": "rrf"}}
    assert slow.post("/collections/c/points/query", json=body).status_code == 408
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert slow.post("/collections/c/points/query?timeout=60", json=body).status_code == 200


@pytest.mark.parametrize(
    ("timeout", "expected"), [("0", "at least 1"), ("3601", "at most 3600"), ("0.5", "whole number"), ("", "whole number")]
)
def test_a_timeout_that_cannot_be(slow: httpx.Client, timeout: str, expected: str) -> None:
    answer = slow.get(f"/collections/c/points/1?timeout={timeout}")
    error = refusal(answer)
    assert expected in error
    assert "timeout" in error
