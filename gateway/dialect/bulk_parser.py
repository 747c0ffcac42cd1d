"""A helper process that parses bulk bodies, because parsing JSON holds the interpreter lock and would delay searches.

It is started by the first large body, and exits after an idle time. While it is not ready, or when it fails or does not answer in
time, bodies are parsed by a thread of this process: bulk writes work without the helper, but slow down searches.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from gateway.admission.ids import check_ids
from gateway.dialect.bodies import BulkBody, UpsertBody
from gateway.dialect.packed_numbers import check_numbers
from gateway.dialect.upserts import ParsedUpsert, parse_upsert
from gateway.http.errors import BadRequest, Invalid, status_of
from gateway.inference.bm25 import with_bm25

log = logging.getLogger(__name__)

LARGE_BODY_BYTES = 256 << 10
"""Larger bodies are parsed by the helper process."""

IDLE_S = 3.0
RESTART_S = 10.0
"""The shortest interval between two starts, so that a process that fails repeatedly is not started for each body."""

START_S = 10.0
ANSWER_S = 3.0
ANSWER_BYTES_PER_S = 2 << 20
"""The helper is killed when it is not ready within START_S, or does not answer within ANSWER_S plus the size of the body divided
by ANSWER_BYTES_PER_S. Parsing takes a third of that time for the smallest points, and a hundredth for typical ones."""

_NICENESS = 5
_SIZE_BYTES = 8


class BulkParser:
    """Parses bodies in the helper process, one at a time. Thread-safe."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bulk")
        self._helper: _Helper | None = None

    def parse(self, content: bytes, packed: bool, kind: type[UpsertBody]) -> Future[ParsedUpsert]:
        """Parses an upsert body of this kind. The future raises BadRequest or Invalid for an invalid body."""
        return self._thread.submit(self._parse, content, packed, kind)

    def stop(self) -> None:
        """Ends the process; must be the last call."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._helper is not None:
            self._helper.kill()

    def _parse(self, content: bytes, packed: bool, kind: type[UpsertBody]) -> ParsedUpsert:
        helper = self._helper
        if helper is None or (helper.has_ended() and time.monotonic() > helper.started_s + RESTART_S):
            helper = self._helper = _Helper()
        if helper.ready.is_set():
            try:
                return _answer_of(helper.ask(bytes((packed, kind is BulkBody)), content))
            except OSError as error:  # it has exited, perhaps after the idle time, or did not answer in time
                if isinstance(error, TimeoutError):
                    log.warning("the process that parses bulk bodies did not answer in time and is killed")
                helper.kill()
        return _parsed(content, packed, kind)


class _Helper:
    """A helper process and the channel to it."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.ready = threading.Event()
        self._channel, its = socket.socketpair()
        command = [sys.executable, "-m", "gateway.dialect.bulk_parser", str(its.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        its.close()
        threading.Thread(target=self._accompany, name="bulk-helper", daemon=True).start()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, head: bytes, content: bytes) -> bytearray:
        """The answer to a body. Raises OSError when the process has exited, TimeoutError when it takes too long."""
        deadline_s = time.monotonic() + ANSWER_S + len(content) / ANSWER_BYTES_PER_S
        self._channel.settimeout(ANSWER_S)
        _send(self._channel, head, content)
        return _receive(self._channel, deadline_s)

    def kill(self) -> None:
        """Ends the process with SIGKILL, which also ends a stopped process. A pending answer is lost."""
        self.ready.clear()
        self._process.kill()
        self._channel.close()

    def _accompany(self) -> None:
        """Sets `ready` when the process is ready, kills it if it is not in time, and collects its exit status."""
        try:
            if _receive(self._channel, time.monotonic() + START_S) == b"ready":
                self.ready.set()
        except OSError:
            self.kill()
        self._process.wait()
        self.ready.clear()


def _parsed(content: bytes, packed: bool, kind: type[UpsertBody]) -> ParsedUpsert:
    if packed:
        check_numbers(content)
    decode = msgspec.msgpack.decode if packed else msgspec.json.decode
    body = decode(content, type=kind)
    check_ids(body, len(content))
    return with_bm25(parse_upsert(body, packed))


def _answer_of(data: bytearray) -> ParsedUpsert:
    if data[:1] == b"+":
        return msgspec.msgpack.decode(memoryview(data)[1:], type=ParsedUpsert)
    kind = Invalid if int(data[1:4]) == Invalid.status else BadRequest
    raise kind(data[4:].decode())


def _serve(channel: socket.socket) -> None:
    """The main loop of the helper: parses bodies until the server exits or sends none for IDLE_S."""
    _send(channel, b"ready")
    channel.settimeout(IDLE_S)
    while True:
        data = _receive(channel)
        packed, bulk = bool(data[0]), bool(data[1])
        try:
            answer = b"+" + msgspec.msgpack.encode(_parsed(bytes(memoryview(data)[2:]), packed, BulkBody if bulk else UpsertBody))
        except Exception as error:  # of any kind: the text is the same as if the server had parsed the body
            status, text, _ = status_of(error)
            answer = b"-%d" % status + text.encode()
        _send(channel, answer)


def _send(channel: socket.socket, *parts: bytes) -> None:
    channel.sendall(sum(map(len, parts)).to_bytes(_SIZE_BYTES, "big"))
    for part in parts:
        channel.sendall(part)


def _receive(channel: socket.socket, deadline_s: float | None = None) -> bytearray:
    """The next message. Raises TimeoutError when it is not complete at the deadline, on the monotonic clock."""
    size = int.from_bytes(_exactly(channel, _SIZE_BYTES, deadline_s), "big")
    return _exactly(channel, size, deadline_s)


def _exactly(channel: socket.socket, size: int, deadline_s: float | None) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        if deadline_s is not None:
            if (left_s := deadline_s - time.monotonic()) <= 0:
                raise TimeoutError("the other side did not answer in time")
            channel.settimeout(left_s)
        read = channel.recv_into(view[at:])
        if not read:
            raise ConnectionError("the other side is gone")
        at += read
    return data


if __name__ == "__main__":
    os.nice(_NICENESS)  # lower priority than searches
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except (OSError, KeyboardInterrupt):
        sys.exit(0)
