"""Clients that cost little: prebuilt HTTP requests over a bare socket, so that what is timed is the server.

Several clients are processes, so that they do not share a GIL with each other. Imports nothing heavy, since each begins here.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple, Protocol

TIMEOUT_S = 120
WARM_UP = 50
_RECEIVE_BYTES = 1 << 18

Address = tuple[str, int]


class HttpError(Exception):
    """The server did not answer with 200."""


class Sender(Protocol):
    """Whatever takes a request and returns its answer."""

    def send(self, request: Any) -> Any: ...


class Load(NamedTuple):
    """What several clients at once got: answers a second, and how long each took."""

    per_second: float
    seconds: list[float]


def http_request(method: str, path: str, body: bytes = b"") -> bytes:
    """A whole request, ready to be sent."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class HttpSession:
    """One keep-alive connection."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> bytes:
        """The body of the answer. Raises HttpError when it is not a success."""
        self._socket.sendall(request)
        received = self._receive()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        if b"\r\ncontent-length:" not in head:
            raise HttpError(f"no Content-Length in {head[:200]!r}")
        size = int(head.split(b"\r\ncontent-length:", 1)[1].split(b"\r\n", 1)[0])
        while len(received) < end + 4 + size:
            received += self._receive()
        if head[9:12] not in (b"200", b"201"):
            raise HttpError(f"{request[:100]!r}: {received[:500]!r}")
        return received[end + 4 :]

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise HttpError("the server closed the connection")
        return data


def http_load(address: Address, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Client processes send the requests over and over for some seconds, all beginning at once, after a warm-up."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(clients, context, _meet_at, (context.Barrier(clients),)) as pool:
        running = [pool.submit(_send_all, address, requests[at::clients], seconds) for at in range(clients)]
        taken = [second for client in running for second in client.result()]
    return Load(len(taken) / seconds, taken)


_barrier: Barrier


def _meet_at(barrier: Barrier) -> None:
    global _barrier  # a barrier can only be handed down when a process begins
    _barrier = barrier


def _send_all(address: Address, requests: Sequence[bytes], seconds: float) -> list[float]:
    session = HttpSession(address)
    for at in range(WARM_UP):
        session.send(requests[at % len(requests)])
    _barrier.wait(TIMEOUT_S)
    return repeat(session, requests, seconds)


def repeat(session: Sender, requests: Sequence[Any], seconds: float, at_most: int = sys.maxsize) -> list[float]:
    """Sends the requests over and over for some seconds, or until that many are sent. Returns how long each took, in seconds."""
    taken: list[float] = []
    begun_s = time.perf_counter()
    until_s = begun_s + seconds
    while begun_s < until_s and len(taken) < at_most:
        session.send(requests[len(taken) % len(requests)])
        ended_s = time.perf_counter()
        taken.append(ended_s - begun_s)
        begun_s = ended_s
    return taken
