"""`python -m tests.simulation SEEDS [FIRST [KIND]]`: runs that many seeds on all cores, and stops at the first that fails.

KIND says what comes to harm: `log`, the embedded log (`log_world.py`); `shared-log`, one that two nodes share
(`shared_log_world.py`); without it everything else (`world.py`).
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from tests.simulation.log_world import LogWorld
from tests.simulation.shared_log_world import SharedLogWorld
from tests.simulation.world import World

WORLDS = {"": World, "log": LogWorld, "shared-log": SharedLogWorld}
MEMORY = Path("/dev/shm")
"""Crashes here are of processes, not of disks: files may lie in memory, where there is such a place."""


def run_seed(seed: int, kind: str = "") -> None:
    """One history, in the world of this kind. Raises AssertionError with the line that repeats it."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 30
    with tempfile.TemporaryDirectory(dir=MEMORY if roomy else None) as folder:
        world = WORLDS[kind](seed, Path(folder))
        try:
            world.run()
        except Exception as error:
            raise AssertionError(f"repeat with: python -m tests.simulation 1 {seed} {kind}".rstrip()) from error
        finally:
            world.close()


if __name__ == "__main__":
    logging.disable()  # the faults are meant
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    one = partial(run_seed, kind=sys.argv[3] if len(sys.argv) > 3 else "")
    with multiprocessing.Pool() as pool:
        for _ in tqdm(pool.imap_unordered(one, range(first, first + count)), total=count, unit="seed"):
            pass
