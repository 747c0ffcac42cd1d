"""N12: whatever was changed, removed or put in since a checkpoint covers it is found and named; a log as it was is verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from rocksdict import Rdict

from journal.chain import EVERY
from journal.embedded import _CHAINED, _NO_DIGEST, EmbeddedJournal, _digest, _entry_key, _options
from journal.log import Entry, Journal, TopicPartition
from journal.memory import MemoryJournal
from journal.topics import Topics
from replayer.audit.auditor import Auditor
from replayer.audit.checkpoints import Checkpoints, read_checkpoints
from replayer.audit.verification import MAX_FAULTS, Verified, differences, verify
from tests.journal.entries import read, write

TOPICS = Topics("v")
HOME, OTHER = TopicPartition("v.tier1", 2), TopicPartition("v.tier2", 5)
PARTITIONS = [TOPICS.system_partition, *TOPICS.data_partitions()]
COUNT = 3 * EVERY + 500


def audited(journal: Journal, path: Path) -> Checkpoints:
    Auditor(journal, TOPICS, path, lambda: True, lambda: 1_700_000_000_000).look()
    return read_checkpoints(path)


def verified(journal: Journal, *files: Checkpoints) -> Verified:
    seen: list[tuple[int, int]] = []
    named = {f"file{number}": known for number, known in enumerate(files)}
    found = verify(journal, PARTITIONS, named, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1:] in ([], [(found.records, found.records)])
    return found


def faults(found: Verified) -> list[str]:
    return [str(fault) for fault in found.faults]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an embedded log of COUNT records in HOME and ten elsewhere, and its checkpoints."""
    folder = tmp_path_factory.mktemp("original")
    journal = EmbeddedJournal(folder / "journal", lambda: 1_700_000_000_000)
    journal.ensure_topics(TOPICS.all())
    write(journal, HOME, *[b"%d" % number for number in range(COUNT)], headers=[("name", b"value")])
    write(journal, OTHER, *[b"other %d" % number for number in range(10)])
    audited(journal, folder / "checkpoints.jsonl")
    journal.close()
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "copy")
    return tmp_path / "copy"


def verified_in(folder: Path, change: Callable[[EmbeddedJournal], None] = lambda journal: None) -> Verified:
    """Verifies the log in the folder after a change."""
    journal = EmbeddedJournal(folder / "journal", lambda: 1_700_000_000_000)
    try:
        change(journal)
        return verified(journal, read_checkpoints(folder / "checkpoints.jsonl"))
    finally:
        journal.close()


def rewrite(folder: Path, change: Callable[[list[Entry]], Sequence[Entry]]) -> None:
    """Puts other records in the place of those of HOME, with all the digests that make them a sound log: as one who knows how."""
    journal = EmbeddedJournal(folder / "journal")
    entries = read(journal, {HOME: 0})
    journal.close()
    (folder / "journal" / "ends").unlink()
    table = Rdict(str(folder / "journal"), _options())
    for entry in entries:
        table.delete(_entry_key(HOME, entry.offset))
    before = _NO_DIGEST
    for offset, entry in enumerate(change(entries)):
        key = _entry_key(HOME, offset)
        body = msgspec.msgpack.encode((entry.time_ms, entry.key, entry.value, entry.headers))
        before = _digest(before, key, body)
        table[key] = b"".join((_CHAINED, before, body))
    table.close()


def test_a_log_as_it_was_is_verified(folder: Path) -> None:
    found = verified_in(folder)
    assert (found.faults, found.remarks) == ([], [])
    assert (found.records, found.covered) == (COUNT + 10, COUNT + 10)


def test_what_came_after_the_last_checkpoint_is_said(folder: Path) -> None:
    found = verified_in(folder, lambda journal: write(journal, HOME, b"a", b"b") and None)
    assert found.faults == []
    assert found.remarks == [f"{HOME}: no checkpoint covers the latest records, {COUNT} to {COUNT + 1}"]
    assert found.covered == COUNT + 10


@pytest.mark.parametrize("at", [0, 999, 1000, 1700, 2999, COUNT - 1])
def test_a_changed_record_is_found_in_its_range(folder: Path, at: int) -> None:
    rewrite(folder, lambda entries: [*entries[:at], entries[at]._replace(value=b"forged"), *entries[at + 1 :]])
    found = verified_in(folder)
    first, end = at - at % EVERY, min(COUNT, at - at % EVERY + EVERY)
    text = f"the records {first} to {end - 1} are not those of file0: some were changed, or others are in their places"
    assert faults(found) == [f"{HOME}: {text}"]
    assert found.faults[0][:3] == (HOME, first, end)
    assert found.covered == COUNT + 10 - (end - first)


