"""The properties file of Kafka clients: its form, its references, what it may not say, and that it keeps secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import journal.kafka
from journal.kafka import KafkaJournal
from journal.kafka_config import MAX_FILE_BYTES, KafkaConfig, KafkaConfigError, load_kafka_config
from journal.log import TopicPartition
from tests.conftest import until
from tests.journal.waits import WAIT_S

SECRET = "a-secret-that-nobody-sees"
DOCUMENT = Path(__file__).parents[2] / "docs/kafka.md"

Load = Callable[[str], KafkaConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a file with this text; `KEY` is a variable and `secret` a file beside it."""

    def load(text: str) -> KafkaConfig:
        (tmp_path / "secret").write_text(f"{SECRET}\n")
        (tmp_path / "kafka.properties").write_text(text.replace("HERE", str(tmp_path)))
        return load_kafka_config(tmp_path / "kafka.properties", {"KEY": f"env-{SECRET}"})

    return load


def test_the_form_is_that_of_properties_files(load: Load) -> None:
    text = "# TLS\n\nsecurity.protocol = SASL_SSL\r\nsasl.username=a=b # c\n  ssl.ca.location=/etc/ca.pem\n"
    assert load(text).over({"linger.ms": 0}) == {
        "linger.ms": 0,
        "security.protocol": "SASL_SSL",
        "sasl.username": "a=b # c",
        "ssl.ca.location": "/etc/ca.pem",
    }


def test_the_file_overrules_defaults(load: Load) -> None:
    assert load("linger.ms=5").over({"linger.ms": 0}) == {"linger.ms": "5"}


def test_references_stand_for_files_and_variables(load: Load) -> None:
    config = load(
        "sasl.password=${file:HERE/secret}\nsasl.username=${env:KEY}\nsasl.oauthbearer.config=a=${env:KEY} b=${env:KEY}"
    )
    assert config.over({}) == {
        "sasl.password": SECRET,
        "sasl.username": f"env-{SECRET}",
        "sasl.oauthbearer.config": f"a=env-{SECRET} b=env-{SECRET}",
    }


def test_what_a_reference_brings_is_not_resolved_again(tmp_path: Path) -> None:
    (tmp_path / "kafka.properties").write_text("sasl.password=${env:KEY}")
    config = load_kafka_config(tmp_path / "kafka.properties", {"KEY": "${env:OTHER}"})
    assert config.over({}) == {"sasl.password": "${env:OTHER}"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sasl.password", "line 1: it is not of the form name=value"),
        ("# first\n=x", "line 2: it is not of the form name=value"),
        ("sasl.username=a\nsasl.username=b", "line 2: sasl.username is there twice"),
        ("sasl.password=${env:NOBODY}", "line 1: sasl.password: there is no variable NOBODY"),
        ("sasl.password=${file:/nowhere}", "line 1: sasl.password: file /nowhere cannot be read: No such file or directory"),
        ("sasl.password=${vault:x}", "line 1: sasl.password: ${vault:…} is not known"),
        ("acks=all", "line 1: acks cannot be set here: acknowledged means"),
        ("enable.idempotence=true", "acknowledged means"),
        ("isolation.level=read_committed", "isolation.level cannot be set here"),
        ("enable.auto.commit=true", "nodes keep their positions themselves"),
        ("auto.offset.reset=latest", "nodes keep their positions themselves"),
        ("bootstrap.servers=x:1", "bootstrap.servers cannot be set here: --bootstrap-servers has it"),
        ("client.id=x", "client.id cannot be set here"),
        ("delivery.report.only.error=true", "writes wait for the acknowledgement"),
        ("test.mock.num.brokers=3", "a simulated cluster"),
        ("error_cb=x", "it is no setting for a file"),
        ("logger=x", "it is no setting for a file"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_line(load: Load, text: str, said: str) -> None:
    with pytest.raises(KafkaConfigError, match=re.escape(said)) as refused:
        load(text)
    assert str(refused.value).startswith("kafka_config ")
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "missing", "No such file"), (tmp_path, "directory")):
        with pytest.raises(KafkaConfigError, match=f"kafka_config {path} cannot be read: .*{said}"):
            load_kafka_config(path, {})


