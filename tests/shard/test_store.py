"""RocksDB keeps within its bounds (I11)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import shard.store
from catalog.collection import Datatype, Distance
from journal.log import TopicPartition
from shard.store import Changes, Progress, Store, VectorFormat
from shard.vectors.datatypes import Encoding

KIB = 1 << 10


def test_write_ahead_logs_are_bounded_when_a_family_hardly_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch writes a few bytes of progress, and those alone would hold the logs of all the vectors."""
    monkeypatch.setattr(shard.store, "WRITE_BUFFER_BYTES", 256 * KIB)
    monkeypatch.setattr(shard.store, "MAX_WAL_BYTES", 1024 * KIB)
    store = Store(tmp_path, {"": VectorFormat(Encoding(Datatype.FLOAT32, Distance.DOT, 16 * KIB))})
    random = np.random.default_rng(1)
    for row in range(300):
        changes = Changes(store)
        changes.put_vectors(row, {"": random.standard_normal(16 * KIB, np.float32)})
        changes.put_progress(TopicPartition("t", 0), Progress(row))
        store.write(changes)
    written = 300 * 64 * KIB
    logs = sum(path.stat().st_size for path in tmp_path.glob("*.log"))
    store.close()
    assert written > 16 << 20
    assert logs < 3 << 20
