"""The state folder of a node that is stopped, for commands that replace it."""

from __future__ import annotations

import time
from itertools import chain, count
from pathlib import Path

from shard.shard import ROWS
from shard.store import Store
from vecraft.commands import CommandError


def check_unused(state: Path) -> None:
    """Raises CommandError while a node has a shard of the state open."""
    for rows in state.glob(f"[0-9]*/[0-9]*/{ROWS}"):
        try:
            Store(rows, {}).close()
        except Exception as error:  # RocksDB's errors have no class of their own
            refuse_in_use(state, error)


def refuse_in_use(state: Path, error: Exception) -> None:
    """Raises CommandError if the error of RocksDB says that another process has it open."""
    if "lock" in str(error).lower():
        raise CommandError(f"the state in {state} is in use, stop the node first: {error}") from error


def put_aside(state: Path) -> Path:
    """Moves the state away. Returns where it is now."""
    name = f"state.before-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    aside = next(path for path in map(state.with_name, names) if not path.exists())
    state.rename(aside)
    return aside
