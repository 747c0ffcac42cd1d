"""The journal on Apache Kafka: the one file that imports confluent_kafka.

How clients connect is in `journal/kafka_config.py`, how they fare in `journal/kafka_connection.py`.

The producer is idempotent with acks=all; one thread drives its callbacks. Readers assign partitions manually, since each node
replays all of them. They commit to a consumer group only so that standard tools can show the lag.
"""

from __future__ import annotations

import contextlib
import logging
import re
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
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
    BrokerMetadata,
    ConfigResource,
    ListOffsetsResultInfo,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)
from confluent_kafka.cimpl import NewTopic

from journal.kafka_config import KafkaConfig
from journal.kafka_connection import Connection, Probed, cause_of
from journal.log import (
    Appended,
    Batch,
    Begin,
    BrokerState,
    Committed,
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
    at_commit,
    check_refusal,
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

_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
"""An access control list lacks a right."""

_CANNOT_READ = {KafkaError._FATAL, KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART, *_DENIED}
"""After these errors the consumer does not recover by itself."""

_NO_ANSWER = {
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError._RESOLVE,
}
"""The state of the connection says more than these errors."""

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
_INGEST = "ingest"
"""The role of a member of a group, in its `client.id`."""

_CLIENT = "vecraft-"
"""The first part of the `client.id` of a member; its name follows."""

CLAIM_S, CLAIM_RETRY_S = 15.0, 0.5
"""How long a member's name may be in use: longer than the session of one that has died, 10 s."""
RETRY_S = 0.05
PROMPT_S = 1.0
"""A leader that answers within this time cannot have been replaced: the controller waits longer for a silent broker."""
PROBE_S = (0.5, 1.0, 1.5)
"""How long a probe waits for an answer, and again while it has none and no reason either."""
FATAL_RETRY_S = 5.0
"""Pause before another producer is tried when one after the other fails for the same reason, such as a right that is missing."""
MAX_GROUPS = 64
"""Groups for which this client commits: more than there are sources of the ingest."""
MANY_BROKERS = 3
"""Enough for the copies of every preset."""

_DEFAULTS: dict[str, Any] = {
    # After this time without an answer, the client looks up the current leader.
    "socket.timeout.ms": 3_000,
    # librdkafka logs several times per second while a broker is down; `Connection` tells it once.
    "log_level": 2,
    "logger": logging.getLogger("librdkafka"),  # else it writes to stderr in a form of its own
}
_PRODUCER_DEFAULTS: dict[str, Any] = {"linger.ms": 0, "compression.type": "lz4"}
_CONSUMER_DEFAULTS: dict[str, Any] = {
    "queued.max.messages.kbytes": 32 << 10,
    "fetch.wait.max.ms": 500,
    "session.timeout.ms": 10_000,
}
"""What the configuration file may change. What it may not is set after it."""

_LATEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


class _LibrdkafkaLog:
    """The logger of the clients. Fatal errors are left out, because the poll that follows raises them."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config

    def log(self, level: int, pattern: str, facility: str, client: str, line: str) -> None:
        if facility != "FATAL":
            log.log(level, "librdkafka: %s %s %s", client, facility, self._config.hidden(line))


class _FailLines:
    """The logger of a client that keeps why connections fail: some reasons are in no other report."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def log(self, level: int, pattern: str, facility: str, client: str, line: str) -> None:
        if facility == "FAIL":
            self._lines.append(line)


class _Leaderless(Exception):
    """No leader of a partition answers at the moment."""


class KafkaJournal:
    """A journal on the Kafka cluster at `bootstrap`. Its clients have the id `name` and their role, and connect as `config` says.

    Readers need no group, but librdkafka asks for the coordinator of one, `reader_group`, which needs the right to. Raises
    KafkaConfigError, before anything connects, when librdkafka does not take the configuration.
    """

    def __init__(
        self,
        bootstrap: str,
        append_timeout_s: float = 5.0,
        max_in_flight_bytes: int = 64 << 20,
        config: KafkaConfig | None = None,
        name: str = "vecraft",
        reader_group: str = "vecraft.reader",
    ) -> None:
        self._config = config or KafkaConfig()
        self._name = name
        self._reader_group = reader_group
        self._timeout_s = append_timeout_s
        self._connection = Connection(bootstrap, self._probe)
        self._bootstrap = bootstrap
        self._statistics = ClientStatistics()
        self._producer_settings = self._client_settings("writer", _PRODUCER_DEFAULTS) | {
            "error_cb": self._suspect,
            "allow.auto.create.topics": False,
            "enable.idempotence": True,
            "acks": "all",
            # With several requests in flight, a batch that is retried while a later one is acknowledged loses its offset.
            "max.in.flight.requests.per.connection": 1,
            "delivery.timeout.ms": int(append_timeout_s * 1000),
            "queue.buffering.max.kbytes": max_in_flight_bytes >> 10,
            "message.max.bytes": 1_000_000,
            **self._statistics.settings("producer"),
        }
        self._check_settings()
        self._admin = AdminClient(self._client_settings("admin") | {"allow.auto.create.topics": False})
        self._producer = Producer(self._producer_settings)
        self._seen = _Seen()
        self._groups: dict[str, Consumer] = {}
        self._groups_lock = threading.Lock()
        self._partitions: set[TopicPartition] = set()
        self._refused: dict[TopicPartition, str] = {}
        self._owner = ""
        self._broker_count = 0
        self._fatal = ""
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._drive_callbacks, name="journal-callbacks", daemon=True)
        self._poller.start()
        self._watcher = threading.Thread(target=self._connection.watch, name="journal-connection", daemon=True)
        self._watcher.start()

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
        self._connection.remark(_remarks(topics, self._broker_count))
        self._partitions |= {TopicPartition(topic, p) for topic, facts in facts_of.items() for p in range(facts.partitions)}

    def check_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        """Raises Unfit, which names each missing topic and each promise that a topic would break.

        A topic that this client may not see counts as missing.
        """
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
            raise self._error(error.args[0], "reading the configuration of topics") from error
        return {topic: _facts(known[topic], configs[topic]) for topic in there}

    def _create(self, topics: Mapping[str, TopicSpec]) -> None:
        """Creates topics. One that another process has just created is no error."""
        new = [NewTopic(topic, spec.partitions, spec.replication, config=config_of(spec)) for topic, spec in topics.items()]
        for topic, future in self._admin.create_topics(new, operation_timeout=10).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                    raise Definite(_too_few_brokers(topic, topics[topic], error.args[0].str())) from error
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._error(error.args[0], f"creating topic {topic}") from error

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
            raise Definite(f"unknown partition: {partition}")
        check_refusal(partition, self._refused)
        future = pending()
        floor = self._seen.end(partition)

        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if error is not None:
                future.set_exception(self._error(error, f"writing to {partition.topic}"))
            elif offset is None or (time_ms is None and message.timestamp()[0] != TIMESTAMP_LOG_APPEND_TIME):
                # librdkafka infers the write from a later acknowledgement or from a duplicate error, without an offset.
                future.set_exception(Indefinite("Kafka: written, but the broker did not say where"))
            elif offset < floor:  # the topic was made anew, or has lost its end
                self.refuse(partition, lost_end(partition, offset, floor))
                future.set_exception(Indefinite(lost_end(partition, offset, floor)))
            else:
                self._seen.see_end(partition, offset + 1)
                self._fatal = ""
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
            raise Definite(self._fatal or f"Kafka: {error.args[0].str()}") from error
        return future

    def reader(self) -> KafkaReader:
        settings = self._consumer_settings("replayer", self._reader_group) | self._statistics.settings("reader")
        return KafkaReader(Consumer(settings), self._reader_group, self._seen)

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        return self._offsets(partitions, _EARLIEST)

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        ends = self._offsets(partitions, _LATEST)
        for partition, end in ends.items():
            self._seen.see_end(partition, end)
        return ends

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        asked = self._admin.delete_records(_kafka_positions(positions))
        try:
            starts = {TopicPartition(p.topic, p.partition): future.result().low_watermark for p, future in asked.items()}
        except KafkaException as error:
            raise self._error(error.args[0], f"deleting from {', '.join(sorted({p.topic for p in positions}))}") from error
        if kept := [str(partition) for partition, offset in positions.items() if starts[partition] < offset]:
            raise Indefinite(f"Kafka: the leader still has records of {', '.join(kept)} that were to be deleted")

    def reclaim(self, partitions: Sequence[TopicPartition]) -> None:
        return

    def identities(self, topics: Sequence[str]) -> dict[str, str]:
        asked = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=self._timeout_s)
        identities = {}
        for topic, future in asked.items():
            try:
                identities[topic] = f"{topic}:{future.result().topic_id}"
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise self._error(error.args[0], f"describing topic {topic}") from error
        return identities

    def refuse(self, partition: TopicPartition, reason: str) -> None:
        self._refused = {partition: reason} | self._refused

    def refusals(self) -> Mapping[TopicPartition, str]:
        return self._refused

    def claim(self, group: str, name: str, owner: str) -> None:
        self._owner = owner
        deadline = time.monotonic() + CLAIM_S
        waiting = False
        while (other := self._other_owner(group, owner)) is not None:
            if time.monotonic() > deadline or self._closing.is_set():
                raise Unfit(f"another node named {name} is running, at {other}: each node needs a name of its own (--node)")
            if not waiting:
                log.info("another node named %s is a member of %s, at %s: waiting until it is gone", name, group, other)
            waiting = True
            self._closing.wait(CLAIM_RETRY_S)

    def _other_owner(self, group: str, owner: str) -> str | None:
        """The host of a member of the group whose node has this client's name and another owner.

        Not by `describe_consumer_groups`: librdkafka 2.16 aborts the process when the coordinator disconnects while it is asked.
        """
        try:
            found = self._admin.list_groups(group, timeout=self._timeout_s)
        except KafkaException:
            return None  # what is wrong with the group is said when it is joined
        client = f"{self._name}-{_INGEST}-"
        for member in (member for each in found for member in each.members):
            of = str(member.client_id)
            if of.startswith(client) and of != f"{client}{owner}":
                return str(member.client_host).lstrip("/")
        return None

    def join(self, group: str, topic: str, name: str, begin: Begin = at_commit) -> KafkaMember:
        settings = self._consumer_settings(_INGEST, group)
        settings["client.id"] = f"{_CLIENT}{name}-{_INGEST}" + (f"-{self._owner}" if self._owner else "")
        return KafkaMember(settings, topic, name, self._seen, begin, self._timeout_s)

    def members(self, group: str) -> dict[TopicPartition, str]:
        """Not by `describe_consumer_groups`, as in `_other_owner`."""
        try:
            found = self._admin.list_groups(group, timeout=self._timeout_s)
        except KafkaException as error:
            raise self._error(error.args[0], f"asking for the members of group {group}") from error
        return {
            partition: str(member.client_id).rpartition(f"-{_INGEST}")[0].removeprefix(_CLIENT)
            for each in found
            for member in each.members
            for partition in assigned(member.assignment or b"")
        }

    def partitions(self, topic: str) -> list[TopicPartition]:
        try:
            found = self._admin.list_topics(topic, timeout=self._timeout_s).topics[topic]
        except KafkaException as error:
            raise self._error(error.args[0], f"asking for topic {topic}") from error
        if found.error is None or found.error.code() in _MOVING - {KafkaError.UNKNOWN_TOPIC_OR_PART}:
            return [TopicPartition(topic, number) for number in sorted(found.partitions)]
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return []
        raise self._error(found.error, f"asking for topic {topic}")

    def offsets_at(self, time_ms: int, partitions: Sequence[TopicPartition]) -> Positions:
        ends = self.end_offsets(partitions)
        wanted = {KafkaPartition(p.topic, p.partition): OffsetSpec.for_timestamp(time_ms) for p in partitions}
        futures = self._admin.list_offsets(wanted, request_timeout=self._timeout_s)
        try:
            found = {TopicPartition(p.topic, p.partition): future.result().offset for p, future in futures.items()}
        except KafkaException as error:
            raise self._error(error.args[0], "asking for offsets by time") from error
        return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}

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
                # With the first offset comes the epoch of the record there, which says nothing of the leader.
                if which is not _LATEST or self._seen.are_current(answers):
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
            raise self._error(error.args[0], "asking for the ends of topics") from error
        if unknown := [p for p, answer in answers.items() if answer.offset < 0]:  # librdkafka reports this as success
            raise _Leaderless(f"no leader says where {', '.join(f'{p.topic}/{p.partition}' for p in unknown)} ends")
        return answers

    def commit(
        self, group: str, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None = None
    ) -> None:
        try:
            self._group(group).commit(offsets=_kafka_commits(positions, epochs), asynchronous=False)
        except KafkaException as error:
            raise self._error(error.args[0], f"committing for group {group}") from error

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        return {partition: known.offset for partition, known in self.commits(group, partitions).items()}

    def groups(self, prefix: str) -> list[str]:
        """Not by `list_groups`, which asks for all members, too."""
        try:
            found = self._admin.list_consumer_groups(request_timeout=self._timeout_s).result()
        except KafkaException as error:
            raise self._error(error.args[0], "asking for the names of groups") from error
        if found.errors:  # a broker that did not answer may have the group of a node that is behind
            raise self._error(found.errors[0].args[0], "asking for the names of groups")
        return sorted(group.group_id for group in found.valid if group.group_id.startswith(prefix))

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        wanted = [KafkaPartition(p.topic, p.partition) for p in partitions]
        end_s = time.monotonic() + self._timeout_s
        while True:
            try:
                committed = self._group(group).committed(wanted, timeout=self._timeout_s)
                break
            except KafkaException as error:
                self._check_allowed(group)
                if error.args[0].code() not in _COORDINATOR_MOVES or time.monotonic() > end_s:
                    raise self._error(error.args[0], f"reading what group {group} committed") from error
            self._closing.wait(RETRY_S)
        return {p: known for p, known in _commits(committed).items() if known is not None}

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
        self._connection.close()
        self._watcher.join()
        for consumer in self._groups.values():
            consumer.close()

    def brokers(self) -> BrokerState:
        return self._connection.state()

    def _client_settings(self, role: str, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
        own = {"bootstrap.servers": self._bootstrap, "client.id": f"{self._name}-{role}", "logger": _LibrdkafkaLog(self._config)}
        return self._config.over(_DEFAULTS | dict(defaults or {})) | own

    def _consumer_settings(self, role: str, group: str) -> dict[str, Any]:
        return self._client_settings(role, _CONSUMER_DEFAULTS) | {
            "error_cb": self._suspect,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",
        }

    def _check_settings(self) -> None:
        """Raises KafkaConfigError when librdkafka refuses the settings of a producer or a consumer. Connects to nothing."""
        try:
            Producer(self._producer_settings | {"bootstrap.servers": ""})
            Consumer(self._consumer_settings("replayer", self._reader_group) | {"bootstrap.servers": ""}).close()
        except (KafkaException, TypeError) as error:
            text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            refused = self._config.refused(re.sub(r"^Failed to create \w+: ", "", text))
            raise refused from None  # the chained text may show a secret

    def _suspect(self, error: KafkaError) -> None:
        log.debug("Kafka: %s", error.str())
        if error.code() in _NO_ANSWER:
            self._connection.suspect(error.str())

    def _probe(self, address: str) -> Probed:
        """What becomes of a new client of this address: an answer at once, or a reason."""
        said: list[str] = []

        def report(error: KafkaError) -> None:
            if error.code() != KafkaError._ALL_BROKERS_DOWN:
                said.append(error.str())

        told = {"log_level": 6, "logger": _FailLines(said), "error_cb": report}
        client = AdminClient(self._client_settings("probe") | told | {"bootstrap.servers": address})
        for wait_s in PROBE_S:
            try:
                brokers = client.list_topics(timeout=wait_s).brokers.values()
                return Probed("", [_address(broker) for broker in brokers])
            except KafkaException:
                client.poll(0)  # serves the logger
                if said or self._closing.is_set():
                    break
        return Probed(self._config.hidden(cause_of(said, self._config.protocol, sum(PROBE_S))))

    def _error(self, error: KafkaError, what: str) -> JournalError:
        """The error of an operation, `what`. Without an answer from a broker, the state of the connection says why."""
        self._suspect(error)
        return _journal_error(error, what, self._connection.state().causes)

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
            metadata = self._admin.list_topics(timeout=self._timeout_s)
        except KafkaException as error:
            if error.args[0].code() in _NO_ANSWER and self._connection.state().well:
                self._connection.diagnose()
            raise self._error(error.args[0], "asking for topics") from error
        self._broker_count, topics = len(metadata.brokers), metadata.topics
        return {name: topic for name, topic in topics.items() if topic.error is None}

    def _check_allowed(self, group: str) -> None:
        """Raises when the coordinator of the group may not be asked for: the consumer is told so, its calls just time out."""
        message = self._group(group).poll(0)
        error = message.error() if message is not None else None
        if error is not None and error.code() in _DENIED:
            raise self._error(error, f"use of group {group}")

    def _group(self, group: str) -> Consumer:
        """The consumer that commits for a group. The one that was used longest ago leaves: that of a source that is gone."""
        with self._groups_lock:
            consumer = self._groups.pop(group, None) or Consumer(self._consumer_settings("committer", group))
            self._groups[group] = consumer
            unused = self._groups.pop(next(iter(self._groups))) if len(self._groups) > MAX_GROUPS else None
        if unused is not None:
            unused.close()
        return consumer

    def _drive_callbacks(self) -> None:
        """Waits in librdkafka for delivery reports; uses no CPU while there are none."""
        while not self._closing.is_set():
            try:
                self._producer.poll(1.0)
            except KafkaException as error:  # fatal: this producer accepts no more records
                text = str(_journal_error(error.args[0], "writing"))
                if text == self._fatal:
                    self._closing.wait(FATAL_RETRY_S)
                else:
                    log.error("%s; going on with a new producer", text)
                    self._fatal = text
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

    def __init__(self, consumer: Consumer, group: str, seen: _Seen) -> None:
        self._consumer = consumer
        self._group = group
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
                raise _journal_error(error, f"reading {partition.topic or f'in group {self._group}'}")
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
    """A member of a consumer group. Starts where `begin` says, or at the first record if that offset is not there any more."""

    def __init__(self, settings: Mapping[str, Any], topic: str, name: str, seen: _Seen, begin: Begin, timeout_s: float) -> None:
        settings = {
            **settings,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "partition.assignment.strategy": "cooperative-sticky",
            "group.instance.id": name,
            "allow.auto.create.topics": False,
        }
        super().__init__(Consumer(settings), settings["group.id"], seen)
        self._begin = begin
        self._timeout_s = timeout_s
        self._consumer.subscribe([topic], on_assign=self._assigned)

    def _assigned(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        """Called within `poll`, which raises what this raises."""
        try:
            committed = _commits(consumer.committed(partitions, timeout=self._timeout_s)) if partitions else {}
        except KafkaException as error:
            raise _journal_error(error.args[0], f"reading what group {self._group} committed") from error
        begins = self._begin(committed)
        consumer.incremental_assign(
            _kafka_positions({partition: begins.get(partition, OFFSET_BEGINNING) for partition in committed})
        )
        if unread := [KafkaPartition(p.topic, p.partition) for p in committed if p not in begins]:
            consumer.pause(unread)

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        self._positions = {}
        return super().poll(timeout_s, max_records, max_bytes)

    def commit(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None = None) -> None:
        try:
            self._consumer.commit(offsets=_kafka_commits(positions, epochs), asynchronous=False)
        except KafkaException as error:
            raise _journal_error(error.args[0], f"committing for group {self._group}") from error


def _commits(found: Sequence[KafkaPartition]) -> dict[TopicPartition, Committed | None]:
    """What a group has committed, with the epochs in its metadata; None for a partition without a commit."""
    commits: dict[TopicPartition, Committed | None] = {}
    for each in found:
        text = each.metadata or ""
        epoch = int(text) if text.isascii() and text.isdecimal() else 0  # others may commit for the group, with any metadata
        known = None if each.offset == OFFSET_INVALID else Committed(each.offset, epoch)
        commits[TopicPartition(each.topic, each.partition)] = known
    return commits


def assigned(data: bytes) -> list[TopicPartition]:
    """The partitions in the assignment of a member, in the form of Kafka's protocol of consumers: a version, then an array of
    topics, each with an array of partitions. None in data that is not of this form, such as that of a member that waits for a
    rebalance.
    """
    found = []
    try:
        (topics,), at = struct.unpack_from(">i", data, 2), 6
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", data, at)
            topic = data[at + 2 : at + 2 + length].decode()
            (count,) = struct.unpack_from(">i", data, at + 2 + length)
            numbers = struct.unpack_from(f">{max(0, count)}i", data, at + 6 + length)
            found += [TopicPartition(topic, number) for number in numbers]
            at += 6 + length + 4 * len(numbers)
    except (struct.error, UnicodeDecodeError):
        return []
    return found


def _address(broker: BrokerMetadata) -> str:
    """As librdkafka writes it."""
    host = broker.host or ""
    return f"[{host}]:{broker.port}" if ":" in host else f"{host}:{broker.port}"


def _kafka_positions(positions: Mapping[TopicPartition, int]) -> list[KafkaPartition]:
    return [KafkaPartition(p.topic, p.partition, offset) for p, offset in positions.items()]


def _kafka_commits(positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None) -> list[KafkaPartition]:
    """What is committed: the epochs stand in the metadata."""
    known = epochs or {}
    return [KafkaPartition(p.topic, p.partition, offset, metadata=str(known.get(p, ""))) for p, offset in positions.items()]


def _check(topics: Mapping[str, TopicSpec], facts_of: Mapping[str, TopicFacts]) -> None:
    texts = [f"topic {topic} does not exist, or may not be seen by this client" for topic in topics if topic not in facts_of]
    texts += [f"topic {topic}: {text}" for topic, facts in facts_of.items() for text in breaches(topics[topic], facts)]
    if texts:
        raise Unfit("; ".join(texts))


def _too_few_brokers(topic: str, spec: TopicSpec, said: str) -> str:
    return (
        f"the preset asks for {spec.replication} copies of topic {topic}, which this cluster cannot keep: start more brokers, "
        f"or choose a --preset with fewer copies. Kafka says: {said}"
    )


def _remarks(topics: Mapping[str, TopicSpec], brokers: int) -> list[str]:
    """What works, and is hardly meant."""
    if brokers < MANY_BROKERS or any(spec.replication > 1 for spec in topics.values()):
        return []
    return [
        f"the preset keeps one copy of each record, although there are {brokers} brokers: acknowledged writes are lost with the "
        "broker that has them; --preset prod keeps three"
    ]


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


def _journal_error(error: KafkaError, what: str, causes: Sequence[str] = ()) -> JournalError:
    kind: Callable[[str], JournalError] = Definite if error.code() in _NEVER_SENT | _DENIED else Indefinite
    if error.code() in _DENIED:
        return kind(f"Kafka does not allow {what} ({error.str()}): docs/kafka.md has the access control lists that are needed")
    if causes and error.code() in _NO_ANSWER:
        return kind(f"Kafka: {'; '.join(causes)}")
    return kind(f"Kafka: {error.str()}")


def _int(value: int | None) -> int:
    assert value is not None  # librdkafka returns None only for messages that were never consumed or delivered
    return value
