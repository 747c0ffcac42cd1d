"""What a journal promises of what is trimmed (A3, I11)."""

import pytest

from journal.log import Damaged, Definite, Entry, Journal, JournalError, Reader, TopicPartition
from tests.journal.entries import read, values, write
from tests.journal.waits import until_equal


class Trimming:
    """What is gone, and what stays."""

    def test_what_is_trimmed_is_gone_and_nothing_else(
        self, journal: Journal, topic: str, partitions: list[TopicPartition]
    ) -> None:
        """A3, I11: offsets stay what they were, and the log goes on after its end, also when nothing is left of it."""
        trimmed, whole, _ = partitions
        write(journal, trimmed, *[b"%d" % n for n in range(10)])
        write(journal, whole, b"whole")
        assert journal.start_offsets([trimmed, whole]) == {trimmed: 0, whole: 0}
        journal.trim({trimmed: 7})
        journal.trim({trimmed: 4})
        until_equal(lambda: journal.start_offsets([trimmed, whole]), {trimmed: 7, whole: 0})
        assert [(entry.offset, entry.value) for entry in read(journal, {trimmed: 7})] == [(7, b"7"), (8, b"8"), (9, b"9")]
        assert values(read(journal, {whole: 0})) == [b"whole"]
        journal.trim({trimmed: 10})
        assert write(journal, trimmed, b"next")[0].offset == 10
        journal.reclaim([trimmed])
        assert journal.start_offsets([trimmed]) == {trimmed: 10}
        with pytest.raises(Definite):
            journal.trim({whole: 5})

    def test_a_reader_below_what_is_trimmed_gets_an_error(
        self, journal: Journal, topic: str, partitions: list[TopicPartition]
    ) -> None:
        """It is no damage, after which a reader goes on, and no silent gap."""
        trimmed, *_ = partitions
        write(journal, trimmed, *[b"%d" % n for n in range(10)])
        journal.trim({trimmed: 7})
        until_equal(lambda: journal.start_offsets([trimmed]), {trimmed: 7})
        reader = journal.reader()
        reader.assign({trimmed: 3})
        with pytest.raises(JournalError) as caught:
            polled_until_entries(reader)
        assert not isinstance(caught.value, Damaged)
        reader.close()


def polled_until_entries(reader: Reader, polls: int = 60) -> list[Entry]:
    """What comes first; nothing after so many polls of half a second."""
    for _ in range(polls):
        if entries := reader.poll(0.5).entries:
            return entries
    return []
