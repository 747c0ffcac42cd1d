"""The broker that other tests trust: acknowledged records outlive a kill, the address stays, no broker outlives its tests."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests import kafka_server
from tests.conftest import until
from tests.kafka_server import KafkaCluster, KafkaServer, available, fetch_jars, kafka_cluster_or_skip, kafka_or_skip

WAIT_S = 30


@pytest.fixture(scope="module", params=["java", "container"])
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    if request.param == "java":
        server = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    elif reason := kafka_server.why_not_docker():
        pytest.skip(reason)
    else:
        server = kafka_server.testcontainers_server().start()
    yield server
    server.stop()


def create_topic(kafka: KafkaServer | KafkaCluster, topic: str, partitions: int = 1, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    config = {"min.insync.replicas": "2"} if replicas > 1 else {}
    admin.create_topics([NewTopic(topic, partitions, replicas, config=config)])[topic].result(WAIT_S)


def produce(kafka: KafkaServer | KafkaCluster, topic: str, values: list[bytes]) -> None:
    """Returns when the broker has acknowledged every value."""
    failures: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(WAIT_S) == 0
    assert failures == []


def consume(kafka: KafkaServer | KafkaCluster, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Message] = []
    deadline = time.monotonic() + WAIT_S
    while len(messages) < count and time.monotonic() < deadline:
        messages += consumer.consume(count - len(messages), timeout=1)
    consumer.close()
    return [message.value() for message in messages]


@pytest.mark.kafka
def test_a_started_broker_answers_at_its_bootstrap_address_alone(kafka: KafkaServer) -> None:
    cluster = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=WAIT_S)
    assert [f"{broker.host}:{broker.port}" for broker in cluster.brokers.values()] == [kafka.bootstrap]


@pytest.mark.kafka
def test_a_topic_that_nobody_created_does_not_exist(kafka: KafkaServer) -> None:
    with pytest.raises(KafkaException) as refused:
        Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader"}).get_watermark_offsets(TopicPartition("nobody", 0))
    assert refused.value.args[0].code() == KafkaError._UNKNOWN_PARTITION


@pytest.mark.kafka
def test_acknowledged_records_survive_a_kill(kafka: KafkaServer) -> None:
    address, values = kafka.bootstrap, [b"%d" % i for i in range(1000)]
    create_topic(kafka, "killed")
    produce(kafka, "killed", values)
    kafka.kill()
    kafka.restart()
    assert kafka.bootstrap == address
    produce(kafka, "killed", [b"after"])
    assert consume(kafka, "killed", 1001) == [*values, b"after"]


@pytest.mark.kafka
def test_a_clean_restart_keeps_what_a_group_committed(kafka: KafkaServer) -> None:
    create_topic(kafka, "restarted")
    produce(kafka, "restarted", [b"a", b"b"])
    committed = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "group"})
    committed.commit(offsets=[TopicPartition("restarted", 0, 2)], asynchronous=False)
    kafka.restart()

    def is_kept() -> bool:
        try:
            return [p.offset for p in committed.committed([TopicPartition("restarted", 0)], timeout=WAIT_S)] == [2]
        except KafkaException as error:  # the broker answers before it has loaded the group
            if error.args[0].code() != KafkaError.NOT_COORDINATOR:
                raise
            return False

    until(is_kept, WAIT_S)
    committed.close()


@pytest.fixture
def java() -> None:
    if reason := kafka_server.why_not_java():
        pytest.skip(reason)


@pytest.mark.kafka
@pytest.mark.usefixtures("java")
class TestTheJavaProcess:
    def test_a_failed_start_shows_the_end_of_the_log(self, tmp_path: Path) -> None:
        kafka = KafkaServer(tmp_path)
        with socket.create_server(("127.0.0.1", kafka.port)), pytest.raises(RuntimeError, match="Address already in use"):
            kafka.start()
        assert kafka._process is None

    @pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
    def test_dies_with_the_tests_that_started_it(self, tmp_path: Path) -> None:
        script = "import sys; from pathlib import Path; from tests.kafka_server import KafkaServer\n"
        script += "kafka = KafkaServer(Path(sys.argv[1])).start(); print(kafka._process.pid, flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, cwd=kafka_server.REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tests:
            assert tests.stdout is not None
            broker = os.pidfd_open(int(tests.stdout.readline()))
            assert select.select([broker], [], [], 0)[0] == []
            tests.send_signal(signal.SIGKILL)
        assert select.select([broker], [], [], WAIT_S)[0] == [broker]
        os.close(broker)

    def test_a_paused_broker_is_silent_and_can_be_stopped_and_killed(self, tmp_path: Path) -> None:
        with KafkaServer(tmp_path) as kafka:
            kafka.pause()
            kafka.pause()
            with pytest.raises(KafkaException):
                AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=1)
            kafka.stop()
            assert (tmp_path / "logs" / ".kafka_cleanshutdown").exists()
            kafka.start().pause()
            kafka.kill()
            assert not (tmp_path / "logs" / ".kafka_cleanshutdown").exists()
            kafka.start()


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    cluster = kafka_cluster_or_skip(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(shared_cluster: KafkaCluster) -> KafkaCluster:
    """Whole again, whatever the test before has done to it."""
    return shared_cluster.start()


def end(cluster: KafkaCluster, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader"})
    return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT_S)[1]


def failure(cluster: KafkaCluster, topic: str, value: bytes) -> KafkaError | None:
    """What one try to produce ends with, in two seconds."""
    failures: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "message.timeout.ms": 2000})
    producer.produce(topic, value, partition=0, on_delivery=lambda error, _: failures.append(error))
    assert producer.flush(WAIT_S) == 0
    return failures[0]


def await_leader_but(cluster: KafkaCluster, topic: str, old: KafkaServer) -> KafkaServer:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:  # each ask is a round trip
        if (leader := cluster.leader_of(topic, 0)) is not old:
            return leader
    raise AssertionError(f"nobody took over from the broker at {old.bootstrap}")


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
class TestTheCluster:
    def test_every_broker_answers_at_its_own_address(self, cluster: KafkaCluster) -> None:
        metadata = AdminClient({"bootstrap.servers": cluster.bootstrap}).list_topics(timeout=WAIT_S)
        addresses = [f"{broker.host}:{broker.port}" for _, broker in sorted(metadata.brokers.items())]
        assert addresses == [broker.bootstrap for broker in cluster.brokers] == cluster.bootstrap.split(",")

    def test_who_comes_behind_a_proxy_is_sent_to_proxies_alone(self, cluster: KafkaCluster) -> None:
        behind = f"127.0.0.1:{cluster.brokers[0].proxied.listens}"
        metadata = AdminClient({"bootstrap.servers": behind}).list_topics(timeout=WAIT_S)
        addresses = [f"{broker.host}:{broker.port}" for _, broker in sorted(metadata.brokers.items())]
        assert addresses == cluster.proxied_bootstrap.split(",")

    def test_acknowledged_records_survive_the_kill_of_the_leader(self, cluster: KafkaCluster) -> None:
        create_topic(cluster, "led", replicas=3)
        values = [b"%d" % i for i in range(1000)]
        produce(cluster, "led", values)
        leader = cluster.leader_of("led", 0)
        leader.kill()
        assert cluster.leader_of("led", 0) is not leader
        produce(cluster, "led", [b"after"])
        assert consume(cluster, "led", 1001) == [*values, b"after"]
        leader.start()
        cluster.wait_in_sync()

    def test_one_of_three_takes_nothing_until_the_others_are_back(self, cluster: KafkaCluster) -> None:
        create_topic(cluster, "outvoted", replicas=3)
        create_topic(cluster, "alone", partitions=3)  # each broker holds one, so that each is missed when it is down
        produce(cluster, "outvoted", [b"before"])
        first, second = [broker for broker in cluster.brokers if broker is not cluster.leader_of("outvoted", 0)]
        first.kill()
        second.kill()
        assert failure(cluster, "outvoted", b"perhaps") is not None
        first.start()
        produce(cluster, "outvoted", [b"two are enough"])
        second.start()
        cluster.wait_in_sync()
        produce(cluster, "outvoted", [b"after"])
        found = consume(cluster, "outvoted", end(cluster, "outvoted"))
        assert [value for value in found if value != b"perhaps"] == [b"before", b"two are enough", b"after"]

    def test_a_paused_leader_is_replaced_and_comes_back_as_a_follower(self, cluster: KafkaCluster) -> None:
        create_topic(cluster, "paused", replicas=3)
        produce(cluster, "paused", [b"before"])
        paused = cluster.leader_of("paused", 0)
        paused.pause()
        taken_over = await_leader_but(cluster, "paused", paused)
        produce(cluster, "paused", [b"during"])
        paused.resume()
        cluster.wait_in_sync()
        assert cluster.leader_of("paused", 0) is taken_over
        produce(cluster, "paused", [b"after"])
        assert consume(cluster, "paused", 3) == [b"before", b"during", b"after"]

    def test_the_data_outlive_a_crash_of_all(self, cluster: KafkaCluster) -> None:
        create_topic(cluster, "crashed", replicas=3)
        produce(cluster, "crashed", [b"before"])
        for broker in cluster.brokers:
            broker.kill()
        cluster.start()
        assert consume(cluster, "crashed", 1) == [b"before"]


def use_maven(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """A stand-in for Maven: `$out` is the output folder it is asked for."""
    (folder / "mvn").write_text(f'#!/bin/sh\nfor last; do :; done; out="${{last#*=}}"\n{script}\n')
    (folder / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(kafka_server, "JARS", folder / "cache" / "kafka")


def test_processes_that_need_the_jars_at_once_fetch_them_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_maven(monkeypatch, tmp_path, f'echo run >>"{tmp_path}/runs"; mkdir "$out"; echo >"$out/kafka.jar"')
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch_jars(), range(4)))
    assert folders == [tmp_path / "cache" / "kafka"] * 4
    assert [file.name for file in folders[0].iterdir()] == ["kafka.jar"]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_fetch_that_fails_half_way_leaves_no_jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_maven(monkeypatch, tmp_path, 'mkdir "$out"; echo >"$out/half.jar"; echo "no route to host"; exit 1')
    with pytest.raises(RuntimeError, match="no route to host"):
        fetch_jars()
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == [".gitignore", "kafka.lock"]


def test_without_java_and_docker_a_test_is_skipped_but_fails_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kafka_server, "why_not_docker", lambda: "no docker")
    reason = available()
    assert reason is not None
    assert reason.startswith("no Kafka broker can run here: no java")
    assert reason.endswith("; no docker")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no java"):
        kafka_or_skip(tmp_path)
    with pytest.raises(pytest.skip.Exception, match="three brokers need Java and Maven: no java"):
        kafka_cluster_or_skip(tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no java"):
        kafka_or_skip(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="three brokers need Java and Maven: no java"):
        kafka_cluster_or_skip(tmp_path)
