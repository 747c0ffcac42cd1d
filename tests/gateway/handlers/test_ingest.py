"""U2: the ingest told and controlled over HTTP and by the command, on an embedded node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from journal.log import Indefinite, Journal, TopicPartition, TopicSpec
from tests.conftest import result, start_node, until
from vecraft.cli import main
from vecraft.node import Node

WAIT_S = 20
SOURCES = "/v1/ingest/sources"
SHOP = {"topic": "shop", "collection": "c", "mapping": {"id": "sku", "vector": "v", "payload": {"name": "title"}}}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    result(httpx.put(f"{node.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}))
    journal_of(node).ensure_topics({"shop": TopicSpec(2)})
    yield node
    node.stop()
    thread.join(15)
    assert not thread.is_alive()


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as client:
        yield client
        client.post(f"{SOURCES}/default/resume")
        client.delete(f"{SOURCES}/shop")


def journal_of(node: Node) -> Journal:
    assert node._services is not None
    return node._services.node.journal


def produce(node: Node, topic: str, partition: int, body: dict[str, object]) -> None:
    journal_of(node).append(TopicPartition(topic, partition), orjson.dumps(body), b"key").result(WAIT_S)


def shown(http: httpx.Client, name: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = result(http.get(f"{SOURCES}/{name}"))
    return found


def of_each(http: httpx.Client, what: str, name: str = "default") -> list[Any]:
    return [partition.get(what) for partition in shown(http, name)["partitions"]]


def payload(http: httpx.Client, point: int) -> Any:
    answer = http.get(f"/collections/c/points/{point}", params={"consistency": "strong"})
    return None if answer.status_code == 404 else result(answer)["payload"]


def refused(answer: httpx.Response, status: int, text: str) -> None:
    assert (answer.status_code, text in answer.json()["status"]["error"]) == (status, True), answer.text


def test_pause_resume_and_move(node: Node, http: httpx.Client) -> None:
    until(lambda: of_each(http, "state") == ["RUNNING"] * 6, WAIT_S)
    assert result(http.post(f"{SOURCES}/default/pause", json={"partitions": [3]})) is True
    for partition in (3, 4):
        produce(node, "vecraft.ingest", partition, {"collection": "c", "id": partition, "vector": [1, 2], "payload": {"n": 1}})
    until(lambda: payload(http, 4) == {"n": 1}, WAIT_S)
    paused = shown(http)["partitions"][3]
    assert (paused["state"], paused["position"], paused["end"], paused["lag"], paused["node"]) == ("PAUSED", 0, 1, 1, "node1")
    assert paused["since_ms"] > 0
    result(http.post(f"{SOURCES}/default/resume"))
    until(lambda: payload(http, 3) == {"n": 1}, WAIT_S)
    result(http.post("/collections/c/points/delete?wait=true", json={"points": [3, 4]}))
    until(lambda: of_each(http, "lag") == [0] * 6, WAIT_S)
    moved = result(http.post(f"{SOURCES}/default/move", json={"to": "1970-01-01", "partitions": [3]}))
    assert moved == {"moved": [{"partition": 3, "position": 0}]}
    until(lambda: payload(http, 3) == {"n": 1}, WAIT_S)
    assert payload(http, 4) is None
    latest = result(http.post(f"{SOURCES}/default/move", json={"to": "latest"}))["moved"]
    assert [each["position"] for each in latest] == [0, 0, 0, 1, 1, 0]
    assert result(http.post(f"{SOURCES}/default/restart")) is True


def test_a_source_and_what_becomes_of_its_records(node: Node, http: httpx.Client) -> None:
    """Created, changed for the records that come, deleted, and created again."""
    produce(node, "shop", 1, {"sku": 50, "v": [1, 2], "title": "chair"})
    assert result(http.put(f"{SOURCES}/shop", json=SHOP)) is True
    until(lambda: payload(http, 50) == {"name": "chair"}, WAIT_S)
    until(lambda: of_each(http, "position", "shop") == [0, 1], WAIT_S)
    assert [source["name"] for source in result(http.get(SOURCES))["sources"]] == ["default", "shop"]
    found = shown(http, "shop")
    assert (found["topic"], found["state"], found["config"]) == ("shop", "RUNNING", SHOP)
    result(http.put(f"{SOURCES}/shop", json=SHOP | {"mapping": {"id": "sku", "payload": {"label": "title"}}}))
    produce(node, "shop", 0, {"sku": 51, "v": [1, 2], "title": "table"})
    until(lambda: payload(http, 51) == {"label": "table"}, WAIT_S)
    assert payload(http, 50) == {"name": "chair"}
    result(http.delete(f"{SOURCES}/shop"))
    refused(http.get(f"{SOURCES}/shop"), 404, "ingest source `shop` doesn't exist")
    result(http.post("/collections/c/points/delete?wait=true", json={"points": [50]}))
    result(http.put(f"{SOURCES}/shop", json=SHOP))
    until(lambda: payload(http, 50) == {"name": "chair"}, WAIT_S)


def test_a_source_that_fails_says_so_and_goes_on_after_a_restart(
    node: Node, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failure is its own, and is remembered."""

    def fails(*_: object) -> None:
        raise Indefinite("no answer from there")

    monkeypatch.setattr("replayer.ingest.member.mapped_change", fails)
    produce(node, "shop", 0, {"sku": 60, "v": [1, 2]})
    result(http.put(f"{SOURCES}/shop", json=SHOP))
    until(lambda: shown(http, "shop")["state"] == "FAILED", WAIT_S)
    assert shown(http, "shop")["last_failure"]["text"] == "no answer from there"
    assert http.get("/admin/health").json()["components"]["ingest"]["status"] == "failing"
    assert shown(http)["state"] == "RUNNING"
    monkeypatch.undo()
    result(http.post(f"{SOURCES}/shop/restart"))
    until(lambda: payload(http, 60) == {}, WAIT_S)
    until(lambda: shown(http, "shop")["state"] == "RUNNING", WAIT_S)
    assert shown(http, "shop")["last_failure"]["text"] == "no answer from there"


