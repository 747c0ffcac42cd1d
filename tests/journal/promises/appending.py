"""What a journal promises of appends (I2, I4, I12)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from journal.log import Appended, Definite, Headers, Journal, JournalError, TopicPartition, TopicSpec
from tests.journal.entries import read, values, write
from tests.journal.promises import PARTITIONS
from tests.journal.waits import WAIT_S


class Appending:
    """What comes back of what was appended, and in which order."""

    def test_entries_come_back_in_the_order_of_their_appends_with_offsets_from_zero(
        self, journal: Journal, partition: TopicPartition
    ) -> None:
        """I12"""
        sent = [b"%d" % n for n in range(20)]
        appended = write(journal, partition, *sent)
        entries = read(journal, {partition: 0})
        assert values(entries) == sent
        assert [entry.offset for entry in entries] == list(range(20))
        assert [(a.partition, a.offset) for a in appended] == [(e.partition, e.offset) for e in entries]

    def test_each_partition_counts_for_itself(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I12"""
        for round_ in range(3):
            for partition in partitions:
                (appended,) = write(journal, partition, b"%d in %d" % (round_, partition.partition))
                assert (appended.partition, appended.offset) == (partition, round_)
        entries = read(journal, dict.fromkeys(partitions, 0))
        for p in partitions:
            assert values([e for e in entries if e.partition == p]) == [b"%d in %d" % (n, p.partition) for n in range(3)]

    @pytest.mark.parametrize("key", [None, b"", b"key \x00\xff"])
    @pytest.mark.parametrize("value", [b"", b"\x00", bytes(range(256))])
    @pytest.mark.parametrize("headers", [(), (("a", b"1"), ("ä", b""), ("a", b"\x00\xff"))])
    def test_key_value_and_headers_come_back(
        self, journal: Journal, partition: TopicPartition, key: bytes | None, value: bytes, headers: Headers
    ) -> None:
        """I12"""
        appended = journal.append(partition, value, key, headers).result(WAIT_S)
        (entry,) = read(journal, {partition: 0})
        assert (entry.key, entry.value, tuple(entry.headers)) == (key, value, headers)
        assert (entry.partition, entry.offset) == (partition, appended.offset)

    def test_a_record_of_900_kb_comes_back(self, journal: Journal, partition: TopicPartition) -> None:
        """I12: the cut of `journal.split` fits every log, with its envelope."""
        value = bytes(range(250)) * 3600 + bytes(5000)
        write(journal, partition, value)
        assert values(read(journal, {partition: 0})) == [value]

    def test_the_time_is_the_same_for_writer_and_reader_and_never_decreases(
        self, journal: Journal, partition: TopicPartition
    ) -> None:
        """I4: stamps are computed from append times, so they must be facts of the log."""
        appended = [write(journal, partition, b"%d" % n)[0] for n in range(10)]
        entries = read(journal, {partition: 0})
        assert [entry.time_ms for entry in entries] == [a.time_ms for a in appended]
        assert [a.time_ms for a in appended] == sorted(a.time_ms for a in appended)
        assert appended[0].time_ms > 0

    def test_threads_lose_nothing_and_keep_their_own_order(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I2, I4"""

        def write_all(thread: int) -> list[tuple[bytes, Appended]]:
            sent = [b"%d/%d" % (thread, n) for n in range(60)]
            futures = [journal.append(partitions[n % PARTITIONS], value) for n, value in enumerate(sent)]
            return [(value, future.result(WAIT_S)) for value, future in zip(sent, futures, strict=True)]

        with ThreadPoolExecutor(6) as threads:
            written = [list(each) for each in threads.map(write_all, range(6))]
        found = {(e.partition, e.offset): e.value for e in read(journal, dict.fromkeys(partitions, 0))}
        assert found == {(a.partition, a.offset): value for each in written for value, a in each}
        assert len(found) == 6 * 60
        for each in written:
            for partition in partitions:
                offsets = [a.offset for _, a in each if a.partition == partition]
                assert offsets == sorted(offsets)

    def test_a_caller_that_gives_up_on_its_append_harms_nobody(self, closable: Journal, partition: TopicPartition) -> None:
        """I2: asyncio cancels the future of a request that timed out."""
        closable.ensure_topics({partition.topic: TopicSpec(PARTITIONS)})
        for n in range(50):
            closable.append(partition, b"%d" % n).cancel()
        assert write(closable, partition, b"after")[0].offset == 50

    @pytest.mark.parametrize("unknown", [TopicPartition("{topic}", 99), TopicPartition("no-{topic}", 0)])
    def test_an_unknown_partition_is_refused_at_once(self, journal: Journal, topic: str, unknown: TopicPartition) -> None:
        """I12"""
        unknown = unknown._replace(topic=unknown.topic.format(topic=topic))
        with pytest.raises(Definite):
            journal.append(unknown, b"value")
        with pytest.raises(JournalError):
            journal.end_offsets([unknown])
