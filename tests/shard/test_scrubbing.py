"""A changed byte in a segment's file is found, and the segment is made again from RocksDB (I1, I10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shard.vectors.segment_store as segment_store
from shard.scrubbing import Scrubber
from shard.vectors.segment_store import DamagedSegment
from shard.vectors.segments import DenseIndex
from tests.replayer.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.replayer.close()


def dense(rig: Rig) -> DenseIndex:
    (opened,) = rig.shards.of(0)
    vectors = opened.vectors[""]
    assert isinstance(vectors, DenseIndex)
    return vectors


def sealed(rig: Rig) -> Path:
    """Writes points into a segment with a graph. Returns its folder."""
    (opened,) = rig.shards.of(0)
    tasks: list[Callable[[], None]] = []
    opened._builds = tasks.append
    rig.fill(11_000)
    while tasks:
        tasks.pop(0)()
    vectors = dense(rig)
    (name,) = vectors.segment_names()
    return vectors.store._folder / name


@pytest.mark.parametrize("file", ["vectors.npy", "rows.npy", "graph.faiss"])
def test_a_changed_byte_is_found_in_the_background_and_healed(rig: Rig, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setattr(segment_store, "CHECKED_AT_ONCE_BYTES", 0)
    folder = sealed(rig)
    expected = rig.ids()
    scrubber = Scrubber(rig.shards)
    scrubber.look()
    assert not rig.shards.quarantined()
    path = folder / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.with_suffix(".changed").write_bytes(data)
    path.with_suffix(".changed").rename(path)
    scrubber.look()
    rig.replayer.step(0)
    assert not rig.shards.quarantined(), "it was checked today"
    Scrubber(rig.shards).look()
    rig.replayer.step(0)
    assert rig.shards.quarantined()
    rig.now_ms += 5_000
    for _ in range(5):
        rig.replayer.step(0)
    assert not rig.shards.quarantined()
    assert rig.ids() == expected
    assert not folder.exists()
    with pytest.raises(DamagedSegment):
        dense(rig).store.open(folder.name)


def test_a_small_segment_is_checked_when_it_is_opened(rig: Rig) -> None:
    folder = sealed(rig)
    path = folder / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedSegment, match=r"checksum of .*vectors.npy is wrong"):
        dense(rig).store.open(folder.name)
