"""What a journal promises of topics (V1, I2, A3)."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from journal.log import Definite, Journal, TopicPartition, TopicSpec
from tests.journal.entries import read, values, write
from tests.journal.promises import PARTITIONS
from tests.journal.waits import WAIT_S


class Topics:
    """What ensuring a topic does, and to whom."""

    RACES = 30
    """How often threads race for a topic; fewer where it is slow to create one."""

    def test_topics_are_ensured_once_and_keep_their_entries(self, journal: Journal, topic: str) -> None:
        """V1"""
        last = TopicPartition(topic, PARTITIONS - 1)
        write(journal, last, b"kept")
        for count in (PARTITIONS, 1):
            journal.ensure_topics({topic: TopicSpec(count)})
        write(journal, last, b"next")
        assert values(read(journal, {last: 0})) == [b"kept", b"next"]

    def test_a_topic_with_too_few_partitions_is_refused(self, journal: Journal, topic: str) -> None:
        """V1"""
        with pytest.raises(Definite):
            journal.ensure_topics({topic: TopicSpec(5)})

    @pytest.mark.usefixtures("hasty_threads")
    def test_threads_may_ensure_the_same_topics(self, journal: Journal, topic: str) -> None:
        """I2: workers that start together must not open a topic over each other's entries."""
        together = threading.Barrier(16)
        partitions = [TopicPartition(f"{topic}-{n}", 0) for n in range(self.RACES)]

        def ensure_and_write(_: int) -> None:
            for partition in partitions:
                together.wait(WAIT_S)
                journal.ensure_topics({partition.topic: TopicSpec(PARTITIONS)})
                write(journal, partition, b"x")

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ensure_and_write, range(16)))
        assert journal.end_offsets(partitions) == dict.fromkeys(partitions, 16)

    def test_a_record_may_bring_its_own_time(self, journal: Journal, topic: str) -> None:
        """A3: where the topic is made for it; the log's own clock goes on undisturbed."""
        own = TopicPartition(f"{topic}-own", 0)
        journal.ensure_topics({own.topic: TopicSpec(1, log_times=False)})
        assert journal.append(own, b"old", time_ms=1_000).result(WAIT_S).offset == 0
        assert [entry.time_ms for entry in read(journal, {own: 0})] == [1_000]
        assert write(journal, TopicPartition(topic, 0), b"x")[0].time_ms > 1_000
