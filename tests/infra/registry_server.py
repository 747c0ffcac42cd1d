"""A schema registry for tests: what Confluent's clients ask of one, by its documented REST routes; all else answers 404.

Its schemas are in memory and outlast stop and start, as does its port. It may also be told to fail while it listens.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from uuid import NAMESPACE_URL, uuid5

from tests.kafka_server import free_port

PORTS = range(16_000, 20_000)
_REGISTER = re.compile(r"/subjects/[^/]+/versions")
_BY_NUMBER, _BY_GUID = re.compile(r"/schemas/ids/(\d+)"), re.compile(r"/schemas/guids/([0-9a-f-]{36})")


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


NOT_FOUND = Answer(404, {"error_code": 40403, "message": "Schema not found"})
FAILED = Answer(503, {"error_code": 50301, "message": "Told to fail"})


class RegistryServer:
    """A registry at `url`, in a thread of this process; `failing` makes it answer 503 to all."""

    def __init__(self) -> None:
        self._port = free_port(PORTS)
        self.url = f"http://127.0.0.1:{self._port}"
        self.failing = False
        self._lock = threading.Lock()
        self._schemas: list[dict[str, Any]] = []
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        threading.Thread(target=self._server.serve_forever, name="registry", daemon=True).start()

    def stop(self) -> None:
        """From then on connections are refused. Does nothing when it is stopped."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """POST /subjects/{subject}/versions, GET /schemas/ids/{id}, GET /schemas/guids/{guid}."""
        if self.failing:
            return FAILED
        if method == "POST" and _REGISTER.fullmatch(path):
            return Answer(200, self._registered(body))
        if method == "GET" and (found := _BY_NUMBER.fullmatch(path)):
            return self._found("id", int(found[1]))
        if method == "GET" and (found := _BY_GUID.fullmatch(path)):
            return self._found("guid", found[1])
        return NOT_FOUND

    def _registered(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The same schema has the same id and GUID under every subject."""
        guid = str(uuid5(NAMESPACE_URL, json.dumps(schema, sort_keys=True)))
        with self._lock:
            if not (known := [each for each in self._schemas if each["guid"] == guid]):
                known = [schema | {"id": len(self._schemas) + 1, "guid": guid}]
                self._schemas += known
        return known[0]

    def _found(self, name: str, value: object) -> Answer:
        found = [schema for schema in self._schemas if schema[name] == value]
        return Answer(200, found[0]) if found else NOT_FOUND

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._respond({})

            def do_POST(self) -> None:
                self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _respond(self, body: dict[str, Any]) -> None:
                status, answer = registry.answer(self.command, self.path.partition("?")[0], body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Says nothing: pytest shows what fails."""

        return Handler
