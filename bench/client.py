"""Clients that cost little: prepared requests, one client for each stream of them, so that what is timed is the database.

Clients of a server are processes, so that they do not share a GIL with each other or with this one, and talk HTTP over bare
sockets. Imports nothing heavy, since each begins here.
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
"""So many requests of a client may fail, and as many more as half of those it sent; they are counted."""

_RECEIVE_BYTES = 1 << 18

Address = tuple[str, int]


class HttpError(Exception):
    """The server did not answer with 200."""


class Sends(Protocol):
    """Whatever takes a request and returns its answer."""

    def send(self, request: Any) -> Any: ...


class Sender(Sends, Protocol):
    """A connection."""

    def close(self) -> None: ...


class Taken(NamedTuple):
    """How long each request of a stream took until it was answered, less the first `skipped`, which were the warm-up; NaN for one
    that failed, and `error` says why the first of them did."""

    skipped: int
    seconds: list[float]
    error: str = ""

    def answered(self) -> list[float]:
        return [second for second in self.seconds if second == second]

    def failed(self) -> int:
        return len(self.seconds) - len(self.answered())


def per_second(taken: Sequence[Taken]) -> float:
    """Answers a second of all clients together. Each counts by its own time, since one may run out of requests before another."""
    return sum(len(seconds) / sum(seconds) for one in taken if (seconds := one.answered()))


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


Connect = Callable[[], Sender]
Streams = Sequence[Sequence[Any]]


def in_processes(connect: Connect, streams: Streams, seconds: float, warm_up_s: float) -> list[Taken]:
    """A client process for each stream, all beginning at once; a single one is this process."""
    if len(streams) == 1:
        return in_threads(connect, streams, seconds, warm_up_s)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(streams), context, _meet_at, (context.Barrier(len(streams)),)) as pool:
        running = [pool.submit(_send_in_process, connect, stream, seconds, warm_up_s) for stream in streams]
        return [client.result() for client in running]


def in_threads(connect: Connect, streams: Streams, seconds: float, warm_up_s: float) -> list[Taken]:
    """A client thread for each stream, all beginning at once; a single one is this thread."""
    if len(streams) == 1:
        return [_send_all(connect, streams[0], seconds, warm_up_s, lambda: None)]
    barrier = ThreadBarrier(len(streams), timeout=TIMEOUT_S)
    with ThreadPoolExecutor(len(streams)) as pool:
        running = [pool.submit(_send_all, connect, stream, seconds, warm_up_s, barrier.wait) for stream in streams]
        return [client.result() for client in running]


_barrier: Barrier


def _meet_at(barrier: Barrier) -> None:
    global _barrier  # a barrier can only be handed down when a process begins
    _barrier = barrier


def _send_in_process(connect: Connect, stream: Sequence[Any], seconds: float, warm_up_s: float) -> Taken:
    return _send_all(connect, stream, seconds, warm_up_s, lambda: _barrier.wait(TIMEOUT_S))


def _send_all(connect: Connect, stream: Sequence[Any], seconds: float, warm_up_s: float, meet: Callable[[], object]) -> Taken:
    """Sends each request of the stream once: some as a warm-up, and after having met the other clients the rest."""
    sender = connect()
    try:
        warm = _timed(sender, stream, warm_up_s)
        meet()
        return _timed(sender, stream[len(warm.seconds) :], seconds)._replace(skipped=len(warm.seconds))
    finally:
        sender.close()


def _timed(sender: Sender, stream: Sequence[Any], seconds: float) -> Taken:
    """Sends the stream for some seconds, or to its end. Raises what goes wrong if that is most of it."""
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
    return Taken(0, taken, f"{type(failures[0]).__name__}: {failures[0]}" if failures else "")


def repeat(session: Sends, requests: Sequence[Any], seconds: float, at_most: int = sys.maxsize) -> list[float]:
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