BAD: list[tuple[str, str, object, int, str]] = [
    ("POST", "default/pause", {"partitions": [9]}, 400, "partitions: topic vecraft.ingest has no partition 9, only 0 to 5"),
    ("POST", "default/pause", {"partitions": []}, 422, "at least 1"),
    ("POST", "default/pause", {"partitions": [-1]}, 400, ">= 0"),
    ("POST", "default/pause", {"partition": 1}, 400, "unknown field `partition`"),
    ("POST", "none/pause", {}, 404, "ingest source `none` doesn't exist"),
    ("POST", "none/move", {"to": 0}, 404, "ingest source `none` doesn't exist"),
    ("POST", "none/restart", None, 404, "ingest source `none` doesn't exist"),
    ("POST", "default/move", {}, 400, "missing required field `to`"),
    ("POST", "default/move", {"to": 10**9}, 400, "to: offset 1000000000 must be between 0 and"),
    ("POST", "default/move", {"to": -1}, 400, ">= 0"),
    ("POST", "default/move", {"to": "noon"}, 400, "to 'noon' must be an offset, earliest, latest, or a time"),
    ("PUT", "default", SHOP, 422, "source 'default' is always there"),
    ("PUT", "a.b", SHOP, 422, "source name 'a.b' must have 1 to 64 characters"),
    ("PUT", "s", SHOP | {"topic": "vecraft.tier0"}, 400, "topic 'vecraft.tier0' is one of the database's own"),
    ("PUT", "s", SHOP | {"topic": "__consumer_offsets"}, 422, "topic '__consumer_offsets' is one of Kafka's own"),
    ("PUT", "s", SHOP | {"topic": "other"}, 400, "the embedded journal has no topics of others, sources need Kafka"),
    ("PUT", "s", SHOP | {"collection": "none"}, 404, "Collection `none` doesn't exist"),
    ("PUT", "s", SHOP | {"format": "xml"}, 400, "Invalid enum value 'xml'"),
    ("PUT", "s", SHOP | {"tier": 4}, 422, "tier 4 must be between 0 and 3"),
    ("PUT", "s", SHOP | {"mapping": {"vector": "a["}}, 422, "mapping.vector: key 'a[' is not a path"),
    ("DELETE", "default", None, 400, "cannot be changed or deleted"),
    ("DELETE", "none", None, 404, "ingest source `none` doesn't exist"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "text"), BAD, ids=[each[-1] + each[1] for each in BAD])
def test_bad_input_changes_nothing_and_says_why(
    node: Node, http: httpx.Client, method: str, path: str, body: object, status: int, text: str
) -> None:
    assert node._services is not None
    before = node._services.reads.catalog.sources
    refused(http.request(method, f"{SOURCES}/{path}", json=body), status, text)
    assert node._services.reads.catalog.sources == before


def test_the_command(node: Node, http: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Each prints the state after it; what the node refuses ends it with the node's text."""
    assert main(["ingest", "pause", "--partitions", "0,5", "--url", node.url]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["source", "topic", "partition", "state", "position", "end", "lag", "node", "since"]
    assert [row.split()[3] for row in rows[1:]] == ["PAUSED", "RUNNING", "RUNNING", "RUNNING", "RUNNING", "PAUSED"]
    assert main(["ingest", "resume", "--port", node.url.rpartition(":")[2]]) == 0
    assert main(["ingest", "move", "--to", "earliest", "--partitions", "1", "--url", node.url]) == 0
    assert main(["ingest", "restart", "--url", node.url]) == 0
    assert main(["ingest", "status", "--url", node.url]) == 0
    assert "PAUSED" not in capsys.readouterr().out.rpartition("source ")[2]
    for arguments, text in (
        (["pause", "--source", "none"], "ingest source `none` doesn't exist"),
        (["move", "--to", "1000000000"], "must be between 0 and"),
    ):
        assert main(["ingest", *arguments, "--url", node.url]) == 1
        assert text in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ingest", "pause", "--partitions", "one"])
    assert "'one' must be numbers of partitions" in capsys.readouterr().err


def test_a_node_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", "status", "--url", "http://127.0.0.1:9"]) == 1
    assert "no node answers at http://127.0.0.1:9" in capsys.readouterr().err
