"""A node on a Kafka as companies and providers run it: TLS, SASL, and access control lists that deny by default."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import orjson
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from journal.topics import Topics
from replayer.projections.dead_letters import MIN_TRIM
from tests.conftest import result, until, wait_ready
from tests.kafka_server import fetch_jars
from tests.secured_kafka import KEY_PASSWORD, USERS, SecuredKafka, secured_kafka_or_skip
from tests.server import Server, on_kafka
from vecraft.cli import main

pytestmark = pytest.mark.kafka

REPO = Path(__file__).parents[2]
WAIT_S = 60
SHORT_S = "1"
"""How long commands wait for Kafka where it does not answer."""
VECTORS = {"vectors": {"size": 2, "distance": "Dot"}}

Config = dict[str, str]
Write = Callable[[Config], list[str]]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = secured_kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield kafka
    kafka.stop()


@pytest.fixture(scope="module")
def admin(kafka: SecuredKafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file; returns the flag for it."""

    def write(config: Config) -> list[str]:
        path = tmp_path / f"{uuid4().hex}.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        return ["--kafka-config", str(path)]

    return write


def scram(kafka: SecuredKafka, user: str) -> Config:
    """How a user connects to `kafka.sasl`."""
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(kafka.files.ca),
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": user,
        "sasl.password": USERS[user],
    }


def mutual_tls(kafka: SecuredKafka) -> Config:
    """How a client with a certificate connects to `kafka.tls`."""
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": str(kafka.files.ca),
        "ssl.certificate.location": str(kafka.files.client),
        "ssl.key.location": str(kafka.files.client_key),
        "ssl.key.password": KEY_PASSWORD,
    }


def grant(kafka: SecuredKafka, folder: Path, *arguments: str) -> None:
    """Runs the script for operators, with Kafka's own tool."""
    tool = folder / "kafka-acls"
    tool.write_text(f'#!/bin/sh\nexec java -cp "{fetch_jars()}/*" org.apache.kafka.tools.AclCommand "$@"\n')
    tool.chmod(0o755)
    command = [REPO / "infra/kafka/grant-acls.sh", "--bootstrap-server", kafka.bootstrap, "--tool", tool, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def produce(config: Config, bootstrap: str, topic: str, *values: bytes) -> list[str]:
    """What a producer of its own gets for each value: an error's name, or nothing."""
    errors: list[str] = []
    producer = Producer({"bootstrap.servers": bootstrap, **config})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, message: errors.append(error.name() if error else ""))
    assert producer.flush(WAIT_S) == 0
    return errors


