"""Any arrival order of the tiers, any crash, any redelivery gives the same state (N5, I1-I6, I10)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.simulation.__main__ import run_seed
from tests.simulation.log_world import LogWorld
from tests.simulation.world import World

SEEDS = 200
QUICK_SEEDS = 20
LOG_SEEDS, QUICK_LOG_SEEDS = 60, 3
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


@pytest.mark.parametrize(
    "first",
    [pytest.param(first, marks=[pytest.mark.slow] if first else []) for first in range(0, LOG_SEEDS, QUICK_LOG_SEEDS)],
)
@pytest.mark.parametrize("kind", ["log", "shared-log"])
def test_a_log_that_comes_to_harm(first: int, kind: str) -> None:
    """I1, I2: what is lost is named, and what a repair promises is there."""
    logging.disable()
    try:
        for seed in range(first, first + QUICK_LOG_SEEDS):
            run_seed(seed, kind)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_a_seed_is_a_whole_history(tmp_path: Path) -> None:
    """N5: two runs of a seed make the same choices, write the same log, and end with the next choice the same."""
    logging.disable()
    try:
        assert history(World(19, tmp_path / "once")) == history(World(19, tmp_path / "again"))
        assert history(LogWorld(19, tmp_path / "log")) == history(LogWorld(19, tmp_path / "log again"))
    finally:
        logging.disable(logging.NOTSET)


def history(world: World | LogWorld) -> tuple[object, float]:
    try:
        world.run()
    finally:
        world.close()
    return world.history if isinstance(world, LogWorld) else world.journal._logs, world.random.random()
