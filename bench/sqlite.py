"""sqlite-vec: a virtual table of SQLite with exact search (brute force), cosine distance.

Uses apsw, because Python's sqlite3 may be built without support for extensions. Journal mode WAL, as is usual with several
clients; one connection per client.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import apsw
import orjson
import sqlite_vec

from bench.client import TIMEOUT_S
from bench.data import FIELDS, Filter, K, Points
from bench.embedded import Action
from bench.target import BATCH
from journal.records import Vectors

_COLUMNS = ("id", "embedding", *FIELDS, "payload")
_INSERT = f"INSERT INTO bench ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_SEARCH = f"SELECT id FROM bench WHERE embedding MATCH ? AND k = {K}"


class SqliteVec:
    """A database file in `folder`."""

    name = "sqlite-vec"
    replaces = True
    batch = BATCH

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = folder / "bench.db"
        self._own = threading.local()
        release = next(self._connection().execute("SELECT vec_version()"))[0]
        self.settings = f"sqlite-vec {release}, SQLite {apsw.sqlite_lib_version()}, exact, journal_mode WAL"

    def create(self, dimensions: int) -> None:
        fields = "".join(f", {field} TEXT" for field in FIELDS)
        vector = f"embedding float[{dimensions}] distance_metric=cosine"
        self._connection().execute(
            f"CREATE VIRTUAL TABLE bench USING vec0(id INTEGER PRIMARY KEY, {vector}{fields}, +payload TEXT)"
        )

    def upserting(self, points: Points, single: bool) -> Action:
        rows = [
            (row, vector.tobytes(), *(payload[field] for field in FIELDS), orjson.dumps(payload).decode())
            for row, vector, payload in zip(*points, strict=True)
        ]
        return lambda: self._upsert(rows)

    def searching(self, query: Vectors, only: Filter | None) -> Action:
        statement = _SEARCH if only is None else f"{_SEARCH} AND {only.field} = ?"
        values = (query.tobytes(),) if only is None else (query.tobytes(), only.value)
        return lambda: [row for (row,) in self._connection().execute(statement, values)]

    def index(self) -> None:
        pass

    def close(self) -> None:
        self._connection().close()

    def _upsert(self, rows: list[tuple[Any, ...]]) -> None:
        """Deletes and inserts, because virtual tables do not support upserts."""
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("DELETE FROM bench WHERE id = ?", [(row[0],) for row in rows])
            connection.executemany(_INSERT, rows)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _connection(self) -> apsw.Connection:
        """The connection of the current thread."""
        if not hasattr(self._own, "connection"):
            opened = apsw.Connection(str(self._file))
            opened.set_busy_timeout(1000 * TIMEOUT_S)
            opened.enable_load_extension(True)
            opened.load_extension(sqlite_vec.loadable_path())
            opened.execute("PRAGMA journal_mode = WAL")
            self._own.connection = opened
        connection: apsw.Connection = self._own.connection
        return connection
