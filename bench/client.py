"""Clients with little overhead, so that the timings are those of the database: each sends one stream of prepared requests.

Clients of a server are processes, so that they do not share a GIL, and use HTTP over plain sockets. This module has no slow
imports, because each client process imports it at start.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from math import nan
from multiprocessing.synchronize import Barrier
from threading import Barrier as ThreadBarrier
from typing import Any, NamedTuple, Protocol

TIMEOUT_S = 120
WARM_UP_S = 0.3
TOLERATED = 20
"""A client stops with an error after more failures than this number plus half of its completed requests."""

_RECEIVE_BYTES = 1 << 18

Address = tuple[str, int]


class HttpError(Exception):
    """The server closed the connection, or did not answer with 200 or 201."""


class Sends(Protocol):
    """Something that can send a request and return its answer."""

    def send(self, request: Any) -> Any: ...


class Sender(Sends, Protocol):
    """A connection of one client."""

    def close(self) -> None: ...


class Timings(NamedTuple):
    """Latency of each request of a stream, in seconds, NaN for a failed one. Excludes the first `skipped` requests (warm-up).
    `error` is the text of the first failure."""

    skipped: int
    seconds: list[float]
    error: str = ""

    def answered(self) -> list[float]:
        return [second for second in self.seconds if second == second]

    def failed(self) -> int:
        return len(self.seconds) - len(self.answered())


def per_second(taken: Sequence[Timings]) -> float:
    """Throughput of all clients, in answers per second. Each client has its own duration, because streams can end early."""
    return sum(len(seconds) / sum(seconds) for one in taken if (seconds := one.answered()))


def http_request(method: str, path: str, body: bytes = b"") -> bytes:
    """A complete HTTP request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class HttpSession:
    """One keep-alive connection."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> bytes:
        """Sends a request and returns the body of the answer. Raises HttpError for a status other than 200 or 201."""
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


Connect = Callable[[], Sender]
Streams = Sequence[Sequence[Any]]


def in_processes(connect: Connect, streams: Streams, seconds: float, warm_up_s: float) -> list[Timings]:
    """Runs one client process per stream; all start at the same time. A single stream runs in this process."""
    if len(streams) == 1:
        return in_threads(connect, streams, seconds, warm_up_s)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(streams), context, _meet_at, (context.Barrier(len(streams)),)) as pool:
        running = [pool.submit(_send_in_process, connect, stream, seconds, warm_up_s) for stream in streams]
        return [client.result() for client in running]


def in_threads(connect: Connect, streams: Streams, seconds: float, warm_up_s: float) -> list[Timings]:
    """Runs one client thread per stream; all start at the same time. A single stream runs in this thread."""
    if len(streams) == 1:
        return [_send_all(connect, streams[0], seconds, warm_up_s, lambda: None)]
    barrier = ThreadBarrier(len(streams), timeout=TIMEOUT_S)
    with ThreadPoolExecutor(len(streams)) as pool:
        running = [pool.submit(_send_all, connect, stream, seconds, warm_up_s, barrier.wait) for stream in streams]
        return [client.result() for client in running]


_barrier: Barrier


def _meet_at(barrier: Barrier) -> None:
    global _barrier  # a barrier can be passed only when a process starts
    _barrier = barrier


def _send_in_process(connect: Connect, stream: Sequence[Any], seconds: float, warm_up_s: float) -> Timings:
    return _send_all(connect, stream, seconds, warm_up_s, lambda: _barrier.wait(TIMEOUT_S))


def _send_all(connect: Connect, stream: Sequence[Any], seconds: float, warm_up_s: float, meet: Callable[[], object]) -> Timings:
    """Sends each request of the stream once: a warm-up, then, after all clients have reached the barrier, the timed rest."""
    sender = connect()
    try:
        warm = _timed(sender, stream, warm_up_s)
        meet()
        return _timed(sender, stream[len(warm.seconds) :], seconds)._replace(skipped=len(warm.seconds))
    finally:
        sender.close()


def _timed(sender: Sender, stream: Sequence[Any], seconds: float) -> Timings:
    """Sends the stream until its end or for `seconds`. Raises the last error when too many requests fail (TOLERATED)."""
    taken: list[float] = []
    failures: list[Exception] = []
    begun_s = time.perf_counter()
    until_s = begun_s + seconds
    for request in stream:
        if begun_s >= until_s:
            break
        failed = len(failures)
        try:
            sender.send(request)
        except Exception as error:
            failures.append(error)
            if len(failures) > TOLERATED + len(taken) / 2:
                raise
        ended_s = time.perf_counter()
        taken.append(ended_s - begun_s if len(failures) == failed else nan)
        begun_s = ended_s
    return Timings(0, taken, f"{type(failures[0]).__name__}: {failures[0]}" if failures else "")


def repeat(session: Sends, requests: Sequence[Any], seconds: float, at_most: int = sys.maxsize) -> list[float]:
    """Sends the requests in a cycle, for `seconds` or until `at_most` are sent. Returns the latency of each, in seconds."""
    taken: list[float] = []
    begun_s = time.perf_counter()
    until_s = begun_s + seconds
    while begun_s < until_s and len(taken) < at_most:
        session.send(requests[len(taken) % len(requests)])
        ended_s = time.perf_counter()
        taken.append(ended_s - begun_s)
        begun_s = ended_s
    return taken
