"""A3, U4: the dead letters and the lag over HTTP, on an embedded node that is fed what it cannot take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from journal.log import TopicPartition
from tests.conftest import result, start_node, until
from vecraft.node import Node

INGEST = TopicPartition("vecraft.ingest", 2)
WAIT_S = 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node, thread = start_node(tmp_path, dead_letters_max=5)
    yield node
    node.stop()
    thread.join(15)
    assert not thread.is_alive()


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as client:
        create(client, "c")
        yield client


def create(http: httpx.Client, name: str) -> None:
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}}))


def write(node: Node, value: bytes | dict[str, object], partition: TopicPartition = INGEST) -> None:
    """Puts a record into a topic, as a foreign producer does."""
    assert node._services is not None
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    node._services.node.journal.append(partition, data, b"the key", [("trace", b"abc")]).result(WAIT_S)


def letters(http: httpx.Client, **params: str) -> list[dict[str, object]]:
    return result(http.get("/v1/admin/dlq", params=params))["dead_letters"]


def until_count(http: httpx.Client, count: int) -> list[dict[str, object]]:
    until(lambda: len(letters(http)) == count, WAIT_S)
    return letters(http)


def test_a_record_that_came_too_early_is_shown_and_retried(node: Node, http: httpx.Client) -> None:
    write(node, {"collection": "later", "id": 7, "vector": [1, 2], "payload": {"n": 1}})
    (letter,) = until_count(http, 1)
    assert letter["reason"] == "collection `later` doesn't exist"
    assert (letter["collection"], letter["topic"], letter["partition"], letter["offset"]) == ("later", *INGEST, 0)
    shown = result(http.get(f"/v1/admin/dlq/{letter['number']}"))
    assert (shown["key"], shown["headers"]["trace"]) == ("the key", "abc")
    assert shown["decoded"] == {"collection": "later", "id": 7, "vector": [1, 2], "payload": {"n": 1}}
    create(http, "later")
    assert result(http.post(f"/v1/admin/dlq/{letter['number']}/retry")) == {"retried": 1}
    assert letters(http) == []
    until(lambda: result(http.post("/collections/later/points/count", json={}))["count"] == 1, WAIT_S)


def test_a_record_that_stays_wrong_comes_back_as_a_new_letter(node: Node, http: httpx.Client) -> None:
    write(node, b"poison")
    (letter,) = until_count(http, 1)
    assert result(http.get(f"/v1/admin/dlq/{letter['number']}"))["decoded"] is None
    assert result(http.post("/v1/admin/dlq/retry")) == {"retried": 1}
    (again,) = until_count(http, 1)
    assert (again["topic"], again["offset"]) == (INGEST.topic, 1)
    assert "__connect.errors.offset" in result(http.get(f"/v1/admin/dlq/{again['number']}"))["headers"]


def test_letters_of_a_collection_are_listed_and_cleared(node: Node, http: httpx.Client) -> None:
    for number in range(3):
        write(node, {"collection": "c", "id": number, "vector": [1, 2, 3]})
    write(node, b"poison")
    until_count(http, 4)
    assert len(letters(http, collection="c")) == 3
    assert len(letters(http, collection="")) == 1
    assert len(letters(http, collection="c", limit="2")) == 2
    assert result(http.get("/admin/collections/c/dlq"))["count"] == 3
    assert result(http.delete(f"/v1/admin/dlq/{letters(http)[0]['number']}")) == {"cleared": 1}
    assert result(http.delete("/admin/collections/c/dlq")) == {"cleared": 2}
    assert [letter["collection"] for letter in letters(http)] == [""]
    assert result(http.post("/v1/admin/dlq/retry", params={"collection": "c"})) == {"retried": 0}


def test_the_oldest_leave_and_are_counted(node: Node, http: httpx.Client) -> None:
    """I11: the bound is a setting; here it is 5."""
    for number in range(8):
        write(node, {"collection": "c", "id": number, "vector": [1, 2, 3]})
    until(lambda: metric(http, 'vecraft_dlq_evictions_total{collection="c"}') == 3, WAIT_S)
    assert [letter["offset"] for letter in letters(http)] == [3, 4, 5, 6, 7]
    assert metric(http, 'vecraft_dlq_size{collection="c"}') == 5
    assert metric(http, 'vecraft_dlq_expirations_total{collection="c"}') == 0


def test_letters_survive_a_restart(tmp_path: Path) -> None:
    node, thread = start_node(tmp_path)
    write(node, b"poison")
    with httpx.Client(base_url=node.url) as client:
        before = until_count(client, 1)
    node.stop()
    thread.join(15)
    node, thread = start_node(tmp_path)
    with httpx.Client(base_url=node.url) as client:
        assert letters(client) == before
    node.stop()
    thread.join(15)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/v1/admin/dlq/99", 404, "there is no dead letter 99"),
        ("POST", "/v1/admin/dlq/x/retry", 400, "number 'x' is not a dead letter's number"),
        ("GET", "/v1/admin/dlq?limit=0", 422, "limit: must be at least 1"),
        ("GET", "/v1/admin/dlq?colection=c", 400, "colection"),
    ],
)
def test_what_is_asked_wrongly(http: httpx.Client, method: str, path: str, status: int, text: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, text in answer.text) == (status, True), answer.text


def test_lag_by_partition_and_shard(http: httpx.Client) -> None:
    """U4, V8"""
    lag = result(http.get("/v1/admin/lag"))
    assert {row["state"] for row in lag["partitions"]} == {"normal"}
    assert all(row["applied"] == row["end"] and row["records"] == row["seconds"] == 0 for row in lag["partitions"])
    (shard,) = lag["shards"]
    assert (shard["collection"], shard["shard"], len(shard["partitions"])) == ("c", 0, 4)
    assert metric(http, "vecraft_journal_reachable") == 1


def metric(http: httpx.Client, name: str) -> float:
    found = [line for line in http.get("/metrics").text.splitlines() if line.startswith(name + " ")]
    return float(found[0].rsplit(" ", 1)[1]) if found else -1
