"""Chroma: its server with default settings, cosine distance, over its REST API.

Chroma appends writes to a log and updates its index at the next search, so an ingest includes the first search.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, Self

import orjson

from bench.client import WARM_UP_S, Address, HttpError, HttpSession, Timings, http_request, in_processes
from bench.data import Filter, K, Points
from bench.server import ServerProcess, free_port
from bench.target import BATCH
from journal.records import Vectors

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


class Chroma:
    """A server process with its data in `folder`."""

    process: ServerProcess
    name = "chroma"
    batch = BATCH
    replaces = True

    def __init__(self, folder: Path) -> None:
        self.settings = f"chromadb {version('chromadb')}, a server"
        self.folder = folder
        self._address: Address = ("127.0.0.1", 0)
        self._path = ""
        self._probe = b""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._address = ("127.0.0.1", free_port())
        command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(self.folder / "data")]
        command += ["--host", self._address[0], "--port", str(self._address[1])]
        self.process = ServerProcess(command, self.folder / "log", {"ANONYMIZED_TELEMETRY": "False"})
        self.process.wait_for(self._answers)

    def stop(self) -> None:
        self.process.stop()

    def create(self, dimensions: int) -> None:
        body = {"name": "bench", "configuration": {"hnsw": {"space": "cosine"}}}
        created = orjson.loads(self.send(http_request("POST", _COLLECTIONS, orjson.dumps(body))))
        self._path = f"{_COLLECTIONS}/{created['id']}"
        hnsw = created["configuration_json"]["hnsw"]
        self.settings += (
            f", HNSW m {hnsw['max_neighbors']}, ef_construct {hnsw['ef_construction']}, ef {hnsw['ef_search']}; "
            "JSON over HTTP, client processes"
        )
        self._probe = self._query([1.0] * dimensions)

    def bulk(self, points: Points, last: bool = True) -> bytes:
        body = {
            "ids": [str(row) for row in points.ids],
            "embeddings": list(points.vectors),
            "metadatas": [_metadata(payload) for payload in points.payloads],
        }
        return http_request("POST", f"{self._path}/upsert", _dump(body))

    def upsert(self, points: Points) -> bytes:
        return self.bulk(points)

    def search(self, query: Vectors, only: Filter | None = None) -> bytes:
        return self._query(query, **({"where": {only.field: only.value}} if only is not None else {}))

    def send(self, request: bytes) -> bytes:
        session = HttpSession(self._address)
        try:
            return session.send(request)
        finally:
            session.close()

    def rows_of(self, answer: bytes) -> list[int]:
        return [int(text) for text in orjson.loads(answer)["ids"][0]]

    def searchable(self, count: int) -> bool:
        self.send(self._probe)
        return int(self.send(http_request("GET", f"{self._path}/count"))) == count

    def run(self, streams: Sequence[Sequence[bytes]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Timings]:
        return in_processes(partial(HttpSession, self._address), streams, seconds, warm_up_s)

    def _query(self, query: Any, **rest: Any) -> bytes:
        body = {"query_embeddings": [query], "n_results": K, "include": ["distances"], **rest}
        return http_request("POST", f"{self._path}/query", _dump(body))

    def _answers(self) -> bool:
        try:
            self.send(http_request("GET", "/api/v2/heartbeat"))
        except (OSError, HttpError):
            return False
        return True


def _metadata(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload without empty lists, which Chroma refuses."""
    return {key: value for key, value in payload.items() if value != []}


def _dump(body: object) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