@pytest.mark.parametrize("changes", [{"time_ms": 1}, {"key": b"k"}, {"headers": ()}], ids=str)
def test_not_only_the_value_counts(folder: Path, changes: dict[str, object]) -> None:
    rewrite(folder, lambda entries: [*entries[:5], entries[5]._replace(**changes), *entries[6:]])
    assert [fault[:3] for fault in verified_in(folder).faults] == [(HOME, 0, EVERY)]


def test_a_removed_record_is_found(folder: Path) -> None:
    """Those after it have moved, so that all ranges from there on differ, and one is missing in the end."""
    rewrite(folder, lambda entries: [*entries[:1700], *entries[1701:]])
    found = verified_in(folder)
    assert [fault[:3] for fault in found.faults] == [(HOME, 1000, 2000), (HOME, 2000, 3000), (HOME, COUNT - 1, COUNT)]
    assert faults(found)[-1] == f"{HOME}: ends at {COUNT - 1}: the records {COUNT - 1} to {COUNT - 1} of file0 are missing"
    assert found.covered == 1000 + 10


def test_a_record_that_was_put_in_is_found(folder: Path) -> None:
    rewrite(folder, lambda entries: [*entries[:1700], entries[3], *entries[1700:]])
    found = verified_in(folder)
    assert [fault[:3] for fault in found.faults] == [(HOME, 1000, 2000), (HOME, 2000, 3000), (HOME, 3000, COUNT)]
    assert found.remarks == [f"{HOME}: no checkpoint covers the latest records, {COUNT} to {COUNT}"]


def test_records_that_were_exchanged_are_found(folder: Path) -> None:
    rewrite(folder, lambda entries: [*entries[:1], entries[2], entries[1], *entries[3:]])
    assert [fault[:3] for fault in verified_in(folder).faults] == [(HOME, 0, EVERY)]


def test_a_lost_end_is_found(folder: Path) -> None:
    rewrite(folder, lambda entries: entries[: EVERY + 3])
    (fault,) = verified_in(folder).faults
    assert fault[:3] == (HOME, EVERY + 3, COUNT)


def test_a_record_that_was_deleted_in_the_file_is_named_exactly(folder: Path) -> None:
    """By one who does not know how: the log itself shows it."""
    found = verified_in(folder, lambda journal: journal._db.delete(_entry_key(HOME, 1700)))
    assert [fault[:3] for fault in found.faults] == [(HOME, 1700, 1701), (HOME, 1701, 1702)]
    assert "1 records are missing" in faults(found)[0]
    assert found.covered == COUNT + 10 - EVERY


def test_a_byte_that_was_changed_in_the_file_is_named_exactly(folder: Path) -> None:
    def change(journal: EmbeddedJournal) -> None:
        key = _entry_key(HOME, 1700)
        journal._db[key] = journal._db[key][:-1] + b"\x00"

    assert [fault[:3] for fault in verified_in(folder, change).faults] == [(HOME, 1700, 1701)]


