"""Qdrant Edge: Qdrant's engine as a library with Python bindings, cosine distance, default settings.

It builds its index when `optimize` is called: once, after the ingest; this counts as indexing time.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from bench.data import FIELDS, Filter, K, Points
from bench.embedded import Action
from bench.target import BATCH
from journal.records import Vectors


class QdrantEdge:
    """A shard in `folder`."""

    name = "qdrant-edge"
    replaces = True
    batch = BATCH

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shard: Any = edge.EdgeShard.load(str(folder)) if folder.exists() else None
        self.settings = (
            f"qdrant-edge-py {version('qdrant-edge-py')}, default HNSW, keyword indexes, writes to a log without fsync"
        )

    def create(self, dimensions: int) -> None:
        self._folder.mkdir()
        config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine))
        self._shard = edge.EdgeShard.create(str(self._folder), config)
        for field in FIELDS:
            self._shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Keyword))

    def upserting(self, points: Points, single: bool) -> Action:
        ids, vectors, payloads = points
        made = [edge.Point(*point) for point in zip(ids, vectors.tolist(), payloads, strict=True)]
        return lambda: self._shard.update(edge.UpdateOperation.upsert_points(made))

    def searching(self, query: Vectors, only: Filter | None) -> Action:
        filter_ = None
        if only is not None:
            filter_ = edge.Filter(must=[edge.FieldCondition(key=only.field, match=edge.MatchValue(only.value))])
        request = edge.SearchRequest(query=edge.Query.Nearest(query.tolist()), limit=K, filter=filter_)
        return partial(self._search, request)

    def index(self) -> None:
        self._shard.optimize()

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()

    def _search(self, request: Any) -> list[int]:
        return [hit.id for hit in self._shard.search(request)]
