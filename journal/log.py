"""The log interface that the database needs. Implementations: memory, embedded, kafka.

Inspired by the storage interface of etcd-io/raft: few methods, and one contract suite (`tests/journal/contract.py`) that every
implementation passes (I12).

    JournalError
    ├── Definite            nothing was written
    │   ├── Overloaded      too much in flight; retry after `retry_after_s`
    │   └── Unfit           a topic does not meet its specification
    ├── Indefinite          it may or may not have been written; retry with the same idempotency key
    └── Damaged             the log is damaged at a place
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from journal.statistics import Statistics

T = TypeVar("T")

Headers = Sequence[tuple[str, bytes]]

KEEP_FOREVER = -1


class TopicSpec(NamedTuple):
    """The required configuration of a topic. The memory and embedded journals keep one copy and ignore `replication`."""

    partitions: int
    replication: int = 1
    min_insync: int = 1
    """Number of copies that must have a record before it is acknowledged."""
    retention_ms: int = KEEP_FOREVER
    log_times: bool = True
    """Whether the log sets the time of a record (LogAppendTime); otherwise the producer sets it (CreateTime)."""


class TopicPartition(NamedTuple):
    """One partition of one topic. Records are ordered within a partition. As text: topic/partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


Positions = dict[TopicPartition, int]
"""Next offset per partition: all offsets below it were read, written or applied, depending on the context."""


class Appended(NamedTuple):
    """Position and append time of an acknowledged record."""

    partition: TopicPartition
    offset: int
    time_ms: int


def pending() -> Future[Appended]:
    """A future for an append in flight. It cannot be cancelled, because the log continues anyway."""
    future: Future[Appended] = Future()
    future.set_running_or_notify_cancel()
    return future


class Entry(NamedTuple):
    """A record as read from the log. `value` is empty for a record without a value, which foreign producers may write."""

    partition: TopicPartition
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes
    headers: Headers


class Batch(NamedTuple):
    """The result of one poll: entries, in offset order within each partition, and the next offsets."""

    entries: list[Entry]
    positions: Positions


class Committed(NamedTuple):
    """What a group has committed of a partition: the next offset, and the epoch that its member gave with it."""

    offset: int
    epoch: int = 0


Begin = Callable[[Mapping[TopicPartition, Committed | None]], Mapping[TopicPartition, int]]
"""Called with the partitions that a member has just got, and what its group has committed of each. Returns the offsets at which
the member begins; partitions that are left out are not read."""