@pytest.mark.parametrize("cut", [1, EVERY, EVERY + 1, COUNT - 1, COUNT])
def test_a_trimmed_log_is_verified(folder: Path, cut: int) -> None:
    found = verified_in(folder, lambda journal: journal.trim({HOME: cut}))
    assert found.faults == []
    first = min(COUNT, -(-cut // EVERY) * EVERY)
    assert found.covered == COUNT - first + 10
    assert f"{HOME}: the log was cut in front, it begins at {cut}" in found.remarks
    untold = f"{HOME}: file0 cannot tell of the records {cut} to {first - 1}, next to the cut"
    assert (untold in found.remarks) == (first > cut)


def test_a_change_in_a_trimmed_log_is_found(folder: Path) -> None:
    rewrite(folder, lambda entries: [*entries[:2500], entries[0], *entries[2501:]])
    found = verified_in(folder, lambda journal: journal.trim({HOME: EVERY}))
    assert [fault[:3] for fault in found.faults] == [(HOME, 2000, 3000)]


def test_records_in_front_of_the_first_checkpoint_were_put_in(tmp_path: Path) -> None:
    """The log was cut there when its first checkpoint was noted."""
    cut, whole = memory(10), memory(10)
    cut.trim({HOME: 4})
    known = audited(cut, tmp_path / "checkpoints")
    assert verified(cut, known).faults == []
    assert faults(verified(whole, known)) == [f"{HOME}: the records 0 to 3 were put in: it began at 4 when it was covered first"]


def memory(count: int, change: int | None = None) -> MemoryJournal:
    """A log with so many records in HOME, of which one may be another."""
    journal = MemoryJournal(lambda: 1_700_000_000_000)
    journal.ensure_topics(TOPICS.all())
    write(journal, HOME, *[b"forged" if number == change else b"%d" % number for number in range(count)])
    return journal


def test_the_chain_goes_on_over_cuts_that_it_did_not_see(tmp_path: Path) -> None:
    journal = memory(20)
    audited(journal, tmp_path / "checkpoints")
    write(journal, HOME, *[b"later"] * 10)
    journal.trim({HOME: 25})
    known = audited(journal, tmp_path / "checkpoints")
    found = verified(journal, known)
    assert (found.faults, found.covered) == ([], 5)
    forged = memory(25)
    write(forged, HOME, *[b"later"] * 4, b"forged")
    forged.trim({HOME: 25})
    assert [fault[:3] for fault in verified(forged, known).faults] == [(HOME, 25, 30)]


def test_many_faults_are_counted(tmp_path: Path) -> None:
    journal, other = memory(0), memory(0)
    for number in range(MAX_FAULTS + 5):
        write(journal, HOME, b"%d" % number)
        write(other, HOME, b"forged")
        known = audited(journal, tmp_path / "checkpoints")
    found = verified(other, known)
    assert [fault[:3] for fault in found.faults[:2]] == [(HOME, 0, 1), (HOME, 1, 2)]
    assert (len(found.faults), faults(found)[-1]) == (MAX_FAULTS + 1, f"{HOME}: 5 more ranges differ")


def test_another_topic_of_the_same_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is no fault if its records are the same."""
    journal = memory(10)
    known = audited(journal, tmp_path / "checkpoints")
    monkeypatch.setattr(journal, "identities", lambda topics: dict.fromkeys(topics, "another"))
    found = verified(journal, known)
    assert (found.faults, found.covered) == ([], 10)
    assert "topic v.tier1 is not the one that file0 is about: it was made anew, or is a copy" in found.remarks


def test_a_log_that_was_made_anew_is_not_trusted_because_it_was_noted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was noted of the log before counts: a copy agrees with it, a forged log does not."""
    audited(memory(20), tmp_path / "checkpoints")
    monkeypatch.setattr(MemoryJournal, "identities", lambda self, topics: dict.fromkeys(topics, "another"))
    copy, forged = memory(22), memory(22, 5)
    shutil.copy(tmp_path / "checkpoints", tmp_path / "of the forged one")
    found = verified(copy, audited(copy, tmp_path / "checkpoints"))
    assert (found.faults, found.covered) == ([], 22)
    assert found.remarks == ["topics were made anew 1 times since file0 was begun; what was noted before counts, too"]
    found = verified(forged, audited(forged, tmp_path / "of the forged one"))
    assert [fault[:3] for fault in found.faults] == [(HOME, 0, 20)]


def test_the_files_of_two_nodes_agree_and_show_who_saw_something_else(tmp_path: Path) -> None:
    """They note at different moments, and one of them does not begin with the first record."""
    left, right, late, forged = (tmp_path / name for name in ("left", "right", "late", "forged"))
    journal = memory(EVERY // 2)
    audited(journal, left)
    write(journal, HOME, *[b"%d" % number for number in range(EVERY // 2, 2 * EVERY)])
    files = [audited(journal, left), audited(journal, right), audited(memory(2 * EVERY, EVERY + 3), forged)]
    assert differences({"left": files[0], "right": files[1]}) == ([], [])
    ((fault,), _) = differences({"left": files[0], "forged": files[2]})
    assert str(fault) == f"{HOME}: left and forged differ in the records {EVERY} to {2 * EVERY - 1}"
    assert verified(journal, *files[:2]).faults == []
    found = verified(journal, *files)
    assert [(fault[:3], "file2" in fault.text) for fault in found.faults] == [((HOME, EVERY, 2 * EVERY), True)]
    journal.trim({HOME: EVERY})
    trimmed = audited(journal, late)
    disagreements, remarks = differences({"left": files[0], "late": trimmed})
    assert disagreements == []
    assert remarks == [
        f"{HOME}: the chains of left and late begin at other offsets, or are of topics with other identities, and are "
        "compared with the log only"
    ]
    assert verified(journal, files[0], trimmed).faults == []
