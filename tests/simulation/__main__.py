"""`python -m tests.simulation SEEDS [FIRST]`: runs that many seeds and stops at the first that fails."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from tests.simulation.world import World

ACTIONS = 120


def run_seed(seed: int) -> None:
    """One history. Raises AssertionError with the line that repeats it."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(seed, Path(folder))
        try:
            world.run(ACTIONS)
        except Exception as error:
            raise AssertionError(f"repeat with: python -m tests.simulation 1 {seed}") from error
        finally:
            world.close()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for number in tqdm(range(first, first + count), unit="seed"):
        run_seed(number)
