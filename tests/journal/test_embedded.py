"""The journal in RocksDB: the contract, group commit, and what a crash, a full disk and a damaged file leave behind."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Rdict

import schemas
from journal.embedded import EmbeddedJournal, _entry_key, _options
from journal.log import Damaged, Definite, Journal, Overloaded, TopicPartition, TopicSpec
from journal.rocksdb import Damage
from tests.conftest import until
from tests.journal.contract import DurableContract, OwnClockContract
from tests.journal.entries import read, values, write
from tests.journal.waits import WAIT_S, in_thread

REPO = Path(schemas.__file__).resolve().parents[1]
ONE = TopicPartition("t", 0)

PREAMBLE = """
import os, resource, sys, threading
from pathlib import Path
from journal.embedded import EmbeddedJournal
from journal.log import JournalError, TopicPartition, TopicSpec
journal = EmbeddedJournal(Path(sys.argv[1]))
journal.ensure_topics({"t": TopicSpec(2)})
"""

APPEND_UNTIL_KILLED = """
def append(thread):
    partition = TopicPartition("t", thread % 2)
    for n in range(1_000_000):
        value = f"{thread}-{n}"
        appended = journal.append(partition, value.encode()).result()
        os.write(1, f"{appended.partition.partition} {appended.offset} {value}\\n".encode())
for thread in range(4):
    threading.Thread(target=append, args=[thread]).start()
"""

CUT_UNTIL_KILLED = """
one = TopicPartition("t", 0)
def cut():
    done = 0
    while True:
        end = journal.end_offsets([one])[one]
        if end - done > 50:
            journal.trim({one: end - 20})
            done = end - 20
            os.write(1, f"cut {done}\\n".encode())
            journal.reclaim([one])
threading.Thread(target=cut).start()
for n in range(1_000_000):
    journal.append(one, b"%d" % n).result()
    os.write(1, f"end {n + 1}\\n".encode())
"""

APPEND_FIVE_AND_CRASH = """
for n in range(5):
    journal.append(TopicPartition("t", 0), b"%d" % n * 100).result()
os._exit(9)
"""

FILL_THE_DISK = """
one = TopicPartition("t", 0)
journal.append(one, b"kept").result()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        print(journal.append(one, bytes(100_000)).result())
    except JournalError as error:
        print(type(error).__name__)
reader = journal.reader()
reader.assign({one: 0})
print([entry.value for entry in reader.poll(0).entries])
journal.close()
print("closed")
"""


FILL_THE_DISK_FOR_A_WHILE = """
import time
one = TopicPartition("t", 0)
journal.append(one, b"kept").result()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    journal.append(one, bytes(100_000)).result()
except JournalError as error:
    print(type(error).__name__, journal.failure is not None)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while journal.failure is not None:
    time.sleep(0.05)
