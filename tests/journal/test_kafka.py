"""The journal on a real Kafka broker: the contract, and what brokers, operators and foreign clients do to it."""

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from journal.kafka import KafkaJournal
from journal.log import Appended, Definite, Journal, JournalError, TopicPartition, TopicSpec, Unfit
from tests.journal.contract import DurableContract
from tests.journal.entries import batches, outcomes, read, received, values, write
from tests.journal.waits import WAIT_S, in_thread, until_equal, until_it_works
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


class TestKafkaJournal(DurableContract):
    RACES = 2

    @pytest.fixture(scope="class")
    @classmethod
    def journal(cls, kafka: KafkaServer) -> Iterator[Journal]:
        journal = KafkaJournal(kafka.bootstrap)
        yield journal
        journal.close()

    @pytest.fixture
    def closable(self, kafka: KafkaServer) -> Iterator[Journal]:
        journal = KafkaJournal(kafka.bootstrap)
        yield journal
        journal.close()

    @pytest.fixture
    def reopen(self, kafka: KafkaServer, request: pytest.FixtureRequest) -> Callable[[Journal], Journal]:
        def reopen(journal: Journal) -> Journal:
            journal.close()
            again = KafkaJournal(kafka.bootstrap)
            request.addfinalizer(again.close)
            return again

        return reopen


@pytest.fixture(scope="module")
def journal(kafka: KafkaServer) -> Iterator[KafkaJournal]:
    journal = KafkaJournal(kafka.bootstrap, append_timeout_s=1)
    yield journal
    journal.close()


@pytest.fixture
def partition(journal: KafkaJournal, request: pytest.FixtureRequest) -> TopicPartition:
    """The only partition of a topic of this test's own."""
    name = request.node.name.replace("[", "-").replace("]", "")
    journal.ensure_topics({name: TopicSpec(1)})
    return TopicPartition(name, 0)


def foreign(kafka: KafkaServer, **settings: str) -> Producer:
    """A producer that knows nothing of this project."""
    return Producer({"bootstrap.servers": kafka.bootstrap} | {name.replace("_", "."): value for name, value in settings.items()})


@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
def test_markers_of_foreign_transactions_do_not_stall_a_reader(
    kafka: KafkaServer, journal: KafkaJournal, partition: TopicPartition, end: str
) -> None:
    """I9: a marker takes an offset that no entry has; a strong read waits for it all the same."""
    write(journal, partition, b"ours")
    reader = journal.reader()
    reader.assign({partition: 0})
    assert [values(entries) for entries in batches(reader, {partition: 0}, {partition: 1})] == [[b"ours"]]
    producer = foreign(kafka, transactional_id=partition.topic)
    producer.init_transactions(WAIT_S)
    for n in (2, 3):
        producer.begin_transaction()
        producer.produce(partition.topic, b"foreign", partition=0)
        assert producer.flush(WAIT_S) == 0
        getattr(producer, end)(WAIT_S)
        ends = {partition: 2 * n - 1}
        until_equal(lambda: journal.end_offsets([partition]), ends)  # the coordinator writes the marker after it has answered
        for _ in batches(reader, {partition: 0}, ends):
            pass  # fails unless the positions reach the ends
    reader.close()
    (appended,) = write(journal, partition, b"ours")
    assert [entry.offset for entry in read(journal, {partition: 4})] == [appended.offset] == [5]


def test_the_time_is_the_brokers_whatever_a_producer_claims(
    kafka: KafkaServer, journal: KafkaJournal, partition: TopicPartition
) -> None:
    """I4, I6: else any producer could move the stamps of a shard."""
    (ours,) = write(journal, partition, b"ours")
    producer = foreign(kafka)
    for claimed_ms in (1, 2**45):
        producer.produce(partition.topic, b"foreign", partition=0, timestamp=claimed_ms)
    assert producer.flush(WAIT_S) == 0
    (after,) = write(journal, partition, b"ours")
    times = [entry.time_ms for entry in read(journal, {partition: 0})]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (ours.time_ms, after.time_ms)


@pytest.fixture
def admin(kafka: KafkaServer) -> AdminClient:
    """What an operator's tools use."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap})


def test_the_topics_keep_everything(admin: AdminClient, partition: TopicPartition) -> None:
    """I1: Kafka's default would drop the journal after a week."""
    (found,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, partition.topic)]).values()
    config = {name: entry.value for name, entry in found.result(WAIT_S).items()}
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert (config["retention.ms"], config["retention.bytes"], config["cleanup.policy"]) == ("-1", "-1", "delete")


