"""A route that answers with a stream of server-sent events where the client accepts one, and else as every other route does.

What is in memory for a stream is one part of it (a page of changes): the next one is made when the client has read. A client
that reads nothing is cut off by its connection (`gateway.http.connection.SILENCE_S`).

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from secrets import token_hex

from starlette.types import Receive, Scope, Send

from gateway.handlers.changes import event_text
from gateway.http.endpoint import Endpoint, checked_key, headers_of, read_body
from gateway.http.errors import status_of

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"

PIECE_BYTES = 64 << 10
"""So much is sent at a time: uvicorn waits for the client when it has more than that in its buffer."""

_HEADERS = [
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies must pass events on at once
]


class StreamEndpoint(Endpoint):
    """Serves a route with a stream."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        if EVENT_STREAM not in headers.get("accept", ""):
            return await super().__call__(scope, receive, send)
        started_s = time.perf_counter()
        request_id = headers.get("x-request-id", "")
        request = response = None
        try:
            request_id = checked_key("X-Request-Id", request_id) or token_hex(16)
            self._check_serving()
            request, response = await self._understood(scope, headers, request_id, await read_body(receive, headers))
            assert self._route.stream is not None
            parts = await self._route.stream(request, response, self._services, headers.get("last-event-id", ""))
            first = await anext(parts)
        except Exception as error:  # as of every other route
            await self._refuse(error, request, response, request_id, started_s, send)
            return
        async with aclosing(parts):  # type: ignore[type-var]  # a generator
            sender = _Sender(send)
            await sender.begin([(b"x-request-id", request_id.encode())], first)
            sending = asyncio.ensure_future(self._send_all(parts, sender, request_id))
            gone = asyncio.ensure_future(_gone_while_waiting(receive, sender))
            try:
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if gone.done() and gone.result():
                    self._services.feeds.followers.count(cut_off=1)
                for task in (sending, gone):
                    task.cancel()
                await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_all(self, parts: AsyncIterator[bytes], sender: _Sender, request_id: str) -> None:
        """Sends the parts. An error ends the stream with an event that names it."""
        try:
            async for part in parts:
                await sender.send(part)
        except Exception as error:
            status, text, _ = status_of(error)
            if status == 500:
                log.error("a stream of %s failed, request %s", self._route.path, request_id, exc_info=error)
            await sender.send(event_text("end", {"reason": text, "status": status}))
        await sender.end()


class _Sender:
    """Sends the parts of an answer. `is_waiting`: the client has not read enough for the next one."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_waiting = False

    async def begin(self, headers: list[tuple[bytes, bytes]], part: bytes) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *headers]})
        await self.send(part)

    async def send(self, part: bytes) -> None:
        self.is_waiting = True
        for start in range(0, len(part), PIECE_BYTES):
            piece = part[start : start + PIECE_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        self.is_waiting = False

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


async def _gone_while_waiting(receive: Receive, sender: _Sender) -> bool:
    """Returns when the client is gone: whether it had something to read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    return sender.is_waiting
