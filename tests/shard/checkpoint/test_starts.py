"""What a start reads, and checkpoints that cannot be used: they cost time only (I1, I3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from payload.schema import FieldSchema, FieldType
from shard import checkpoint_file
from shard.checkpoint_file import HEADER
from shard.payload_index import FieldIndex
from tests.shard.checkpoint.life import FIELDS, Life, contents


def test_a_start_reads_only_the_rows_touched_since(life: Life, scans: list[int]) -> None:
    expected = contents(life.shard)
    life.kill()
    assert not scans
    assert life.shard.checkpoint.stale_rows == 4, "the old, the past and the new row of point 3, the row of point 4"
    assert contents(life.shard) == expected


def _cut(data: bytes) -> bytes:
    return data[:-40]


def _flip(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _other_format(data: bytes) -> bytes:
    return data.replace(HEADER, HEADER.replace(b"checkpoint ", b"checkpoint 0"), 1)


def _nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_cut, _flip, _other_format, _nothing])
def test_a_damaged_file_is_not_used(life: Life, scans: list[int], damage: Callable[[bytes], bytes]) -> None:
    expected = contents(life.shard)
    file = life.folder / "checkpoint"
    file.write_bytes(damage(file.read_bytes()))
    life.kill()
    assert scans == [1]
    assert not file.exists()
    assert contents(life.shard) == expected


def _rewritten(file: Path, **changes: object) -> None:
    head, *parts = checkpoint_file.read(file)
    assert isinstance(head, checkpoint_file.Head)
    fields = {"store": head.store, "batch": head.batch} | changes
    checkpoint_file.write(file, [checkpoint_file.Head(**fields), *parts])  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"store": "another"}, {"batch": 3}])
def test_a_file_of_another_state_is_not_used(life: Life, scans: list[int], changes: dict[str, object]) -> None:
    """Of another RocksDB, or of a batch that this one has not."""
    expected = contents(life.shard)
    _rewritten(life.folder / "checkpoint", **changes)
    life.kill()
    assert scans == [1]
    assert contents(life.shard) == expected


def test_a_file_from_before_the_last_checkpoint_is_not_used(life: Life, scans: list[int]) -> None:
    """What was touched between the two is not known any more."""
    file = life.folder / "checkpoint"
    old = file.read_bytes()
    life.shard.checkpoint.take()
    file.write_bytes(old)
    expected = contents(life.shard)
    life.kill()
    assert scans == [1]
    assert contents(life.shard) == expected


def test_a_checkpoint_that_was_not_finished_leaves_the_old_one(life: Life, scans: list[int]) -> None:
    expected = contents(life.shard)

    def parts(*_: object) -> Iterator[object]:
        yield checkpoint_file.AliveRows(b"")
        raise OSError("the disk is full")

    life.shard.checkpoint._parts = parts  # type: ignore[assignment, method-assign]
    with pytest.raises(OSError, match="full"):
        life.shard.checkpoint.take()
    life.kill()
    assert not scans
    assert contents(life.shard) == expected


def test_only_an_index_that_is_not_in_the_checkpoint_is_built_anew(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.fields = FIELDS | {"keyword": FieldSchema(FieldType.TEXT)}
    built: list[FieldType] = []
    add = FieldIndex.add
    monkeypatch.setattr(FieldIndex, "add", lambda index, *rest: (built.append(index.schema.type), add(index, *rest)))
    life.shard.release()
    life.shard = life.open()
    assert built == [FieldType.TEXT] * 5
    assert set(life.shard.payload.fields["keyword"].postings._rows) == {"red", "blue"}