def test_each_role_has_the_documented_rights_and_no_more(
    kafka: SecuredKafka, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node starts, writes, reads, ingests, buries a dead letter, and cuts its topic; the others do what they are for."""
    prefix = "documented"
    topics = Topics(prefix)
    roles = [argument for role in USERS if role != "nobody" for argument in (f"--{role}", f"User:{role}")]
    grant(kafka, tmp_path, "--prefix", prefix, *roles)
    flags = {user: on_kafka(kafka.sasl, prefix) + write(scram(kafka, user)) for user in USERS}
    assert main(["topics", "create", *flags["node"]]) == 1
    assert "Kafka does not allow creating topic documented." in capsys.readouterr().err
    assert main(["topics", "create", *flags["operator"]]) == 0
    assert main(["topics", "check", *flags["operator"]]) == 0
    server = Server(tmp_path / "node", *flags["node"], "--node", "left", "--dead-letters-max", "1").start()
    try:
        result(httpx.put(f"{server.url}/collections/c", json=VECTORS, timeout=WAIT_S))
        body = {"points": [{"id": 1, "vector": [1, 1]}]}
        headers = {"X-Request-Id": "mine"}
        result(httpx.put(f"{server.url}/collections/c/points?wait=true", json=body, headers=headers, timeout=WAIT_S))
        record = {"collection": "c", "id": 2, "vector": [1, 0], "payload": {"by": "kafka"}}
        values = [orjson.dumps(record), *[b"nonsense"] * (MIN_TRIM + 1)]
        assert set(produce(scram(kafka, "producer"), kafka.sasl, topics.ingest, *values)) == {""}
        assert produce(scram(kafka, "producer"), kafka.sasl, topics.tier(1), b"x") == ["TOPIC_AUTHORIZATION_FAILED"]

        def read() -> list[object]:
            ask = httpx.post(f"{server.url}/collections/c/points?consistency=strong", json={"ids": [1, 2]}, timeout=WAIT_S)
            return [point.get("payload") for point in result(ask)]

        until(lambda: {"by": "kafka"} in read(), WAIT_S)
        assert lag_is_read(kafka, scram(kafka, "dashboard"), topics)
        dead = TopicPartition(topics.dead_letters, 0)
        until(lambda: start_of(scram(kafka, "dashboard"), kafka.sasl, dead) > 0, WAIT_S)
        capsys.readouterr()
        assert main(["journal", "show", "mine", *flags["reader"]]) == 0
        assert "Upsert 1" in capsys.readouterr().out
        state = httpx.get(f"{server.url}/admin/health").json()
        assert (state["kafka"]["state"], "failure" in state) == ("well", False)
    finally:
        server.kill()
    said = "".join(line for line in server.log if "dead letter:" not in line)
    assert not re.search("WARNING|ERROR", said), said
    assert USERS["node"] not in said


def is_committed(tool: Consumer, asked: list[TopicPartition]) -> bool:
    return any(found.offset > 0 for found in tool.committed(asked, WAIT_S))


def lag_is_read(kafka: SecuredKafka, config: Config, topics: Topics) -> bool:
    """Whether a dashboard sees what the groups have committed."""
    for group, topic in ((f"{topics.prefix}.replayer.left", topics.system), (f"{topics.prefix}.ingest", topics.ingest)):
        tool = Consumer({"bootstrap.servers": kafka.sasl, "group.id": group, **config})
        asked = [TopicPartition(topic, number) for number in tool.list_topics(topic, WAIT_S).topics[topic].partitions]
        until(partial(is_committed, tool, asked), WAIT_S)
        tool.close()
    return True


def start_of(config: Config, bootstrap: str, partition: TopicPartition) -> int:
    """The first offset that is still there."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **config})  # the variable keeps it alive until it has answered
    (answer,) = admin.list_offsets({partition: OffsetSpec.earliest()}).values()
    return answer.result(WAIT_S).offset


def ways(kafka: SecuredKafka) -> dict[str, tuple[str, Config]]:
    """Addresses and configurations that are right."""
    by_user = scram(kafka, "nobody")
    token = {"sasl.mechanism": "OAUTHBEARER", "enable.sasl.oauthbearer.unsecure.jwt": "true"}
    return {
        "SCRAM": (kafka.sasl, by_user),
        "PLAIN": (kafka.sasl, by_user | {"sasl.mechanism": "PLAIN"}),
        "OAUTHBEARER": (kafka.sasl, by_user | token | {"sasl.oauthbearer.config": "principal=nobody"}),
        "mTLS": (kafka.tls, mutual_tls(kafka)),
    }


@pytest.mark.parametrize("way", ["SCRAM", "PLAIN", "OAUTHBEARER", "mTLS"])
def test_each_way_to_connect(kafka: SecuredKafka, write: Write, capsys: pytest.CaptureFixture[str], way: str) -> None:
    """Who has no rights sees no topic, but is let in."""
    bootstrap, config = ways(kafka)[way]
    assert main(["topics", "describe", "--bootstrap-servers", bootstrap, *write(config)]) == 0
    assert capsys.readouterr().out.count("missing") == 7


MISTAKES = {
    "wrong name of the host": "the host name cannot be resolved",
    "wrong port": "nothing listens there (connection refused)",
    "plain text to TLS": "it closes the connection at once, as one does that expects TLS or SASL: security.protocol is plaintext",
    "SASL in plain text to TLS": "it closes the connection at once, as one does that expects TLS: security.protocol is sasl_",
    "TLS without SASL": "it closes the connection at once, as one does that expects a user name (SASL): security.protocol is ssl",
    "TLS to plain text": "it speaks no TLS, but security.protocol is ssl",
    "SASL to plain text": "it takes no user names (SASL), but security.protocol is sasl_plaintext",
    "authority of others": "its certificate cannot be trusted",
    "authorities of the system": "its certificate cannot be trusted",
    "name that the certificate lacks": "its certificate cannot be trusted",
    "no certificate": "it demands a certificate that it trusts",
    "wrong password, SCRAM": "it does not accept the user name and password",
    "wrong password, PLAIN": "it does not accept the user name and password",
    "wrong mechanism": "it does not offer this sasl.mechanism",
}


def mistaken(kafka: SecuredKafka) -> dict[str, tuple[str, Config]]:
    """Addresses and configurations that are wrong, by the names in MISTAKES."""
    by_user, tls = scram(kafka, "nobody"), {"security.protocol": "SSL", "ssl.ca.location": str(kafka.files.ca)}
    in_plain_text = by_user | {"security.protocol": "SASL_PLAINTEXT"}
    return {
        "wrong name of the host": ("nobody.invalid:9092", by_user),
        "wrong port": ("127.0.0.1:1", by_user),
        "plain text to TLS": (kafka.sasl, {}),
        "SASL in plain text to TLS": (kafka.sasl, in_plain_text),
        "TLS without SASL": (kafka.sasl, tls),
        "TLS to plain text": (kafka.bootstrap, tls),
        "SASL to plain text": (kafka.bootstrap, in_plain_text),
        "authority of others": (kafka.sasl, by_user | {"ssl.ca.location": str(kafka.files.other_ca)}),
        "authorities of the system": (kafka.sasl, {name: text for name, text in by_user.items() if name != "ssl.ca.location"}),
        "name that the certificate lacks": (kafka.misnamed, by_user),
        "no certificate": (kafka.tls, tls),
        "wrong password, SCRAM": (kafka.sasl, by_user | {"sasl.password": "geheim"}),
        "wrong password, PLAIN": (kafka.sasl, by_user | {"sasl.mechanism": "PLAIN", "sasl.password": "geheim"}),
        "wrong mechanism": (kafka.sasl, by_user | {"sasl.mechanism": "SCRAM-SHA-512"}),
    }


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_its_sentence(
    kafka: SecuredKafka, write: Write, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    """With the address; and the password is not in it."""
    bootstrap, config = mistaken(kafka)[mistake]
    flags = ["--bootstrap-servers", bootstrap, "--append-timeout-s", SHORT_S, *write(config)]
    assert main(["topics", "describe", *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vecraft: Kafka: {bootstrap}: {MISTAKES[mistake]}")
    assert "geheim" not in line


@pytest.mark.parametrize("mistake", ["plain text to TLS", "wrong password, SCRAM"])
def test_a_node_with_a_mistake_says_so_once_and_waits(kafka: SecuredKafka, write: Write, tmp_path: Path, mistake: str) -> None:
    bootstrap, config = mistaken(kafka)[mistake]
    server = Server(tmp_path / "node", *on_kafka(bootstrap, "mistaken"), *write(config), "--append-timeout-s", SHORT_S).launch()
    try:
        until(lambda: "failure" in httpx.get(f"{server.url}/admin/health").json(), WAIT_S)
        state = httpx.get(f"{server.url}/admin/health").json()
    finally:
        server.kill()
    cause = f"{bootstrap}: {MISTAKES[mistake]}"
    assert state["kafka"]["state"] == "trouble"
    assert state["kafka"]["since"]
    assert state["kafka"]["causes"][0].startswith(cause)
    assert state["failure"].startswith(f"Kafka: {cause}")
    assert sum(f"WARNING journal.kafka_connection: Kafka: {cause}" in line for line in server.log) == 1
    assert "geheim" not in "".join(server.log)


def allow(admin: AdminClient, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    bindings = [
        AclBinding(kind, name, ResourcePatternType.PREFIXED, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    for future in admin.create_acls(bindings).values():
        future.result(WAIT_S)


def test_a_right_that_is_missing_has_its_sentence(kafka: SecuredKafka, admin: AdminClient, write: Write, tmp_path: Path) -> None:
    """One after the other is granted; each that lacks is named with what it is for, and nothing but its lack stops the node."""
    prefix = "lacking"
    server = Server(tmp_path / "node", *on_kafka(kafka.sasl, prefix), *write(scram(kafka, "nobody"))).launch()

    def failure() -> str:
        return httpx.get(f"{server.url}/admin/health").json().get("failure", "")

    try:
        until(lambda: failure().startswith(f"Kafka does not allow describing topic {prefix}."), WAIT_S)
        allow(admin, "nobody", ResourceType.TOPIC, prefix, AclOperation.DESCRIBE)
        until(lambda: failure().startswith(f"Kafka does not allow creating topic {prefix}."), WAIT_S)
        allow(admin, "nobody", ResourceType.TOPIC, prefix, AclOperation.CREATE)
        until(lambda: failure().startswith("Kafka does not allow reading the configuration of topics"), WAIT_S)
        allow(admin, "nobody", ResourceType.TOPIC, prefix, AclOperation.DESCRIBE_CONFIGS)
        until(lambda: failure().startswith(f"Kafka does not allow use of group {prefix}.replayer.node1"), WAIT_S)
        allow(admin, "nobody", ResourceType.GROUP, prefix, AclOperation.READ)
        until(lambda: failure().startswith(f"Kafka does not allow reading {prefix}."), WAIT_S)
        allow(admin, "nobody", ResourceType.TOPIC, prefix, AclOperation.READ)
        wait_ready(server.url)
        create = partial(httpx.put, f"{server.url}/collections/c", json=VECTORS, timeout=WAIT_S)
        until(lambda: (refused := create()).status_code == 503 and "Kafka does not allow writing" in refused.text, WAIT_S)
        allow(admin, "nobody", ResourceType.TOPIC, prefix, AclOperation.WRITE)
        until(lambda: httpx.put(f"{server.url}/collections/c", json=VECTORS, timeout=WAIT_S).status_code == 200, WAIT_S)
    finally:
        server.kill()
    assert all("docs/kafka.md" in line for line in server.log if "does not allow" in line)


def test_a_password_that_is_changed_while_a_node_runs(
    kafka: SecuredKafka, admin: AdminClient, write: Write, tmp_path: Path
) -> None:
    """One warning when the broker is away, one when it is back and lets nobody in, one line when all is well again."""
    prefix = "changing"
    allow(admin, "nobody", ResourceType.TOPIC, prefix, AclOperation.ALL)
    allow(admin, "nobody", ResourceType.GROUP, prefix, AclOperation.ALL)
    server = Server(tmp_path / "node", *on_kafka(kafka.sasl, prefix), *write(scram(kafka, "nobody"))).start()

    def causes() -> str:
        return "; ".join(httpx.get(f"{server.url}/admin/health").json()["kafka"].get("causes", []))

    try:
        set_password(admin, "another")
        kafka.stop()
        until(lambda: "nothing listens there" in causes(), WAIT_S)
        kafka.start()
        until(lambda: "it does not accept the user name and password" in causes(), WAIT_S)
        set_password(admin, USERS["nobody"])
        until(lambda: not causes(), WAIT_S)
        result(httpx.put(f"{server.url}/collections/c", json=VECTORS, timeout=WAIT_S))
    finally:
        server.kill()
        kafka.restart()
        set_password(admin, USERS["nobody"])
    told = [re.split("journal.kafka_connection: ", line)[1] for line in server.log if "journal.kafka_connection" in line]
    assert [line.partition(" (")[0].strip() for line in told] == [
        f"Kafka: {kafka.sasl}: nothing listens there",
        f"Kafka: {kafka.sasl}: it does not accept the user name and password, or the token",
        f"Kafka: all is well again with {kafka.sasl}",
    ]


def set_password(admin: AdminClient, password: str) -> None:
    """Of the user nobody."""
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    change = UserScramCredentialUpsertion("nobody", credentials, password.encode())

    def changed() -> bool:
        try:
            (future,) = admin.alter_user_scram_credentials([change]).values()
            future.result(WAIT_S)
        except KafkaException:  # the broker has just started
            return False
        return True

    until(changed, WAIT_S)
