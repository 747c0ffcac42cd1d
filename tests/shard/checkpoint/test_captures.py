"""A captured shard can be opened, whatever is written, merged or removed while the links are made (I3)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shard import files
from shard.shard import ShardClosed
from tests.shard.checkpoint.life import HOME, Life


def alive(life: Life) -> list[bytes]:
    return [point.id for point in life.shard.view.points(life.shard.view.alive)]


def test_a_capture_is_the_shard_as_it_was(tmp_path: Path) -> None:
    life = Life(tmp_path / "shard")
    life.upsert([1, 2, 3], {"n": 1})
    life.shard.checkpoint.take()
    life.upsert([4])
    before = alive(life)
    captured = life.shard.capture(tmp_path / "captured")
    life.upsert([5, 6])
    life.shard.checkpoint.take()
    assert (captured.positions[HOME], captured.points) == (2, 4)
    copy = Life(tmp_path / "captured")
    assert alive(copy) == before
    assert copy.shard.progress(HOME).offset == 2
    assert copy.shard.closed() == captured.closed
    copy.offset = 2
    copy.upsert([7])
    assert len(alive(copy)) == 5
    copy.shard.close()
    assert len(alive(life)) == 6, "what is written to the copy does not reach the shard"
    life.kill()
    assert len(alive(life)) == 6
    life.shard.close()


def test_the_checkpoint_of_a_capture_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    life = Life(tmp_path / "shard")
    life.upsert(list(range(50)))
    life.shard.checkpoint.take()
    life.upsert([1])
    life.shard.capture(tmp_path / "captured")
    life.shard.close()
    copy = Life(tmp_path / "captured")
    assert "is not used" not in caplog.text
    assert copy.shard.checkpoint.stale_rows == 3, "only what came after the checkpoint is read from RocksDB"
    copy.shard.close()


def test_files_that_go_while_links_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a merge replaces segments: the links are made again."""
    life = Life(tmp_path / "shard")
    life.upsert([1])
    segment = tmp_path / "shard" / "segments" / "x" / "00000001"
    segment.mkdir(parents=True)
    for name in ("a", "b"):
        (segment / name).write_text(name)
    (segment.parent / "00000002.tmp").mkdir()
    (segment.parent / "00000002.tmp" / "half").write_text("half")
    linking = os.link

    def link(source: Path, target: Path) -> None:
        linking(source, target)
        other = segment / {"a": "b", "b": "a"}.get(source.name, "")
        if other.is_file():
            other.unlink()
            (segment / "c").write_text("c")

    monkeypatch.setattr(files.os, "link", link)
    life.shard.capture(tmp_path / "captured")
    found = {path.name for path in (tmp_path / "captured" / "segments").rglob("*") if path.is_file()}
    assert found == {path.name for path in segment.iterdir()} > {"c"}
    life.shard.close()


def test_a_closed_shard_is_not_captured(tmp_path: Path) -> None:
    life = Life(tmp_path / "shard")
    life.shard.close()
    with pytest.raises(ShardClosed):
        life.shard.capture(tmp_path / "captured")