print(journal.append(one, b"after").result().offset in (1, 2))
reader = journal.reader()
reader.assign({one: 0})
print([entry.value for entry in reader.poll(0).entries if len(entry.value) < 100])
journal.close()
"""


@contextmanager
def child(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened a journal in `folder` and runs `code`. It does not outlive the test."""
    command = [sys.executable, "-c", PREAMBLE + code, str(folder)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Gate:
    """A clock that stops whoever asks it, until it is opened: so the committer can be held between two groups."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        self.reached.set()
        assert self.opened.wait(WAIT_S)
        return 1


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


class TestEmbeddedJournal(DurableContract, OwnClockContract):
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        journal = EmbeddedJournal(tmp_path / "log")
        yield journal
        journal.close()

    @pytest.fixture
    def reopen(self, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Journal], Journal]:
        def reopen(journal: Journal) -> Journal:
            journal.close()
            again = EmbeddedJournal(tmp_path / "log")
            request.addfinalizer(again.close)
            return again

        return reopen

    @pytest.fixture
    def open_at(self, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Callable[[], int]], Journal]:
        def open_at(now_ms: Callable[[], int]) -> Journal:
            journal = EmbeddedJournal(tmp_path / "log", now_ms)
            request.addfinalizer(journal.close)
            return journal

        return open_at


def test_times_do_not_step_back_over_a_restart(tmp_path: Path) -> None:
    """I4, V14"""
    for now_ms, expected in ((100, 100), (40, 100), (101, 101)):
        journal = EmbeddedJournal(tmp_path, lambda: now_ms)  # noqa: B023 (asked before the next turn)
        journal.ensure_topics({"t": TopicSpec(1)})
        assert write(journal, ONE, b"x")[0].time_ms == expected
        journal.close()


def test_what_waits_together_is_committed_together(tmp_path: Path, gate: Gate) -> None:
    """I2: one sync for all appends that wait; the clock is read once for each."""
    journal = EmbeddedJournal(tmp_path, gate)
    journal.ensure_topics({"t": TopicSpec(1)})
    futures = [journal.append(ONE, b"0")]
    assert gate.reached.wait(WAIT_S)
    futures += [journal.append(ONE, b"%d" % n) for n in range(1, 50)]
    assert not any(future.done() for future in futures)
    gate.opened.set()
    assert [future.result(WAIT_S).offset for future in futures] == list(range(50))
    assert gate.asked == 2
    journal.close()


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path, gate: Gate) -> None:
    """I11"""
    journal = EmbeddedJournal(tmp_path, gate, max_in_flight_bytes=1000)
    journal.ensure_topics({"t": TopicSpec(1)})
    held = journal.append(ONE, bytes(600))
    assert gate.reached.wait(WAIT_S)
    with pytest.raises(Overloaded, match="1000") as refused:
        journal.append(ONE, bytes(401))
    assert refused.value.retry_after_s > 0
    fits = journal.append(ONE, bytes(400))
    gate.opened.set()
    assert (held.result(WAIT_S).offset, fits.result(WAIT_S).offset) == (0, 1)
    assert write(journal, ONE, bytes(2000))[0].offset == 2, "one record alone is taken whatever its size"
    journal.close()


def test_nothing_is_visible_before_it_is_durable(tmp_path: Path, gate: Gate) -> None:
    """I2: what a reader has seen can no longer be lost."""
    journal = EmbeddedJournal(tmp_path, gate)
    journal.ensure_topics({"t": TopicSpec(1)})
    future = journal.append(ONE, b"0")
    assert gate.reached.wait(WAIT_S)
    reader = journal.reader()
    reader.assign({ONE: 0})
    assert journal.end_offsets([ONE]) == {ONE: 0}
    assert reader.poll(0).entries == []
    gate.opened.set()
    future.result(WAIT_S)
    assert values(reader.poll(0).entries) == [b"0"]
    journal.close()


def test_every_acknowledged_record_outlives_a_kill(tmp_path: Path) -> None:
    """I2"""
    with child(APPEND_UNTIL_KILLED, tmp_path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(300)]
        process.kill()
        lines += process.stdout.readlines()
    journal = EmbeddedJournal(tmp_path)
    partitions = [TopicPartition("t", index) for index in range(2)]
    found = {(e.partition.partition, e.offset): e.value.decode() for e in read(journal, dict.fromkeys(partitions, 0))}
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    assert len(acknowledged) >= 300
    for index, offset, value in acknowledged:
        assert found[int(index), int(offset)] == value
    ends = journal.end_offsets(partitions)
    assert sorted(found) == [(p.partition, offset) for p in partitions for offset in range(ends[p])]
    journal.close()


def test_a_journal_that_cannot_write_says_so_and_stays_readable(tmp_path: Path) -> None:
    """I2, V21: the first append is in doubt, the next are refused, and what was acknowledged is there."""
    with child(FILL_THE_DISK, tmp_path) as process:
        out, errors = process.communicate(timeout=WAIT_S)
    assert out.split("\n")[:3] == ["Indefinite", "Definite", "[b'kept']"], errors
    assert out.endswith("closed\n"), errors
    journal = EmbeddedJournal(tmp_path)
    write(journal, ONE, b"after")
    assert [v for v in values(read(journal, {ONE: 0})) if v != bytes(100_000)] == [b"kept", b"after"]
    journal.close()


def test_a_journal_opens_again_by_itself_once_it_can_write(tmp_path: Path) -> None:
    """I2, V21: no hand and no restart is needed."""
    with child(FILL_THE_DISK_FOR_A_WHILE, tmp_path) as process:
        out, errors = process.communicate(timeout=WAIT_S)
    assert out.split("\n")[:3] == ["Indefinite True", "True", "[b'kept', b'after']"], errors


def crashed(folder: Path) -> Path:
    """The write-ahead log of a journal whose process died after five appends of 100 bytes."""
    with child(APPEND_FIVE_AND_CRASH, folder) as process:
        assert process.wait(WAIT_S) == 9
    (wal,) = (path for path in folder.glob("*.log") if path.stat().st_size)
    return wal


def test_a_torn_tail_costs_only_what_was_torn(tmp_path: Path) -> None:
    """I2: a crash in the middle of a write leaves half a record, which nobody was promised."""
    wal = crashed(tmp_path)
    wal.write_bytes(wal.read_bytes()[:-3])
    journal = EmbeddedJournal(tmp_path)
    assert values(read(journal, {ONE: 0})) == [b"%d" % n * 100 for n in range(4)]
    assert write(journal, ONE, b"4")[0].offset == 4
    journal.close()


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """I2: acknowledged records behind the damage must not vanish in silence."""
    wal = crashed(tmp_path)
    data = bytearray(wal.read_bytes())
    data[data.index(b"2" * 100)] ^= 1
    wal.write_bytes(data)
    with pytest.raises(Exception, match="Corruption"):
        EmbeddedJournal(tmp_path)


def written_and_closed(folder: Path) -> None:
    """A journal that holds five records."""
    journal = EmbeddedJournal(folder)
    journal.ensure_topics({"t": TopicSpec(1)})
    write(journal, ONE, *(b"%d" % n * 50 for n in range(5)))
    journal.close()


def readable(journal: Journal) -> dict[int, bytes]:
    """What can be read, by offset."""
    reader, found, at = journal.reader(), dict[int, bytes](), 0
    while at < journal.end_offsets([ONE])[ONE]:
        reader.assign({ONE: at})
        try:
            entries, positions = reader.poll(0)
        except Damaged as damage:
            at = damage.next_offset
        else:
            found |= {entry.offset: entry.value for entry in entries}
            at = positions[ONE]
    return found


def test_a_changed_record_behind_a_missing_one_is_not_believed(tmp_path: Path) -> None:
    """I2: its digest follows from the one that is missing."""
    written_and_closed(tmp_path)
    db = Rdict(str(tmp_path), _options())
    key = _entry_key(ONE, 2)
    del db[_entry_key(ONE, 1)]
    db[key] = db[key].replace(b"2" * 50, b"3" * 50)
    db.close()
    journal = EmbeddedJournal(tmp_path)
    assert readable(journal) == {n: b"%d" % n * 50 for n in (0, 3, 4)}
    journal.close()


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x01" + bytes(40), b"\xc1"])
def test_a_last_record_that_is_damaged_does_not_keep_the_log_shut(tmp_path: Path, value: bytes) -> None:
    """I2: the others can be read and appended to, and it is named when it is read."""
    written_and_closed(tmp_path)
    db = Rdict(str(tmp_path), _options())
    db[_entry_key(ONE, 4)] = value
    db.close()
    journal = EmbeddedJournal(tmp_path)
    assert write(journal, ONE, b"after")[0].offset == 5
    assert readable(journal) == {n: b"%d" % n * 50 for n in range(4)} | {5: b"after"}
    journal.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"\xff": 1}', b"[1]"])
def test_a_damaged_note_of_the_ends_does_not_keep_the_log_shut(tmp_path: Path, content: bytes) -> None:
    written_and_closed(tmp_path)
    (tmp_path / "ends").write_bytes(content)
    journal = EmbeddedJournal(tmp_path)
    assert journal.refusals() == {}
    assert len(readable(journal)) == 5
    journal.close()


def test_the_last_end_is_noted_although_no_more_comes(tmp_path: Path) -> None:
    """I2: what is lost before the next append is found, too."""
    journal = EmbeddedJournal(tmp_path)
    journal.ensure_topics({"t": TopicSpec(1)})
    for n in range(3):
        write(journal, ONE, b"%d" % n)
    until(lambda: b'"t/0":3' in (tmp_path / "ends").read_bytes(), WAIT_S)
    journal.close()


def test_closing_finishes_what_waits(tmp_path: Path, gate: Gate) -> None:
    """I2"""
    journal = EmbeddedJournal(tmp_path, gate)
    journal.ensure_topics({"t": TopicSpec(1)})
    futures = [journal.append(ONE, b"%d" % n) for n in range(20)]
    closing = in_thread(journal.close)
    gate.opened.set()
    closing.result(WAIT_S)
    assert [future.result(0).offset for future in futures] == list(range(20))


def test_a_follower_reads_what_another_process_writes_and_writes_nothing(tmp_path: Path) -> None:
    """I1: the log can be looked at while a node runs."""
    journal = EmbeddedJournal(tmp_path / "log")
    journal.ensure_topics({"t": TopicSpec(1)})
    write(journal, ONE, b"0")
    follower = EmbeddedJournal.follow(tmp_path / "log", tmp_path / "scratch")
    assert values(read(follower, {ONE: 0})) == [b"0"]
    journal.ensure_topics({"new": TopicSpec(1)})
    write(journal, ONE, b"1", b"2")
    write(journal, TopicPartition("new", 0), b"3")
    assert follower.end_offsets([ONE]) == {ONE: 1}
    follower.refresh()
    assert values(read(follower, {ONE: 1})) == [b"1", b"2"]
    assert values(read(follower, {TopicPartition("new", 0): 0})) == [b"3"]
    with pytest.raises(Definite, match="read only"):
        follower.append(ONE, b"no")
    follower.close()
    journal.close()


def test_a_log_with_a_record_of_another_type_is_damage(tmp_path: Path) -> None:
    """One bit, with which RocksDB would never end; the node says so instead."""
    EmbeddedJournal(tmp_path).close()
    (manifest,) = tmp_path.glob("MANIFEST-*")
    damaged = bytearray(manifest.read_bytes())
    damaged[6] ^= 4
    manifest.write_bytes(damaged)
    with pytest.raises(Damage, match="record of type 5 at byte 0"):
        EmbeddedJournal(tmp_path)


@pytest.mark.slow
def test_a_kill_while_the_log_is_cut_leaves_one_that_opens(tmp_path: Path) -> None:
    """I2: what was cut stays cut, what was acknowledged and not cut is there, and nothing looks damaged."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + CUT_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=REPO
    )
    assert process.stdout is not None
    told = {"cut": 0, "end": 0}
    cuts = 0
    for line in process.stdout:
        what, offset = line.split()
        told[what] = int(offset)
        cuts += what == "cut"
        if cuts == 12:
            break
    process.kill()
    for line in process.stdout.read().splitlines():
        what, _, offset = line.partition(" ")
        told[what] = int(offset)
    process.wait(WAIT_S)
    journal = EmbeddedJournal(tmp_path)
    start, end = journal.start_offsets([ONE])[ONE], journal.end_offsets([ONE])[ONE]
    assert told["cut"] <= start < told["end"] <= end
    assert [(entry.offset, entry.value) for entry in read(journal, {ONE: start})] == [(n, b"%d" % n) for n in range(start, end)]
    journal.close()


