"""What a connection may cost: its time without progress, the size of a request's head, and the number of connections.

uvicorn bounds none of these except the pause between two requests. Each event loop has one `Door`, which closes connections that
are overdue, and makes room for new ones.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.http.endpoint import MAX_BODY_BYTES, refuse
from shard import descriptors

HEAD_S = 10.0
"""The time for the head of a request: from the connection, or from the first byte of a later request on it."""

KEEP_ALIVE_S = 75
"""The longest pause between two requests of a connection."""

SILENCE_S = 30.0
"""The longest pause within a body, and the longest time in which a client reads nothing of an answer."""

MIN_BODY_BYTES_PER_S = 1024
"""After SILENCE_S a body must have arrived at this rate on average: 32 MB may take nine hours."""

SWEEP_S = 1.0
"""The interval at which a loop looks for overdue connections, as long as it has any."""

MAX_HEAD_BYTES = 64 << 10
"""The bound of a request's line and headers together, of its trailers, and of what stands between two parts of its body."""

MAX_URL_BYTES = 16 << 10

MAX_CONNECTIONS = 1000
"""Connections of one event loop."""

RESERVED_CONNECTIONS = 32
"""Connections of a loop beyond its bound. They get answers from operators' pages, and 503 from others."""

_UPLOAD = re.compile(rb"(?:/v1)?/collections/[^?]+/snapshots/upload(?:\?.*)?", re.DOTALL)
"""The URLs whose bodies have no bound but the disk, which their handlers look after."""

_OPEN = re.compile(rb"/(?:v1/)?(?:healthz|livez|readyz|metrics|admin/[^?]*)(?:\?.*)?", re.DOTALL)
"""The URLs that are answered when all connections are taken."""


def connections_of_loop(loops: int) -> int:
    """The bound of connections of each of `loops` event loops. Half of the process's file descriptors are left to storage."""
    return max(1, min(MAX_CONNECTIONS, descriptors.limit() // 2 // loops - RESERVED_CONNECTIONS))


class Door:
    """The connections of one event loop, at most `most` and RESERVED_CONNECTIONS.

    A new connection beyond `most` takes the place of the one that has waited longest for a request. If all others have a request
    in progress, it is one of the reserved ones; beyond these it is closed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        """Those without a request in progress, in the order in which they began to wait."""
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def enter(self, connection: Connection) -> None:
        """Takes a new connection."""
        if len(self._open) >= self.most and self._waiting:
            self.leave(oldest := next(iter(self._waiting)))
            oldest.transport.abort()
        self._open.add(connection)
        self._waiting[connection] = None
        connection.is_reserved = self.is_full()
        if len(self._open) > self.most + RESERVED_CONNECTIONS:
            self.leave(connection)
            connection.transport.abort()
        if self._sweep is None:
            self._sweep = connection.loop.call_later(SWEEP_S, self._close_overdue, connection.loop)

    def leave(self, connection: Connection) -> None:
        """Forgets a connection that is closed; it may be unknown."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def begin(self, connection: Connection) -> None:
        """A request of the connection is in progress."""
        self._waiting.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """The connection has no request in progress."""
        if connection in self._open:
            self._waiting[connection] = None

    def is_full(self) -> bool:
        """Whether reserved connections are in use."""
        return len(self._open) > self.most

    def _close_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for connection in [each for each in self._open if each.is_overdue(now_s)]:
            self.leave(connection)
            connection.transport.abort()
        self._sweep = loop.call_later(SWEEP_S, self._close_overdue, loop) if self._open else None


class Connection(HttpToolsProtocol):
    """One connection. uvicorn parses its requests and runs the application."""

    def __init__(self, door: Door, **given: Any) -> None:
        super().__init__(**given)
        self.is_reserved = False
        """Whether it gets answers from operators' pages only, as long as the door is full."""
        self._door = door
        self._application: ASGIApp = self.app
        self._is_new = True
        self._in_head = False
        self._in_body = False
        self._began_s = self._received_s = self.loop.time()
        """When the current head, body or pause began; when data was last received."""
        self._body_bytes = 0
        self._unframed_bytes = 0
        """Bytes received since the last part of a body, or the last end of a request."""
        self._has_frame = False
        """Whether one of these was in the data that is parsed."""
        self._unread = (0, self._began_s)
        """The bytes of answers that the client has not read, and since when it has read nothing of them."""
        self._refusal: tuple[int, str] | None = None

    def is_overdue(self, now_s: float) -> bool:
        """Whether the client has used up its time."""
        if self._in_body:
            rate_s = self._body_bytes / MIN_BODY_BYTES_PER_S
            is_slow = now_s - self._began_s > SILENCE_S + rate_s or now_s - self._received_s > SILENCE_S
            return is_slow and not self.flow.read_paused
        unread = self.transport.get_write_buffer_size()
        if not unread or unread != self._unread[0]:
            self._unread = unread, now_s
        elif now_s - self._unread[1] > SILENCE_S:
            return True
        if self._is_busy():
            return False
        return now_s - self._began_s > (HEAD_S if self._in_head or self._is_new else KEEP_ALIVE_S)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received_s = self.loop.time()
        self._has_frame = False
        super().data_received(data)
        self._unframed_bytes = 0 if self._has_frame else self._unframed_bytes + len(data)
        if self._unframed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, f"request header of more than {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._began_s = True, self._received_s
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._refusal = 414, f"URL of more than {MAX_URL_BYTES} bytes"
            raise ValueError(self._refusal[1])

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = 431, f"request header of more than {MAX_HEAD_BYTES} bytes"
            raise ValueError(self._refusal[1])

    def on_headers_complete(self) -> None:
        self._door.begin(self)
        self._is_new = self._in_head = False
        self._in_body, self._began_s, self._body_bytes = True, self._received_s, 0
        is_open = not (self.is_reserved and self._door.is_full()) or _OPEN.fullmatch(self.url)
        self.app = self._application if is_open else _busy
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_frame = True
        self._body_bytes += len(body)
        super().on_body(body)
        if self._body_bytes > 2 * MAX_BODY_BYTES and not self._is_read():  # the application has refused it long before
            self.transport.abort()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._has_frame = True
        self._in_body = False
        self._wait_if_idle()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_if_idle()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._refusal or (400, msg)))

    def _is_read(self) -> bool:
        """Whether the body is a large one that a handler still reads."""
        return self._is_busy() and _UPLOAD.fullmatch(self.url) is not None

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_if_idle(self) -> None:
        if not (self._is_busy() or self._in_head or self._in_body):
            self._began_s = self.loop.time()
            self._door.wait(self)

    def _refuse(self, status: int, text: str) -> None:
        """Answers in place of the application, and closes."""
        body = orjson.dumps({"status": {"error": text}, "time": 0.0})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


async def _busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses any request, as an ASGI application."""
    text = "this node has as many connections as it may have; operators' pages are answered"
    await refuse(send, 503, text, [(b"connection", b"close"), (b"retry-after", b"1")])