def test_files_are_bounded_and_text(tmp_path: Path, load: Load) -> None:
    """I11; and what is no text is not quoted."""
    (tmp_path / "big").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "binary").write_bytes(SECRET.encode() + b"\xff")
    with pytest.raises(KafkaConfigError, match=f"file {tmp_path}/big has more than {MAX_FILE_BYTES} bytes"):
        load("sasl.password=${file:HERE/big}")
    with pytest.raises(KafkaConfigError, match=f"kafka_config {tmp_path}/big has more than"):
        load_kafka_config(tmp_path / "big", {})
    with pytest.raises(KafkaConfigError, match="binary is not UTF-8 text") as refused:
        load("sasl.password=${file:HERE/binary}")
    assert SECRET not in str(refused.value)
    (tmp_path / "most").write_bytes(b"x" * MAX_FILE_BYTES)
    assert load("sasl.password=${file:HERE/most}").over({})["sasl.password"] == "x" * MAX_FILE_BYTES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no.such.setting=x", 'No such configuration property: "no.such.setting"'),
        ("socket.timeout.ms=soon", 'Invalid value for configuration property "socket.timeout.ms"'),
        ("security.protocol=SSLX", 'Invalid value "SSLX" for configuration property "security.protocol"'),
        ("security.protocol=${env:KEY}", 'Invalid value "(hidden)" for configuration property "security.protocol"'),
        ("sasl.jaas.config=" + SECRET, "Java JAAS configuration is not supported"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.username=me", "sasl.username and sasl.password must be set"),
        ("security.protocol=SSL\nssl.ca.location=/nowhere/ca.pem", "ssl.ca.location failed"),
        ("security.protocol=SSL\nssl.key.pem=" + SECRET, "ssl.key.pem failed"),
        ("linger.ms=60000", "linger.ms"),
        ("fetch.max.bytes=1000000000\nreceive.message.max.bytes=2000", "receive.message.max.bytes"),
    ],
)
def test_what_librdkafka_refuses_is_said_before_anything_connects(
    load: Load, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the settings of a producer and of a consumer; the address is never tried."""
    tried: list[str] = []
    monkeypatch.setattr("journal.kafka.AdminClient", lambda settings: tried.append("admin"))
    with pytest.raises(KafkaConfigError, match=re.escape(said)) as refused:
        KafkaJournal("127.0.0.1:1", config=load(text))
    assert not tried
    assert str(refused.value).startswith("kafka_config ")
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__, "a traceback would show what librdkafka said"


def test_no_secret_is_shown(load: Load) -> None:
    config = load(f"sasl.password=${{file:HERE/secret}}\nssl.key.password={SECRET}\nsasl.username=${{env:KEY}}")
    assert "sasl.password" in repr(config)
    for shown in (
        repr(config),
        str(config),
        str(config.refused(f'Invalid value "{SECRET}"')),
        str(config.refused(f"env-{SECRET}")),
    ):
        assert SECRET not in shown
        assert "env-" not in shown


def test_no_secret_is_in_the_log_when_librdkafka_is_told_to_say_all(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """`debug` writes down each setting; librdkafka itself hides passwords only."""
    caplog.set_level("DEBUG", "journal.kafka")
    text = "debug=conf\nlog_level=7\nsasl.username=${env:KEY}\nsasl.password=${file:HERE/secret}"
    on_kafka = KafkaJournal("127.0.0.1:1", config=load(text))
    until(lambda: "sasl.username = " in caplog.text, WAIT_S)
    on_kafka.close()
    assert SECRET not in caplog.text


class Recorded:
    """Stands in for each class of clients, and keeps the settings that they are made with."""

    made: list[dict[str, Any]]

    def __init__(self, settings: dict[str, Any]) -> None:
        self.made.append(settings)

    def list_topics(self, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(brokers={})

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **more: None


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(Recorded, "made", [], raising=False)
    for name in ("AdminClient", "Producer", "Consumer"):
        monkeypatch.setattr(journal.kafka, name, Recorded)
    return Recorded.made


def settings_of_all_clients(made: list[dict[str, Any]], config: KafkaConfig) -> dict[str, dict[str, Any]]:
    """By the client's role."""
    on_kafka = KafkaJournal("broker:9092", config=config, name="vecraft-left")
    on_kafka.reader()
    on_kafka.join("group", "topic", "left")
    on_kafka.commit("group", {TopicPartition("topic", 0): 1})
    on_kafka._probe("broker:9092")
    on_kafka.close()
    return {settings["client.id"].removeprefix("vecraft-left-"): settings for settings in made}


def test_every_client_connects_as_the_file_says(made: list[dict[str, Any]], load: Load) -> None:
    clients = settings_of_all_clients(made, load("security.protocol=SASL_SSL\nsasl.password=${env:KEY}\nlinger.ms=7"))
    assert clients.keys() == {"writer", "admin", "replayer", "ingest", "committer", "probe"}
    for settings in clients.values():
        assert (settings["security.protocol"], settings["sasl.password"]) == ("SASL_SSL", f"env-{SECRET}")
        assert settings["bootstrap.servers"] == "broker:9092"
    assert clients["writer"]["linger.ms"] == "7"


def test_what_the_database_sets_itself_a_file_may_not(made: list[dict[str, Any]], load: Load) -> None:
    """A setting is either a default that a file overrules, or refused by name; none is overruled in silence."""
    clients = settings_of_all_clients(made, KafkaConfig())
    names = {name for settings in clients.values() for name in settings}
    assert {"acks", "enable.idempotence", "isolation.level", "auto.offset.reset", "group.id"} <= names
    refused, taken = set(), set()
    for name in names:
        try:
            config = load(f"{name}=from-the-file")
        except KafkaConfigError:
            refused.add(name)
            continue
        made.clear()
        clients = settings_of_all_clients(made, config)
        del clients["probe"]  # it listens to more of librdkafka's log than the file may want
        if {settings[name] for settings in clients.values()} == {"from-the-file"}:
            taken.add(name)
    assert refused | taken == names
    assert taken >= {"linger.ms", "socket.timeout.ms", "session.timeout.ms"}


def test_the_document_names_what_is_refused() -> None:
    text = DOCUMENT.read_text()
    named = ("acks", "enable.idempotence", "isolation.level", "enable.auto.commit", "auto.offset.reset", "group.id", "client.id")
    assert all(f"`{name}`" in text for name in named)
