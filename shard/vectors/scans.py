"""Long scans that wait together are run together: one pass over the vectors serves several queries, as one matrix product.

A scan of many vectors waits for memory, not for arithmetic, so that sixteen queries at once take little longer than one.
"""

from __future__ import annotations

import threading

import numpy as np

from journal.records import Vectors

MAX_TOGETHER = 16
CHUNK_VECTORS = 65_536
"""Vectors of one product, which bounds its memory."""


class _Waiting:
    """One query's place in the queue."""

    __slots__ = ("query", "scores")

    def __init__(self, query: Vectors) -> None:
        self.query = query
        self.scores: Vectors | None = None


class SharedScan:
    """Dot products of all `vectors`, shape (n, d), with queries that come from several threads."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._queue: list[_Waiting] = []
        self._changed = threading.Condition()
        self._running = False
        self.passes = 0
        """How often the vectors were gone through."""

    def products(self, query: Vectors) -> Vectors:
        """With a query of shape (d,). Shape (n,). Whoever finds no pass running makes one, for all who wait by then."""
        mine = _Waiting(query)
        with self._changed:
            self._queue.append(mine)
            while mine.scores is None and self._running:
                self._changed.wait()
            if mine.scores is not None:
                return mine.scores
            self._running = True
            together, self._queue = self._queue[:MAX_TOGETHER], self._queue[MAX_TOGETHER:]
            if mine not in together:
                self._queue.remove(mine)
                together.append(mine)
        try:
            self._pass(together)
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()
        assert mine.scores is not None
        return mine.scores

    def _pass(self, together: list[_Waiting]) -> None:
        self.passes += 1
        if len(together) == 1:
            together[0].scores = self._vectors @ together[0].query
            return
        queries = np.stack([waiting.query for waiting in together])
        products = np.empty((len(together), len(self._vectors)), np.float32)
        for start in range(0, len(self._vectors), CHUNK_VECTORS):
            np.matmul(queries, self._vectors[start : start + CHUNK_VECTORS].T, out=products[:, start : start + CHUNK_VECTORS])
        for waiting, scores in zip(together, products, strict=True):
            waiting.scores = scores
