"""The journal in one process: entries in RocksDB, keyed by topic, partition and offset.

Durable by group commit: one thread writes all waiting appends in one batch and syncs the write-ahead log once.
Write and sync are separate calls because rocksdict holds the GIL during a write but releases it in `flush_wal`.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import msgspec
from rocksdict import AccessType, DBRecoveryMode, Options, Rdict, WriteBatch

from journal.groups import LocalGroups
from journal.log import (
    Appended,
    Batch,
    Definite,
    Entry,
    Headers,
    Indefinite,
    Member,
    Overloaded,
    Positions,
    TopicPartition,
    TopicSpec,
    check_count,
    check_trim,
    pending,
)

GROUP_BYTES = 16 << 20
"""Upper bound of one group commit; the remaining appends wait for the next one."""

_ENTRY, _TOPIC, _GROUP, _START = b"e", b"t", b"g", b"s"


class _Waiting(NamedTuple):
    partition: TopicPartition
    value: bytes
    key: bytes | None
    headers: Headers
    time_ms: int | None
    future: Future[Appended]


def _entry_key(partition: TopicPartition, offset: int) -> bytes:
    return _entry_prefix(partition) + offset.to_bytes(8, "big")


def _entry_prefix(partition: TopicPartition) -> bytes:
    return _ENTRY + partition.topic.encode() + b"\x00" + struct.pack(">H", partition.partition)


class EmbeddedJournal:
    """A journal in the folder `path`. Append times come from `now_ms` and never decrease, even when `now_ms` does.

    Raises Overloaded when more than `max_in_flight_bytes` would wait for the sync.
    """

    def __init__(
        self,
        path: Path,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        max_in_flight_bytes: int = 64 << 20,
    ) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = Rdict(str(path), _options())
        self._now_ms = now_ms
        self._max_in_flight_bytes = max_in_flight_bytes
        self.lock = threading.RLock()
        self._appended = threading.Condition(self.lock)
        self._readers: list[EmbeddedReader] = []
        self._topics = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._closing = False
        self._failure: Exception | None = None
        self._groups = LocalGroups(self)
        self._ends: Positions = {}
        self._time_ms = 0
        for topic, count in self._stored_topics():
            self._open_topic(topic, count)
        self._committer: threading.Thread | None = threading.Thread(
            target=self._commit_groups, name="journal-commit", daemon=True
        )
        self._committer.start()

    @classmethod
    def follow(cls, path: Path, scratch: Path) -> EmbeddedJournal:
        """Opens the journal of another running process read-only. Call `refresh` to see new entries; appends raise Definite."""
        following = cls.__new__(cls)
        following._path = path
        following._db = Rdict(str(path), _options(), access_type=AccessType.secondary(str(scratch)))
        following.lock = threading.RLock()
        following._appended = threading.Condition(following.lock)
        following._readers = []
        following._ends, following._time_ms = {}, 0
        following._closing, following._failure = False, Definite("it is open to read only")
        following._committer = None
        following.refresh()
        return following

    def refresh(self) -> None:
        """Catches up with the writing process. Only for a journal from `follow`."""
        self._db.try_catch_up_with_primary()
        for topic, count in self._stored_topics():
            self._open_topic(topic, count)

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        with self._topics:
            for topic, spec in topics.items():
                have = len(self._partitions(topic))
                check_count(topic, have, spec)
                if not have:
                    self._db[_TOPIC + topic.encode()] = spec.partitions.to_bytes(2, "big")
                    self._db.flush_wal(True)
                    self._open_topic(topic, spec.partitions)

    def append(
        self,
        partition: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        time_ms: int | None = None,
    ) -> Future[Appended]:
        waiting = _Waiting(partition, value, key, headers, time_ms, pending())
        with self._appended:
            if self._closing or self._failure:
                raise Definite(f"the journal takes no writes: {self._failure or 'it is closed'}")
            self._check_known(partition)
            if self._waiting_bytes and self._waiting_bytes + len(value) > self._max_in_flight_bytes:
                raise Overloaded(f"{self._waiting_bytes} bytes wait for the disk, the bound is {self._max_in_flight_bytes}")
            self._waiting.append(waiting)
            self._waiting_bytes += len(value)
            self._appended.notify()
        return waiting.future

    def reader(self) -> EmbeddedReader:
        reader = EmbeddedReader(self)
        with self._appended:
            self._readers.append(reader)
        return reader

    def end_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        with self._appended:
            for partition in partitions:
                self._check_known(partition)
            return {partition: self._ends[partition] for partition in partitions}

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        for partition in partitions:
            self._check_known(partition)
        return {partition: self._start(partition) for partition in partitions}

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        batch = WriteBatch(raw_mode=True)
        for partition, offset in positions.items():
            check_trim(partition, offset, self.end_offsets([partition])[partition])
            if offset > (start := self._start(partition)):
                batch.put(_start_key(partition), offset.to_bytes(8, "big"))
                batch.delete_range(_entry_key(partition, start), _entry_key(partition, offset))
        self._db.write(batch)

    def identity(self, topic: str) -> str:
        return f"{topic}:{(self._path / 'IDENTITY').read_text().strip()}"  # RocksDB gives each database one

    def join(self, group: str, topic: str, name: str) -> Member:
        return self._groups.join(group, self._partitions(topic))

    def commit(self, group: str, positions: Mapping[TopicPartition, int]) -> None:
        batch = WriteBatch(raw_mode=True)
        for partition, offset in positions.items():
            batch.put(_group_key(group, partition), offset.to_bytes(8, "big"))
        try:
            self._db.write(batch)
        except Exception as error:  # RocksDB's errors have no class of their own
            raise Definite(f"positions are not committed: {error}") from error

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        offsets = {partition: self._db.get(_group_key(group, partition)) for partition in partitions}
        return {partition: int.from_bytes(offset, "big") for partition, offset in offsets.items() if offset is not None}

    def brokers(self) -> None:
        return None

    def close(self) -> None:
        with self._appended:
            if self._closing:
                return
            self._closing = True
            self._appended.notify()
            self._wake(self._readers)
        if self._committer is not None:
            self._committer.join()
        try:
            self._db.close()
        except Exception:  # RocksDB repeats the write failure that the appends have already reported
            if self._failure is None:
                raise

    def _check_known(self, partition: TopicPartition) -> None:
        if partition not in self._ends:
            raise Definite(f"unknown partition: {partition.topic}/{partition.partition}")

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [partition for partition in self._ends if partition.topic == topic]

    def _start(self, partition: TopicPartition) -> int:
        return int.from_bytes(self._db.get(_start_key(partition)) or b"", "big")

    def _stored_topics(self) -> list[tuple[str, int]]:
        return [(key[1:].decode(), int.from_bytes(value, "big")) for key, value in scan(self._db, _TOPIC)]

    def _open_topic(self, topic: str, count: int) -> None:
        for index in range(count):
            partition = TopicPartition(topic, index)
            last = self._last_entry(partition)
            with self._appended:
                self._ends[partition] = last.offset + 1 if last else self._start(partition)
                self._time_ms = max(self._time_ms, last.time_ms if last else 0)

    def _last_entry(self, partition: TopicPartition) -> Entry | None:
        entries = self._db.iter()
        entries.seek_for_prev(_entry_key(partition, 2**64 - 1))
        if not entries.valid() or not entries.key().startswith(_entry_prefix(partition)):
            entries.status()
            return None
        return _entry(partition, entries.key(), entries.value())

    def _commit_groups(self) -> None:
        while group := self._next_group():
            try:
                acknowledged = self._write(group)
            except Exception as error:  # after a failed write the content of the log is unknown, so it must not continue
                self._fail(error, group)
                return
            with self._appended:
                for appended in acknowledged:
                    self._ends[appended.partition] = appended.offset + 1
                self._waiting_bytes -= sum(len(waiting.value) for waiting in group)
                self._wake(reader for reader in self._readers if reader.is_ready())
            for waiting, appended in zip(group, acknowledged, strict=True):
                waiting.future.set_result(appended)

    def _wake(self, readers: Iterable[EmbeddedReader]) -> None:
        """Wakes these readers. Requires the lock. Each reader has its own condition, so only readers with new entries wake."""
        for reader in readers:
            reader.changed.notify_all()

    def _next_group(self) -> list[_Waiting]:
        """Waits for appends and takes those that fit into one commit; empty when the journal is closing and none is left."""
        with self._appended:
            self._appended.wait_for(lambda: self._waiting or self._closing)
            size = count = 0
            for waiting in self._waiting:
                if count and size + len(waiting.value) > GROUP_BYTES:
                    break
                size, count = size + len(waiting.value), count + 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            return group

    def _write(self, group: list[_Waiting]) -> list[Appended]:
        batch = WriteBatch(raw_mode=True)
        acknowledged = []
        ends: Positions = {}
        now_ms = self._time_ms = max(self._now_ms(), self._time_ms)
        for waiting in group:
            time_ms = now_ms if waiting.time_ms is None else waiting.time_ms
            offset = ends.get(waiting.partition, self._ends[waiting.partition])
            batch.put(
                _entry_key(waiting.partition, offset),
                msgspec.msgpack.encode((time_ms, waiting.key, waiting.value, waiting.headers)),
            )
            ends[waiting.partition] = offset + 1
            acknowledged.append(Appended(waiting.partition, offset, time_ms))
        self._db.write(batch)
        self._db.flush_wal(True)
        return acknowledged

    def _fail(self, error: Exception, group: list[_Waiting]) -> None:
        with self._appended:
            self._failure = error
            refused, self._waiting = self._waiting, []
            self._wake(self._readers)
        for waiting in group:
            waiting.future.set_exception(Indefinite(f"the journal failed while writing: {error}"))
        for waiting in refused:
            waiting.future.set_exception(Definite(f"the journal takes no writes: {error}"))


class EmbeddedReader:
    """A reader of an EmbeddedJournal."""

    def __init__(self, journal: EmbeddedJournal) -> None:
        self._journal = journal
        self._positions: Positions = {}
        self._woken = False
        self.changed = threading.Condition(journal.lock)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        with self.changed:
            self._positions = dict(positions)

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        with self.changed:
            self.changed.wait_for(lambda: self._woken or self._journal._closing or self.is_ready(), timeout_s)
            self._woken = False
            ends = self._journal._ends
            ready = {p: ends[p] for p, offset in self._positions.items() if offset < ends[p]}
        entries: list[Entry] = []
        size = 0
        for partition, end in ready.items():
            for entry in self._read(partition, end):
                if entries and (len(entries) >= max_records or size + len(entry.value) > max_bytes):
                    return self._batch(entries)
                entries.append(entry)
                size += len(entry.value)
                self._positions[partition] = entry.offset + 1
        return self._batch(entries)

    def wake(self) -> None:
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def close(self) -> None:
        self.assign({})
        with self.changed:
            if self in self._journal._readers:
                self._journal._readers.remove(self)

    def is_ready(self) -> bool:
        """Whether an assigned partition has unread entries. Requires the lock."""
        ends = self._journal._ends
        return any(offset < ends[partition] for partition, offset in self._positions.items())

    def _read(self, partition: TopicPartition, end: int) -> Iterator[Entry]:
        start = _entry_key(partition, self._positions[partition])
        for key, value in scan(self._journal._db, _entry_prefix(partition), start):
            entry = _entry(partition, key, value)
            if entry.offset >= end:
                return
            yield entry

    def _batch(self, entries: list[Entry]) -> Batch:
        """The entries and the positions. The partition read last moves to the end of the order, so that no partition starves."""
        if entries:
            last = entries[-1].partition
            self._positions = {p: o for p, o in self._positions.items() if p != last} | {last: self._positions[last]}
        return Batch(entries, dict(self._positions))


def scan(db: Rdict, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values with this prefix, from `start` on. Raises on corruption, which a plain `items()` would hide."""
    items = db.iter()
    items.seek(start or prefix)
    while items.valid():
        key: bytes = items.key()
        if not key.startswith(prefix):
            break
        yield key, items.value()
        items.next()
    items.status()


def _entry(partition: TopicPartition, key: bytes, value: bytes) -> Entry:
    time_ms, record_key, record, headers = msgspec.msgpack.decode(value)
    return Entry(partition, int.from_bytes(key[-8:], "big"), time_ms, record_key, record, tuple(map(tuple, headers)))


def _group_key(group: str, partition: TopicPartition) -> bytes:
    return _GROUP + f"{group}/{partition.topic}/{partition.partition}".encode()


def _start_key(partition: TopicPartition) -> bytes:
    return _START + f"{partition.topic}/{partition.partition}".encode()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(32 << 20)
    options.set_keep_log_file_num(2)
    # A crash can leave a torn tail, which holds no acknowledged entry. Any other damage must be an error.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options
