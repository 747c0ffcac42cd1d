"""Shards so small that checkpoints and sorted indexes come about in a few steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import shard.checkpoint
import shard.postings
import shard.sorted_indexes
from shard.shard import Shard
from tests.shard.checkpoint.life import Life


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS", 12), ("ROWS_IDLE", 4)):
        monkeypatch.setattr(shard.checkpoint, name, value)
    for module, name in (
        (shard.sorted_indexes, "RESORT_ROWS"),
        (shard.sorted_indexes, "LOCKED_ROWS"),
        (shard.postings, "LOCKED_KEYS"),
    ):
        monkeypatch.setattr(module, name, 2)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path / "shard")
    life.upsert([0, 1, 2, 3], {"keyword": "red", "float": 1.5})
    life.shard.checkpoint.take()
    life.upsert([3, 4], {"keyword": "blue"})
    yield life
    life.shard.release()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever a shard reads all its rows."""
    scans: list[int] = []
    read = Shard._read_all_rows
    monkeypatch.setattr(Shard, "_read_all_rows", lambda mine: (scans.append(1), read(mine)))
    return scans
