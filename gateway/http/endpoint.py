"""One route as an ASGI application: parses the request, calls the handler, and encodes its result or error.

It is raw ASGI for speed. FastAPI is used for routing and documentation.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from functools import cache, partial
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec
import orjson
from starlette.types import Message, Receive, Scope, Send

from gateway.admission.ids import check_ids
from gateway.as_of import AS_OF_HEADER, Instant
from gateway.dialect.bodies import Body, ReadParams, SearchReadParams, ignored
from gateway.dialect.bulk_parser import LARGE_BODY_BYTES
from gateway.dialect.packed_numbers import check_numbers
from gateway.dialect.query_bodies import octet_search
from gateway.dumping import dumped
from gateway.durations import Answered
from gateway.http.errors import BadRequest, Invalid, TooLarge, Unavailable, bound_error, retry_after, status_of
from gateway.http.metrics import APPEND_SECONDS
from gateway.http.routes import Route
from gateway.http.uploads import BodyStream
from gateway.request import ApiRequest, FileAnswer, Response, number_of
from gateway.services import Services
from gateway.sessions import NOTHING, POSITION_COOKIE, POSITION_HEADER, Seen, seen_by
from journal.log import Overloaded, Positions
from journal.token import Token, merge
from journal.topics import TIERS
from journal.writer import Origin

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
FILE_CHUNK_BYTES = 1 << 20
MAX_KEY_CHARS = 128
REFUSED_RETRY_S = 60.0

_POSITIONS = {POSITION_HEADER, "cookie", "api-key"}
_OCTETS = "application/octet-stream"
_MSGPACK = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class Endpoint:
    """Serves `route` with `services`."""

    def __init__(self, route: Route, services: Services) -> None:
        self._route = route
        self._services = services
        self._decode = None if route.body is None else msgspec.json.Decoder(route.body).decode
        self._unpack = None if route.body is None else msgspec.msgpack.Decoder(route.body).decode
        self._last_served: tuple[int, Positions, bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        headers = headers_of(scope)
        request_id = headers.get("x-request-id", "")
        response = request = None
        try:
            request_id = checked_key("X-Request-Id", request_id) or os.urandom(16).hex()
            self._check_serving()
            body = b"" if self._route.streamed else await read_body(receive, headers)
            request, response = await self._understood(scope, headers, request_id, body)
            if self._route.streamed:
                length = number_of(headers.get("content-length", ""))
                stream = BodyStream(receive, headers.get("content-type", ""), length)
                request = msgspec.structs.replace(request, stream=stream)
            result = await self._route.handler(request, response, self._services)
            if request.as_of and response.as_of is None:
                raise BadRequest("as_of: this route shows the present only")
            answer = result if isinstance(result, FileAnswer) else await self._encoded(result, response, started_s)
        except Exception as error:  # known errors have a status; others are defects, and are logged
            status = await self._refuse(error, request, response, request_id, started_s, send)
        else:
            status = 202 if response.accepted else 200
            if isinstance(answer, FileAnswer):
                await self._send_file(send, answer, self._headers(request, response))
            else:
                await _send(send, status, answer, self._headers(request, response))
        seconds = time.perf_counter() - started_s
        collection = self._services.reads.catalog.find(scope["path_params"].get("collection_name", ""))
        answered = Answered(self._route.method, self._route.path, status)
        self._services.times.add(answered, seconds, None if collection is None else collection.name)
        if request is not None and response is not None and response.acknowledged_s is not None:
            APPEND_SECONDS[request.tier].observe(response.acknowledged_s)

    def _check_serving(self) -> None:
        if (refusal := self._services.node.replayer.refusal) is not None:
            raise Unavailable(f"this node serves nothing: {refusal}", REFUSED_RETRY_S)

    async def _understood(
        self, scope: Scope, headers: dict[str, str], request_id: str, body: bytes
    ) -> tuple[ApiRequest, Response]:
        """Parses a request. Raises for an invalid one."""
        params, unknown = _params(scope["query_string"], self._route.params)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        packed = content_type in _MSGPACK
        if isinstance(params, SearchReadParams):
            if content_type == _OCTETS:
                body = octet_search(body, params.limit, params.using)
            else:
                unknown += [name for name in ("limit", "using") if getattr(params, name) is not None]
        if len(body) > LARGE_BODY_BYTES:
            parsed = await self._services.reads.offload(False, partial(self._body, body, packed))
        else:
            parsed = self._body(body, packed)
        seen = await self._seen(headers)
        key = checked_key("Idempotency-Key", headers.get("idempotency-key", ""))
        if key:
            digest = partial(_request_digest, self._route.method, self._same_path(scope["path_params"]), body)
            key += "/" + await self._services.reads.offload(len(body) <= LARGE_BODY_BYTES, digest)
        origin = Origin(request_id, key, traceparent=_traceparent(headers))
        tier = _tier(headers.get("x-vecraft-tier"), self._route.tier)
        api_key = headers.get("api-key", "")
        as_of = _as_of(getattr(params, "as_of", None), headers.get(AS_OF_HEADER))
        if (as_of or "as_of" in unknown) and not isinstance(params, ReadParams):
            raise BadRequest("as_of: this route does not read the past")
        request = ApiRequest(scope["path_params"], params, parsed, body, packed, origin, seen.token, tier, api_key, as_of)
        response = Response(ignored(parsed) + unknown, getattr(params, "explain", False))
        response.replaces_cookie = seen.is_stale
        return request, response

    def _same_path(self, params: Mapping[str, str]) -> str:
        """The path of a request: the same at `/` and under `/v1`, and by an alias as by the collection's name."""
        aliases = self._services.reads.catalog.aliases
        names = [aliases.get(value, value) if name == "collection_name" else value for name, value in params.items()]
        return "/".join([self._route.path, *names])

    def _body(self, body: bytes, packed: bool) -> Any:
        if self._decode is None or self._unpack is None:
            return None
        if not body and self._route.optional_body:
            return self._route.body()
        if self._route.bulk and len(body) > LARGE_BODY_BYTES:
            return None
        if packed:
            check_numbers(body)
        parsed = self._unpack(body) if packed else self._decode(body)
        check_ids(parsed, len(body))
        return parsed

    async def _seen(self, headers: dict[str, str]) -> Seen:
        if not headers.keys() & _POSITIONS:
            return NOTHING
        services, node = self._services, self._services.node
        return await seen_by(headers, services.sessions, services.gate, node.clock, node.topics, node.replayer.log_name)

    async def _encoded(self, result: Any, response: Response, started_s: float) -> bytes:
        body = {"result": result, "status": "ok", "time": round(time.perf_counter() - started_s, 9)}
        if response.accepted:
            body = {"status": "accepted", "time": body["time"]}
        if response.steps is not None:
            body["explain"] = response.steps
        try:
            return await dumped(body, response, self._services.reads)
        except orjson.JSONEncodeError as error:
            raise RuntimeError("the answer is not JSON") from error

    async def _send_file(self, send: Send, answer: FileAnswer, headers: list[tuple[bytes, bytes]]) -> None:
        """Sends a file in parts, as fast as the client reads them."""
        offload = partial(self._services.reads.offload, False)
        file = await offload(partial(answer.path.open, "rb", buffering=0))
        try:
            if answer.temporary:
                answer.path.unlink(missing_ok=True)
            size = os.fstat(file.fileno()).st_size
            disposition = f"attachment; filename*=UTF-8''{quote(answer.name, safe='')}".encode()
            start = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", str(size).encode()),
                (b"content-disposition", disposition),
                *headers,
            ]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            while chunk := await offload(partial(file.read, FILE_CHUNK_BYTES)):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            file.close()

    def _headers(self, request: ApiRequest, response: Response) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", request.origin.id.encode())]
        if response.wrote is not None:
            headers += self._write_headers(request, response.wrote)
        elif response.as_of is not None:
            headers += _past_headers(request, response.as_of)
        elif response.served is not None:
            headers += self._read_headers(response, response.served)
        if response.ignored:
            headers.append((b"x-vecraft-ignored", ", ".join(dict.fromkeys(response.ignored)).encode()))
        return headers

    def _write_headers(self, request: ApiRequest, wrote: Token) -> list[tuple[bytes, bytes]]:
        """The client's new position: what it had seen, and what it has written. It becomes that of its session, too."""
        token = merge([request.token, wrote])
        if request.api_key:
            self._services.sessions.advance(request.api_key, token)
        text = self._text(token)
        return [(POSITION_HEADER.encode(), text), _cookie(text)]

    def _read_headers(self, response: Response, served: Positions) -> list[tuple[bytes, bytes]]:
        """Where a read was answered, at which level, and after which wait."""
        level = response.level.value if response.level else ""
        sync = f"level={level}; waited_ms={response.waited_s * 1000:.3f}{response.note}"
        text = self._served_text(served)
        headers = [(POSITION_HEADER.encode(), text), (b"x-vecraft-sync", sync.encode())]
        return [*headers, _cookie(text)] if response.replaces_cookie else headers

    def _served_text(self, served: Positions) -> bytes:
        """The token of a read as text; cached, since it is often the same as that of the previous read."""
        hlc = self._services.node.clock.last
        if self._last_served is None or self._last_served[:2] != (hlc, served):
            self._last_served = hlc, served, self._text(Token(hlc, served))
        return self._last_served[2]

    def _text(self, token: Token) -> bytes:
        node = self._services.node
        return token.text(node.topics, node.replayer.log_name).encode()

    async def _refuse(
        self,
        error: Exception,
        request: ApiRequest | None,
        response: Response | None,
        request_id: str,
        started_s: float,
        send: Send,
    ) -> int:
        """Answers with an error. Returns its status."""
        status, text, retry_s = status_of(error)
        if isinstance(error, Overloaded):
            self._services.health.overloaded()
        if status == 500:
            log.error("%s %s failed, request %s", self._route.method, self._route.path, request_id, exc_info=error)
        body = {"status": {"error": text}, "time": round(time.perf_counter() - started_s, 9)}
        headers = [(b"x-request-id", request_id.encode("latin-1", "replace"))]
        if retry_s is not None:
            headers.append((b"retry-after", retry_after(retry_s).encode()))
        if request is not None and response is not None and response.wrote is not None:  # as a change of some points of several
            headers += self._write_headers(request, response.wrote)
        elif response is not None and response.served is not None:  # as a 404 of a point
            headers += self._read_headers(response, response.served)
        await _send(send, status, orjson.dumps(body), headers)
        return status


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers of a request."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def read_body(receive: Receive, headers: dict[str, str]) -> bytes:
    """The whole body. Raises TooLarge as soon as it exceeds the bound, and BadRequest when the client disconnects."""
    length = headers.get("content-length", "")
    if (size := number_of(length)) is not None and size > MAX_BODY_BYTES:
        raise TooLarge(f"body of {length} bytes, the bound is {MAX_BODY_BYTES}")
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the client went away before the body was complete")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > MAX_BODY_BYTES:
            raise TooLarge(f"body of more than {MAX_BODY_BYTES} bytes")
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def refuse(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Answers with an error, outside of a route."""
    await _send(send, status, orjson.dumps({"status": {"error": text}, "time": 0.0}), headers)


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def _params(query: bytes, kind: type) -> tuple[Any, list[str]]:
    """The parameters of the query string, and the names of unknown ones, which the dialect's routes ignore.

    The project's own routes refuse unknown parameters: with a misspelled name a request could select all instead of some.
    """
    if not query and not _needs_some(kind):
        return kind(), []
    pairs = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    for name in _whole_numbers(kind) & pairs.keys():
        if number_of(pairs[name]) is None:
            raise BadRequest(f"query string: {name} {pairs[name][:16]!r} must be a whole number, in ASCII digits")
    unknown: list[str] = []
    if issubclass(kind, Body) and not kind.is_own:
        unknown = [name for name in pairs if name not in kind.__struct_encode_fields__]
    try:
        return msgspec.convert({name: pairs[name] for name in pairs if name not in unknown}, kind, strict=False), [
            name[:MAX_KEY_CHARS] for name in unknown if _PRINTABLE.fullmatch(name)
        ]
    except msgspec.ValidationError as error:
        if (bound := bound_error(error)) is not None:
            raise Invalid(f"Validation error in query parameters: [{bound}]") from error
        raise BadRequest(f"query string: {error}".replace(", got `str`", ", got another text")) from error


@cache
def _needs_some(kind: type) -> bool:
    """Whether there is a parameter without a default."""
    return any(field.required for field in msgspec.inspect.type_info(kind).fields)  # type: ignore[attr-defined]


@cache
def _whole_numbers(kind: type) -> frozenset[str]:
    """The parameters that are whole numbers. The parser of texts would also take blanks and a fraction of zero."""
    fields = msgspec.inspect.type_info(kind).fields  # type: ignore[attr-defined]
    return frozenset(
        field.name
        for field in fields
        if any(isinstance(one, msgspec.inspect.IntType) for one in getattr(field.type, "types", (field.type,)))
    )


def _as_of(parameter: str | None, header: str | None) -> str:
    """The instant that a request names; empty for the present. Raises BadRequest for one that is empty, or two that differ."""
    given = {text for text in (parameter, header) if text is not None}
    if "" in given or len(given) > 1:
        raise BadRequest("as_of: an instant is needed" if "" in given else "as_of: parameter and header name different instants")
    return given.pop() if given else ""


def _past_headers(request: ApiRequest, as_of: Instant) -> list[tuple[bytes, bytes]]:
    """The instant of a read of the past. A position that was asked for is answered, since it alone names the same state again."""
    headers = [(AS_OF_HEADER.encode(), str(as_of.stamp).encode())]
    return headers if as_of.positions is None else [*headers, (POSITION_HEADER.encode(), request.as_of.encode())]


def checked_key(name: str, value: str) -> str:
    if value and (len(value) > MAX_KEY_CHARS or not _PRINTABLE.fullmatch(value)):
        raise BadRequest(f"{name} must have at most {MAX_KEY_CHARS} printable ASCII characters without blanks")
    return value


def _request_digest(method: str, path: str, body: bytes) -> str:
    """Tells a retry from another request with the same idempotency key."""
    return blake2b(b"\0".join((method.encode(), path.encode(), body)), digest_size=8).hexdigest()


def _cookie(text: bytes) -> tuple[bytes, bytes]:
    return b"set-cookie", POSITION_COOKIE.encode() + b"=" + text + b"; Path=/; HttpOnly; SameSite=Strict"


def _traceparent(headers: dict[str, str]) -> str:
    """The traceparent header, which is written to the log; empty when it is not valid by W3C Trace Context."""
    text = headers.get("traceparent", "")
    return text if _TRACEPARENT.fullmatch(text) else ""


def _tier(text: str | None, default: int) -> int:
    if text is None:
        return default
    if (tier := number_of(text)) is None or tier not in TIERS:
        raise BadRequest(f"X-Vecraft-Tier {text[:16]!r} must be between {TIERS[0]} and {TIERS[-1]}")
    return tier
