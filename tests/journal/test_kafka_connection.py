"""What is told about brokers that cannot be reached: the cause in plain words, once, with the address, and when it is over."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from journal.kafka_connection import Connection, Probed, cause_of
from tests.journal.waits import WAIT_S

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
VERIFY = (
    "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, "
    "verify that ssl.ca.location is correctly configured"
)
CREDENTIALS = "SASL authentication error: Authentication failed during authentication due to invalid credentials"
CLOSED = "Disconnected: connection closed by peer: receive 0 after POLLIN"


@pytest.mark.parametrize(
    ("protocol", "said", "cause"),
    [
        ("plaintext", "Failed to resolve 'broker:9092': Name or service not known", "the host name cannot be resolved"),
        ("plaintext", "Connect to ipv4#127.0.0.1:9092 failed: Connection refused", "nothing listens there"),
        ("plaintext", "Connect to ipv4#10.0.0.1:9092 failed: No route to host", "it cannot be connected to"),
        ("plaintext", CLOSED, "it closes the connection at once, as one does that expects TLS or SASL"),
        ("sasl_plaintext", CLOSED, "it closes the connection at once, as one does that expects TLS:"),
        (
            "ssl",
            "Disconnected: SSL connection closed by peer",
            "it closes the connection at once, as one does that expects a user",
        ),
        (
            "sasl_ssl",
            "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener?",
            "it speaks no TLS, but security.protocol is sasl_ssl",
        ),
        ("ssl", VERIFY, "its certificate cannot be trusted: ssl.ca.location"),
        (
            "ssl",
            "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42",
            "it demands a",
        ),
        ("sasl_ssl", CREDENTIALS, "it does not accept the user name and password"),
        ("sasl_ssl", "SASL authentication error: Authentication failed: Invalid username or password", "it does not accept the"),
        (
            "sasl_ssl",
            "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: XYZ",
            "it does not offer this sasl.mechanism",
        ),
        (
            "sasl_plaintext",
            "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported",
            "it takes no user names (SASL), but security.protocol is sasl_plaintext",
        ),
        ("ssl", "what nobody has seen yet", "no connection comes about (what nobody has seen yet)"),
    ],
)
@pytest.mark.parametrize(
    "form", ["{} (after 3ms in state CONNECT)", "{} (after 0ms in state CONNECT, 5 identical error(s) suppressed)"]
)
@pytest.mark.parametrize("at", ["ssl://[::1]:9092/bootstrap: ", "[thrd:ssl://b.org:9092/1]: ssl://b.org:9092/1: "])
def test_each_cause_is_told_apart(protocol: str, said: str, cause: str, form: str, at: str) -> None:
    """As librdkafka 2.16 says it of a real broker, reported or logged."""
    found = cause_of([at + form.format(said)], protocol, 3.0)
    assert found.startswith(cause)
    assert "identical" not in found


def test_the_telling_line_decides() -> None:
    said = [
        f"ssl://b:1/bootstrap: {text}"
        for text in ("Disconnected", "error:0A000086:SSL routines::certificate verify failed", VERIFY)
    ]
    assert cause_of(said, "ssl", 3.0).startswith("its certificate cannot be trusted")
    assert cause_of([], "ssl", 3.0) == "it does not answer within 3 s"


class Cluster:
    """Answers probes as the test says, and counts them."""

    def __init__(self) -> None:
        self.causes: dict[str, str] = {}
        self.brokers = ["a:1", "b:1"]
        self.probed: list[str] = []
        self.now = NOON

    def probe(self, address: str) -> Probed:
        self.probed.append(address)
        cause = self.causes.get(address, "")
        return Probed(cause) if cause else Probed("", self.brokers)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def connection(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> Connection:
    caplog.set_level("INFO", "journal.kafka_connection")
    return Connection("a:1, b:1", cluster.probe, lambda: cluster.now)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_a_failing_broker_is_told_when_it_begins_when_the_cause_changes_and_when_it_ends(
    cluster: Cluster, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    assert connection.state() == (True, NOON, (), ())
    cluster.causes["a:1"] = "refused (1.2.3.4)"
    for _ in range(100):
        connection.suspect("a:1/bootstrap: whatever (after 0ms in state CONNECT)")
    cluster.now += timedelta(seconds=1)
    assert connection.check()
    assert told(caplog) == [("WARNING", "Kafka: a:1: refused (1.2.3.4)")]
    cluster.causes["a:1"] = "refused (1.2.3.5)"
    assert connection.check()
    assert told(caplog) == []
    assert connection.state() == (False, cluster.now, ("a:1: refused (1.2.3.5)",), ())
    cluster.causes["a:1"] = "silent"
    assert connection.check()
    assert told(caplog) == [("WARNING", "Kafka: a:1: silent")]
    cluster.causes.clear()
    cluster.now += timedelta(seconds=1)
    assert not connection.check()
    assert told(caplog) == [("INFO", "Kafka: all is well again with a:1")]
    assert connection.state() == (True, cluster.now, (), ())


def test_while_all_is_well_nothing_is_probed(cluster: Cluster, connection: Connection) -> None:
    assert not connection.check()
    assert cluster.probed == []


def test_a_report_alone_is_no_trouble(cluster: Cluster, connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    """Brokers close idle connections, and leaders move."""
    connection.suspect("a:1/1: Disconnected (after 600000ms in state UP)")
    assert not connection.check()
    assert cluster.probed == ["a:1"]
    assert told(caplog) == []


def test_a_report_without_an_address_is_about_those_to_start_from(cluster: Cluster, connection: Connection) -> None:
    connection.suspect("2/2 brokers are down")
    connection.check()
    assert cluster.probed == ["a:1", "b:1"]


def test_an_address_that_the_cluster_gave_says_so(
    cluster: Cluster, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """The most frequent mistake: the broker is reached, and sends its clients to a name that they cannot resolve."""
    cluster.brokers = ["kafka:9092"]
    cluster.causes["kafka:9092"] = "the host name cannot be resolved"
    connection.suspect("kafka:9092/1: Failed to resolve 'kafka:9092': Name or service not known (after 1ms in state CONNECT)")
    assert connection.check()
    ((_, text),) = told(caplog)
    assert text.startswith("Kafka: kafka:9092: the host name cannot be resolved (the cluster gives this address to its clients")


def test_a_broker_that_left_the_cluster_is_forgotten(cluster: Cluster, connection: Connection) -> None:
    """I11: else it would be probed for ever."""
    cluster.brokers = ["a:1", "old:1"]
    cluster.causes["old:1"] = "refused"
    connection.suspect(
        "GroupCoordinator: old:1: Connect to ipv4#1.1.1.1:1 failed: Connection refused (after 0ms in state CONNECT)"
    )
    assert connection.check()
    cluster.brokers = ["a:1"]
    assert not connection.check()
    assert connection.state().well


def test_watching_ends_when_it_is_told_so(cluster: Cluster, connection: Connection) -> None:
    """Idle, and while a broker fails."""
    for causes in ({}, {"a:1": "refused"}):
        cluster.causes = causes
        connection = Connection("a:1", cluster.probe)
        watching = threading.Thread(target=connection.watch, daemon=True)
        watching.start()
        if causes:
            connection.suspect("1/1 brokers are down")
        connection.close()
        watching.join(WAIT_S)
        assert not watching.is_alive()


def test_a_remark_is_logged_once(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        connection.remark(["one copy"])
    assert told(caplog) == [("WARNING", "Kafka: one copy")]
    assert connection.state().remarks == ("one copy",)
    assert connection.state().well
