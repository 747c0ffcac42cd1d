"""Vecraft DB: a real node with its default, durable settings, by its REST API."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import orjson
from numpy.typing import NDArray

from bench.client import Address, HttpSession, Load, http_load, http_request
from bench.data import FIELD, Data, K
from bench.server import ServerProcess
from bench.target import BATCH, Session
from catalog.collection import HnswConfig
from query.search import EF_SEARCH
from vecraft import __version__

_PATH = "/collections/bench"
_LISTENS = re.compile(r"listens on http://([\d.]+):(\d+)")


class VecraftServer:
    """A node of its own in `folder`."""

    process: ServerProcess
    name = "vecraft"
    replaces = True

    def __init__(self, folder: Path) -> None:
        self.settings = (
            f"vecraft {__version__}, HNSW m {HnswConfig().m}, ef_construct {HnswConfig().ef_construct}, ef {EF_SEARCH}"
        )
        self._folder = folder
        self._address: Address = ("", 0)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "vecraft.cli", "serve", "--port", "0", "--data-dir", str(self._folder / "data")]
        self.process = ServerProcess(command, self._folder / "log", {})
        try:
            self.process.wait_for(lambda: "ready after" in self.process.output())
        except Exception:
            self.process.stop()
            raise
        match = _LISTENS.search(self.process.output())
        assert match, "a node that is ready has said where it listens"
        self._address = (match[1], int(match[2]))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def create(self, data: Data) -> None:
        session = self.session()
        vectors = {"size": data.vectors.shape[1], "distance": "Cosine"}
        session.send(http_request("PUT", _PATH, orjson.dumps({"vectors": vectors})))
        index = {"field_name": FIELD, "field_schema": "keyword"}
        session.send(http_request("PUT", f"{_PATH}/index", orjson.dumps(index)))
        session.close()

    def ingest(self, data: Data) -> list[bytes]:
        bodies = upsert_bodies(data)
        requests = [http_request("PUT", f"{_PATH}/points?wait=false", body) for body in bodies[:-1]]
        return [*requests, http_request("PUT", f"{_PATH}/points?wait=true", bodies[-1])]

    def upserts(self, data: Data, rows: NDArray[np.int64]) -> list[bytes]:
        return [http_request("PUT", f"{_PATH}/points?wait=true", _upsert_body(data, [row])) for row in rows.tolist()]

    def searches(self, data: Data, section: str | None = None) -> list[bytes]:
        rest = {"filter": {"must": [{"key": FIELD, "match": {"value": section}}]}} if section is not None else {}
        bodies = [{"vector": query, "limit": K, **rest} for query in data.queries]
        return [http_request("POST", f"{_PATH}/points/search", _dump(body)) for body in bodies]

    def session(self) -> HttpSession:
        return HttpSession(self._address)

    def found(self, answer: bytes) -> list[int]:
        return [hit["id"] for hit in orjson.loads(answer)["result"]]

    def searchable(self, session: Session, count: int) -> bool:
        info = orjson.loads(session.send(http_request("GET", _PATH)))["result"]
        return bool(info["points_count"] == count and info["status"] == "green")

    def load(self, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
        return http_load(self._address, requests, clients, seconds)


def upsert_bodies(data: Data, limit: int | None = None) -> list[bytes]:
    """Bodies that upsert the first `limit` vectors, or all, `BATCH` each."""
    count = min(limit or len(data.vectors), len(data.vectors))
    return [_upsert_body(data, range(start, min(count, start + BATCH))) for start in range(0, count, BATCH)]


def _upsert_body(data: Data, rows: Sequence[int]) -> bytes:
    return _dump({"points": [{"id": row, "vector": data.vectors[row], "payload": data.payloads[row]} for row in rows]})


def _dump(body: object) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
