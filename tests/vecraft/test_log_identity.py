"""A node notices that its log is another one, serves nothing from it, and buries nothing (U2, I1, I6, I9)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from journal.kafka import KafkaJournal
from journal.topics import Topics
from tests.conftest import result, until
from tests.kafka_server import KafkaServer, kafka_or_skip
from tests.server import Server, on_kafka

pytestmark = pytest.mark.kafka
WAIT_S = 20


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", "-", request.node.name)[:60].strip("-")


@pytest.fixture
def server(kafka: KafkaServer, tmp_path: Path, prefix: str) -> Iterator[Server]:
    server = Server(tmp_path / "node", *on_kafka(kafka.bootstrap, prefix)).start()
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}, timeout=30))
    for number in range(20):
        for tier in range(4):
            assert put(server.url, 4 * number + tier, tier).status_code == 200
    yield server
    server.kill()


def put(url: str, number: int, tier: int = 1) -> httpx.Response:
    points = [{"id": number, "vector": [1, number]}]
    headers = {"X-Vecraft-Tier": str(tier)}
    return httpx.put(f"{url}/collections/c/points?wait=true", json={"points": points}, headers=headers, timeout=30)


def make_anew(kafka: KafkaServer, prefix: str, name: str) -> None:
    """Deletes a topic and creates it again as it was."""
    topic = f"{prefix}.{name}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([topic])[topic].result(WAIT_S)

    def created() -> bool:
        journal = KafkaJournal(kafka.bootstrap)
        try:
            journal.ensure_topics({topic: Topics(prefix).all()[topic]})
        except Exception:  # it is being deleted
            return False
        finally:
            journal.close()
        return True

    until(created, WAIT_S)


def refused(server: Server, text: str) -> bool:
    """Whether every route but the probes says `text`, and the probes say that the node serves nothing."""
    answer = httpx.get(f"{server.url}/readyz", timeout=30)
    if answer.status_code == 200 or text not in answer.text:  # the replay may have failed first
        return False
    reads = httpx.post(f"{server.url}/collections/c/points/scroll", json={"limit": 3}, timeout=30)
    writes = put(server.url, 1_000)
    assert (reads.status_code, writes.status_code) == (503, 503)
    assert text in reads.json()["status"]["error"]
    assert text in writes.json()["status"]["error"]
    assert httpx.get(f"{server.url}/livez", timeout=30).status_code == 200
    return True


@pytest.mark.parametrize("name", ["tier1", "system"])
def test_a_topic_made_anew_under_a_running_node(kafka: KafkaServer, server: Server, prefix: str, name: str) -> None:
    """The node stops within seconds; what is written meanwhile is never called done, and a restart says the same."""
    make_anew(kafka, prefix, name)
    done = [number for number in range(100, 105) if put(server.url, number).status_code == 200 and name == "tier1"]
    until(lambda: refused(server, "deleted and made anew"), WAIT_S)
    assert not done
    assert server.terminate() == 1
    server.launch()
    assert server.wait() == 1
    assert any(f"topic {prefix}.{name} was deleted and made anew" in line for line in server.log)
    journal = KafkaJournal(kafka.bootstrap)
    dead = Topics(prefix).dead_letter_partition
    assert journal.end_offsets([dead]) == {dead: 0}, "no good record was buried"
    journal.close()


def test_a_cluster_replaced_at_the_same_address(tmp_path: Path, prefix: str) -> None:
    kafka = kafka_or_skip(tmp_path / "kafka")
    server = Server(tmp_path / "node", *on_kafka(kafka.bootstrap, prefix)).start()
    try:
        result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}, timeout=30))
        for number in range(10):
            assert put(server.url, number).status_code == 200
        kafka.stop()
        shutil.rmtree(tmp_path / "kafka" / "logs")
        kafka.cluster_id = "AnotherClusterAltogether"[:22]
        kafka.start()
        until(lambda: refused(server, "missing, and the log has had records"), 60)
        server.kill()
        fresh = Server(tmp_path / "fresh", *on_kafka(kafka.bootstrap, prefix)).start()
        result(httpx.put(f"{fresh.url}/collections/other", json={"vectors": {"size": 2, "distance": "Dot"}}, timeout=30))
        fresh.kill()
        server.launch()
        assert server.wait() == 1
        assert any("deleted and made anew, or the cluster was replaced" in line for line in server.log)
    finally:
        server.kill()
        kafka.stop()


def test_a_missing_topic_is_not_made_beside_records(kafka: KafkaServer, server: Server, prefix: str, tmp_path: Path) -> None:
    """A node without state does not make the topic either: what it held would be lost in silence."""
    server.kill()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    topic = f"{prefix}.tier2"
    admin.delete_topics([topic])[topic].result(WAIT_S)

    def is_gone() -> bool:
        try:
            return topic not in admin.list_topics(timeout=5).topics
        except KafkaException as error:
            return bool(error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART)

    until(is_gone, WAIT_S)
    for folder in (tmp_path / "node", tmp_path / "fresh"):
        late = Server(folder, *on_kafka(kafka.bootstrap, prefix)).launch()
        assert late.wait() == 1
        assert any(f"topic {topic} was missing" in line or f"topic {topic} is missing" in line for line in late.log), late.log
    assert topic not in admin.list_topics(timeout=5).topics


def test_the_second_node_of_a_name_is_refused(kafka: KafkaServer, server: Server, prefix: str, tmp_path: Path) -> None:
    """U2: the first one goes on, also with its ingest; and after its end another one may have the name."""
    until(lambda: httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200, WAIT_S)
    flags = on_kafka(kafka.bootstrap, prefix)
    until(lambda: members(kafka, f"{prefix}.ingest") == 1, WAIT_S)
    second = Server(tmp_path / "second", *flags).launch()
    assert second.wait() == 1
    assert any("another node named node1 is running" in line for line in second.log), second.log
    assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
    assert members(kafka, f"{prefix}.ingest") == 1
    server.kill()
    server.start()  # the same state: it does not wait for the session of its former life
    server.terminate()
    third = Server(tmp_path / "third", *flags).start()
    third.kill()


def members(kafka: KafkaServer, group: str) -> int:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    return sum(len(found.members) for found in admin.list_groups(group, timeout=WAIT_S))
