"""Scans that wait together are run together, and each gets its own answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from shard.vectors.scans import MAX_TOGETHER, SharedScan
from tests.conftest import until


class Slow(SharedScan):
    """Whose first pass waits until all others stand in the queue."""

    def __init__(self, vectors: np.ndarray, others: int) -> None:
        super().__init__(vectors)
        self._others = others
        self.first = threading.Event()

    def _pass(self, together: list) -> None:  # type: ignore[type-arg]
        if not self.first.is_set():
            self.first.set()
            until(lambda: threading.Event().wait(0.001) or len(self._queue) >= self._others, 30)
        super()._pass(together)


def test_many_scans_take_few_passes() -> None:
    """V11: forty queries that come while one runs take three more passes."""
    chance = np.random.default_rng(1)
    vectors, queries = chance.standard_normal((2000, 24), np.float32), chance.standard_normal((41, 24), np.float32)
    scan = Slow(vectors, len(queries) - 1)
    with ThreadPoolExecutor(len(queries)) as pool:
        found = [pool.submit(scan.products, queries[0])]
        scan.first.wait()
        found += [pool.submit(scan.products, query) for query in queries[1:]]
        products = [future.result(timeout=30) for future in found]
    assert np.allclose(products, queries @ vectors.T, atol=1e-4)
    assert scan.passes == 1 + -(-40 // MAX_TOGETHER)
    assert np.allclose(scan.products(queries[0]), vectors @ queries[0])
