"""Long scans that wait together are run together: one pass over the vectors serves several queries, as one matrix product.

A scan of many vectors waits for memory, not for arithmetic, so that sixteen queries at once take little longer than one.
"""

from __future__ import annotations

import logging
import threading

import numpy as np

from journal.records import Vectors

log = logging.getLogger(__name__)

MAX_TOGETHER = 16
"""Queries of one pass."""
CHUNK_VECTORS = 65_536
"""Vectors of one product, which bound its memory."""


class _Waiting:
    """One query in the queue. `scores` stays None where the pass that it was part of failed."""

    __slots__ = ("done", "query", "scores")

    def __init__(self, query: Vectors) -> None:
        self.query = query
        self.scores: Vectors | None = None
        self.done = False


class SharedScan:
    """Dot products of all `vectors`, shape (n, d), with queries that come from several threads."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._queue: list[_Waiting] = []
        self._changed = threading.Condition()
        self._running = False
        self.passes = 0
        """How often all vectors were read."""

    def products(self, query: Vectors) -> Vectors:
        """With a query of shape (d,). Shape (n,). A thread that comes while no pass runs makes one, for all that wait by then.

        A pass of several queries may fail where one of a single query does not: for want of memory, or because of another's
        query. So each query of a failed pass is then computed alone, and raises its own error.
        """
        mine = _Waiting(query)
        with self._changed:
            self._queue.append(mine)
            self._changed.wait_for(lambda: mine.done or not self._running)
            together = [] if mine.done else self._begin(mine)
        if together:
            self._run(together)
        return self._vectors @ query if mine.scores is None else mine.scores

    def _begin(self, mine: _Waiting) -> list[_Waiting]:
        """Takes the queries of the next pass from the queue, `mine` among them. Under the condition's lock."""
        self._running = True
        self._queue.remove(mine)
        together = [mine, *self._queue[: MAX_TOGETHER - 1]]
        self._queue = self._queue[MAX_TOGETHER - 1 :]
        return together

    def _run(self, together: list[_Waiting]) -> None:
        """One pass. However it ends, the next one can begin."""
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
            together[0].scores = self._vectors @ together[0].query
            return
        queries = np.stack([waiting.query for waiting in together])
        products = np.empty((len(together), len(self._vectors)), np.float32)
        for start in range(0, len(self._vectors), CHUNK_VECTORS):
            np.matmul(queries, self._vectors[start : start + CHUNK_VECTORS].T, out=products[:, start : start + CHUNK_VECTORS])
        for waiting, scores in zip(together, products, strict=True):
            waiting.scores = scores
