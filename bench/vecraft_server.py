"""Vecraft DB: a node with default (durable) settings, over its REST API."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Self

import orjson

from bench.client import WARM_UP_S, Address, HttpSession, Timings, http_request, in_processes
from bench.data import FIELDS, Data, Filter, K, Points
from bench.server import ServerProcess
from bench.target import BATCH
from catalog.collection import HnswConfig
from journal.records import Vectors
from vecraft import __version__

_PATH = "/collections/bench"
_LISTENS = re.compile(r"listens on http://([\d.]+):(\d+)")


class VecraftServer:
    """A node process with its data in `folder`."""

    process: ServerProcess
    name = "vecraft"
    batch = BATCH
    replaces = True

    def __init__(self, folder: Path) -> None:
        hnsw = HnswConfig()
        self.settings = (
            f"{__version__}, a server, HNSW m {hnsw.m}, ef_construct {hnsw.ef_construct}, ef as measured for 0.98, "
            "acknowledged once in the synced log; JSON over HTTP, client processes"
        )
        self.folder = folder
        self.flags: Sequence[str] = ()
        """Further settings of the node."""
        self._address: Address = ("", 0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        command = [sys.executable, "-m", "vecraft", "serve", "--port", "0", "--data-dir", str(self.folder / "data"), *self.flags]
        self.process = ServerProcess(command, self.folder / "log", {})
        self.process.wait_for(lambda: "ready after" in self.process.output())
        match = _LISTENS.search(self.process.output())
        assert match, "a node that is ready has said where it listens"
        self._address = (match[1], int(match[2]))

    def stop(self) -> None:
        self.process.stop()

    def create(self, dimensions: int) -> None:
        vectors = {"size": dimensions, "distance": "Cosine"}
        self.send(http_request("PUT", _PATH, orjson.dumps({"vectors": vectors})))
        for field in FIELDS:
            index = {"field_name": field, "field_schema": "keyword"}
            self.send(http_request("PUT", f"{_PATH}/index", orjson.dumps(index)))

    def bulk(self, points: Points, last: bool = True) -> bytes:
        return http_request("PUT", f"{_PATH}/points?wait={'true' if last else 'false'}", upsert_body(points))

    def upsert(self, points: Points) -> bytes:
        return self.bulk(points)

    def search(self, query: Vectors, only: Filter | None = None) -> bytes:
        rest = {"filter": {"must": [{"key": only.field, "match": {"value": only.value}}]}} if only is not None else {}
        return http_request("POST", f"{_PATH}/points/search", _dump({"vector": query, "limit": K, **rest}))

    def session(self) -> HttpSession:
        return HttpSession(self._address)

    def send(self, request: bytes) -> bytes:
        session = self.session()
        try:
            return session.send(request)
        finally:
            session.close()

    def rows_of(self, answer: bytes) -> list[int]:
        return [hit["id"] for hit in orjson.loads(answer)["result"]]

    def points(self) -> int:
        """The number of readable points."""
        return int(self._info()["points_count"])

    def searchable(self, count: int) -> bool:
        info = self._info()
        return bool(info["points_count"] == count and info["status"] == "green")

    def run(self, streams: Sequence[Sequence[bytes]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Timings]:
        return in_processes(partial(HttpSession, self._address), streams, seconds, warm_up_s)

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = orjson.loads(self.send(http_request("GET", _PATH)))["result"]
        return info


def upsert_bodies(data: Data, limit: int | None = None) -> list[bytes]:
    """Request bodies that upsert the first `limit` vectors, or all, `BATCH` per body."""
    count = min(limit or len(data.vectors), len(data.vectors))
    return [upsert_body(data.points(range(start, min(count, start + BATCH)))) for start in range(0, count, BATCH)]


def upsert_body(points: Points) -> bytes:
    """A request body that upserts these points."""
    ids, vectors, payloads = points
    rows = zip(ids, vectors, payloads, strict=True)
    return _dump({"points": [{"id": row, "vector": vector, "payload": payload} for row, vector, payload in rows]})


def _dump(body: object) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