def create(admin: AdminClient, topic: str, partitions: int = 1, **config: str) -> None:
    """A topic as an operator might have made it."""
    settings = {name.replace("_", "."): value for name, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(WAIT_S)


@pytest.mark.parametrize(
    ("config", "promise"),
    [
        ({}, "LogAppendTime"),
        ({"retention_ms": "3600000"}, "must not forget"),
        ({"retention_bytes": "1000000"}, "must not forget"),
        ({"cleanup_policy": "compact"}, "compaction"),
        ({"max_message_bytes": "1000"}, "max.message.bytes is 1000"),
        ({"min_insync_replicas": "2"}, "takes no writes"),
    ],
)
def test_a_topic_that_would_break_a_promise_is_refused(
    admin: AdminClient, journal: KafkaJournal, config: dict[str, str], promise: str
) -> None:
    """V1, I1, I2, I4: it is not taken over in silence, and the text says why; nothing about it is changed."""
    topic = "unfit-" + "-".join([*config, "x"]).replace("_", "-")
    create(admin, topic, **config)
    with pytest.raises(Unfit, match=promise):
        journal.ensure_topics({topic: TopicSpec(1)})
    with pytest.raises(Definite, match="unknown partition"):
        journal.append(TopicPartition(topic, 0), b"x")


def test_fewer_copies_than_the_preset_promises_are_refused(admin: AdminClient, journal: KafkaJournal) -> None:
    """V1: replication is checked against the preset."""
    create(admin, "few-copies", message_timestamp_type="LogAppendTime", retention_ms="-1")
    journal.ensure_topics({"few-copies": TopicSpec(1)})
    with pytest.raises(Unfit, match=r"replication factor is 1, the preset needs 3.*min.insync.replicas is 1"):
        journal.ensure_topics({"few-copies": TopicSpec(1, 3, 2)})
    with pytest.raises(Definite, match="cannot be reached"):
        journal.ensure_topics({"more-copies-than-brokers": TopicSpec(1, 3, 2)})


def test_a_topic_created_anew_has_another_identity(admin: AdminClient, journal: KafkaJournal) -> None:
    """U2: offsets that begin again are not taken for those that were read before."""
    journal.ensure_topics({"anew": TopicSpec(1)})
    before = journal.identities(["anew"])
    assert journal.identities(["anew"]) == before
    admin.delete_topics(["anew"])["anew"].result(WAIT_S)

    def created_anew() -> bool:
        """The broker takes its time to delete, and to tell."""
        try:
            create(admin, "anew")
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        return until_it_works(lambda: journal.identities(["anew"])) != before

    until_equal(created_anew, True)


def test_aborted_transactions_do_not_come_to_a_member(
    kafka: KafkaServer, journal: KafkaJournal, partition: TopicPartition
) -> None:
    """U2: foreign producers may use transactions; what they took back was never written."""
    producer = foreign(kafka, transactional_id=partition.topic)
    producer.init_transactions(WAIT_S)
    for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(partition.topic, value, partition=0)
        assert producer.flush(WAIT_S) == 0
        end(WAIT_S)
    member = journal.join(partition.topic, partition.topic, "member")
    assert values(received(member, 1)) == [b"committed"]
    member.close()


def test_ordinary_tools_see_what_a_group_committed(kafka: KafkaServer, journal: KafkaJournal, partition: TopicPartition) -> None:
    """U4"""
    write(journal, partition, b"0", b"1")
    journal.commit("node-1", {partition: 1})
    tool = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "node-1"})
    asked = [KafkaPartition(partition.topic, 0)]
    until_equal(lambda: [found.offset for found in tool.committed(asked, WAIT_S)], [1])
    tool.close()


def test_a_record_that_no_broker_would_take_is_refused(journal: KafkaJournal, partition: TopicPartition) -> None:
    """I11"""
    with pytest.raises(Definite):
        journal.append(partition, bytes(1_100_000)).result(WAIT_S)
    assert journal.end_offsets([partition]) == {partition: 0}


def test_a_broker_that_dies_never_makes_a_false_promise(
    kafka: KafkaServer, journal: KafkaJournal, partition: TopicPartition
) -> None:
    """I2, V21: acknowledged is in the log, definite is not, and the same journal goes on when the broker is back."""
    sent = []

    def append(count: int) -> None:
        sent.extend(journal.append(partition, b"%d" % n) for n in range(len(sent), len(sent) + count))

    append(100)
    sent[0].result(WAIT_S)
    killing = in_thread(kafka.kill)
    try:
        while not killing.done():
            append(100)
            outcomes(sent[:-1000])  # at most a thousand are in flight
        append(100)
        found = outcomes(sent)
        with pytest.raises(JournalError):
            journal.end_offsets([partition])
        with pytest.raises(JournalError):
            journal.ensure_topics({"while-down": TopicSpec(1)})
    finally:
        killing.result(WAIT_S)
        kafka.start()
    assert isinstance(found[0], Appended)
    assert isinstance(found[-1], JournalError)
    after = until_it_works(lambda: write(journal, partition, b"after")[0])
    until_it_works(lambda: journal.end_offsets([partition]))  # leaders may be asked for a moment later than they take writes
    log = {entry.offset: entry.value for entry in read(journal, {partition: 0})}
    assert log[after.offset] == b"after"
    ours = [value for value in log.values() if value != b"after"]
    assert len(set(ours)) == len(ours), "the retries of an idempotent producer write nothing twice"
    for n, outcome in enumerate(found):
        if isinstance(outcome, Appended):
            assert log[outcome.offset] == b"%d" % n
        elif isinstance(outcome, Definite):
            assert b"%d" % n not in ours