def at_commit(partitions: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
    """Begins where the group has committed, at the first record without a commit."""
    return {partition: 0 if known is None else known.offset for partition, known in partitions.items()}


class BrokerState(NamedTuple):
    """The connection to the brokers that keep the log."""

    well: bool
    since: datetime
    """When it became as it is."""
    causes: tuple[str, ...]
    """What is wrong, by address; empty when all is well."""
    remarks: tuple[str, ...]
    """What an operator should know although it works."""


class JournalError(Exception):
    """Base class of all journal errors."""


class Definite(JournalError):
    """The record has no effect and will have none: it was not written, or every replica refuses it."""


class Unfit(Definite):
    """A topic does not meet its specification. An operator must change it."""


class Damaged(JournalError):
    """Records that were in the log are missing or changed: from `offset` up to `next_offset`, excluded."""

    def __init__(self, partition: TopicPartition, offset: int, next_offset: int, reason: str) -> None:
        super().__init__(f"the log is damaged at {partition}/{offset}: {reason}")
        self.partition = partition
        self.offset = offset
        self.next_offset = next_offset


class Overloaded(Definite):
    """The limit on data in flight is reached."""

    def __init__(self, text: str, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Indefinite(JournalError):
    """The record may or may not have been written."""


def acknowledged(future: Future[T], timeout_s: float) -> T:
    """Waits for the result of a write in flight. Raises JournalError; Indefinite after `timeout_s` without a result."""
    try:
        return future.result(timeout_s)
    except TimeoutError:
        raise Indefinite(f"no acknowledgement within {timeout_s:g} s") from None


class Reader(Protocol):
    """Reads a set of partitions, each in offset order. One thread calls all methods, except `wake`, which is thread-safe."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Replaces the assigned partitions. `positions` has the next offset to read of each."""

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        """Waits up to `timeout_s` for entries. The batch is empty after the timeout, or after `wake`.

        Returns at least one available entry, even when it is larger than `max_bytes`. Raises Damaged.
        """

    def wake(self) -> None:
        """Makes the current or the next poll return at once."""

    def close(self) -> None:
        """Releases the resources. Idempotent."""


class Member(Protocol):
    """A member of a consumer group. One thread calls all methods, except `wake`, which is thread-safe.

    The group assigns each partition to one member. A member that was suspended too long may still hold entries of a partition
    that now belongs to another member. Records of aborted transactions are skipped.
    """

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        """As `Reader.poll`, for the partitions assigned to this member, starting where its `begin` says.

        `positions` has only partitions of which the batch has entries. Raises what `begin` raises.
        """

    def commit(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None = None) -> None:
        """Commits offsets, each together with an epoch, 0 when none is given.

        Raises JournalError when the partitions may have moved to another member.
        """

    def wake(self) -> None:
        """Makes the current or the next poll return at once."""

    def close(self) -> None:
        """Leaves the group."""


class Journal(Protocol):
    """A partitioned, durable, append-only log. Thread-safe."""

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        """Creates the topics that do not exist. Raises Unfit when an existing topic does not meet its specification."""

    def append(
        self,
        partition: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        time_ms: int | None = None,
    ) -> Future[Appended]:
        """Appends a record. The future resolves when the record is durable, or fails with a JournalError.

        Appends to one partition from one thread keep their order. Raises Definite immediately for an unknown partition.
        `time_ms` is only for topics where the producer sets the time (`TopicSpec.log_times` is false).
        """

    def reader(self) -> Reader:
        """A new reader without assigned partitions."""

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        """The end offset of each partition, read from the log now: above every append acknowledged before the call."""

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        """The first offset of each partition that was not trimmed."""

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        """Deletes all entries below these offsets, durably. Raises Definite for an offset beyond the end.

        A reader that is below them gets a JournalError.
        """

    def reclaim(self, partitions: Sequence[TopicPartition]) -> None:
        """Gives the disk what the trimmed entries of these partitions took. May take minutes; reads and appends go on meanwhile.

        Ends early when the journal is closed. Does nothing on Kafka, whose brokers do it by themselves.
        """

    def identities(self, topics: Sequence[str]) -> dict[str, str]:
        """A unique id of each of these topics that exists. A topic that is deleted and created again has another one."""

    def refuse(self, partition: TopicPartition, reason: str) -> None:
        """Refuses all further appends to a partition, as long as this journal is open.

        Used where acknowledged records are lost at its end: an append would give their offsets out again.
        """

    def refusals(self) -> Mapping[TopicPartition, str]:
        """The partitions that take no appends, and why."""

    def claim(self, group: str, name: str, owner: str) -> None:
        """Claims a member's name in a group for `owner`, before it joins. Raises Unfit when another owner uses the name.

        A former owner that has died counts until its session has timed out, so this may wait that long. Does nothing where only
        one process can open the log.
        """

    def join(self, group: str, topic: str, name: str, begin: Begin = at_commit) -> Member:
        """Joins a consumer group that shares the partitions of a topic.

        `name` is the static member id: a member that returns within the session timeout gets its partitions back without a
        rebalance. An offset of `begin` that the log does not have any more means its first one.
        """

    def members(self, group: str) -> dict[TopicPartition, str]:
        """The name of the member that has each partition; partitions of nobody are left out.

        A member that has died has its partitions until its session has timed out.
        """

    def commit(
        self, group: str, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Commits the next offsets of a consumer group without members, each together with an epoch, 0 when none is given.

        So tools can show its lag.
        """

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        """The committed offsets of the group; partitions without a commit are left out."""

    def groups(self, prefix: str) -> list[str]:
        """The names of groups that have committed offsets and begin with `prefix`.

        None where only one process can open the log: there is nobody else who could be behind.
        """

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """As `committed`, with the epochs."""

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of a topic, asked of the log now; none when the topic does not exist."""

    def offsets_at(self, time_ms: int, partitions: Sequence[TopicPartition]) -> Positions:
        """The offset of the first record of each partition with this time or a later one; the end when there is none."""

    @property
    def failure(self) -> Exception | None:
        """Why the log cannot be written at the moment; None when nothing is known to be wrong."""

    def statistics(self) -> Statistics:
        """What the implementation measures of itself. Cheap; asks no broker."""

    def brokers(self) -> BrokerState | None:
        """The connection to the brokers, as last seen. None for a log in this process."""

    def close(self) -> None:
        """Completes or fails all appends in flight and releases the resources. Idempotent."""


def check_count(topic: str, have: int, spec: TopicSpec) -> None:
    """Raises Unfit when an existing topic has too few partitions."""
    if 0 < have < spec.partitions:
        raise Unfit(f"topic {topic} has {have} partitions, {spec.partitions} are needed")


def check_trim(partition: TopicPartition, offset: int, end: int) -> None:
    """Raises Definite when `offset` is beyond the end of the log."""
    if offset > end:
        raise Definite(f"{partition} ends at {end}, it cannot be trimmed to {offset}")


def cut_away(partition: TopicPartition, offset: int, start: int) -> JournalError:
    """The error of a reader below the first record."""
    return JournalError(f"{partition} begins at {start}, the record at {offset} was cut off")


def check_refusal(partition: TopicPartition, refusals: Mapping[TopicPartition, str]) -> None:
    """Raises Definite when the partition takes no appends."""
    if (reason := refusals.get(partition)) is not None:
        raise Definite(f"{partition} takes no writes: {reason}")


def lost_end(partition: TopicPartition, end: int, known: int) -> str:
    """The text for a partition that ends below an offset up to which records were acknowledged or applied."""
    return f"{partition} ends at {end} and has held {known} records: the {known - end} records from {end} to {known - 1} are lost"
