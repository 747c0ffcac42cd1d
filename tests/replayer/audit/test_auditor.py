"""N12: the auditor covers the log by checkpoints, over restarts, cuts, damage and another log, and leaves a log at rest alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from journal.chain import EVERY, begin, extended
from journal.embedded import EmbeddedJournal, _entry_key
from journal.log import Batch, Indefinite, Journal, JournalError, TopicPartition
from journal.memory import MemoryJournal, MemoryReader
from journal.topics import Topics
from replayer.audit import auditor as auditing
from replayer.audit.auditor import Auditor
from replayer.audit.checkpoints import read_checkpoints
from tests.journal.entries import read, write
from tests.journal.waits import WAIT_S

TOPICS = Topics("v")
HOME, OTHER, SYSTEM = TopicPartition("v.tier1", 2), TopicPartition("v.tier2", 5), TopicPartition("v.system", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "checkpoints.jsonl"


@pytest.fixture
def journal() -> Journal:
    journal = MemoryJournal(lambda: 5)
    journal.ensure_topics(TOPICS.all())
    return journal


def auditor_of(journal: Journal, path: Path, ready: bool = True) -> Auditor:
    return Auditor(journal, TOPICS, path, lambda: ready, lambda: 1_700_000_000_000)


def looked(journal: Journal, path: Path) -> Auditor:
    """An auditor, as after a start, that has looked once."""
    auditor = auditor_of(journal, path)
    auditor.look()
    return auditor


def fill(journal: Journal, partition: TopicPartition, count: int) -> None:
    write(journal, partition, *[b"%d" % number for number in range(count)])


def noted(path: Path, partition: TopicPartition = HOME) -> list[tuple[int, list[int]]]:
    """The chains of a partition: the begin of each, and the offsets of its heads."""
    return [(run.begin, [head.offset for head in run.heads]) for run in read_checkpoints(path).runs[partition]]


def test_a_look_covers_all_of_the_log(journal: Journal, path: Path) -> None:
    fill(journal, HOME, 2 * EVERY + 7)
    fill(journal, OTHER, EVERY)
    auditor = looked(journal, path)
    assert noted(path) == [(0, [EVERY, 2 * EVERY, 2 * EVERY + 7])]
    assert noted(path, OTHER) == [(0, [EVERY])]
    assert noted(path, SYSTEM) == [(0, [])]
    *_, expected = extended(begin(HOME, 0), read(journal, {HOME: 0}), 2 * EVERY + 7)
    assert read_checkpoints(path).head(HOME) == expected
    assert auditor.heads is not None
    assert auditor.heads.heads[HOME][:2] == (0, [expected])
    assert auditor.heads.chain == read_checkpoints(path).chain


def test_a_log_at_rest_is_left_alone(journal: Journal, path: Path) -> None:
    """Nothing is read and nothing is written."""
    fill(journal, HOME, 5)
    auditor = looked(journal, path)
    before = path.read_bytes()
    journal.reader = lambda: pytest.fail("nothing is new")  # type: ignore[method-assign]
    auditor.look()
    looked(journal, path)
    assert path.read_bytes() == before


def test_the_chain_goes_on_after_a_restart(journal: Journal, path: Path) -> None:
    for count in (10, EVERY, 1):
        fill(journal, HOME, count)
        looked(journal, path)
    assert noted(path) == [(0, [10, EVERY, EVERY + 10, EVERY + 11])]
    *_, expected = extended(begin(HOME, 0), read(journal, {HOME: 0}), EVERY + 11)
    assert read_checkpoints(path).head(HOME) == expected


def test_a_cut_below_the_head_changes_nothing(journal: Journal, path: Path) -> None:
    fill(journal, HOME, 20)
    looked(journal, path)
    journal.trim({HOME: 15})
    fill(journal, HOME, 1)
    looked(journal, path)
    assert noted(path) == [(0, [20, 21])]


def test_a_cut_above_the_head_begins_a_new_chain(journal: Journal, path: Path) -> None:
    fill(journal, HOME, 20)
    looked(journal, path)
    fill(journal, HOME, 10)
    journal.trim({HOME: 25})
    looked(journal, path)
    assert noted(path) == [(0, [20]), (25, [30])]


def test_a_damaged_record_begins_a_new_chain(tmp_path: Path, path: Path) -> None:
    journal = EmbeddedJournal(tmp_path / "log", lambda: 1)
    journal.ensure_topics(TOPICS.all())
    fill(journal, HOME, 20)
    journal._db.delete(_entry_key(HOME, 7))
    looked(journal, path)
    assert noted(path) == [(0, [7]), (8, []), (9, [20])], "nothing proves the record after the missing one"
    fill(journal, HOME, 1)
    looked(journal, path)
    assert noted(path)[-1] == (9, [20, 21])
    journal.close()


def test_another_log_begins_anew(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(journal, HOME, 20)
    looked(journal, path)
    monkeypatch.setattr(MemoryJournal, "identities", lambda self, topics: {topic: f"{topic}:new" for topic in topics})
    looked(journal, path)
    found = read_checkpoints(path)
    assert (found.logs, noted(path)) == (2, [(0, [20]), (0, [20])])


def test_topics_that_a_broker_does_not_know_yet_are_no_other_log(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(journal, HOME, 20)
    looked(journal, path)
    before = path.read_bytes()
    monkeypatch.setattr(MemoryJournal, "identities", lambda self, topics: {topics[0]: topics[0]})
    with pytest.raises(JournalError, match="does not know all topics"):
        looked(journal, path)
    assert path.read_bytes() == before


def test_a_stop_ends_a_look_soon_and_what_was_read_is_noted(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(journal, HOME, *[bytes(1 << 20)] * 5)
    fill(journal, OTHER, 5)
    auditor = auditor_of(journal, path)
    poll = MemoryReader.poll

    def stopping(self: MemoryReader, *bounds: float) -> Batch:
        auditor.stop()
        return poll(self, *bounds)

    monkeypatch.setattr(MemoryReader, "poll", stopping)
    auditor.look()
    assert noted(path) == [(0, [1])]
    assert noted(path, OTHER) == [(0, [])]


def test_a_stop_is_followed_by_a_last_look(journal: Journal, path: Path) -> None:
    fill(journal, HOME, 5)
    auditor = auditor_of(journal, path)
    auditor.stop()
    thread = threading.Thread(target=auditor.run)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert noted(path) == [(0, [5])]


def test_nothing_is_read_before_the_node_knows_its_log(journal: Journal, path: Path) -> None:
    auditor = auditor_of(journal, path, ready=False)
    auditor.stop()
    auditor.run()
    assert not path.exists()


def test_after_a_failure_it_goes_on(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, not for each attempt."""
    monkeypatch.setattr(auditing, "LOOK_EVERY_S", 0.001)
    fill(journal, HOME, 5)
    auditor = auditor_of(journal, path)
    failed, done = [0], threading.Event()
    ends = MemoryJournal.end_offsets

    def failing(self: MemoryJournal, partitions: Sequence[TopicPartition]) -> object:
        failed[0] += 1
        if failed[0] < 4:
            raise Indefinite("no broker answers")
        done.set()
        return ends(self, partitions)

    monkeypatch.setattr(MemoryJournal, "end_offsets", failing)
    thread = threading.Thread(target=auditor.run)
    thread.start()
    assert done.wait(WAIT_S)
    auditor.stop()
    thread.join(WAIT_S)
    assert noted(path) == [(0, [5])]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "no checkpoints of the log are noted, trying again every 0.001 s: no broker answers"
    ]
