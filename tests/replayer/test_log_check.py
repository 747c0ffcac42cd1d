"""What a copy of a log may have of its own, and what makes it another log (I1, I4, I5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from journal.ids import encode_id
from journal.log import Entry
from journal.memory import MemoryJournal
from journal.records import Delete
from journal.topics import Topics
from replayer.log_check import LogCheck, ShardPartition
from shard.batch import Limits
from tests.replayer.rig import HOME, TOPICS, Rig

COUNT = 100


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A collection and COUNT records, one a second, and another collection in the middle of them."""
    rig = Rig(tmp_path)
    for number in range(COUNT):
        rig.now_ms += 1000
        rig.append(rig.record(Delete([encode_id(number)])))
        if number == COUNT // 2:
            rig.create("d")
    return rig


def entries_of(journal: MemoryJournal) -> list[Entry]:
    """All entries of the catalog, then those of the home partition."""
    reader = journal.reader()
    reader.assign({TOPICS.system_partition: 0, HOME: 0})
    return sorted(reader.poll(0).entries, key=lambda entry: (entry.partition == HOME, entry.offset))


def checked(rig: Rig, entries: Iterable[Entry], times: Callable[[Entry], int] = lambda entry: entry.time_ms) -> LogCheck:
    """The check of a log with these entries, for the state of the rig's shard."""
    clock = [0]
    copy = MemoryJournal(lambda: clock[0])
    copy.ensure_topics(Topics(TOPICS.prefix).all())
    for entry in entries:
        clock[0] = times(entry)
        copy.append(entry.partition, entry.value, entry.key, entry.headers).result()
    shard = rig.shards.of(0)[0]
    applied = {ShardPartition(0, 0, p): shard.progress(p) for p in shard.home_partitions()}
    check = LogCheck(copy, TOPICS, Limits(), applied)
    check.read(lambda done, total: None)
    return check


def test_a_copy_at_the_same_offsets_and_times_is_the_same_log(rig: Rig) -> None:
    check = checked(rig, entries_of(rig.journal))
    assert (check.faults(), check.differences(), check.count) == ([], [], COUNT)
    assert set(check.catalog.view.collections) == {"c", "d"}


def test_a_copy_that_ends_earlier_is_the_same_log_as_far_as_it_goes(rig: Rig) -> None:
    check = checked(rig, entries_of(rig.journal)[:-10])
    assert (check.faults(), check.differences()) == ([], [])
    assert check.bounds.ends[HOME] == COUNT - 10


def test_records_that_are_there_twice_are_a_fault(rig: Rig) -> None:
    """As a tool writes them that was killed, and began again at its last commit: the first ones would win over the later ones."""
    entries = entries_of(rig.journal)
    check = checked(rig, [*entries, *entries[-5:]])
    assert check.faults() == [f"{HOME}: 5 records are there twice, the first again at {COUNT}"]


def test_commands_that_are_there_twice_are_a_fault(rig: Rig) -> None:
    first, *others = entries_of(rig.journal)
    assert (
        f"{TOPICS.system_partition}: 1 records are there twice, the first again at 1"
        in checked(rig, [first, first, *others]).faults()
    )


def test_times_of_the_copying_are_a_fault(rig: Rig) -> None:
    """Records of tiers that were copied one after the other would be ordered by when they were copied."""
    (fault,) = checked(rig, entries_of(rig.journal), lambda entry: rig.now_ms).faults()
    assert "the copy does not have the append times of the original" in fault


def test_commands_at_other_offsets_are_a_fault(rig: Rig) -> None:
    """The first command is missing, so that the second has its offset, which is the id of the collection."""
    (fault,) = checked(rig, entries_of(rig.journal)[1:]).faults()
    assert "the catalog commands are not at their original offsets" in fault


def test_records_at_other_offsets_are_no_records_of_this_state(rig: Rig) -> None:
    """As after a copy that began later than the original: nothing is read wrong, but the state cannot go on with it."""
    entries = entries_of(rig.journal)
    del entries[2]
    check = checked(rig, [*entries, entries[-1]._replace(value=rig.record(Delete([encode_id(1)])))])
    assert check.faults() == []
    assert check.differences() == [f"{HOME}: the records below {COUNT} are not those that the state has applied"]


def test_records_that_name_later_commands_are_counted(rig: Rig) -> None:
    check = checked(rig, [entry for entry in entries_of(rig.journal) if entry.partition == HOME or entry.offset == 0])
    rig.append(rig.record(Delete([encode_id(1)]), catalog_position=2))
    assert (check.faults(), check.unknown) == ([], 0)
    later = checked(rig, [entry for entry in entries_of(rig.journal) if entry.partition == HOME or entry.offset == 0])
    assert (later.faults(), later.unknown) == ([], 1)
