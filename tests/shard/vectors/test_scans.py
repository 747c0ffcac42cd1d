"""Scans that wait together are run together, and each gets its own answer."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from catalog.collection import Datatype, Distance
from shard.vectors.datatypes import Encoding
from shard.vectors.scans import MAX_TOGETHER, SharedScan
from tests.conftest import until


class Slow(SharedScan):
    """Whose first pass waits until all others stand in the queue."""

    def __init__(self, vectors: np.ndarray, others: int) -> None:
        super().__init__(vectors, Encoding(Datatype.FLOAT32, Distance.DOT, vectors.shape[1]))
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


def started(scan: SharedScan, query: np.ndarray) -> Future[np.ndarray]:
    """The products, from a thread of their own; one that hangs does not keep the test from ending."""
    future: Future[np.ndarray] = Future()

    def run() -> None:
        try:
            future.set_result(scan.products(query))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Short(SharedScan):
    """Without the memory for a pass of several queries."""

    def _pass(self, together: list) -> None:  # type: ignore[type-arg]
        if len(together) > 1:
            raise MemoryError
        super()._pass(together)


class SlowAndShort(Slow, Short):
    """Whose second pass is one of several queries, and fails."""


def test_each_scan_of_a_failed_pass_runs_alone() -> None:
    """V11: too little memory for all that wait together costs time, and no answer."""
    chance = np.random.default_rng(1)
    vectors, queries = chance.standard_normal((2000, 24), np.float32), chance.standard_normal((9, 24), np.float32)
    scan = SlowAndShort(vectors, len(queries) - 1)
    found = [started(scan, queries[0])]
    scan.first.wait()
    found += [started(scan, query) for query in queries[1:]]
    assert np.allclose([future.result(timeout=10) for future in found], queries @ vectors.T, atol=1e-4)
    assert np.allclose(started(scan, queries[0]).result(timeout=10), vectors @ queries[0], atol=1e-4)


def test_a_scan_that_fails_raises_and_disturbs_no_other() -> None:
    """A query of another size fails, whether it waits with others or runs alone."""
    chance = np.random.default_rng(1)
    vectors, queries = chance.standard_normal((2000, 24), np.float32), chance.standard_normal((5, 24), np.float32)
    scan = Slow(vectors, len(queries))
    found = [started(scan, queries[0])]
    scan.first.wait()
    wrong = started(scan, queries[0][:7])
    found += [started(scan, query) for query in queries[1:]]
    with pytest.raises(ValueError, match="mismatch"):
        wrong.result(timeout=10)
    assert np.allclose([future.result(timeout=10) for future in found], queries @ vectors.T, atol=1e-4)
    with pytest.raises(ValueError, match="mismatch"):
        started(scan, queries[0][:7]).result(timeout=10)
    assert np.allclose(started(scan, queries[1]).result(timeout=10), vectors @ queries[1], atol=1e-4)
