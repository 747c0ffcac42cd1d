"""What a shard takes of the process's file descriptors, and what becomes of it when there are none (I11)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import journal.rocksdb
import shard.store
from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.ids import encode_id
from journal.topics import Topics
from shard import descriptors
from shard.batch import Limits
from shard.shards import Quarantine, Remedy, Shards
from shard.store import Changes, Store, VectorFormat
from shard.vectors.graph import FlatCodes
from shard.vectors.segment_store import SegmentStore
from tests.descriptors import none_free
from tests.replayer.rig import Rig, upsert

CONFIG = CollectionConfig({"": VectorParams(2, Distance.DOT)}, shard_number=8)
COLLECTION = Collection("c", 7, CONFIG, [[0, 0, 0, 0]] * 8)
OTHERS = 7
"""What threads of other tests may open or close meanwhile."""


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[Shards]:
    shards = Shards(tmp_path, Topics(), Limits(), lambda task: None)
    yield shards
    shards.close()


def test_open_descriptors_are_counted() -> None:
    before = descriptors.used()
    more = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    assert descriptors.used() - before == pytest.approx(50, abs=OTHERS)
    for one in more:
        os.close(one)
    assert descriptors.used() == pytest.approx(before, abs=OTHERS)


def test_a_small_shard_takes_no_more_than_is_reckoned_with(shards: Shards) -> None:
    """New, with a file of each family, and after a start."""
    before = descriptors.used()
    shards.open(COLLECTION)
    for of_new in shards.all():
        changes = Changes(of_new.store)
        changes.put_row(0, encode_id(1), of_new.store.point(b"")[0])
        changes.put_vectors(0, {"": np.zeros(2, np.float32)})
        changes.put_next_row(1)
        of_new.store.write(changes)
        for table in of_new.store._tables.values():
            table.flush()
    assert 8 * 8 < descriptors.used() - before <= 8 * descriptors.PER_SHARD
    shards.close()
    assert descriptors.used() == pytest.approx(before, abs=OTHERS)
    shards.open(COLLECTION)
    assert descriptors.used() - before <= 8 * descriptors.PER_SHARD


def test_files_of_rocksdb_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal.rocksdb, "MAX_OPEN_FILES", 20)
    shard.store._options.cache_clear()
    store = Store(tmp_path, {"": VectorFormat()})
    shard.store._options.cache_clear()
    store._vectors.set_options({"disable_auto_compactions": "true", "level0_slowdown_writes_trigger": "1000"})
    before = descriptors.used()
    for row in range(60):
        changes = Changes(store)
        changes.put_vectors(row, {"": np.zeros(2, np.float32)})
        store.write(changes)
        store._vectors.flush()
    assert len(list(tmp_path.glob("*.sst"))) == 60
    assert len([store.vectors(row) for row in range(60)]) == 60
    assert descriptors.used() - before < 25
    store.close()


def test_shards_are_opened_as_long_as_some_descriptors_stay_free(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors.used()
    limit = before + 4 * descriptors.PER_SHARD + descriptors.MIN_SPARE
    monkeypatch.setattr(descriptors, "limit", lambda: limit)
    shards.open(COLLECTION)
    assert 4 <= len(shards.all()) < 8
    assert descriptors.used() <= limit - descriptors.spare()
    quarantined = shards.quarantined()[7, 7]
    assert f"file descriptors of {limit} are in use, 32 are kept free, and a shard takes up to 12" in quarantined.reason
    assert quarantined.remedy is Remedy.RETRY
    monkeypatch.undo()
    again = shards.reopen(COLLECTION, 7)
    assert not isinstance(again, Quarantine)
    shards.serve(again)


def test_a_shard_without_descriptors_stays_alone(tmp_path: Path) -> None:
    """The replay goes on, and the shard is served once there are some."""
    rig = Rig(tmp_path)
    rig.create("d")
    with none_free():
        rig.replayer.step(0)
    assert "file descriptors" in rig.shards.quarantined()[1, 0].reason
    rig.append(rig.record(upsert(1, 2)))
    assert rig.ids() == [encode_id(1)]
    for _ in range(3):
        rig.now_ms += 2_000
        rig.replayer.step(0)
    assert not rig.shards.quarantined()
    assert rig.ids(1) == []
    rig.replayer.close()


def test_a_shortage_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and segments are files to be read again, and not removed."""
    rig = Rig(tmp_path)
    rig.fill(20)
    (filled,) = rig.shards.all()
    filled.checkpoint.take()
    with none_free(), pytest.raises(OSError, match="Too many open files"):
        filled.checkpoint.load({})
    assert filled.checkpoint.load({}) is not None
    rig.replayer.close()

    segments = SegmentStore(tmp_path / "segments")
    vectors = np.random.default_rng(1).standard_normal((100, 8)).astype(np.float32)
    name = segments.write(np.arange(100), vectors, FlatCodes.of(vectors, Distance.DOT)).name
    with none_free(), pytest.raises(OSError, match="Too many open files"):
        segments.open(name)
    assert len(segments.open(name).rows) == 100
