"""KafkaJournal on librdkafka's mock cluster: the contract without Java, and faults that no real broker has on demand."""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from journal.kafka import KafkaJournal
from journal.log import Appended, Definite, Indefinite, Journal, Overloaded, TopicPartition, TopicSpec
from journal.topic_check import MAX_RECORD_SET_BYTES, TopicFacts
from tests.journal.contract import DurableContract
from tests.journal.entries import outcomes, read, values, write
from tests.journal.mock_cluster import LIST_OFFSETS, OFFSET_FETCH, PRODUCE, MockCluster
from tests.journal.waits import until_equal, until_it_works


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    cluster = MockCluster()
    yield cluster
    cluster.close()


class OnTheMock(KafkaJournal):
    """Has its topics created from outside, as the mock needs it."""

    def __init__(self, cluster: MockCluster, append_timeout_s: float = 5.0, max_in_flight_bytes: int = 64 << 20) -> None:
        self._cluster_ = cluster
        super().__init__(cluster.bootstrap, append_timeout_s, max_in_flight_bytes)

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        for topic, spec in topics.items():
            self._cluster_.create_topic(topic, spec.partitions)
        super().ensure_topics(topics)

    def describe_topics(self, topics: Sequence[str]) -> dict[str, TopicFacts]:
        """The mock cannot describe a topic's configuration; it is taken to be right."""
        spec = TopicFacts(0, 1, 1, -1, -1, True, "delete", "producer", False, MAX_RECORD_SET_BYTES)
        known = self._metadata()
        return {topic: spec._replace(partitions=len(known[topic].partitions)) for topic in topics if topic in known}


class TestKafkaJournalOnTheMock(DurableContract):
    RACES = 2
    test_the_time_is_the_same_for_writer_and_reader_and_never_decreases = None
    test_a_record_may_bring_its_own_time = None
    test_what_is_trimmed_is_gone_and_nothing_else = None
    test_a_reader_below_what_is_trimmed_gets_an_error = None
    test_members_share_a_topic_and_go_on_where_the_group_committed = None
    test_a_member_begins_where_it_is_told_and_reads_nothing_else = None
    test_who_has_which_partition = None
    test_offsets_by_time = None
    """Left to `test_kafka.py`: the mock has no time of its own, no DeleteRecords and DescribeGroups, and lets groups wait."""

    @pytest.fixture(scope="class")
    @classmethod
    def journal(cls, cluster: MockCluster) -> Iterator[Journal]:
        journal = OnTheMock(cluster)
        yield journal
        journal.close()

    @pytest.fixture
    def closable(self, cluster: MockCluster) -> Iterator[Journal]:
        journal = OnTheMock(cluster)
        yield journal
        journal.close()

    @pytest.fixture
    def reopen(self, cluster: MockCluster, request: pytest.FixtureRequest) -> Callable[[Journal], Journal]:
        def reopen(journal: Journal) -> Journal:
            journal.close()
            again = OnTheMock(cluster)
            request.addfinalizer(again.close)
            return again

        return reopen


@pytest.fixture
def journal(cluster: MockCluster) -> Iterator[KafkaJournal]:
    journal = OnTheMock(cluster, append_timeout_s=1)
    yield journal
    journal.close()


@pytest.fixture
def partition(cluster: MockCluster, journal: KafkaJournal, request: pytest.FixtureRequest) -> TopicPartition:
    cluster.heal()
    name = request.node.name.replace("[", "-").replace("]", "")
    journal.ensure_topics({name: TopicSpec(1)})
    return TopicPartition(name, 0)


@pytest.mark.parametrize(
    "error",
    [
        "NOT_LEADER_FOR_PARTITION",
        "NOT_ENOUGH_REPLICAS",
        "REQUEST_TIMED_OUT",
        "KAFKA_STORAGE_ERROR",
        "UNKNOWN_PRODUCER_ID",
        "DUPLICATE_SEQUENCE_NUMBER",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "INVALID_PRODUCER_EPOCH",
        "MSG_SIZE_TOO_LARGE",
        "CLUSTER_AUTHORIZATION_FAILED",
        "UNKNOWN",
        "_TRANSPORT",
    ],
)
def test_what_the_broker_refused_is_never_acknowledged(
    cluster: MockCluster, journal: KafkaJournal, partition: TopicPartition, error: str
) -> None:
    """I2, V21: and the journal goes on. librdkafka reports a refused batch as delivered when a later one was (its implicit
    acknowledgement, confluent-kafka-go issue 921), without an offset."""
    cluster.answer_after(20)
    cluster.refuse(PRODUCE, [getattr(KafkaError, error)] * 3)
    # Two fill a request, and all wait together until the producer, which meets the topic here, knows its leader.
    sent = [b"%d" % n + bytes(400_000) for n in range(8)]
    futures = [journal.append(partition, value) for value in sent]
    found = outcomes(futures)
    cluster.heal()
    until_it_works(lambda: write(journal, partition, b"after"))
    log = {entry.offset: entry.value for entry in read(journal, {partition: 0})}
    for value, outcome in zip(sent, found, strict=True):
        if isinstance(outcome, Appended):
            assert log[outcome.offset] == value
        elif isinstance(outcome, Definite):
            assert value not in log.values()
        else:
            assert isinstance(outcome, Indefinite)


