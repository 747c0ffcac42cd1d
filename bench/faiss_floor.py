"""Raw FAISS in this process: one HNSW graph over fp16 codes, with the server's graph settings and one thread a search.

The floor: no network, no durability, no payload. The clients are threads, since FAISS searches without the GIL. An upsert only
adds, since a graph cannot give a vector up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from bench.client import Load, repeat
from bench.data import Data, K
from catalog.collection import HnswConfig
from journal.records import Vectors
from query.search import EF_SEARCH

faiss: Any = _faiss  # its stubs know neither the search parameters nor the numpy signatures

Action = Callable[[], Any]


class FaissFloor:
    """A graph; a request is an action on it."""

    name = "faiss"
    process = None
    replaces = False

    def __init__(self, folder: Path) -> None:
        self._hnsw = HnswConfig()
        self.settings = (
            f"faiss {faiss.__version__} IndexHNSWSQ fp16, one thread a search, "
            f"m {self._hnsw.m}, ef_construct {self._hnsw.ef_construct}, ef {EF_SEARCH}"
        )

    def __enter__(self) -> Self:
        faiss.omp_set_num_threads(1)
        return self

    def __exit__(self, *_: object) -> None:
        del self._index

    def create(self, data: Data) -> None:
        size = data.vectors.shape[1]
        self._index: Any = faiss.IndexHNSWSQ(size, faiss.ScalarQuantizer.QT_fp16, self._hnsw.m, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = self._hnsw.ef_construct
        self._index.train(data.vectors[:1])

    def ingest(self, data: Data) -> list[Action]:
        """All at once: FAISS then inserts by level, which gives the better graph."""
        return [lambda: self._index.add(data.vectors)]

    def upserts(self, data: Data, rows: NDArray[np.int64]) -> list[Action]:
        return [partial(self._index.add, data.vectors[row : row + 1]) for row in rows.tolist()]

    def searches(self, data: Data, section: str | None = None) -> list[Action]:
        selector = None
        if section is not None:
            allowed = np.zeros(len(data.vectors), np.bool_)
            allowed[data.rows_with(section)] = True
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters = faiss.SearchParametersHNSW(efSearch=EF_SEARCH, sel=selector)
        queries = np.split(data.queries, len(data.queries))
        return [partial(self._index.search, query, K, params=parameters) for query in queries]

    def session(self) -> FaissFloor:
        return self

    def send(self, request: Action) -> Any:
        return request()

    def close(self) -> None:
        pass

    def found(self, answer: tuple[Vectors, NDArray[np.int64]]) -> list[int]:
        return [row for row in answer[1][0].tolist() if row >= 0]

    def searchable(self, session: object, count: int) -> bool:
        return bool(self._index.ntotal == count)

    def load(self, requests: Sequence[Action], clients: int, seconds: float) -> Load:
        with ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(repeat, self, requests[at::clients], seconds) for at in range(clients)]
            taken = [second for client in running for second in client.result()]
        return Load(len(taken) / seconds, taken)
