"""What cannot be served for a while answers 503 with the reason, never 500 or a false 404, and everything else goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from journal.embedded import EmbeddedJournal
from journal.log import BrokerState
from shard.shards import MAX_DELAY_S
from shard.store import Changes, Store
from tests.conftest import result, start_node, until
from vecraft.node import Node

WAIT_S = 20
POINT = {"points": [{"id": 1, "vector": [1, 2]}]}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node, thread = start_node(tmp_path, read_timeout_s=0.2)
    yield node
    node.stop()
    thread.join(15)
    assert not thread.is_alive()


SEARCH = "/collections/c/points/search?consistency=eventual"


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as http:
        yield http


def create(http: httpx.Client, name: str) -> None:
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}}))


def test_reads_while_the_state_is_opened(node: Node, http: httpx.Client) -> None:
    """At the start, and when a failure made the replayer open its state anew: then nothing counts as applied."""
    assert node._services is not None
    create(http, "c")
    node._services.node.replayer.applied.suspend()
    for answer in (
        http.post(SEARCH, json={"vector": [1, 2], "limit": 1}),
        http.post("/collections/c/points/count", json={}),
        http.get("/collections/unknown"),
        http.get("/collections/unknown/exists"),
        http.get("/readyz"),
    ):
        assert answer.status_code == 503, answer.text


def test_a_search_whose_collection_is_dropped_while_it_waits(
    node: Node, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node._services is not None
    create(http, "c")
    waiting = node._services.node.shards.of(node._services.node.replayer.catalog.view.collections["c"].id)
    result(http.delete("/collections/c"))
    create(http, "c")
    monkeypatch.setattr(node._services.node.shards, "of", lambda _: waiting)
    answer = http.post(SEARCH, json={"vector": [1, 2], "limit": 1})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "shard 0 of collection 'c' is closed" in answer.text


def test_a_command_that_is_not_applied_in_time_may_take_effect_later(
    node: Node, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the log, so it was not refused: its outcome is unknown."""
    assert node._services is not None
    replayer, goes_on = node._services.node.replayer, threading.Event()
    step = replayer.step
    monkeypatch.setattr(replayer, "step", lambda timeout_s: step(timeout_s) if goes_on.wait(0.05) else 0)
    create(http, "before")  # ends the step that is running
    answer = http.put("/collections/c?timeout=1", json={"vectors": {"size": 2, "distance": "Dot"}})
    assert answer.status_code == 504, answer.text
    assert "it is not known whether this was written" in answer.text
    goes_on.set()
    until(lambda: result(http.get("/collections/c/exists"))["exists"], WAIT_S)


def test_a_failing_shard(node: Node, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node._services is not None
    broken = True
    write = Store.write

    def write_or_fail(store: Store, changes: Changes) -> None:
        if broken and store._path.parts[-3] == first:
            raise RuntimeError("IO error: no space left")
        write(store, changes)

    for name in ("broken", "sound"):
        create(http, name)
    first = str(node._services.node.replayer.catalog.view.collections["broken"].id)
    monkeypatch.setattr(Store, "write", write_or_fail)
    written = result(http.put("/collections/broken/points?wait=true", json=POINT))
    assert written["status"] == "acknowledged", "it is durable, and not applied"  # type: ignore[index]
    for answer in (
        http.get("/collections/broken"),
        http.put("/collections/broken/points", json=POINT),
        http.post("/collections/broken/points/delete", json={"points": [1]}),
        http.post("/collections/broken/points/search?consistency=eventual", json={"vector": [1, 2], "limit": 1}),
        http.post("/collections/broken/points/count", json={}),
    ):
        assert answer.status_code == 503
        assert "shard 0 of collection 'broken' is not served: RuntimeError: IO error: no space left" in answer.text
        assert 1 <= int(answer.headers["retry-after"]) <= MAX_DELAY_S
    assert result(http.put("/collections/sound/points?wait=true", json=POINT))["status"] == "completed"  # type: ignore[index]
    assert result(http.post("/collections/sound/points/count", json={}))["count"] == 1  # type: ignore[index]
    ready = http.get("/readyz")
    assert ready.status_code == 200
    reason = "RuntimeError: IO error: no space left"
    assert ready.text == f"some shards are not ready\nshard 0 of 'broken': {reason}\n"
    assert http.get("/admin/health").json()["quarantined"] == [{"collection": "broken", "shard": 0, "reason": reason}]
    assert http.get("/healthz").status_code == 200
    (issue,) = result(http.get("/issues"))["issues"]
    assert reason in issue["description"]
    assert issue["related_collection"] == "broken"
    assert datetime.fromisoformat(issue["timestamp"]) <= datetime.now(UTC)
    assert 'vecraft_quarantined_shards{collection="broken",shard="0"} 1.0' in http.get("/metrics").text
    assert http.get("/admin/memory").status_code == http.get("/v1/admin/lag").status_code == 200
    result(http.delete("/collections/sound"))
    assert http.get("/readyz").status_code == 503, "now nothing is served"
    broken = False
    until(lambda: http.get("/readyz").text == "all shards are ready\n", WAIT_S)
    assert "quarantined" not in http.get("/admin/health").json()
    assert result(http.get("/issues")) == {"issues": []}
    assert result(http.post("/collections/broken/points/count", json={}))["count"] == 1  # type: ignore[index]
    assert "vecraft_quarantined_shards{" not in http.get("/metrics").text


def test_the_state_of_the_brokers_is_shown_and_does_not_make_a_node_unready(
    node: Node, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose Kafka is away still answers reads. Without brokers there is nothing to show."""
    assert node._services is not None
    assert "kafka" not in http.get("/admin/health").json()
    since = datetime(2026, 1, 1, tzinfo=UTC)
    state = BrokerState(True, since, (), ("one copy on three brokers",))
    monkeypatch.setattr(EmbeddedJournal, "brokers", lambda self: state)
    assert http.get("/readyz").status_code == 200
    shown = {"state": "well", "since": "2026-01-01T00:00:00+00:00", "remarks": ["one copy on three brokers"]}
    assert http.get("/admin/health").json()["kafka"] == shown
    state = BrokerState(False, since, ("a:1: it does not answer",), ())
    assert http.get("/readyz").status_code == http.get("/healthz").status_code == 200
    assert http.get("/admin/health").json()["kafka"] == {
        "state": "trouble",
        "since": "2026-01-01T00:00:00+00:00",
        "causes": ["a:1: it does not answer"],
    }
