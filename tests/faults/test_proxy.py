"""The network that other tests spoil: what passes through the proxy, what does not, and what a Kafka producer makes of it."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.faults.proxy import CHUNK_BYTES, TcpProxy, proxies
from tests.kafka_server import BROKER_PORTS, KafkaCluster, free_port, kafka_cluster_or_skip

WAIT_S, SILENCE_S = 30, 0.2
DELAY_S = 0.1


class Echo:
    """A server that sends back what it gets, also after the client has said its last; `ended` counts the ends it has seen."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(connection,), daemon=True).start()

    def echo(self, connection: socket.socket) -> None:
        said = b""
        with connection:
            while chunk := connection.recv(1 << 16):
                said += chunk
                connection.sendall(chunk)
            connection.sendall(b"%d bytes" % len(said))
        self.ended.release()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)  # wakes accept
    server.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy(free_port(BROKER_PORTS), echo.port) as proxy:
        yield proxy


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_S)


def read(client: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer if the connection ends."""
    with client.makefile("rb", buffering=0) as stream:
        said = b""
        while len(said) < count and (chunk := stream.read(count - len(said))):
            said += chunk
    return said


def says(client: socket.socket, text: bytes) -> bytes:
    """What comes back, read while the text is still being sent."""
    sender = threading.Thread(target=client.sendall, args=(text,))
    sender.start()
    said = read(client, len(text))
    sender.join(WAIT_S)
    return said


def is_silent(client: socket.socket) -> bool:
    """Neither a byte nor an end comes. That takes time to see: shorter waits can only make this test too kind."""
    client.settimeout(SILENCE_S)
    try:
        return client.recv(1) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(WAIT_S)


def has_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_what_is_sent_comes_back_whole(proxy: TcpProxy) -> None:
    text = bytes(range(256)) * 40_000
    with connect(proxy) as client:
        assert says(client, text) == text


def test_the_end_of_one_direction_leaves_the_other_open(proxy: TcpProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read(client, 100) == b"last words" + b"10 bytes"
    assert echo.ended.acquire(timeout=WAIT_S)


def test_a_client_without_a_target_is_turned_away() -> None:
    with TcpProxy(free_port(BROKER_PORTS), target_port=free_port(BROKER_PORTS)) as proxy, connect(proxy) as client:
        assert has_ended(client)


def test_a_delay_is_paid_in_each_direction(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        assert says(client, b"warm") == b"warm"
        proxy.delay(DELAY_S)
        started = time.monotonic()
        assert says(client, b"late") == b"late"
        assert time.monotonic() - started >= 2 * DELAY_S


def test_a_delay_is_latency_and_no_narrow_pipe(proxy: TcpProxy) -> None:
    """Chunks wait side by side: hundreds of them take much less than a hundred delays, and none overtakes another."""
    text = b"".join(b"%08d" % number for number in range(100 * CHUNK_BYTES // 8))
    with connect(proxy) as client:
        proxy.delay(DELAY_S)
        started = time.monotonic()
        assert says(client, text) == text
        assert time.monotonic() - started < 50 * DELAY_S


def test_a_cut_ends_connections_and_refuses_new_ones(proxy: TcpProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        assert says(client, b"hello") == b"hello"
        proxy.cut()
        assert has_ended(client)
        assert echo.ended.acquire(timeout=WAIT_S)
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    proxy.heal()
    with connect(proxy) as client:
        assert says(client, b"again") == b"again"


def test_what_a_cut_catches_on_its_way_is_lost(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        assert says(client, b"warm") == b"warm"
        proxy.delay(WAIT_S)
        client.sendall(b"late")
        proxy.cut()
        assert has_ended(client)


def test_half_open_connections_stay_and_carry_nothing(proxy: TcpProxy, echo: Echo) -> None:
    with connect(proxy) as old:
        assert says(old, b"hello") == b"hello"
        proxy.half_open()
        with connect(proxy) as new:
            old.sendall(b"lost")
            new.sendall(b"lost")
            assert is_silent(old)
            assert is_silent(new)
        old.shutdown(socket.SHUT_WR)
        assert not echo.ended.acquire(timeout=SILENCE_S)  # an end is news, too
        proxy.heal()
        assert has_ended(old)
        assert echo.ended.acquire(timeout=WAIT_S)
    with connect(proxy) as client:
        assert says(client, b"again") == b"again"


def test_healing_spares_connections_that_lost_nothing(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        proxy.delay(DELAY_S)
        assert says(client, b"slow") == b"slow"
        proxy.heal()
        started = time.monotonic()
        assert says(client, b"fast") == b"fast"
        assert time.monotonic() - started < DELAY_S


def test_half_open_and_cut_may_follow_each_other(proxy: TcpProxy) -> None:
    with connect(proxy) as client:
        proxy.half_open()
        proxy.half_open()
        proxy.cut()
        assert has_ended(client)
    proxy.cut()
    proxy.heal()
    with connect(proxy) as client:
        assert says(client, b"again") == b"again"


def test_closing_leaves_nothing_behind(echo: Echo) -> None:
    proxy = TcpProxy(free_port(BROKER_PORTS), echo.port)
    with connect(proxy) as client:
        assert says(client, b"hello") == b"hello"
        proxy.close()
        proxy.close()
        assert has_ended(client)
    assert not [thread for thread in threading.enumerate() if thread.name == f"proxy-{proxy.port}"]
    TcpProxy(proxy.port, echo.port).close()


def test_a_port_that_is_taken_is_an_error(proxy: TcpProxy) -> None:
    with pytest.raises(OSError, match="in use"):
        TcpProxy(proxy.port, 1)
    with connect(proxy) as client:
        assert says(client, b"hello") == b"hello"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    cluster = kafka_cluster_or_skip(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_producer_behind_the_proxies_stops_with_them_and_goes_on(cluster: KafkaCluster) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic("proxied", 1, 3)])["proxied"].result(WAIT_S)
    acknowledged: list[bytes | None] = []

    def note(error: KafkaError | None, message: Message) -> None:
        assert error is None
        acknowledged.append(message.value())

    with proxies(cluster) as network:
        producer = Producer({"bootstrap.servers": cluster.proxied_bootstrap, "acks": "all", "reconnect.backoff.max.ms": 500})
        producer.produce("proxied", b"before", on_delivery=note)
        assert producer.flush(WAIT_S) == 0
        for proxy in network:
            proxy.cut()
        producer.produce("proxied", b"during", on_delivery=note)
        assert producer.flush(2) == 1  # what takes milliseconds otherwise
        assert acknowledged == [b"before"]
        for proxy in network:
            proxy.heal()
        assert producer.flush(WAIT_S) == 0
    assert acknowledged == [b"before", b"during"]
