"""Any arrival order of the tiers, any crash, any redelivery gives the same state (N5, I1-I6, I10)."""

from __future__ import annotations

import logging

import pytest

from tests.simulation.__main__ import run_seed

SEEDS = 200
QUICK_SEEDS = 20
CHUNK = 10


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] if first >= QUICK_SEEDS else []) for first in range(0, SEEDS, CHUNK)]
)
def test_histories(first: int) -> None:
    """Without logs: pytest would keep each entry's trace, and with it the views that keep RocksDB's lock."""
    logging.disable()
    try:
        for seed in range(first, first + CHUNK):
            run_seed(seed)
    finally:
        logging.disable(logging.NOTSET)
