"""What a journal promises of readers and of ends (I1, I3, I9, I11, I12)."""

from itertools import chain

import pytest

from journal.log import Entry, Journal, TopicPartition
from tests.journal.entries import batches, read, values, write
from tests.journal.waits import FOREVER_S, WAIT_S, in_thread


class Reading:
    """What readers find, and how long they wait for it."""

    def test_end_offsets_lie_above_every_acknowledged_append(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I9: a strong read waits for these."""
        assert journal.end_offsets(partitions) == dict.fromkeys(partitions, 0)
        for n in range(1, 6):
            write(journal, partitions[1], b"%d" % n)
            assert journal.end_offsets(partitions) == {partitions[0]: 0, partitions[1]: n, partitions[2]: 0}

    @pytest.mark.parametrize("start", [0, 3, 5])
    def test_a_reader_starts_where_it_is_told(self, journal: Journal, partition: TopicPartition, start: int) -> None:
        """I1"""
        write(journal, partition, *[b"%d" % n for n in range(5)])
        assert [entry.offset for entry in read(journal, {partition: start})] == list(range(start, 5))

    def test_assign_replaces_what_was_assigned(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I12"""
        one, other, _ = partitions
        write(journal, one, b"one", b"two")
        write(journal, other, b"other")
        reader = journal.reader()
        reader.assign({one: 0})
        assert list(batches(reader, {one: 0}, {one: 2}))
        reader.assign({other: 0})
        write(journal, one, b"three")
        found = [entry for batch in batches(reader, {other: 0}, {other: 1}) for entry in batch]
        assert values(found) == [b"other"]
        assert reader.poll(0.01) == ([], {other: 1})
        reader.close()

    def test_readers_do_not_disturb_each_other(self, journal: Journal, partition: TopicPartition) -> None:
        """I1: each node replays everything for itself."""
        write(journal, partition, b"0", b"1", b"2")
        first, second = journal.reader(), journal.reader()
        for reader in (first, second):
            reader.assign({partition: 0})
        for reader in (first, second):
            assert values(chain.from_iterable(batches(reader, {partition: 0}, {partition: 3}))) == [b"0", b"1", b"2"]
            reader.close()

    @pytest.mark.parametrize("bounds", [{"max_records": 1}, {"max_records": 4}, {"max_bytes": 1}, {"max_bytes": 250}])
    def test_a_poll_keeps_its_bounds_and_brings_at_least_one_entry(
        self, journal: Journal, partitions: list[TopicPartition], bounds: dict[str, int]
    ) -> None:
        """I11"""
        for partition in partitions:
            write(journal, partition, *[bytes(100)] * 4, bytes(400))
        start, ends = dict.fromkeys(partitions, 0), dict.fromkeys(partitions, 5)
        reader = journal.reader()
        reader.assign(start)
        found = list(batches(reader, start, ends, **bounds))
        reader.close()
        assert sum(len(batch) for batch in found) == 3 * 5
        for batch in found:
            assert len(batch) <= bounds.get("max_records", 1000)
            assert sum(len(value) for value in values(batch)[:-1]) <= bounds.get("max_bytes", 8 << 20)

    def test_the_positions_of_each_batch_say_where_to_read_on(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I3: they are what a shard stores with its rows."""
        for partition in partitions:
            write(journal, partition, *[b"%d" % n for n in range(4)])
        positions = dict.fromkeys(partitions, 0)
        found: list[Entry] = []
        while any(position < 4 for position in positions.values()):
            reader = journal.reader()
            reader.assign(positions)
            entries, after = reader.poll(WAIT_S, max_records=3)
            reader.close()
            assert entries
            for entry in entries:
                assert entry.offset == positions[entry.partition]
                positions[entry.partition] += 1
            assert after == positions
            found += entries
        assert len(found) == 12

    @pytest.mark.parametrize("max_records", [1, 3])
    def test_no_partition_starves_another(self, journal: Journal, partitions: list[TopicPartition], max_records: int) -> None:
        """N5, I11: a busy tier must not hold up the others."""
        busy, _, quiet = partitions
        write(journal, busy, *[b"busy"] * 10)
        write(journal, quiet, b"quiet")
        reader = journal.reader()
        reader.assign(dict.fromkeys(partitions, 0))
        for _ in range(60):
            if b"quiet" in values(reader.poll(WAIT_S, max_records=max_records).entries):
                break
            write(journal, busy, *[b"busy"] * 3)
        else:
            pytest.fail("60 polls brought nothing of the quiet partition")
        reader.close()

    @pytest.mark.parametrize("timeout_s", [0, 0.01])
    def test_a_poll_with_nothing_to_read_ends_empty(self, journal: Journal, partition: TopicPartition, timeout_s: float) -> None:
        """I11"""
        write(journal, partition, b"read before")
        reader = journal.reader()
        reader.assign({partition: 1})
        assert in_thread(reader.poll, timeout_s).result(WAIT_S) == ([], {partition: 1})
        reader.close()

    def test_a_waiting_poll_gets_what_is_appended_meanwhile(self, journal: Journal, partition: TopicPartition) -> None:
        """I12"""
        reader = journal.reader()
        reader.assign({partition: 0})
        poll = in_thread(reader.poll, FOREVER_S)
        write(journal, partition, b"late")
        assert values(poll.result(WAIT_S).entries) == [b"late"]
        reader.close()

    @pytest.mark.parametrize("when", ["before", "during"])
    def test_wake_ends_one_poll(self, journal: Journal, partition: TopicPartition, when: str) -> None:
        """I11"""
        reader = journal.reader()
        reader.assign({partition: 0})
        if when == "before":
            reader.wake()
        poll = in_thread(reader.poll, FOREVER_S)
        if when == "during":
            reader.wake()
        assert poll.result(WAIT_S) == ([], {partition: 0})
        poll = in_thread(reader.poll, FOREVER_S)
        write(journal, partition, b"late")
        assert values(poll.result(WAIT_S).entries) == [b"late"]
        reader.close()

    def test_a_reader_may_be_closed_twice(self, journal: Journal, partition: TopicPartition) -> None:
        """I11"""
        reader = journal.reader()
        reader.assign({partition: 0})
        reader.close()
        reader.close()
