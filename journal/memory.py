"""The journal in memory, for the simulator and for tests that need no disk. Same contract as the other journals (I12).

A callback can inject a fault into each append: refused (definite), or written but the acknowledgement is lost (indefinite).
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum

from journal.groups import LocalGroups, committed_of
from journal.log import (
    Appended,
    Batch,
    Begin,
    Committed,
    Definite,
    Entry,
    Headers,
    Indefinite,
    Member,
    Positions,
    TopicPartition,
    TopicSpec,
    at_commit,
    check_count,
    check_refusal,
    check_trim,
    cut_away,
    pending,
)
from journal.statistics import Statistics


class AppendFault(Enum):
    """An injected failure of an append."""

    REFUSED = "refused"
    ACK_LOST = "ack lost"


class MemoryJournal:
    """One list of entries per partition. `now_ms` gives the append times; `fault` is called before each append."""

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        fault: Callable[[TopicPartition], AppendFault | None] = lambda _: None,
    ) -> None:
        self._now_ms = now_ms
        self._fault = fault
        self._logs: dict[TopicPartition, list[Entry]] = {}
        self._starts: Positions = {}
        self._refused: dict[TopicPartition, str] = {}
        self._groups = LocalGroups(self, self._commit)
        self._committed: dict[tuple[str, TopicPartition], Committed] = {}
        self._changed = threading.Condition()
        self._closed = False

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        with self._changed:
            for topic, spec in topics.items():
                check_count(topic, sum(1 for partition in self._logs if partition.topic == topic), spec)
                for index in range(spec.partitions):
                    self._logs.setdefault(TopicPartition(topic, index), [])

    def append(
        self,
        partition: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        time_ms: int | None = None,
    ) -> Future[Appended]:
        future = pending()
        with self._changed:
            log = self._log(partition)
            check_refusal(partition, self._refused)
            fault = self._fault(partition)
            if fault is AppendFault.REFUSED:
                future.set_exception(Definite(f"append to {partition} was refused"))
                return future
            if time_ms is None:
                time_ms = max(self._now_ms(), log[-1].time_ms if log else 0)
            entry = Entry(partition, len(log), time_ms, key, value, tuple(headers))
            log.append(entry)
            self._changed.notify_all()
        if fault is AppendFault.ACK_LOST:
            future.set_exception(Indefinite(f"no acknowledgement for an append to {partition}"))
        else:
            future.set_result(Appended(partition, entry.offset, entry.time_ms))
        return future

    def reader(self, shuffle: random.Random | None = None) -> MemoryReader:
        """A new reader. With `shuffle` it interleaves the partitions and chooses the batch sizes at random."""
        return MemoryReader(self, shuffle)

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        with self._changed:
            return {partition: len(self._log(partition)) for partition in partitions}

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        with self._changed:
            for partition in partitions:
                self._log(partition)  # raises Definite for an unknown partition
            return {partition: self._starts.get(partition, 0) for partition in partitions}

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        with self._changed:
            for partition, offset in positions.items():
                check_trim(partition, offset, len(self._log(partition)))
                self._starts[partition] = max(offset, self._starts.get(partition, 0))

    def reclaim(self, partitions: Sequence[TopicPartition]) -> None:
        return

    def identities(self, topics: Sequence[str]) -> dict[str, str]:
        with self._changed:
            existing = {partition.topic for partition in self._logs}
            return {topic: topic for topic in topics if topic in existing}

    def refuse(self, partition: TopicPartition, reason: str) -> None:
        with self._changed:
            self._refused = {partition: reason} | self._refused

    def refusals(self) -> Mapping[TopicPartition, str]:
        return self._refused

    def claim(self, group: str, name: str, owner: str) -> None:
        return

    def join(self, group: str, topic: str, name: str, begin: Begin = at_commit) -> Member:
        return self._groups.join(group, self.partitions(topic), name, begin)

    def members(self, group: str) -> dict[TopicPartition, str]:
        return self._groups.members(group)

    def commit(
        self, group: str, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None = None
    ) -> None:
        self._commit(group, committed_of(positions, epochs))

    def _commit(self, group: str, committed: Mapping[TopicPartition, Committed]) -> None:
        with self._changed:
            for partition, position in committed.items():
                self._committed[group, partition] = position

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        return {partition: known.offset for partition, known in self.commits(group, partitions).items()}

    def groups(self, prefix: str) -> list[str]:
        with self._changed:
            return sorted({group for group, _ in self._committed if group.startswith(prefix)})

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        return {p: self._committed[group, p] for p in partitions if (group, p) in self._committed}

    def partitions(self, topic: str) -> list[TopicPartition]:
        with self._changed:
            return [partition for partition in self._logs if partition.topic == topic]

    def offsets_at(self, time_ms: int, partitions: Sequence[TopicPartition]) -> Positions:
        with self._changed:
            return {
                partition: max(
                    self._starts.get(partition, 0),
                    bisect_left(self._log(partition), time_ms, key=lambda entry: entry.time_ms),
                )
                for partition in partitions
            }

    @property
    def failure(self) -> Exception | None:
        return None

    def statistics(self) -> Statistics:
        return {}

    def brokers(self) -> None:
        return None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _log(self, partition: TopicPartition) -> list[Entry]:
        if self._closed:
            raise Definite("the journal is closed")
        if (log := self._logs.get(partition)) is None:
            raise Definite(f"unknown partition: {partition}")
        return log


class MemoryReader:
    """A reader of a MemoryJournal."""

    def __init__(self, journal: MemoryJournal, shuffle: random.Random | None) -> None:
        self._journal = journal
        self._shuffle = shuffle
        self._positions: Positions = {}
        self._woken = False

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        with self._journal._changed:
            self._positions = dict(positions)

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        changed = self._journal._changed
        with changed:
            changed.wait_for(lambda: self._woken or self._ready(), timeout_s)
            self._woken = False
            return self._take(max_records, max_bytes)

    def wake(self) -> None:
        with self._journal._changed:
            self._woken = True
            self._journal._changed.notify_all()

    def close(self) -> None:
        self.assign({})

    def _ready(self) -> list[TopicPartition]:
        return [p for p, offset in self._positions.items() if offset < len(self._journal._log(p))]

    def _take(self, max_records: int, max_bytes: int) -> Batch:
        entries: list[Entry] = []
        size = 0
        if self._shuffle and self._ready():
            max_records = self._shuffle.randint(1, max_records)
        while len(entries) < max_records and size < max_bytes and (ready := self._ready()):
            partition = self._shuffle.choice(ready) if self._shuffle else ready[0]
            if self._positions[partition] < (start := self._journal._starts.get(partition, 0)):
                if entries:
                    break
                raise cut_away(partition, self._positions[partition], start)
            entry = self._journal._log(partition)[self._positions[partition]]
            if entries and size + len(entry.value) > max_bytes:
                break
            self._positions[partition] = self._positions.pop(partition) + 1  # moves last: none starves
            size += len(entry.value)
            entries.append(entry)
        return Batch(entries, dict(self._positions))
