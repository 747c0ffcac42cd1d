"""The journal on Apache Kafka: the one file that imports confluent_kafka.

The producer is idempotent with acks=all; one thread drives its callbacks. Readers assign partitions manually, since each node
replays all of them. They commit to a consumer group only so that standard tools can show the lag.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ListOffsetsResultInfo,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)
from confluent_kafka.cimpl import NewTopic

from journal.log import (
    Appended,
    Batch,
    Definite,
    Entry,
    Headers,
    Indefinite,
    JournalError,
    Overloaded,
    Positions,
    TopicPartition,
    TopicSpec,
    Unfit,
    lost_end,
    pending,
)
from journal.statistics import ClientStatistics, Statistics
from journal.topic_check import TopicFacts, breaches, config_of

log = logging.getLogger(__name__)

_NEVER_SENT = {
    KafkaError._QUEUE_FULL,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.INVALID_REPLICATION_FACTOR,
}
"""After these errors it is certain that the record was not written."""

_COORDINATOR_MOVES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""The group's coordinator is another broker now, or is not ready yet."""

_CANNOT_READ = {KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}
"""After these errors the consumer does not recover by itself."""

_MOVING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""A partition may have no leader for a short time: after its creation, or during a leader election."""


CREATE_TIMEOUT_S = 10.0
RETRY_S = 0.05
PROMPT_S = 1.0
"""A leader that answers within this time cannot have been replaced: the controller waits longer for a silent broker."""
_COMMON: dict[str, Any] = {
    # After this time without an answer, the client looks up the current leader.
    "socket.timeout.ms": 3_000,
    # librdkafka logs several times per second while a broker is down; callers get the error anyway.
    "log_level": 2,
    "logger": logging.getLogger("librdkafka"),  # else it writes to stderr in a form of its own
    "error_cb": lambda error: log.debug("Kafka: %s", error.str()),
}

_LATEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


class _Leaderless(Exception):
    """No leader of a partition answers at the moment."""


class KafkaJournal:
    """A journal on the Kafka cluster at `bootstrap`."""

    def __init__(
        self,
        bootstrap: str,
        append_timeout_s: float = 5.0,
        max_in_flight_bytes: int = 64 << 20,
    ) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = append_timeout_s
        client: dict[str, Any] = {"bootstrap.servers": bootstrap, "allow.auto.create.topics": False} | _COMMON
        self._admin = AdminClient(client)
        self._statistics = ClientStatistics()
        self._producer_settings = client | {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            # With several requests in flight, a batch that is retried while a later one is acknowledged loses its offset.
            "max.in.flight.requests.per.connection": 1,
            "compression.type": "lz4",
            "delivery.timeout.ms": int(append_timeout_s * 1000),
            "queue.buffering.max.kbytes": max_in_flight_bytes >> 10,
            "message.max.bytes": 1_000_000,
            **self._statistics.settings("producer"),
        }
        self._producer = Producer(self._producer_settings)
        self._seen = _Seen()
        self._groups: dict[str, Consumer] = {}
        self._groups_lock = threading.Lock()
        self._partitions: set[TopicPartition] = set()
        self._refused: dict[TopicPartition, str] = {}
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._drive_callbacks, name="journal-callbacks", daemon=True)
        self._poller.start()

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        led = self._led()
        if missing := {topic: spec for topic, spec in topics.items() if topic not in led}:
            self._create(missing)
        deadline = time.monotonic() + CREATE_TIMEOUT_S
        # Either call may reach a broker that does not know the new topics yet.
        while absent := topics.keys() - ((facts_of := self.describe_topics(list(topics))).keys() & self._led()):
            if time.monotonic() > deadline:
                raise Definite(f"within {CREATE_TIMEOUT_S} s no broker led all of {', '.join(sorted(absent))}")
            self._closing.wait(RETRY_S)
        _check(topics, facts_of)
        self._partitions |= {TopicPartition(topic, p) for topic, facts in facts_of.items() for p in range(facts.partitions)}

    def check_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        """Raises Unfit, which names each missing topic and each promise that a topic would break."""
        _check(topics, self.describe_topics(list(topics)))

    def describe_topics(self, topics: Sequence[str]) -> dict[str, TopicFacts]:
        """Facts about each of the topics that exists, from the brokers."""
        known = self._metadata()
        there = [topic for topic in topics if topic in known]
        if not there:
            return {}
        asked = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic) for topic in there], request_timeout=self._timeout_s
        )
        try:
            configs = {resource.name: {name: entry.value for name, entry in f.result().items()} for resource, f in asked.items()}
        except KafkaException as error:
            raise _journal_error(error.args[0]) from error
        return {topic: _facts(known[topic], configs[topic]) for topic in there}

    def _create(self, topics: Mapping[str, TopicSpec]) -> None:
        """Creates topics. One that another process has just created is no error."""
        new = [NewTopic(topic, spec.partitions, spec.replication, config=config_of(spec)) for topic, spec in topics.items()]
        for future in self._admin.create_topics(new, operation_timeout=10).values():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise _journal_error(error.args[0]) from error

    def append(
        self,
        partition: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        time_ms: int | None = None,
    ) -> Future[Appended]:
        if self._closing.is_set():
            raise Definite("the journal is closed")
        if partition not in self._partitions:
            raise Definite(f"unknown partition: {partition.topic}/{partition.partition}")
        if (reason := self._refused.get(partition)) is not None:
            raise Definite(f"{partition.topic}/{partition.partition} takes no writes: {reason}")
        future = pending()
        floor = self._seen.end(partition)

        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if error is not None:
                future.set_exception(_journal_error(error))
            elif offset is None or (time_ms is None and message.timestamp()[0] != TIMESTAMP_LOG_APPEND_TIME):
                # librdkafka infers the write from a later acknowledgement or from a duplicate error, without an offset.
                future.set_exception(Indefinite("Kafka: written, but the broker did not say where"))
            elif offset < floor:  # the topic was made anew, or has lost its end
                self.refuse(partition, lost_end(partition, offset, floor))
                future.set_exception(Indefinite(lost_end(partition, offset, floor)))
            else:
                self._seen.see_end(partition, offset + 1)
                future.set_result(Appended(partition, offset, message.timestamp()[1]))

        try:
            self._producer.produce(
                partition.topic,
                value,
                key,
                partition.partition,
                on_delivery=delivered,
                timestamp=time_ms or 0,
                headers=list(headers),
            )
        except BufferError:
            raise Overloaded("the producer's queue is full") from None
        except KafkaException as error:  # the record did not enter the queue
            raise Definite(f"Kafka: {error.args[0].str()}") from error
        return future

    def reader(self) -> KafkaReader:
        settings = _consumer_settings(self._bootstrap, "vecraft.reader") | self._statistics.settings("reader")
        return KafkaReader(Consumer(settings), self._seen)

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        return self._offsets(partitions, _EARLIEST)

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        return self._offsets(partitions, _LATEST)

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        asked = self._admin.delete_records(_kafka_positions(positions))
        try:
            for future in asked.values():
                future.result()
        except KafkaException as error:
            raise _journal_error(error.args[0]) from error

    def identities(self, topics: Sequence[str]) -> dict[str, str]:
        asked = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=self._timeout_s)
        identities = {}
        for topic, future in asked.items():
            try:
                identities[topic] = f"{topic}:{future.result().topic_id}"
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise _journal_error(error.args[0]) from error
        return identities

    def refuse(self, partition: TopicPartition, reason: str) -> None:
        self._refused = {partition: reason} | self._refused

    def refusals(self) -> Mapping[TopicPartition, str]:
        return self._refused

    def join(self, group: str, topic: str, name: str) -> KafkaMember:
        return KafkaMember(self._bootstrap, group, topic, name, self._seen)

    def _offsets(self, partitions: Sequence[TopicPartition], which: Any) -> Positions:
        """The offsets that the partitions' current leaders report.

        A broker that was suspended and replaced still answers as leader for a moment after it resumes (a stale leader). Two rules
        exclude it: a request times out before a silent leader can be replaced, and an answer with an older leader epoch than this
        process has seen is rejected (fencing).
        """
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                answers = self._list_offsets(partitions, which)
            except _Leaderless as error:
                if time.monotonic() > deadline:
                    raise Indefinite(f"Kafka: {error}") from error
                self._closing.wait(RETRY_S)
            else:
                if self._seen.are_current(answers):
                    if which is _LATEST:
                        for partition, answer in answers.items():
                            self._seen.see_end(partition, answer.offset)
                    return {partition: answer.offset for partition, answer in answers.items()}
                if time.monotonic() > deadline:
                    raise Indefinite(f"Kafka: only a former leader answered within {self._timeout_s} s")
                self._closing.wait(RETRY_S)
            self._metadata()  # refreshes the leaders

    def _list_offsets(self, partitions: Sequence[TopicPartition], which: Any) -> dict[TopicPartition, ListOffsetsResultInfo]:
        wanted = {KafkaPartition(p.topic, p.partition): which for p in partitions}
        futures = self._admin.list_offsets(wanted, request_timeout=PROMPT_S)
        try:
            answers = {TopicPartition(p.topic, p.partition): future.result() for p, future in futures.items()}
        except KafkaException as error:
            if error.args[0].code() in (*_MOVING, KafkaError._TIMED_OUT):
                raise _Leaderless(error.args[0].str()) from error
            raise _journal_error(error.args[0]) from error
        if unknown := [p for p, answer in answers.items() if answer.offset < 0]:  # librdkafka reports this as success
            raise _Leaderless(f"no leader says where {', '.join(f'{p.topic}/{p.partition}' for p in unknown)} ends")
        return answers

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        try:
            self._group(group).commit(offsets=_kafka_positions(positions), asynchronous=False)
        except KafkaException as error:
            raise _journal_error(error.args[0]) from error

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        wanted = [KafkaPartition(p.topic, p.partition) for p in partitions]
        end_s = time.monotonic() + self._timeout_s
        while True:
            try:
                committed = self._group(group).committed(wanted, timeout=self._timeout_s)
                break
            except KafkaException as error:
                if error.args[0].code() not in _COORDINATOR_MOVES or time.monotonic() > end_s:
                    raise _journal_error(error.args[0]) from error
            self._closing.wait(RETRY_S)
        return {TopicPartition(p.topic, p.partition): p.offset for p in committed if p.offset != OFFSET_INVALID}

    @property
    def failure(self) -> Exception | None:
        return None  # the client goes on by itself

    def statistics(self) -> Statistics:
        return self._statistics.get()

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._producer.flush(self._timeout_s)
        self._closing.set()
        self._producer.purge()
        self._producer.flush(1)
        self._poller.join()
        for consumer in self._groups.values():
            consumer.close()

    def _led(self) -> set[str]:
        """The topics whose partitions all have a leader."""
        return {
            name
            for name, topic in self._metadata().items()
            if all(partition.leader >= 0 for partition in topic.partitions.values())
        }

    def _metadata(self) -> dict[str, TopicMetadata]:
        """Metadata of the topics that exist."""
        try:
            topics = self._admin.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise _journal_error(error.args[0]) from error
        return {name: topic for name, topic in topics.items() if topic.error is None}

    def _group(self, group: str) -> Consumer:
        with self._groups_lock:
            if group not in self._groups:
                self._groups[group] = Consumer(_consumer_settings(self._bootstrap, group))
            return self._groups[group]

    def _drive_callbacks(self) -> None:
        """Waits in librdkafka for delivery reports; uses no CPU while there are none."""
        while not self._closing.is_set():
            try:
                self._producer.poll(1.0)
            except KafkaException as error:  # fatal: this producer accepts no more records
                log.error("Kafka: %s; going on with a new producer", error)
                lost, self._producer = self._producer, Producer(self._producer_settings)
                lost.purge()
                with contextlib.suppress(KafkaException):
                    lost.flush(1)


class _Seen:
    """The latest leader epoch and the highest end of each partition that this process has seen.

    Thread-safe: each access is one dict operation. An end may be a little too low after two threads have written it.
    """

    def __init__(self) -> None:
        self._latest: dict[TopicPartition, int] = {}
        self._ends: Positions = {}

    def end(self, partition: TopicPartition) -> int:
        """An append from now on gets this offset or a higher one, if the log is the same."""
        return self._ends.get(partition, 0)

    def see_end(self, partition: TopicPartition, end: int) -> None:
        if end > self._ends.get(partition, 0):
            self._ends[partition] = end

    def see(self, partition: TopicPartition, epoch: int | None) -> None:
        if epoch is not None and epoch > self._latest.get(partition, -1):
            self._latest[partition] = epoch

    def are_current(self, answers: Mapping[TopicPartition, ListOffsetsResultInfo]) -> bool:
        """Whether no answer comes from a replaced leader. Records newer epochs."""
        for partition, answer in answers.items():
            self.see(partition, answer.leader_epoch)
        return all(answer.leader_epoch in (-1, None, self._latest.get(partition)) for partition, answer in answers.items())


class KafkaReader:
    """A reader with manual assignment. End-of-partition events advance the positions past transaction markers."""

    def __init__(self, consumer: Consumer, seen: _Seen) -> None:
        self._consumer = consumer
        self._seen = seen
        self._positions: Positions = {}
        self._woken = threading.Event()
        self._closed = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._positions = dict(positions)
        self._consumer.assign(_kafka_positions(positions))

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        entries: list[Entry] = []
        size = 0
        deadline = time.monotonic() + timeout_s
        while len(entries) < max_records and size < max_bytes:
            # Only a message ends the wait in librdkafka, so wait in slices of 0.25 s to notice `wake`.
            wait_s = 0.0 if entries or self._woken.is_set() else min(0.25, max(0.0, deadline - time.monotonic()))
            message = self._consumer.poll(wait_s)
            if message is None:
                if entries or self._woken.is_set() or time.monotonic() >= deadline:
                    break
                continue
            if entry := self._entry(message):
                entries.append(entry)
                size += len(entry.value)
        self._woken.clear()
        return Batch(entries, dict(self._positions))

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _entry(self, message: Message) -> Entry | None:
        partition = TopicPartition(message.topic() or "", _int(message.partition()))
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._positions[partition] = _int(message.offset())
            elif error.fatal() or error.code() in _CANNOT_READ:
                raise _journal_error(error)
            else:
                log.warning("reading %s: %s", partition, error)
            return None
        offset = _int(message.offset())
        self._positions[partition] = offset + 1
        self._seen.see(partition, message.leader_epoch())
        self._seen.see_end(partition, offset + 1)
        kind, time_ms = message.timestamp()
        return Entry(
            partition,
            offset,
            0 if kind == TIMESTAMP_NOT_AVAILABLE else time_ms,
            message.key(),
            message.value() or b"",
            _headers(message.headers()),
        )


class KafkaMember(KafkaReader):
    """A member of a consumer group. Starts at the group's committed offsets, or at the first record without one."""

    def __init__(self, bootstrap: str, group: str, topic: str, name: str, seen: _Seen) -> None:
        settings = _consumer_settings(bootstrap, group) | {
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "partition.assignment.strategy": "cooperative-sticky",
            "group.instance.id": name,
            "session.timeout.ms": 10_000,
            "allow.auto.create.topics": False,
        }
        super().__init__(Consumer(settings), seen)
        self._consumer.subscribe([topic])

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        self._positions = {}
        return super().poll(timeout_s, max_records, max_bytes)

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        try:
            self._consumer.commit(offsets=_kafka_positions(positions), asynchronous=False)
        except KafkaException as error:
            raise _journal_error(error.args[0]) from error


