"""KafkaJournal on librdkafka's mock cluster: the contract without Java, for machines where no broker can run.

The mock speaks the protocol but is no broker: it creates a topic, of four partitions, when it is asked about it, and it
acknowledges every record with the same time. What depends on that is left to `test_kafka.py`.
"""

from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka import Producer

from journal.kafka import KafkaJournal
from journal.log import Journal
from tests.journal.contract import WAIT_S, DurableContract


class OnTheMock(KafkaJournal):
    """Has topics created the only way the mock knows."""

    def ensure_topics(self, topics: Mapping[str, int]) -> None:
        for topic in topics:
            self._producer.list_topics(topic, timeout=WAIT_S)
        super().ensure_topics(topics)


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    """The address of a mock cluster, which lives as long as the client that holds it."""
    holder = Producer({"test.mock.num.brokers": 2, "bootstrap.servers": "", "log_level": 0})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in holder.list_topics(timeout=WAIT_S).brokers.values())
    holder.flush(0)


class TestKafkaJournalOnTheMock(DurableContract):
    RACES = 2
    test_the_time_is_the_same_for_writer_and_reader_and_never_decreases = None

    @pytest.fixture(scope="class")
    @classmethod
    def journal(cls, bootstrap: str) -> Iterator[Journal]:
        journal = OnTheMock(bootstrap)
        yield journal
        journal.close()

    @pytest.fixture
    def closable(self, bootstrap: str) -> Iterator[Journal]:
        journal = OnTheMock(bootstrap)
        yield journal
        journal.close()

    @pytest.fixture
    def reopen(self, bootstrap: str, request: pytest.FixtureRequest) -> Callable[[Journal], Journal]:
        def reopen(journal: Journal) -> Journal:
            journal.close()
            again = OnTheMock(bootstrap)
            request.addfinalizer(again.close)
            return again

        return reopen
