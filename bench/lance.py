"""LanceDB: an embedded database over columnar files, cosine distance.

Uses the HNSW index with default settings, because at 384 dimensions its recall is higher than that of the default index (product
quantization). Scalar indexes on the fields of filters and on the id. Indexes are built on request: once, after the ingest.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")
os.environ.setdefault("RUST_LOG", "error")

import lancedb
import orjson
import pyarrow as arrow
from lancedb.index import Bitmap, BTree, HnswSq

from bench.data import FIELDS, Filter, K, Points
from bench.embedded import Action
from bench.target import BATCH
from journal.records import Vectors


class Lance:
    """A table in `folder`."""

    name = "lancedb"
    replaces = True
    batch = BATCH

    def __init__(self, folder: Path) -> None:
        known = folder.exists()
        self._database: Any = lancedb.connect(folder)
        self._table: Any = self._database.open_table("bench") if known else None
        self._indexed = self._table is not None
        self.settings = f"lancedb {version('lancedb')}, default HNSW_SQ, scalar indexes"

    def create(self, dimensions: int) -> None:
        vector = arrow.list_(arrow.float32(), dimensions)
        fields = [("id", arrow.int64()), ("vector", vector), *((field, arrow.string()) for field in FIELDS)]
        schema = arrow.schema([*fields, ("payload", arrow.string())])
        self._table = self._database.create_table("bench", schema=schema)

    def upserting(self, points: Points, single: bool) -> Action:
        rows = self._rows(points)
        if not self._indexed:
            return partial(self._table.add, rows)
        return lambda: self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def searching(self, query: Vectors, only: Filter | None) -> Action:
        return partial(self._search, query, f"{only.field} = '{only.value}'" if only is not None else None)

    def index(self) -> None:
        self._table.create_index("vector", config=HnswSq(distance_type="cosine"))
        self._table.create_index("id", config=BTree())
        for field in FIELDS:
            self._table.create_index(field, config=Bitmap())
        self._indexed = True

    def close(self) -> None:
        pass

    def _search(self, query: Vectors, where: str | None) -> list[int]:
        search = self._table.search(query).distance_type("cosine").limit(K).select(["id", "_distance"])
        if where is not None:
            search = search.where(where)
        rows: list[int] = search.to_arrow()["id"].to_pylist()
        return rows

    def _rows(self, points: Points) -> Any:
        ids, vectors, payloads = points
        columns = [arrow.array(ids, arrow.int64())]
        columns.append(arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.reshape(-1)), vectors.shape[1]))
        columns += [arrow.array([payload[field] for payload in payloads]) for field in FIELDS]
        columns.append(arrow.array([orjson.dumps(payload).decode() for payload in payloads]))
        return arrow.Table.from_arrays(columns, schema=self._table.schema)