def test_what_is_cut_off_goes_back_to_the_disk_while_others_read_and_write(tmp_path: Path) -> None:
    journal = EmbeddedJournal(tmp_path)
    journal.ensure_topics({"t": TopicSpec(2)})
    other = TopicPartition("t", 1)
    for partition in (ONE, other):
        write(journal, partition, *[random.randbytes(100_000) for _ in range(100)])
    before = folder_bytes(tmp_path)
    journal.trim({ONE: 95})
    journal.reclaim([ONE])
    assert folder_bytes(tmp_path) < 0.7 * before
    journal.trim({other: 95})
    reclaiming = threading.Thread(target=journal.reclaim, args=[[other]])
    reclaiming.start()
    write(journal, ONE, b"next")
    assert values(read(journal, {ONE: 100})) == [b"next"]
    reclaiming.join(WAIT_S)
    assert folder_bytes(tmp_path) < 0.3 * before
    journal.close()
    journal = EmbeddedJournal(tmp_path)
    assert [len(read(journal, {partition: 95})) for partition in (ONE, other)] == [6, 5]
    journal.close()


def test_the_journal_closes_while_space_is_given_back(tmp_path: Path) -> None:
    journal = EmbeddedJournal(tmp_path)
    journal.ensure_topics({"t": TopicSpec(1)})
    write(journal, ONE, *[random.randbytes(100_000) for _ in range(200)])
    journal.trim({ONE: 190})
    failures: list[Exception] = []

    def reclaim() -> None:
        try:
            while not journal._closing:
                journal.reclaim([ONE])
        except Exception as error:
            failures.append(error)

    reclaiming = threading.Thread(target=reclaim)
    reclaiming.start()
    until(journal._reclaiming.locked, WAIT_S)
    journal.close()
    reclaiming.join(WAIT_S)
    assert not reclaiming.is_alive()
    assert failures == []
    journal = EmbeddedJournal(tmp_path)
    assert journal.start_offsets([ONE]) == {ONE: 190}
    journal.close()


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
