"""Pages of the log: newest first over all partitions, nothing twice and nothing left out, with bounded work (V3, I11)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from journal.embedded import EmbeddedJournal, _entry_key
from journal.log import Journal, Positions, TopicPartition, TopicSpec
from journal.memory import MemoryJournal
from replayer import log_pages
from replayer.log_pages import Listed, page
from shard.deadline import NEVER, Deadline, DeadlineExceeded

PARTITIONS = [TopicPartition("t", number) for number in range(3)]


def filled(counts: tuple[int, ...], size: int = 1, seed: int = 1) -> tuple[MemoryJournal, list[tuple[int, TopicPartition, int]]]:
    """A log with so many records in each partition, in some order; and their times and places, newest first."""
    now_ms = [0]
    journal = MemoryJournal(lambda: now_ms[0])
    journal.ensure_topics({"t": TopicSpec(len(PARTITIONS))})
    order = [partition for partition, count in zip(PARTITIONS, counts, strict=True) for _ in range(count)]
    random.Random(seed).shuffle(order)
    written = []
    for at, partition in enumerate(order):
        now_ms[0] = at // 2
        appended = journal.append(partition, bytes(size)).result()
        written.append((appended.time_ms, partition, appended.offset))
    return journal, sorted(written, reverse=True)


def bounds(journal: Journal) -> tuple[Positions, Positions]:
    return journal.start_offsets(PARTITIONS), journal.end_offsets(PARTITIONS)


def walked(journal: Journal, limit: int, pages: int = 1000) -> list[Listed]:
    """All records, page by page."""
    floors, ends = bounds(journal)
    found: list[Listed] = []
    for _ in range(pages):
        got = page(journal, floors, ends, lambda listed: True, limit, NEVER)
        assert len(got.records) <= limit
        found += got.records
        if got.next is None:
            return found
        ends = got.next
    raise AssertionError(f"not done after {pages} pages")


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_have_every_record_once_and_the_newest_first(limit: int) -> None:
    journal, written = filled((150, 3, 0) if limit == 1 else (900, 80, 0))
    assert [(each.time_ms, each.partition, each.offset) for each in walked(journal, limit)] == written


def test_a_page_begins_at_the_floor_and_ends_at_its_end() -> None:
    journal, written = filled((50, 50, 50))
    floors, ends = dict.fromkeys(PARTITIONS, 10), dict.fromkeys(PARTITIONS, 30)
    got = page(journal, floors, ends, lambda listed: True, 1000, NEVER)
    assert [(each.partition, each.offset) for each in got.records] == [place[1:] for place in written if 10 <= place[2] < 30]
    assert (got.looked, got.next) == (60, None)


def test_what_was_trimmed_is_not_there() -> None:
    journal, written = filled((50, 50, 50))
    journal.trim({PARTITIONS[0]: 40})
    assert len(walked(journal, 20)) == len(written) - 40


def test_a_page_without_a_record_says_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: the number of records that are looked at has a bound."""
    monkeypatch.setattr(log_pages, "MAX_LOOKED", 100)
    journal, written = filled((200, 200, 0))
    floors, ends = bounds(journal)
    got = page(journal, floors, ends, lambda listed: listed.time_ms < 100, 5, NEVER)
    assert (got.records, got.looked) == ([], 100)
    assert got.next is not None
    assert sum(got.next.values()) == 300
    while not got.records:
        assert got.next is not None
        got = page(journal, floors, got.next, lambda listed: listed.time_ms < 100, 5, NEVER)
    assert [(each.time_ms, each.partition, each.offset) for each in got.records] == [p for p in written if p[0] < 100][:5]


def test_the_bytes_of_a_page_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: large records are read in small chunks, and a page of them ends early."""
    monkeypatch.setattr(log_pages, "MAX_BYTES", 50_000)
    monkeypatch.setattr(log_pages, "CHUNK_BYTES", 10_000)
    journal, written = filled((60, 60, 0), 3_000)
    floors, ends = bounds(journal)
    got = page(journal, floors, ends, lambda listed: True, 1000, NEVER)
    assert 0 < len(got.records) < 60
    assert [(each.time_ms, each.partition, each.offset) for each in walked(journal, 1000)] == written


def test_a_page_that_takes_too_long_ends_with_what_it_has() -> None:
    journal, _ = filled((500, 0, 0))
    floors, ends = bounds(journal)
    clock = [0.0]

    def slow(listed: Listed) -> bool:
        clock[0] += 0.1
        return True

    got = page(journal, floors, ends, slow, 1000, Deadline(1.0, lambda: clock[0]))
    assert 0 < len(got.records) < 20
    assert got.next == {PARTITIONS[0]: 500 - len(got.records), PARTITIONS[1]: 0, PARTITIONS[2]: 0}
    with pytest.raises(DeadlineExceeded):
        page(journal, floors, ends, slow, 1000, Deadline(0.0, lambda: clock[0]))


def test_what_cannot_be_read_is_named_and_passed_over(tmp_path: Path) -> None:
    journal = EmbeddedJournal(tmp_path, lambda: 1)
    journal.ensure_topics({"t": TopicSpec(len(PARTITIONS))})
    for _ in range(20):
        journal.append(PARTITIONS[0], b"no record").result()
    journal._db.delete(_entry_key(PARTITIONS[0], 7))
    found = walked(journal, 6)
    assert [each.offset for each in found] == list(range(19, -1, -1))
    assert "not a record" in found[0].fault or "framing" in found[0].fault
    assert found[12].entry is None
    assert found[12].fault == "the log is damaged at t/0/7: 1 records are missing"
    journal.close()
