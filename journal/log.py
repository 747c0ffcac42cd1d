"""The log interface: what the database asks of a journal, and no more. Implementations: memory, embedded, kafka.

Inspired by the storage interface of etcd-io/raft: few verbs, and one contract suite (`tests/journal/contract.py`) that every
implementation passes (I12).

    JournalError
    ├── Definite            nothing was written
    │   └── Overloaded      a bound is reached; try again after `retry_after_s`
    └── Indefinite          it may or may not have been written; retry with the same idempotency key
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


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
    """A record as the log gives it back."""

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


class Overloaded(Definite):
    """A bound on what may be in flight is reached."""

    def __init__(self, text: str, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Indefinite(JournalError):
    """The record may or may not have been written."""


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


class Journal(Protocol):
    """A partitioned, durable, append-only log. Thread-safe."""

    def ensure_topics(self, topics: Mapping[str, int]) -> None:
        """Creates the topics that do not exist, with that many partitions. Raises Definite if one has fewer than asked."""

    def append(
        self, partition: TopicPartition, value: bytes, key: bytes | None = None, headers: Headers = ()
    ) -> Future[Appended]:
        """Appends a record. The future resolves once it is durable, or fails with a JournalError.

        Appends to one partition from one thread keep their order. Raises Definite at once for an unknown partition.
        """

    def reader(self) -> Reader:
        """A new reader with nothing assigned."""

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        """The next offset of each partition, asked of the log now: above every append acknowledged before the call."""

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        """Notes the next offsets of a consumer group, for whoever watches its lag."""

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        """The next offsets that the group committed; partitions without a commit are left out."""

    def close(self) -> None:
        """Finishes or fails all appends in flight and frees what is held. A second close does nothing."""
