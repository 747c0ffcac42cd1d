"""RocksDB keeps within its bounds (I11)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import shard.store
from catalog.collection import Datatype, Distance
from journal.log import TopicPartition
from journal.rocksdb import Damage, is_damage
from shard.join import PointState
from shard.store import MAX_LOGS, SMALL_BYTES, Changes, Progress, Store, VectorFormat
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


def test_a_small_store_stays_in_its_logs_and_those_are_bounded(tmp_path: Path) -> None:
    """Each start begins a log; without a bound a node that is started often would keep and read all of them."""
    most = 0
    for row in range(2 * MAX_LOGS):
        store = Store(tmp_path, {"": VectorFormat()})
        assert sorted(number for number, _ in store.existing_vectors(range(row + 1))) == list(range(row))
        changes = Changes(store)
        changes.put_vectors(row, {"": np.zeros(2, np.float32)})
        store.write(changes)
        store.close()
        most = max(most, len(list(tmp_path.glob("*.log"))))
        if row < MAX_LOGS - 1:
            assert not list(tmp_path.glob("*.sst"))
    assert 1 < most <= MAX_LOGS + 1


def test_a_store_that_is_not_small_is_written_to_files_when_it_is_closed(tmp_path: Path) -> None:
    """Else each start would read it all from the log."""
    store = Store(tmp_path, {"": VectorFormat()})
    changes = Changes(store)
    changes.put_vectors(0, {"": np.zeros(SMALL_BYTES // 4, np.float32)})
    store.write(changes)
    store.close()
    assert list(tmp_path.glob("*.sst"))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) == 0


def filled(folder: Path) -> None:
    """Two rows of a store that was opened and closed twice, each in a write-ahead log of its own."""
    for row in range(2):
        store = Store(folder, {"": VectorFormat()})
        changes = Changes(store)
        changes.put_row(row, b"id", PointState(5, True, 5))
        changes.put_vectors(row, {"": np.zeros(2, np.float32)})
        store.write(changes)
        store.close()
    Store(folder, {"": VectorFormat()}).close()


def test_a_log_that_is_cut_short_is_damage(tmp_path: Path) -> None:
    """I1: a whole number of records may be left, and RocksDB passes over what is missing."""
    filled(tmp_path)
    first = min(tmp_path.glob("*.log"))
    assert first.stat().st_size > 0
    first.write_bytes(b"")
    with pytest.raises(Damage, match="has 0 bytes"):
        Store(tmp_path, {"": VectorFormat()})


def test_a_store_without_one_of_its_families_is_damage(tmp_path: Path) -> None:
    """A MANIFEST that ends before the record of a family looks whole, and RocksDB would make the family anew, empty."""
    filled(tmp_path / "whole")
    (manifest,) = (tmp_path / "whole").glob("MANIFEST-*")
    whole = manifest.read_bytes()
    opened, refused = 0, []
    for end in range(1, len(whole)):
        copy = tmp_path / str(end)
        shutil.copytree(tmp_path / "whole", copy)
        (copy / manifest.name).write_bytes(whole[:end])
        try:
            store = Store(copy, {"": VectorFormat()})
        except Exception as error:  # RocksDB's errors have no class of their own
            refused.append(error)
            continue
        opened += 1
        assert len(list(store.scan_rows())) == len(list(store.existing_vectors(range(2)))) == 2
        store.close()
    assert all(map(is_damage, refused))
    assert opened, "one record at the end may be missing without harm"


def test_a_record_of_another_type_is_damage(tmp_path: Path) -> None:
    """One bit in a log or a MANIFEST, with which RocksDB would never end."""
    filled(tmp_path / "whole")
    for file in (*(tmp_path / "whole").glob("MANIFEST-*"), min((tmp_path / "whole").glob("*.log"))):
        copy = tmp_path / file.name.partition(".")[0]
        shutil.copytree(tmp_path / "whole", copy)
        damaged = bytearray(file.read_bytes())
        damaged[TYPE_AT] ^= 4
        (copy / file.name).write_bytes(damaged)
        with pytest.raises(Damage, match="record of type 5 at byte 0"):
            Store(copy, {"": VectorFormat()})


TYPE_AT = 6
"""Of the first record in a file, after its checksum and its length."""
