"""`python -m tests.simulation SEEDS [FIRST]`: runs that many seeds on all cores, and stops at the first that fails."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from tests.simulation.world import World

ACTIONS = 120
MEMORY = Path("/dev/shm")
"""Crashes here are of processes, not of disks: files may lie in memory, where there is such a place."""


def run_seed(seed: int) -> None:
    """One history. Raises AssertionError with the line that repeats it."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy else None) as folder:
        world = World(seed, Path(folder))
        try:
            world.run(ACTIONS)
        except Exception as error:
            raise AssertionError(f"repeat with: python -m tests.simulation 1 {seed}") from error
        finally:
            world.close()


if __name__ == "__main__":
    logging.disable()  # the faults are meant
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with multiprocessing.Pool() as pool:
        for _ in tqdm(pool.imap_unordered(run_seed, range(first, first + count)), total=count, unit="seed"):
            pass