def test_an_answer_that_comes_too_late_leaves_the_append_in_doubt(
    cluster: MockCluster, journal: KafkaJournal, partition: TopicPartition
) -> None:
    """I2: the record is in the log, but its writer could not know."""
    write(journal, partition, b"warm")
    cluster.answer_after(3000)
    in_doubt: Future[Appended] = journal.append(partition, b"late")
    assert [type(outcome) for outcome in outcomes([in_doubt])] == [Indefinite]
    cluster.heal()
    until_it_works(lambda: write(journal, partition, b"after"))
    assert values(read(journal, {partition: 0}))[:2] == [b"warm", b"late"]


@pytest.mark.parametrize("error", ["NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "FENCED_LEADER_EPOCH"])
def test_end_offsets_follow_a_leader_that_moves(
    cluster: MockCluster, journal: KafkaJournal, partition: TopicPartition, error: str
) -> None:
    """I9, V21: a strong read does not fail because a broker was replaced."""
    cluster.refuse(LIST_OFFSETS, [getattr(KafkaError, error)])
    assert journal.end_offsets([partition]) == {partition: 0}


def test_the_first_record_is_older_than_the_leader(
    cluster: MockCluster, partition: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V21: Kafka tells the epoch of the first record with its offset. After an election it is not that of the leader."""
    journal = OnTheMock(cluster, append_timeout_s=0.5)
    epochs = {"end": 3, "start": 0}
    which = "end"
    answer = SimpleNamespace(offset=7, leader_epoch=0)

    def asked(partitions: Sequence[TopicPartition], _: object) -> dict[TopicPartition, SimpleNamespace]:
        answer.leader_epoch = epochs[which]
        return dict.fromkeys(partitions, answer)

    monkeypatch.setattr(journal, "_list_offsets", asked)
    assert journal.end_offsets([partition]) == {partition: 7}
    which = "start"
    assert journal.start_offsets([partition]) == {partition: 7}
    which, epochs["end"] = "end", 2
    with pytest.raises(Indefinite, match="only a former leader answered"):
        journal.end_offsets([partition])
    journal.close()


@pytest.mark.parametrize("error", ["NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"])
def test_committed_offsets_follow_a_coordinator_that_moves(
    cluster: MockCluster, journal: KafkaJournal, partition: TopicPartition, error: str
) -> None:
    """V21: as for a new group on a broker that has just started."""
    cluster.refuse(OFFSET_FETCH, [getattr(KafkaError, error)] * 3)
    assert journal.committed("new", [partition]) == {}


def test_what_may_be_in_flight_is_bounded(cluster: MockCluster) -> None:
    """I11: brokers that are slow fill the queue; more is refused at once, definitely, and taken again when there is room."""
    journal = OnTheMock(cluster, max_in_flight_bytes=1 << 20)
    journal.ensure_topics({"bounded": TopicSpec(1)})
    partition = TopicPartition("bounded", 0)
    cluster.answer_after(1_000)
    sent: list[Future[Appended]] = []
    try:
        with pytest.raises(Overloaded) as refused:
            sent.extend(journal.append(partition, bytes(100_000)) for _ in range(100))
    finally:
        cluster.heal()
    assert 1 <= len(sent) <= 12
    assert refused.value.retry_after_s > 0
    assert all(isinstance(outcome, Appended) for outcome in outcomes(sent))
    assert journal.append(partition, b"again").result(20).offset == len(sent)
    journal.close()


def test_one_copy_on_three_brokers_is_remarked_once(caplog: pytest.LogCaptureFixture) -> None:
    """V1: it works, and would lose acknowledged writes with one broker, which is hardly meant."""
    cluster = MockCluster(brokers=3)
    journal = OnTheMock(cluster)
    for _ in range(2):
        journal.ensure_topics({"one-copy": TopicSpec(1)})
    (remark,) = journal.brokers().remarks
    assert "one copy of each record, although there are 3 brokers" in remark
    assert [record.levelname for record in caplog.records if remark in record.getMessage()] == ["WARNING"]
    assert journal.brokers().well
    journal.close()
    cluster.close()


def test_one_copy_on_two_brokers_is_no_remark(journal: KafkaJournal, partition: TopicPartition) -> None:
    assert journal.brokers().remarks == ()


def test_a_broker_that_is_not_there_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning with address and cause, however often librdkafka reports it; errors say the same."""
    caplog.set_level("INFO", "journal.kafka_connection")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        journal = KafkaJournal(address, append_timeout_s=0.5)
        until_equal(lambda: journal.brokers().well, False)
        since = journal.brokers().since
        with pytest.raises(Indefinite, match="nothing listens there"):
            journal.ensure_topics({"any": TopicSpec(1)})
        assert journal.brokers().causes == (f"{address}: nothing listens there (connection refused)",)
        assert journal.brokers().since == since
    assert [record.getMessage() for record in caplog.records] == [f"Kafka: {journal.brokers().causes[0]}"]
    journal.close()


def test_consumers_of_groups_that_are_not_used_are_closed(
    journal: KafkaJournal, partition: TopicPartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I11: sources of the ingest come and go, each with a group of its own."""
    monkeypatch.setattr("journal.kafka.MAX_GROUPS", 2)
    write(journal, partition, b"x")
    for number in range(4):
        journal.commit(f"{partition.topic}-{number}", {partition: 1})
        assert journal.committed(f"{partition.topic}-0", [partition]) == {partition: 1}
    assert set(journal._groups) == {f"{partition.topic}-0", f"{partition.topic}-3"}
