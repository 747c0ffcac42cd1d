"""Chroma: its own server with its default settings, cosine distance, by its REST API.

It writes a log when data comes and brings its index up to date when a search asks, so the first search is part of an ingest.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.client import Address, HttpError, HttpSession, Load, http_load, http_request
from bench.data import FIELD, Data, K
from bench.server import ServerProcess
from bench.target import BATCH, Session

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


class Chroma:
    """A server of its own in `folder`."""

    process: ServerProcess
    name = "chroma"
    replaces = True

    def __init__(self, folder: Path) -> None:
        self.settings = f"chromadb {version('chromadb')}"
        self._folder = folder
        self._address: Address = ("127.0.0.1", 0)
        self._path = ""
        self._probe = b""

    def __enter__(self) -> Self:
        self._address = ("127.0.0.1", _free_port())
        command = [str(Path(sys.executable).parent / "chroma"), "run", "--path", str(self._folder / "data")]
        command += ["--host", self._address[0], "--port", str(self._address[1])]
        self.process = ServerProcess(command, self._folder / "log", {"ANONYMIZED_TELEMETRY": "False"})
        try:
            self.process.wait_for(self._answers)
        except Exception:
            self.process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def create(self, data: Data) -> None:
        session = self.session()
        body = {"name": "bench", "configuration": {"hnsw": {"space": "cosine"}}}
        created = orjson.loads(session.send(http_request("POST", _COLLECTIONS, orjson.dumps(body))))
        session.close()
        self._path = f"{_COLLECTIONS}/{created['id']}"
        hnsw = created["configuration_json"]["hnsw"]
        self.settings += f", HNSW m {hnsw['max_neighbors']}, ef_construct {hnsw['ef_construction']}, ef {hnsw['ef_search']}"
        self._probe = self.searches(data)[0]

    def ingest(self, data: Data) -> list[bytes]:
        count = len(data.vectors)
        return [self._upsert(data, range(start, min(count, start + BATCH))) for start in range(0, count, BATCH)]

    def upserts(self, data: Data, rows: NDArray[np.int64]) -> list[bytes]:
        return [self._upsert(data, [row]) for row in rows.tolist()]

    def searches(self, data: Data, section: str | None = None) -> list[bytes]:
        rest = {"where": {FIELD: section}} if section is not None else {}
        bodies = [{"query_embeddings": [query], "n_results": K, "include": ["distances"], **rest} for query in data.queries]
        return [http_request("POST", f"{self._path}/query", _dump(body)) for body in bodies]

    def session(self) -> HttpSession:
        return HttpSession(self._address)

    def found(self, answer: bytes) -> list[int]:
        return [int(text) for text in orjson.loads(answer)["ids"][0]]

    def searchable(self, session: Session, count: int) -> bool:
        session.send(self._probe)
        return int(session.send(http_request("GET", f"{self._path}/count"))) == count

    def load(self, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
        return http_load(self._address, requests, clients, seconds)

    def _upsert(self, data: Data, rows: Sequence[int]) -> bytes:
        body = {
            "ids": [str(row) for row in rows],
            "embeddings": [data.vectors[row] for row in rows],
            "metadatas": [_metadata(data.payloads[row]) for row in rows],
        }
        return http_request("POST", f"{self._path}/upsert", _dump(body))

    def _answers(self) -> bool:
        try:
            session = self.session()
            session.send(http_request("GET", "/api/v2/heartbeat"))
            session.close()
        except (OSError, HttpError):
            return False
        return True


def _metadata(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload less its empty lists, which Chroma refuses."""
    return {key: value for key, value in payload.items() if value != []}


def _dump(body: object) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
