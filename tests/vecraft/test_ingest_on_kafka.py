"""The ingest of nodes on a real Kafka: controlled by operators, and with topics of others as sources (U2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.conftest import result, until
from tests.kafka_server import KafkaServer
from tests.server import Server, two_nodes_on
from vecraft.cli import main

pytestmark = pytest.mark.kafka

WAIT_S = 60
PATH = "/v1/ingest/sources"


@pytest.fixture
def nodes(kafka: KafkaServer, tmp_path: Path) -> Iterator[list[Server]]:
    with two_nodes_on(kafka.bootstrap, tmp_path) as servers:
        result(httpx.put(f"{servers[0].url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}, timeout=30))
        yield servers


def status(node: Server, name: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = result(httpx.get(f"{node.url}{PATH}/{name}", timeout=30))
    return found


def of_each(node: Server, what: str, name: str = "default") -> list[Any]:
    return [partition.get(what) for partition in status(node, name)["partitions"]]


def post(node: Server, action: str, name: str = "default", **body: Any) -> Any:
    return result(httpx.post(f"{node.url}{PATH}/{name}/{action}", json=body, timeout=30))


def payload(node: Server, point: int | str) -> Any:
    answer = httpx.get(f"{node.url}/collections/c/points/{point}?consistency=strong", timeout=30)
    return None if answer.status_code == 404 else result(answer)["payload"]


def delete(node: Server, *points: int) -> None:
    result(httpx.post(f"{node.url}/collections/c/points/delete?wait=true", json={"points": points}, timeout=30))


class Topic:
    """A topic and a producer for it."""

    def __init__(self, kafka: KafkaServer, name: str, partitions: int = 0) -> None:
        self.name = name
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap})
        if partitions:
            admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
            admin.create_topics([NewTopic(name, partitions, 1)])[name].result(WAIT_S)

    def send(self, value: object, key: object = None, partition: int = 0) -> None:
        data = [None if each is None else each if isinstance(each, bytes) else orjson.dumps(each) for each in (value, key)]
        self._producer.produce(self.name, *data, partition=partition)
        assert self._producer.flush(WAIT_S) == 0


def ingest_topic(kafka: KafkaServer, node: Server) -> Topic:
    return Topic(kafka, status(node)["topic"])


def point(number: int, n: int) -> dict[str, object]:
    return {"collection": "c", "id": number, "vector": [1, n], "payload": {"n": n}}


def test_what_one_node_is_told_holds_on_all_and_after_their_restart(kafka: KafkaServer, nodes: list[Server]) -> None:
    left, right = nodes
    topic = ingest_topic(kafka, left)
    until(lambda: set(of_each(left, "node")) == {"left", "right"}, WAIT_S)
    assert of_each(left, "state") == of_each(right, "state") == ["RUNNING"] * 6
    post(left, "pause", partitions=[0, 1, 2, 3, 4])
    until(lambda: of_each(right, "state") == [*["PAUSED"] * 5, "RUNNING"], WAIT_S)
    until(lambda: set(of_each(right, "node")) == {"left", "right"}, WAIT_S)
    for number in range(6):
        topic.send(point(number, 1), partition=number)
    until(lambda: payload(right, 5) == {"n": 1}, WAIT_S)
    assert (of_each(right, "position"), of_each(right, "lag")) == ([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 0])
    for node in nodes:
        node.kill()
    left.start()
    topic.send(point(5, 2), partition=5)
    until(lambda: payload(left, 5) == {"n": 2}, WAIT_S)
    assert of_each(left, "state") == [*["PAUSED"] * 5, "RUNNING"]
    assert payload(left, 0) is None
    post(left, "resume")
    until(lambda: [payload(left, number) for number in range(6)] == [*[{"n": 1}] * 5, {"n": 2}], WAIT_S)


def test_moves_back_to_a_time_and_forwards(kafka: KafkaServer, nodes: list[Server], capsys: pytest.CaptureFixture[str]) -> None:
    """Both nodes go on where the operator says, although each of them reads and commits meanwhile."""
    left, right = nodes
    topic = ingest_topic(kafka, left)
    for number in range(6):
        topic.send(point(number, 1), partition=number)
    until(lambda: of_each(left, "position") == [1] * 6, WAIT_S)
    noon_ms = time.time_ns() // 1_000_000
    until(lambda: time.time_ns() // 1_000_000 > noon_ms + 1, WAIT_S)
    for number in range(6):
        topic.send(point(number, 2), partition=number)
        topic.send(point(10 + number, 1), partition=number)
    until(lambda: of_each(left, "position") == [3] * 6, WAIT_S)
    numbers = [*range(6), *range(10, 16)]
    delete(left, *numbers)
    noon = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(noon_ms / 1000))}.{noon_ms % 1000:03}Z"
    moved = post(right, "move", to=noon, partitions=[0, 5])["moved"]
    assert moved == [{"partition": 0, "position": 1}, {"partition": 5, "position": 1}]
    until(lambda: [payload(left, number) for number in (0, 5, 10, 15)] == [{"n": 2}, {"n": 2}, {"n": 1}, {"n": 1}], WAIT_S)
    assert [payload(left, number) for number in (1, 2, 3, 4)] == [None] * 4
    delete(left, *numbers)
    assert main(["ingest", "move", "--to", "earliest", "--url", left.url]) == 0
    assert capsys.readouterr().out.count(f"default  {topic.name}") == 6
    until(lambda: [payload(right, number) for number in numbers] == [{"n": 2}] * 6 + [{"n": 1}] * 6, WAIT_S)
    until(lambda: of_each(left, "position") == [3] * 6, WAIT_S)
    post(left, "pause")
    topic.send(point(0, 3), partition=0)
    topic.send(point(0, 4), partition=0)
    post(left, "move", to=4, partitions=[0])
    post(left, "resume")
    until(lambda: payload(right, 0) == {"n": 4}, WAIT_S)


def test_a_source_without_a_topic_has_failed_until_it_is_there(kafka: KafkaServer, nodes: list[Server]) -> None:
    left, right = nodes
    name = f"late-{status(left)['group']}"
    result(httpx.put(f"{left.url}{PATH}/late", json={"topic": name, "collection": "c"}, timeout=30))
    until(lambda: status(left, "late")["state"] == "FAILED", WAIT_S)
    assert status(left, "late")["last_failure"]["text"] == f"topic {name} does not exist"
    topic = Topic(kafka, name, 1)
    topic.send({"a": 1}, b"7")
    post(right, "restart", "late")
    until(lambda: payload(left, 7) == {"a": 1}, WAIT_S)
    until(lambda: status(right, "late")["state"] == "RUNNING", WAIT_S)


# Debezium.


def event(op: str, after: object, before: object = None, is_wrapped: bool = False) -> dict[str, object]:
    """A change event as Debezium's connector for PostgreSQL sends it."""
    source = {"version": "3.2.0.Final", "connector": "postgresql", "name": "shop", "schema": "public", "table": "products"}
    envelope = {"before": before, "after": after, "source": source, "transaction": None, "op": op, "ts_ms": 1_767_225_600_000}
    return (
        {"schema": {"type": "struct", "name": "shop.public.products.Envelope"}, "payload": envelope} if is_wrapped else envelope
    )


