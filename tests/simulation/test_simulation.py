"""Any arrival order of the tiers, any crash, any redelivery gives the same state (N5, I1-I6, I10)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.simulation.__main__ import ACTIONS, run_seed
from tests.simulation.world import World

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


def test_a_seed_is_a_whole_history(tmp_path: Path) -> None:
    """N5: two runs of a seed make the same choices, write the same log, and end with the next choice the same."""
    logging.disable()
    try:
        assert history(tmp_path / "once") == history(tmp_path / "again")
    finally:
        logging.disable(logging.NOTSET)


def history(folder: Path) -> tuple[object, float]:
    world = World(19, folder)
    try:
        world.run(ACTIONS)
    finally:
        world.close()
    return world.journal._logs, world.random.random()
