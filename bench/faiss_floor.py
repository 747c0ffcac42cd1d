"""Raw FAISS: one HNSW graph over fp16 codes, with our server's graph settings and one thread per search.

A lower bound for latency: no network, no durability, no payloads. An upsert only inserts, because the graph cannot delete.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from bench.data import FIELDS, Filter, K, Points
from bench.embedded import Action
from catalog.collection import HnswConfig
from journal.records import Vectors
from shard.vectors.graph import DEFAULT_EF

faiss: Any = _faiss  # its stubs lack the search parameters and the numpy signatures


class FaissFloor:
    """A graph in memory, and one bitmap per filter."""

    name = "faiss"
    replaces = False
    batch = 1 << 30  # one batch: FAISS then inserts by level, which gives a better graph

    def __init__(self, folder: Path) -> None:
        faiss.omp_set_num_threads(1)
        self._hnsw = HnswConfig()
        self._rows: dict[Filter, list[int]] = defaultdict(list)
        self._selectors: dict[Filter, Any] = {}
        self.settings = (
            f"faiss {faiss.__version__} IndexHNSWSQ fp16 in memory, nothing is kept or replaced, one thread a search, "
            f"m {self._hnsw.m}, ef_construct {self._hnsw.ef_construct}, ef {DEFAULT_EF}"
        )

    def create(self, dimensions: int) -> None:
        self._graph: Any = faiss.IndexHNSWSQ(dimensions, faiss.ScalarQuantizer.QT_fp16, self._hnsw.m, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = self._hnsw.ef_construct
        self._graph.train(np.zeros((1, dimensions), np.float32))

    def upserting(self, points: Points, single: bool) -> Action:
        if not single:
            for row, payload in zip(points.ids, points.payloads, strict=True):
                for field in FIELDS:
                    self._rows[Filter(field, payload[field])].append(row)
        return partial(self._graph.add, points.vectors)

    def searching(self, query: Vectors, only: Filter | None) -> Action:
        parameters = faiss.SearchParametersHNSW(efSearch=DEFAULT_EF, sel=self._selector(only) if only is not None else None)
        return lambda: [row for row in self._graph.search(query[None], K, params=parameters)[1][0].tolist() if row >= 0]

    def index(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _selector(self, only: Filter) -> Any:
        if only not in self._selectors:
            allowed = np.zeros(self._graph.ntotal, np.bool_)
            allowed[self._rows[only]] = True
            self._selectors[only] = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        return self._selectors[only]
