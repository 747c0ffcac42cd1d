"""A node goes on with a mirror of its cluster, after that was lost: docs/kafka.md, MirrorMaker failover (I1, I2).

MirrorMaker itself takes longer to start than all of this. So the records are copied here as it copies them: each with its key,
value, headers and time, to the same partition, and so to the same offset.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from journal.topic_check import config_of
from journal.topics import Topics
from tests.conftest import result, until
from tests.kafka_server import KafkaServer, kafka_or_skip
from tests.server import Server, on_kafka
from vecraft.cli import main

pytestmark = pytest.mark.kafka
WAIT_S = 60
TOPICS = Topics()
MIRRORED = {topic: spec.partitions for topic, spec in TOPICS.all().items() if topic != TOPICS.ingest}


class Mirror:
    """Copies the records of `source` that were not copied before to `target`, whose topics it makes with CreateTime."""

    def __init__(self, source: str, target: str) -> None:
        self._target = target
        partitions = [TopicPartition(topic, number, 0) for topic, count in MIRRORED.items() for number in range(count)]
        self._consumer = Consumer({"bootstrap.servers": source, "group.id": "mirror", "enable.partition.eof": True})
        self._consumer.assign(partitions)
        self._left = len(partitions)
        self._producer = Producer({"bootstrap.servers": target, "enable.idempotence": True})
        self._admin = AdminClient({"bootstrap.servers": target})
        config = config_of(TOPICS.all()[TOPICS.dead_letters])
        new = [NewTopic(topic, count, 1, config=config) for topic, count in MIRRORED.items()]
        for future in self._admin.create_topics(new).values():
            future.result(WAIT_S)

    def copy(self) -> None:
        """Returns when all partitions were read to their ends, and all of it is written."""
        ended: set[tuple[str, int]] = set()
        while len(ended) < self._left:
            message = self._consumer.poll(WAIT_S)
            assert message is not None, f"only {len(ended)} of {self._left} partitions were read in {WAIT_S} s"
            place = message.topic() or "", message.partition() or 0
            if message.error():
                ended.add(place)
                continue
            self._produce(message.value(), message.key(), place, message.timestamp()[1], message.headers())
        assert self._producer.flush(WAIT_S) == 0

    def _produce(self, value: Any, key: Any, place: tuple[str, int], time_ms: int, headers: Any) -> None:
        self._producer.produce(place[0], value, key, place[1], timestamp=time_ms, headers=headers or [])

    def end(self) -> None:
        """No more is copied; from now on the brokers give the times."""
        self._consumer.close()
        entry = ConfigEntry("message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET)
        topics = [topic for topic in MIRRORED if topic != TOPICS.dead_letters]
        resources = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry]) for topic in topics]
        for future in self._admin.incremental_alter_configs(resources).values():
            future.result(WAIT_S)


def put(url: str, name: str, numbers: range, text: str) -> None:
    """Writes these points, one of four in each tier; which one depends on the text."""
    for tier in range(4):
        chosen = [number for number in numbers if (number + len(text)) % 4 == tier]
        points = [{"id": number, "vector": [1, number], "payload": {"text": text}} for number in chosen]
        headers = {"X-Vecraft-Tier": str(tier)}
        result(httpx.put(f"{url}/collections/{name}/points?wait=true", json={"points": points}, headers=headers, timeout=WAIT_S))


def create(url: str, name: str, shards: int = 1) -> None:
    body = {"vectors": {"size": 2, "distance": "Dot"}, "shard_number": shards}
    result(httpx.put(f"{url}/collections/{name}", json=body, timeout=WAIT_S))


def everything(url: str) -> dict[str, Any]:
    body = {"limit": 1000, "with_vector": True}
    names = [found["name"] for found in result(httpx.get(f"{url}/collections", timeout=WAIT_S))["collections"]]  # type: ignore[index]
    return {
        name: result(httpx.post(f"{url}/collections/{name}/points/scroll", json=body, timeout=WAIT_S))["points"]  # type: ignore[index]
        for name in sorted(names)
    }


def is_held(url: str) -> bool:
    scroll = httpx.post(f"{url}/collections/one/points/scroll", json={}, timeout=WAIT_S)
    return "are lost; its state is kept until an operator decides" in scroll.text


@pytest.fixture
def mirrored(tmp_path: Path) -> Any:
    """A running node, the broker with its mirror, the mirror, what was copied of the node, and what it has: 20 points more."""
    source, target = kafka_or_skip(tmp_path / "source"), kafka_or_skip(tmp_path / "target")
    server = Server(tmp_path / "node", *on_kafka(source.bootstrap, TOPICS.prefix))
    try:
        server.start()
        create(server.url, "deleted")
        create(server.url, "one")
        create(server.url, "three", shards=3)
        result(httpx.delete(f"{server.url}/collections/deleted", timeout=WAIT_S))
        for name in ("one", "three"):
            put(server.url, name, range(20), "first")
            put(server.url, name, range(10), "second")
        producer = Producer({"bootstrap.servers": source.bootstrap})
        producer.produce(TOPICS.tier(1), b"no record", partition=0)
        assert producer.flush(WAIT_S) == 0
        until(lambda: "no known framing" in httpx.get(f"{server.url}/admin/dlq", timeout=WAIT_S).text, WAIT_S)
        mirror = Mirror(source.bootstrap, target.bootstrap)
        mirror.copy()
        copied = everything(server.url)
        put(server.url, "one", range(10, 30), "not copied")
        yield server, target, mirror, copied, everything(server.url)
    finally:
        server.kill()
        source.kill()
        target.stop()


Mirrored = tuple[Server, KafkaServer, Mirror, dict[str, Any], dict[str, Any]]


def test_failover_to_a_mirror(mirrored: Mirrored, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The state is kept, and gives the mirror what it lacks; a node without state serves what the mirror has."""
    server, target, mirror, copied, before = mirrored
    server.terminate()
    flags = on_kafka(target.bootstrap, TOPICS.prefix)
    old = Server(tmp_path / "node", *flags).launch()
    assert old.wait() == 1, "no node goes on with another log by itself"
    adopt = ["topics", "adopt", "--data-dir", str(tmp_path / "node"), *flags]
    assert "message.timestamp.type is not LogAppendTime" in run(adopt, capsys)
    assert main([*adopt, "--yes"]) == 1
    assert "message.timestamp.type is not LogAppendTime" in capsys.readouterr().err
    mirror.end()
    said = run(adopt, capsys)
    assert "records were not copied" in said
    assert "with --yes the state is kept" in said
    fresh = Server(tmp_path / "fresh", *flags, "--node", "fresh").start()
    assert everything(fresh.url) == copied
    assert "no known framing" in httpx.get(f"{fresh.url}/admin/dlq", timeout=WAIT_S).text
    assert "it holds more than the log" in run([*adopt, "--yes"], capsys)
    old.launch()
    until(lambda: is_held(old.url), WAIT_S)
    assert old.terminate() == 0
    repair = ["journal", "repair", "--data-dir", str(tmp_path / "node"), *flags, "--write-back"]
    assert "20 points are written to the log" in run(repair, capsys)
    old.start()
    assert everything(old.url) == before
    until(lambda: everything(fresh.url) == before, WAIT_S)
    for node in (old, fresh):
        assert node.terminate() == 0


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that succeeds."""
    status = main(arguments)
    said: Callable[[], Any] = capsys.readouterr
    out, err = said()
    assert status == 0, out + err
    return str(out)
