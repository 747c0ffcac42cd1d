"""Connections that send nothing, half a request, or too much end, and never take the operators' pages away (I11)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.http import connection
from gateway.http.connection import Door
from shard import descriptors
from tests.conftest import start_node, until
from vecraft import node as vecraft_node

MOST = 8
WAIT_S = 20
HEAD = b"POST /collections/c/points/count HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def doors() -> list[Door]:
    """The door of each event loop."""
    return []


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, doors: list[Door]) -> Iterator[str]:
    """The address of a node with one event loop, few connections, and short bounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "HEAD_S", 0.4)
        patch.setattr(connection, "SILENCE_S", 0.8)
        patch.setattr(connection, "SWEEP_S", 0.05)
        patch.setattr(connection, "RESERVED_CONNECTIONS", 3)
        patch.setattr(connection, "MAX_CONNECTIONS", MOST)
        patch.setattr(vecraft_node, "Door", lambda most: doors.append(Door(most)) or doors[-1])
        node, thread = start_node(tmp_path_factory.mktemp("node"), serving_threads=1)
        httpx.put(f"{node.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        yield node.url
        node.stop()
        thread.join(15)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connected(url: str, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    """A connection that has sent some bytes."""
    parts = urlsplit(url)
    one = stack.enter_context(socket.create_connection((parts.hostname or "", parts.port or 0), WAIT_S))
    one.sendall(sent)
    return one


def received(one: socket.socket) -> bytes:
    """What the server sends until it closes the connection. Fails when it does not."""
    data = b""
    try:
        while more := one.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


def is_closed_while_sending(one: socket.socket, piece: bytes) -> bool:
    """Whether the server closes a connection, without an answer, that sends a piece every 20 ms."""
    one.settimeout(0.02)
    for _ in range(900):
        try:
            one.sendall(piece)
            return one.recv(1) == b""
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def _ports(doors: list[Door]) -> set[int]:
    """The clients' ports of all open connections."""
    return {one.client[1] for door in doors for one in list(door._open) if one.client}


def refusal(data: bytes) -> tuple[int, str]:
    """The status of an answer, and the text of its error."""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["status"]["error"]


def test_a_connection_that_stays_silent_is_closed(hasty: str, stack: ExitStack) -> None:
    parts = [b"", b"\r\n\r\n", b"GET /readyz HT", HEAD, HEAD + b"content-length: 2\r\n\r\n", HEAD + b"content-length: 2\r\n\r\n{"]
    silent = [connected(hasty, stack, part) for part in parts]
    assert [received(one) for one in silent] == [b""] * len(parts)


def test_a_head_that_trickles_is_closed(hasty: str, stack: ExitStack) -> None:
    assert is_closed_while_sending(connected(hasty, stack, HEAD), b"x: y\r\n")


def test_a_pause_between_requests_has_another_bound(hasty: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 1.0)
    one = connected(hasty, stack, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    assert one.recv(65536).startswith(b"HTTP/1.1 200")
    idle = connected(hasty, stack)
    assert received(idle) == b""
    one.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    assert one.recv(65536).startswith(b"HTTP/1.1 200"), "the pause is longer than a head may take"
    assert received(one) == b""


@pytest.mark.slow
def test_a_slow_body_that_moves_is_taken(hasty: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes several times as long as a silence may last."""
    body = b'{"exact": true' + b" " * 200_000 + b"}"
    one = connected(hasty, stack, HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body))
    one.settimeout(0.05)
    for start in range(0, len(body), 4000):
        one.sendall(body[start : start + 4000])
        with pytest.raises(TimeoutError):
            one.recv(1)
        if start > 100_000:
            break
    one.settimeout(WAIT_S)
    one.sendall(body[start + 4000 :])
    assert received(one).startswith(b"HTTP/1.1 200")


def test_a_body_that_crawls_is_closed(hasty: str, stack: ExitStack) -> None:
    assert is_closed_while_sending(connected(hasty, stack, HEAD + b"content-length: 1000\r\n\r\n"), b" ")


@pytest.mark.slow
def test_an_answer_that_is_not_read_ends(hasty: str, doors: list[Door], stack: ExitStack) -> None:
    points = [{"id": at, "vector": [1, 1], "payload": {"text": "x" * 800_000}} for at in range(20)]
    for point in points:
        httpx.put(f"{hasty}/collections/c/points?wait=true", json={"points": [point]}).raise_for_status()
    body = json.dumps({"limit": 20, "with_payload": True}).encode()
    head = b"POST /collections/c/points/scroll HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    one = connected(hasty, stack, b"")
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.sendall(head + body)
    assert one.recv(8) == b"HTTP/1.1"
    assert one.getsockname()[1] in _ports(doors)
    port = one.getsockname()[1]
    until(lambda: httpx.get(f"{hasty}/livez").is_success and port not in _ports(doors), WAIT_S)


@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        (b"GET /readyz HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431, "65536 bytes"),
        (b"GET /readyz HTTP/1.1\r\nx: " + b"y" * 70_000, 431, "65536 bytes"),
        (b"GET /readyz HTTP/1.1\r\n" + b"x: y\r\n" * 30_000 + b"\r\n", 431, "65536 bytes"),
        (b"GET /" + b"y" * 17_000 + b" HTTP/1.1\r\n\r\n", 414, "16384 bytes"),
        (b"GET /readyz?" + b"y" * 17_000, 414, "16384 bytes"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: " + b"y" * 600_000, 431, "65536 bytes"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n2;x=" + b"y" * 70_000, 431, "65536 bytes"),
        (b"nonsense\r\n\r\n", 400, "Invalid HTTP request"),
    ],
    ids=["header", "header that goes on", "many headers", "URL", "URL that goes on", "trailer", "chunk", "no HTTP"],
)
def test_a_head_above_the_bound(hasty: str, stack: ExitStack, sent: bytes, status: int, text: str) -> None:
    answer = refusal(received(connected(hasty, stack, sent)))
    assert answer[0] == status
    assert text in answer[1]


def test_a_head_below_the_bound(hasty: str) -> None:
    assert httpx.get(f"{hasty}/readyz?{'y' * 16_000}", headers={"x": "y" * 40_000}).status_code == 200


def test_silent_connections_make_room_for_new_ones(hasty: str, stack: ExitStack) -> None:
    silent = [connected(hasty, stack) for _ in range(3 * MOST)]
    assert httpx.post(f"{hasty}/collections/c/points/count", json={}).status_code == 200
    assert received(silent[0]) == b""


def test_operators_are_answered_when_all_connections_are_taken(
    hasty: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENCE_S", WAIT_S)
    busy = [connected(hasty, stack, HEAD + b"content-length: 2\r\n\r\n{") for _ in range(MOST)]
    until(lambda: httpx.get(f"{hasty}/collections").status_code == 503, WAIT_S)
    refused = httpx.get(f"{hasty}/collections")
    assert "connections" in refused.json()["status"]["error"]
    assert refused.headers["Retry-After"] == "1"
    for path in ("/healthz", "/v1/readyz", "/livez", "/metrics", "/admin/lag", "/v1/admin/memory", "/admin/dlq?limit=1"):
        assert httpx.get(hasty + path).status_code == 200, path
    more = [connected(hasty, stack, HEAD) for _ in range(10)]
    assert httpx.get(f"{hasty}/readyz").status_code == 200
    for one in busy:
        one.sendall(b"}")
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
    for one in [*busy, *more]:
        one.close()
    until(lambda: httpx.get(f"{hasty}/collections").status_code == 200, WAIT_S)


def test_connections_leave_half_of_the_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "limit", lambda: 1024)
    assert 2 * (connection.connections_of_loop(2) + connection.RESERVED_CONNECTIONS) <= 512
    monkeypatch.setattr(descriptors, "limit", lambda: 1 << 20)
    assert connection.connections_of_loop(2) == connection.MAX_CONNECTIONS
