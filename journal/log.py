"""The log interface: what the database asks of a journal, and no more. Implementations: memory, embedded, kafka.

Inspired by the storage interface of etcd-io/raft: few verbs, and one contract suite (`tests/journal/contract.py`) that every
implementation passes (I12).

    JournalError
    ├── Definite            nothing was written
    │   ├── Overloaded      a bound is reached; try again after `retry_after_s`
    │   └── Unfit           a topic is not as it has to be
    └── Indefinite          it may or may not have been written; retry with the same idempotency key
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")

Headers = Sequence[tuple[str, bytes]]

KEEP_FOREVER = -1


class TopicSpec(NamedTuple):
    """What a topic has to be like. A log of one process keeps one copy, whatever is asked."""

    partitions: int
    replication: int = 1
    min_insync: int = 1
    """On so many copies a record has to be before it is acknowledged."""
    retention_ms: int = KEEP_FOREVER
    log_times: bool = True
    """Whether records bear the log's own time; else the one given with them."""


class TopicPartition(NamedTuple):
    """One partition of one topic: the unit of order."""

    topic: str
    partition: int


Positions = dict[TopicPartition, int]
"""Next offsets: everything below has been read, written or applied, depending on who says it."""


class Appended(NamedTuple):
    """Where the log put a record, and the log's own time for it."""

    partition: TopicPartition
    offset: int
    time_ms: int


def pending() -> Future[Appended]:
    """The future of an append under way. A caller that gives up on it cannot cancel it: the log goes on."""
    future: Future[Appended] = Future()
    future.set_running_or_notify_cancel()
    return future


class Entry(NamedTuple):
    """A record as the log gives it back. A record without a value, as foreign producers may write, has an empty one."""

    partition: TopicPartition
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes
    headers: Headers


class Batch(NamedTuple):
    """What one poll brought: entries in offset order within each partition, and the next offsets after them."""

    entries: list[Entry]
    positions: Positions


class JournalError(Exception):
    """Any failure of the journal."""


class Definite(JournalError):
    """The record was not written and will not be."""


class Unfit(Definite):
    """A topic exists, but is not as it has to be. Somebody has to change it."""


class Overloaded(Definite):
    """A bound on what may be in flight is reached."""

    def __init__(self, text: str, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Indefinite(JournalError):
    """The record may or may not have been written."""


def acknowledged(future: Future[T], timeout_s: float) -> T:
    """What a write that is under way gives. Raises JournalError: Indefinite when nothing is known after `timeout_s`."""
    try:
        return future.result(timeout_s)
    except TimeoutError:
        raise Indefinite(f"no acknowledgement within {timeout_s:g} s") from None


class Reader(Protocol):
    """Reads a set of partitions in offset order. One thread assigns, polls and closes; `wake` may come from any."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Replaces the set of partitions, and says where each is read on."""

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        """Waits up to `timeout_s` for entries; an empty batch when there are none or `wake` was called.

        At least one entry is returned when there is one, even above `max_bytes`.
        """

    def wake(self) -> None:
        """Makes the current or the next poll return at once."""

    def close(self) -> None:
        """Frees what the reader holds. A second close does nothing."""


class Member(Protocol):
    """One of the consumers that share a topic. One thread polls, commits and closes; `wake` may come from any.

    At most one member reads a partition, as far as the group can know: one that was away too long may still hold entries that
    another has read meanwhile. Records of transactions that were aborted are not seen.
    """

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        """As `Reader.poll`, of the partitions that are this member's now, each from where the group committed.

        The positions are those of partitions that entries came from.
        """

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Notes how far this member has come. Raises JournalError when the partitions may be another's by now."""

    def wake(self) -> None:
        """Makes the current or the next poll return at once."""

    def close(self) -> None:
        """Leaves the group."""


class Journal(Protocol):
    """A partitioned, durable, append-only log. Thread-safe."""

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        """Creates the topics that do not exist. Raises Unfit if one exists that breaks a promise."""

    def append(
        self,
        partition: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        time_ms: int | None = None,
    ) -> Future[Appended]:
        """Appends a record. The future resolves once it is durable, or fails with a JournalError.

        Appends to one partition from one thread keep their order. Raises Definite at once for an unknown partition.
        `time_ms` is for topics whose records bear the time that is given with them.
        """

    def reader(self) -> Reader:
        """A new reader with nothing assigned."""

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        """The next offset of each partition, asked of the log now: above every append acknowledged before the call."""

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        """The first offset of each partition that is still there."""

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        """Removes all entries below the positions, which the log must hold. Readers must not be assigned below them any more."""

    def identity(self, topic: str) -> str:
        """A name of the topic that a topic created anew under the same name does not have."""

    def join(self, group: str, topic: str, name: str) -> Member:
        """A new member of a consumer group that shares the partitions of a topic.

        One that comes back under its name before it is missed takes up its share again at once.
        """

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Notes the next offsets of a consumer group, for whoever watches its lag."""

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        """The next offsets that the group committed; partitions without a commit are left out."""

    def close(self) -> None:
        """Finishes or fails all appends in flight and frees what is held. A second close does nothing."""


def check_count(topic: str, have: int, spec: TopicSpec) -> None:
    """Raises Unfit when a topic that exists has fewer partitions than it needs."""
    if 0 < have < spec.partitions:
        raise Unfit(f"topic {topic} has {have} partitions, {spec.partitions} are needed")


def check_trim(partition: TopicPartition, offset: int, end: int) -> None:
    """Raises Definite when a log is to be trimmed beyond its end."""
    if offset > end:
        raise Definite(f"{partition.topic}/{partition.partition} ends at {end}, it cannot be trimmed to {offset}")
