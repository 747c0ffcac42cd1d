"""Ranges of several partitions are read to their ends, over damage, and not beyond."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import ranges
from journal.embedded import EmbeddedJournal, _entry_key
from journal.log import Journal, JournalError, TopicPartition, TopicSpec
from journal.memory import MemoryJournal
from journal.ranges import Range, stretches
from tests.journal.entries import write

ONE, TWO, THREE = (TopicPartition("t", number) for number in range(3))


def filled(journal: Journal) -> Journal:
    journal.ensure_topics({"t": TopicSpec(3)})
    for partition in (ONE, TWO):
        write(journal, partition, *[b"%d" % number for number in range(20)])
    return journal


def read(journal: Journal, wanted: dict[TopicPartition, Range], **bounds: int) -> dict[TopicPartition, list[int]]:
    """The offsets that are read of each partition; a negative number is the first of damaged ones."""
    found: dict[TopicPartition, list[int]] = {partition: [] for partition in wanted}
    ends = {}
    for partition, entries, next_offset, damage in stretches(journal.reader(), wanted, **bounds):
        assert next_offset >= ends.get(partition, 0)
        ends[partition] = next_offset
        found[partition] += [entry.offset for entry in entries] + ([] if damage is None else [-damage.offset])
    assert ends == {partition: end for partition, (start, end) in wanted.items() if start < end}
    return found


@pytest.mark.parametrize("records", [1, 7, 1000])
def test_ranges_are_read_from_their_starts_to_their_ends(records: int) -> None:
    journal = filled(MemoryJournal())
    wanted = {ONE: Range(3, 9), TWO: Range(0, 20), THREE: Range(0, 0)}
    assert read(journal, wanted, max_records=records) == {ONE: [*range(3, 9)], TWO: [*range(20)], THREE: []}
    assert read(journal, {THREE: Range(0, 0)}) == {THREE: []}


def test_what_is_damaged_is_named_and_passed_over(tmp_path: Path) -> None:
    journal = filled(EmbeddedJournal(tmp_path))
    assert isinstance(journal, EmbeddedJournal)
    for offset in (5, 6, 18, 19):
        journal._db.delete(_entry_key(ONE, offset))
    found = read(journal, {ONE: Range(0, 19), TWO: Range(0, 20)})
    assert found == {ONE: [0, 1, 2, 3, 4, -5, -7, *range(8, 18), -18], TWO: [*range(20)]}
    journal.close()


def test_a_log_that_gives_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a wait for ever."""
    monkeypatch.setattr(ranges, "POLL_S", 0.0)
    journal = filled(MemoryJournal())
    with pytest.raises(JournalError, match="t/2/0 cannot be read"):
        read(journal, {THREE: Range(0, 5)})
