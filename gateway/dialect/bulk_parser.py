"""A process that parses bulk bodies for the server: JSON holds the interpreter lock, and searches would wait for it.

It is started by the first large body and ends by itself when there are none for a while. Until it is up, and whenever it fails,
bodies are parsed by a thread of this process: it makes bulk writes gentler, never possible.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import msgspec

from gateway.dialect.bodies import BulkBody, UpsertBody
from gateway.dialect.upserts import GivenUpsert, given_upsert
from gateway.http.errors import BadRequest, status_of

LARGE_BODY_BYTES = 256 << 10
"""Bodies above it are parsed here."""

IDLE_S = 3.0
_NICENESS = 5
_SIZE_BYTES = 8


class BulkParser:
    """The side of the server. Thread-safe; one body at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._ready = threading.Event()

    def parse(self, content: bytes, packed: bool, kind: type[UpsertBody]) -> Future[GivenUpsert]:
        """What an upsert body of this kind asks for. The future raises BadRequest for one that means nothing."""
        return self._thread.submit(self._parse, content, packed, kind)

    def stop(self) -> None:
        """Ends the process; to be called once, last."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._drop()

    def _parse(self, content: bytes, packed: bool, kind: type[UpsertBody]) -> GivenUpsert:
        if self._process is None or self._process.poll() is not None:
            self._start()
        if self._ready.is_set() and self._channel is not None:
            try:
                _send(self._channel, bytes((packed, kind is BulkBody)), content)
                return _answer_of(_receive(self._channel))
            except OSError:  # it went away, perhaps for being idle
                self._drop()
        return _parsed(content, packed, kind)

    def _start(self) -> None:
        self._drop()
        mine, its = socket.socketpair()
        command = [sys.executable, "-m", "gateway.dialect.bulk_parser", str(its.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        its.close()
        self._channel = mine
        arguments = (self._process, mine, self._ready)
        threading.Thread(target=self._accompany, args=arguments, name="bulk-helper", daemon=True).start()

    @staticmethod
    def _accompany(process: subprocess.Popen[bytes], channel: socket.socket, ready: threading.Event) -> None:
        """Says when the process is up, and takes its leave when it ends."""
        with suppress(OSError):
            if _receive(channel) == b"ready":
                ready.set()
        process.wait()

    def _drop(self) -> None:
        self._ready = threading.Event()
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._channel = self._process = None


def _parsed(content: bytes, packed: bool, kind: type[UpsertBody]) -> GivenUpsert:
    decode = msgspec.msgpack.decode if packed else msgspec.json.decode
    return given_upsert(decode(content, type=kind), packed)


def _answer_of(data: bytearray) -> GivenUpsert:
    if data[:1] == b"+":
        return msgspec.msgpack.decode(memoryview(data)[1:], type=GivenUpsert)
    raise BadRequest(data[1:].decode())


def _serve(channel: socket.socket) -> None:
    """The side of the helper: bodies in, what they ask for out, until the server goes away or has none for IDLE_S."""
    _send(channel, b"ready")
    channel.settimeout(IDLE_S)
    while True:
        data = _receive(channel)
        packed, bulk = bool(data[0]), bool(data[1])
        try:
            answer = b"+" + msgspec.msgpack.encode(_parsed(bytes(memoryview(data)[2:]), packed, BulkBody if bulk else UpsertBody))
        except Exception as error:  # whatever it is, it is told as the server would tell it
            answer = b"-" + status_of(error)[1].encode()
        _send(channel, answer)


def _send(channel: socket.socket, *parts: bytes) -> None:
    channel.sendall(sum(map(len, parts)).to_bytes(_SIZE_BYTES, "big"))
    for part in parts:
        channel.sendall(part)


def _receive(channel: socket.socket) -> bytearray:
    size = int.from_bytes(_exactly(channel, _SIZE_BYTES), "big")
    return _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        read = channel.recv_into(view[at:])
        if not read:
            raise ConnectionError("the other side is gone")
        at += read
    return data


if __name__ == "__main__":
    os.nice(_NICENESS)  # searches go first
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except (OSError, KeyboardInterrupt):
        sys.exit(0)