def _kafka_positions(positions: Mapping[TopicPartition, int]) -> list[KafkaPartition]:
    return [KafkaPartition(p.topic, p.partition, offset) for p, offset in positions.items()]


def _check(topics: Mapping[str, TopicSpec], facts_of: Mapping[str, TopicFacts]) -> None:
    texts = [f"topic {topic} does not exist" for topic in topics if topic not in facts_of]
    texts += [f"topic {topic}: {text}" for topic, facts in facts_of.items() for text in breaches(topics[topic], facts)]
    if texts:
        raise Unfit("; ".join(texts))


def _facts(metadata: TopicMetadata, config: Mapping[str, str]) -> TopicFacts:
    return TopicFacts(
        partitions=len(metadata.partitions),
        replication=min(len(partition.replicas) for partition in metadata.partitions.values()),
        min_insync=int(config["min.insync.replicas"]),
        retention_ms=int(config["retention.ms"]),
        retention_bytes=int(config["retention.bytes"]),
        log_times=config["message.timestamp.type"] == "LogAppendTime",
        cleanup=config["cleanup.policy"],
        compression=config["compression.type"],
        unclean_election=config["unclean.leader.election.enable"] == "true",
        max_message_bytes=int(config["max.message.bytes"]),
    )


def _headers(headers: Any) -> Headers:
    return tuple((name, value or b"") for name, value in headers or ())


def _consumer_settings(bootstrap: str, group: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": "read_uncommitted",
        "queued.max.messages.kbytes": 32 << 10,
        "fetch.wait.max.ms": 500,
    } | _COMMON


def _journal_error(error: KafkaError) -> JournalError:
    kind: Callable[[str], JournalError] = Definite if error.code() in _NEVER_SENT else Indefinite
    return kind(f"Kafka: {error.str()}")


def _int(value: int | None) -> int:
    assert value is not None  # librdkafka returns None only for messages that were never consumed or delivered
    return value