def row(sku: int, title: str, *vector: float) -> dict[str, object]:
    return {"sku": sku, "title": title, "price": 9.5, "embedding": list(vector)}


def test_the_changes_of_a_table_become_points(kafka: KafkaServer, nodes: list[Server]) -> None:
    left, right = nodes
    topic = Topic(kafka, f"shop-{status(left)['group']}.public.products", 2)
    config = {
        "topic": topic.name,
        "collection": "c",
        "format": "debezium",
        "mapping": {"vector": "embedding", "payload": {"name": "title", "price": "price"}},
    }
    topic.send(event("r", row(1, "a chair", 1, 2)), {"sku": 1})
    topic.send(event("c", row(2, "a table", 3, 4), is_wrapped=True), {"schema": {"type": "struct"}, "payload": {"sku": 2}})
    result(httpx.put(f"{left.url}{PATH}/shop", json=config, timeout=30))
    until(lambda: payload(right, 2) == {"name": "a table", "price": 9.5}, WAIT_S)
    assert payload(right, 1) == {"name": "a chair", "price": 9.5}
    topic.send(event("u", row(1, "a stool", 5, 6), row(1, "a chair", 1, 2)), {"sku": 1})
    topic.send(event("d", None, row(2, "a table", 3, 4)), {"sku": 2})
    topic.send(None, {"sku": 2})
    topic.send(event("c", row(3, "no vector", 1, 2, 3)), {"sku": 3})
    until(lambda: (payload(right, 1) or {}).get("name") == "a stool" and payload(right, 2) is None, WAIT_S)
    vector = result(httpx.get(f"{right.url}/collections/c/points/1", timeout=30))["vector"]
    assert vector == [5, 6]
    letters = f"{left.url}/v1/admin/dlq"
    until(lambda: result(httpx.get(letters, timeout=30))["count"] == 1, WAIT_S)
    (letter,) = result(httpx.get(letters, timeout=30))["dead_letters"]
    assert (letter["topic"], letter["offset"], letter["collection"]) == (topic.name, 5, "c")
    assert "expected dim: 2, got 3" in letter["reason"]
    again = httpx.post(f"{letters}/{letter['number']}/retry", timeout=30)
    assert (again.status_code, "move its source back to offset 5" in again.text) == (409, True)
    until(lambda: of_each(left, "position", "shop") == [6, 0], WAIT_S)
    first_group = status(left, "shop")["group"]
    result(httpx.delete(f"{right.url}{PATH}/shop", timeout=30))
    until(lambda: httpx.get(f"{left.url}{PATH}/shop", timeout=30).status_code == 404, WAIT_S)
    delete(left, 1)
    result(httpx.put(f"{left.url}{PATH}/shop", json=config, timeout=30))
    until(lambda: payload(right, 1) == {"name": "a stool", "price": 9.5}, WAIT_S)
    assert status(left, "shop")["group"] != first_group
