"""A node on an operator's Kafka: which comes late, breaks promises, is written to and watched by others (V1, U2, U4, J13)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from journal import codec
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.records import Record, Upsert, VectorColumn
from tests.conftest import result, until, wait_ready
from tests.kafka_server import KafkaServer, fetch_jars, why_not_java
from tests.server import Server, on_kafka
from vecraft.cli import main

pytestmark = pytest.mark.kafka

WAIT_S = 60


@pytest.fixture
def server(kafka: KafkaServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(tmp_path, *flags(kafka, request.node.name))
    yield server
    server.kill()


def flags(kafka: KafkaServer, prefix: str) -> list[str]:
    return on_kafka(kafka.bootstrap, prefix[:60])


def topic_with(kafka: KafkaServer, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, 4, 1, config=config)])[topic].result(20)


def test_a_node_waits_for_kafka(kafka: KafkaServer, server: Server) -> None:
    """It listens, says in one line what it waits for, is not ready, refuses writes with a text; and goes on by itself."""
    kafka.stop()
    try:
        server.launch()
        assert httpx.get(f"{server.url}/livez").status_code == 200
        answer = httpx.get(f"{server.url}/readyz")
        assert (answer.status_code, answer.text.splitlines()[0]) == (503, "some shards are not ready")
        write = httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}, timeout=30)
        assert write.status_code == 503
        assert write.headers["Retry-After"] == "1"
    finally:
        kafka.start()
    wait_ready(server.url)
    assert sum("the journal cannot be opened yet" in line for line in server.log) == 1

    def told() -> list[str]:
        return [line.split("journal.kafka_connection: ")[1] for line in server.log if "journal.kafka_connection" in line]

    until(lambda: len(told()) >= 2, WAIT_S)  # a failing address is asked again every two seconds
    failing, well = told()
    assert "nothing listens there" in failing
    assert "all is well again" in well
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}, timeout=30))


def test_a_node_that_loses_kafka_says_so_once_and_when_it_is_back(kafka: KafkaServer, server: Server) -> None:
    """It stays ready, since it still serves reads; its pages are answered meanwhile; each change is one line of the log."""
    server.start()

    def status() -> str:
        found: str = httpx.get(f"{server.url}/admin/health", timeout=30).json()["components"]["journal"]["status"]
        return found

    until(lambda: status() == "ok", WAIT_S)
    kafka.stop()
    try:
        until(lambda: status() == "failing", WAIT_S)
        page = httpx.get(f"{server.url}/healthz", timeout=30)
        assert page.status_code == 503
        assert ": the log cannot be asked: Kafka: " in page.text
        assert "replay is" not in page.text
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        metrics = httpx.get(f"{server.url}/metrics", timeout=30).text
        assert "vecraft_journal_reachable 0.0" in metrics
        assert 'vecraft_health{component="journal"} 3.0' in metrics
    finally:
        kafka.start()
    until(lambda: status() == "ok", WAIT_S)
    said = [line.split(" gateway.health: ")[1].split(": ")[0] for line in server.log if " gateway.health: journal " in line]
    assert len(said) == 2
    assert said[0] == "journal is failing"
    assert said[1].startswith("journal is ok after ")


def test_a_preset_that_the_cluster_cannot_keep_is_said_once(
    kafka: KafkaServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """V1: three copies on one broker. The node waits for more brokers, as it waits for Kafka."""
    server = Server(tmp_path, *flags(kafka, request.node.name), "--preset", "prod").launch()
    try:
        until(lambda: "the preset asks" in httpx.get(f"{server.url}/readyz").text, 60)
        answer = httpx.get(f"{server.url}/readyz")
    finally:
        server.kill()
    said = "the preset asks for 3 copies of topic"
    assert (answer.status_code, said in answer.text) == (503, True)
    assert "start more brokers, or choose a --preset with fewer copies" in answer.text
    assert sum(said in line for line in server.log) == 1


def test_a_node_refuses_topics_that_would_break_a_promise(
    kafka: KafkaServer, server: Server, request: pytest.FixtureRequest
) -> None:
    """V1, I1, I4: it ends with status 1 and says which topic, which promise, and what to do."""
    topic_with(kafka, f"{request.node.name[:60]}.tier1")
    server.launch()
    assert server.wait() == 1
    said = "".join(server.log)
    assert f"topic {request.node.name[:60]}.tier1: message.timestamp.type is not LogAppendTime" in said
    assert "its retention is bounded: the journal is the only truth" in said


def test_the_topics_command(kafka: KafkaServer, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    """V1: check and describe change nothing; create makes what is missing; write amplification is printed."""
    settings = flags(kafka, request.node.name)
    assert main(["topics", "check", *settings]) == 1
    assert f"topic {request.node.name}.tier0 does not exist" in capsys.readouterr().err
    assert main(["topics", "describe", *settings]) == 0
    assert capsys.readouterr().out.count("missing") == 7
    assert main(["topics", "create", *settings]) == 0
    out = capsys.readouterr().out
    assert "missing" not in out
    assert "tier 1: 2 times (1 in the journal, 1 by nodes that keep the shard)" in out
    assert main(["topics", "check", *settings]) == 0
    assert main(["topics", "check", *settings, "--preset", "prod"]) == 1
    said = capsys.readouterr().err
    assert f"topic {request.node.name}.tier0: replication factor is 1, the preset needs 3" in said
    assert f"topic {request.node.name}.tier3: replication factor is 1, the preset needs 2" in said


def test_records_straight_into_a_tier_and_their_lag(kafka: KafkaServer, server: Server, request: pytest.FixtureRequest) -> None:
    """U2, U4, I6: an expert's record is applied if its envelope is right, refused if not; Kafka's own tool shows no lag."""
    prefix = request.node.name[:60]
    server.start()
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}, timeout=30))
    body = {"points": [{"id": 1, "vector": [1, 1]}]}
    result(httpx.put(f"{server.url}/collections/c/points?wait=true", json=body, headers={"X-Request-Id": "probe"}))
    (written,) = result(httpx.get(f"{server.url}/operations/probe"))["records"]
    at = {"topic": written["topic"], "partition": written["partition"]}
    operation = Upsert([encode_id(2)], [VectorColumn.of("", np.ones((1, 2), np.float32))], [b'{"by": "hand"}'])
    record = Record(hlc=stamp_at(time.time_ns() // 1_000_000), operation=operation, collection=written["collection"])
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(**at, value=codec.encode(msgspec.structs.replace(record, catalog_position=written["collection"] + 1)))
    producer.produce(**at, value=codec.encode(record))
    assert producer.flush(20) == 0
    read = httpx.post(f"{server.url}/collections/c/points?consistency=strong", json={"ids": [2]})
    assert [point["payload"] for point in result(read)] == [{"by": "hand"}]
    (letter,) = result(httpx.get(f"{server.url}/v1/admin/dlq"))["dead_letters"]
    assert "cannot be known at catalog position 0" in letter["reason"]
    if (missing := why_not_java()) is not None:
        pytest.skip(f"kafka-consumer-groups cannot run: {missing}")
    until(lambda: lags(kafka, f"{prefix}.replayer.node1") == {0}, 60)


def lags(kafka: KafkaServer, group: str) -> set[int]:
    """The column LAG of kafka-consumer-groups."""
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    command = ["java", "-cp", f"{fetch_jars()}/*", tool, "--bootstrap-server", kafka.bootstrap, "--describe", "--group", group]
    rows = [line.split() for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]
    columns = next(row for row in rows if "LAG" in row)
    return {int(row[columns.index("LAG")]) for row in rows if row and row[0] == group}
