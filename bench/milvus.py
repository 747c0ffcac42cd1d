"""Milvus Lite: its server in its own process, with the pymilvus client, cosine distance and default settings.

AUTOINDEX is HNSW there. Clients are threads of the measuring process: the server takes tens of milliseconds per request, so their
shared GIL has little effect. Latencies include the encoding in pymilvus.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, Self

import milvus_lite
from pymilvus import DataType, MilvusClient, MilvusException

from bench.client import TIMEOUT_S, WARM_UP_S, Timings, in_threads
from bench.data import FIELDS, Filter, K, Points
from bench.server import ServerProcess, free_port
from bench.target import BATCH
from journal.records import Vectors

Request = tuple[str, dict[str, Any]]
"""Name and arguments of a client method."""


class MilvusLite:
    """A server process with its data in `folder`."""

    process: ServerProcess
    name = "milvus-lite"
    batch = BATCH
    replaces = True

    def __init__(self, folder: Path) -> None:
        releases = f"milvus-lite {milvus_lite.__version__}, pymilvus {version('pymilvus')}"
        self.settings = (
            f"{releases}, a server, AUTOINDEX (HNSW m 16, ef_construct 200, ef 64), scalar indexes; gRPC, client threads"
        )
        self.folder = folder
        self._address = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        port = free_port()
        self._address = f"http://127.0.0.1:{port}"
        command = [str(Path(sys.executable).parent / "milvus-lite"), "server", "--data-dir", str(self.folder / "data")]
        self.process = ServerProcess([*command, "--host", "127.0.0.1", "--port", str(port)], self.folder / "log", {})
        self.process.wait_for(self._answers)

    def stop(self) -> None:
        self._client.close()
        self.process.stop()

    def create(self, dimensions: int) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
        indexes = self._client.prepare_index_params()
        indexes.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        for field in FIELDS:
            schema.add_field(field, DataType.VARCHAR, max_length=64)
            indexes.add_index(field, index_type="INVERTED")
        self._client.create_collection("bench", schema=schema, index_params=indexes)

    def bulk(self, points: Points, last: bool = True) -> Request:
        rows = zip(*points, strict=True)
        return "upsert", {"data": [{"id": row, "vector": vector, **payload} for row, vector, payload in rows]}

    def upsert(self, points: Points) -> Request:
        return self.bulk(points)

    def search(self, query: Vectors, only: Filter | None = None) -> Request:
        rest = {"filter": f'{only.field} == "{only.value}"'} if only is not None else {}
        return "search", {"data": [query], "limit": K, "output_fields": ["id"], **rest}

    def send(self, request: Request) -> Any:
        return _Session(self._client).send(request)

    def rows_of(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer[0]]

    def searchable(self, count: int) -> bool:
        self._client.flush("bench")
        return bool(self._client.describe_index("bench", "vector")["indexed_rows"] == count)

    def run(self, streams: Sequence[Sequence[Request]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Timings]:
        return in_threads(partial(_Session, self._client), streams, seconds, warm_up_s)

    def _answers(self) -> bool:
        try:
            self._client = MilvusClient(uri=self._address, timeout=1)
        except MilvusException:
            return False
        if self._client.has_collection("bench"):
            self._client.load_collection("bench")
        return True


class _Session:
    """A client thread's session; all use the same thread-safe client."""

    def __init__(self, client: MilvusClient) -> None:
        self._client = client

    def send(self, request: Request) -> Any:
        name, arguments = request
        return getattr(self._client, name)("bench", timeout=TIMEOUT_S, **arguments)

    def close(self) -> None:
        pass
