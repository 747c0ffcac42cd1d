"""Shared scans: queries that wait at the same time are served by one pass over the vectors, as one matrix product.

A scan of many vectors is bound by memory bandwidth, so that sixteen queries take little longer than one.
"""

from __future__ import annotations

import logging
import threading

import numpy as np

from journal.records import Vectors
from shard.vectors.datatypes import Encoded, Encoding

log = logging.getLogger(__name__)

MAX_TOGETHER = 16
"""The largest number of queries in one pass."""


class _Waiting:
    """One query in the queue. `scores` stays None when its pass failed."""

    __slots__ = ("done", "query", "scores")

    def __init__(self, query: Vectors) -> None:
        self.query = query
        self.scores: Vectors | None = None
        self.done = False


class SharedScan:
    """Dot products of all `vectors` of an encoding with queries, as they are compared, from several threads."""

    def __init__(self, vectors: Encoded, encoding: Encoding) -> None:
        self._vectors = vectors
        self._encoding = encoding
        self._queue: list[_Waiting] = []
        self._changed = threading.Condition()
        self._running = False
        self.passes = 0
        """The number of passes so far."""

    def products(self, query: Vectors) -> Vectors:
        """The products with a query of shape (d,). Shape (n,). When no pass is running, the calling thread runs one for all
        waiting queries.

        A pass may fail although a single query would not: because memory is short, or because of another query. So after a
        failed pass each query is computed alone, and raises its own error.
        """
        mine = _Waiting(query)
        with self._changed:
            self._queue.append(mine)
            self._changed.wait_for(lambda: mine.done or not self._running)
            together = [] if mine.done else self._begin(mine)
        if together:
            self._run(together)
        return self._encoding.products(self._vectors, query) if mine.scores is None else mine.scores

    def _begin(self, mine: _Waiting) -> list[_Waiting]:
        """Takes the queries of the next pass from the queue, `mine` among them. Under the condition's lock."""
        self._running = True
        self._queue.remove(mine)
        together = [mine, *self._queue[: MAX_TOGETHER - 1]]
        self._queue = self._queue[MAX_TOGETHER - 1 :]
        return together

    def _run(self, together: list[_Waiting]) -> None:
        """Runs one pass; errors are logged."""
        try:
            self._pass(together)
        except Exception:
            log.warning("a scan for %d queries failed; each is repeated alone", len(together), exc_info=True)
        finally:
            with self._changed:
                self._running = False
                for waiting in together:
                    waiting.done = True
                self._changed.notify_all()

    def _pass(self, together: list[_Waiting]) -> None:
        self.passes += 1
        if len(together) == 1:
            together[0].scores = self._encoding.products(self._vectors, together[0].query)
            return
        queries = np.stack([waiting.query for waiting in together])
        products = np.empty((len(together), len(self._vectors)), np.float32)
        for start, some in self._encoding.parts(self._vectors):
            np.matmul(queries, some.T, out=products[:, start : start + len(some)])
        for waiting, scores in zip(together, products, strict=True):
            waiting.scores = scores
