"""The journal in memory: the contract, and the faults and interleavings that the simulator asks of it."""

import random
from collections.abc import Callable

import pytest

from journal.log import Definite, Entry, Indefinite, Journal, TopicPartition, TopicSpec
from journal.memory import AppendFault, MemoryJournal
from tests.journal.contract import JournalContract, OwnClockContract
from tests.journal.entries import values, write

ONE, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)


class TestMemoryJournal(JournalContract, OwnClockContract):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()

    @pytest.fixture
    def open_at(self) -> Callable[[Callable[[], int]], Journal]:
        return MemoryJournal


@pytest.mark.parametrize(
    ("fault", "error", "in_the_log"),
    [(AppendFault.REFUSED, Definite, []), (AppendFault.ACK_LOST, Indefinite, [b"faulty"])],
)
def test_a_fault_is_what_it_says(fault: AppendFault, error: type[Exception], in_the_log: list[bytes]) -> None:
    """N5: a refused append is not in the log, one that lost its acknowledgement is."""
    faults = {ONE: fault}
    journal = MemoryJournal(fault=faults.get)
    journal.ensure_topics({"t": TopicSpec(2)})
    assert type(journal.append(ONE, b"faulty").exception()) is error
    write(journal, OTHER, b"fine")
    faults.clear()
    write(journal, ONE, b"after")
    found = drain(journal, None)
    assert values([e for e in found if e.partition == ONE]) == [*in_the_log, b"after"]
    assert values([e for e in found if e.partition == OTHER]) == [b"fine"]


def drain(journal: MemoryJournal, shuffle: random.Random | None) -> list[Entry]:
    reader = journal.reader(shuffle)
    reader.assign({ONE: 0, OTHER: 0})
    found: list[Entry] = []
    while batch := reader.poll(0).entries:
        found += batch
    return found


def test_a_shuffled_reader_interleaves_partitions_by_its_seed() -> None:
    """N5, I5: any interleaving can happen, the same seed gives the same one, and no partition is reordered."""
    journal = MemoryJournal()
    journal.ensure_topics({"t": TopicSpec(2)})
    for partition in (ONE, OTHER):
        write(journal, partition, *[b"%d" % n for n in range(8)])
    runs = [drain(journal, random.Random(seed)) for seed in (*range(10), 0)]
    assert runs[0] == runs[-1]
    assert len({tuple(e.partition.partition for e in run) for run in runs}) > 5
    for run in runs:
        for partition in (ONE, OTHER):
            assert [e.offset for e in run if e.partition == partition] == list(range(8))
