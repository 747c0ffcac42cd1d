"""N12: the file of checkpoints is only appended to, and shows it when anything else was done to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journal.chain import Head, begin
from journal.log import TopicPartition
from replayer.audit.checkpoints import CheckpointFile, CheckpointsDamaged, covering, read_checkpoints

ONE, OTHER = TopicPartition("v.tier1", 0), TopicPartition("v.system", 0)


def head(offset: int) -> Head:
    return Head(offset, offset, bytes([offset % 256]) * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of five lines."""
    file = CheckpointFile(tmp_path / "audit" / "checkpoints.jsonl")
    file.append("t0", log={"v.tier1": "a", "v.system": "b"}, begins={ONE: 0, OTHER: 5})
    for number in range(1, 5):
        file.append(f"t{number}", heads={ONE: [head(100 * number), head(100 * number + 50)]})
    file.close()
    return tmp_path / "audit" / "checkpoints.jsonl"


def test_what_is_noted_is_read_again(path: Path) -> None:
    found = read_checkpoints(path)
    assert (found.log, found.lines, found.logs, found.at) == ({"v.tier1": "a", "v.system": "b"}, 5, 1, "t4")
    assert found.head(ONE) == head(450)
    assert found.head(OTHER) == begin(OTHER, 5)
    assert [each.offset for each in found.runs[ONE][0].heads] == [100, 150, 200, 250, 300, 350, 400, 450]
    assert found.size == path.stat().st_size


def test_the_file_is_gone_on_with(path: Path) -> None:
    before = path.read_bytes()
    file = CheckpointFile(path)
    assert file.known.head(ONE) == head(450)
    file.append("t5", begins={ONE: 900}, heads={OTHER: [head(9)]})
    file.append("t6", heads={ONE: [head(950)]})
    file.close()
    assert path.read_bytes().startswith(before)
    found = read_checkpoints(path)
    assert [(run.begin, len(run.heads)) for run in found.runs[ONE]] == [(0, 8), (900, 1)]
    assert (found.lines, found.chain) == (7, file.known.chain)


def test_another_log_begins_anew(path: Path) -> None:
    file = CheckpointFile(path)
    file.append("t5", log={"v.tier1": "c"}, begins={ONE: 3})
    file.close()
    found = read_checkpoints(path)
    assert (found.log, found.logs, found.head(ONE)) == ({"v.tier1": "c"}, 2, begin(ONE, 3))
    assert [(run.begin, len(run.heads), run.log) for run in found.runs[ONE]] == [(0, 8, "a"), (3, 0, "c")]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_was_not_written_to_its_end_is_written_anew(path: Path, cut: int) -> None:
    """As after a loss of power, or on a full disk."""
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_checkpoints(path).lines == 4
    file = CheckpointFile(path)
    assert file.known.head(ONE) == head(350)
    file.append("t9", heads={ONE: [head(500)]})
    file.close()
    assert read_checkpoints(path).head(ONE) == head(500)


Lines = list[bytes]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"100", b"101"), *lines[2:]], 2),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
        (lambda lines: [*lines[:3], lines[4], lines[3]], 4),
        (lambda lines: [*lines, b'{"at":"t9","chain":"' + b"0" * 64 + b'"}\n'], 6),
        (lambda lines: [*lines[:3], b"nonsense\n", *lines[3:]], 4),
        (lambda lines: [b"\n"], 1),
    ],
    ids=["changed", "removed", "first removed", "twice", "exchanged", "put in", "nonsense", "blank"],
)
def test_a_line_that_is_not_as_it_was_written_is_named(path: Path, change: Callable[[Lines], Lines], line: int) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(CheckpointsDamaged, match=f"line {line} of "):
        read_checkpoints(path)
    with pytest.raises(CheckpointsDamaged, match=f"line {line} of "):
        CheckpointFile(path)


def test_the_heads_next_to_a_position_cover_it(path: Path) -> None:
    file = CheckpointFile(path)
    file.append("t5", begins={ONE: 900})
    file.append("t6", heads={ONE: [head(950)]})
    file.close()

    def found(position: int) -> tuple[int | None, int | None, int | None]:
        each = covering(read_checkpoints(path), ONE, position)
        return each.begin, each.below and each.below.offset, each.above and each.above.offset

    assert found(0) == (0, 0, 0)
    assert found(1) == (0, 0, 100)
    assert found(150) == (0, 100, 150)
    assert found(151) == (0, 150, 200)
    assert found(500) == (0, 450, None)
    assert found(900) == (900, 900, 900)
    assert found(940) == (900, 900, 950)
    assert found(951) == (900, 950, None)
    unknown = covering(read_checkpoints(path), TopicPartition("v.tier3", 1), 4)
    assert unknown[2:] == (None, None, None)
