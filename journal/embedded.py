"""The journal in one process: entries in RocksDB, keyed by topic, partition and offset.

Durable by group commit: one thread writes all waiting appends in one batch and syncs the write-ahead log once.
Write and sync are separate calls because rocksdict holds the GIL during a write but releases it in `flush_wal`.

Damage is found when it is read: an entry holds a digest of itself and of the entry before it in its partition, so that a changed
or missing entry is an error. What is missing at the end is found from the file `ends`, which is written about once a second with
the end of each partition: a partition that ends below it takes no more appends, so that no offset is given out twice.

After a failed write the content of the log is unknown. It is opened again, until that succeeds; meanwhile appends are refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import msgspec
from rocksdict import AccessType, DBRecoveryMode, Options, Rdict, WriteBatch

from journal.groups import LocalGroups, committed_of
from journal.log import (
    Appended,
    Batch,
    Begin,
    Committed,
    Damaged,
    Definite,
    Entry,
    Headers,
    Indefinite,
    JournalError,
    Member,
    Overloaded,
    Positions,
    TopicPartition,
    TopicSpec,
    at_commit,
    check_count,
    check_refusal,
    check_trim,
    cut_away,
    lost_end,
    pending,
)
from journal.rocksdb import base_options, check_framing, is_damage, scan
from journal.statistics import Statistics, of_rocksdb

log = logging.getLogger(__name__)

GROUP_BYTES = 16 << 20
"""Upper bound of one group commit; the remaining appends wait for the next one."""

REOPEN_S = 1.0
"""Interval between attempts to open the log again after a failed write."""

TRIAL_BYTES = 1 << 20

ENDS_EVERY_S = 1.0
"""The file `ends` is written at most this often while entries are appended."""

_ENTRY, _TOPIC, _GROUP, _START, _IDENTITY = b"e", b"t", b"g", b"s", b"identity"
_CHAINED = b"\x01"
"""The first byte of an entry with a digest. Entries of earlier versions begin with the header of a msgpack array."""

_DIGEST_BYTES = 16
_NO_DIGEST = bytes(_DIGEST_BYTES)
_ENDS = msgspec.json.Decoder(dict[str, int])
_UNDECODABLE = (msgspec.MsgspecError, ValueError, TypeError)
"""Raised when what is stored is no entry."""


class _Stored(NamedTuple):
    """An entry, its digest, and the body that the digest covers; no digest for an entry of an earlier version."""

    entry: Entry
    digest: bytes
    body: bytes

    def is_changed(self, before: bytes | None, key: bytes) -> bool:
        """Whether the entry is not the one that was written after an entry with the digest `before`.

        It counts as changed, too, when `before` is None because the entry before it is missing: nobody can tell then.
        """
        if self.digest == _NO_DIGEST:
            return False
        return before is None or self.digest != _digest(before, key, self.body)


class _End(NamedTuple):
    """The next offset of a partition, and the digest of the entry before it."""

    offset: int
    digest: bytes


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

    `accept_ends`: the ends are taken as they are, although more was acknowledged before.

    Raises Overloaded when more than `max_in_flight_bytes` would wait for the sync.
    """

    def __init__(
        self,
        path: Path,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        max_in_flight_bytes: int = 64 << 20,
        accept_ends: bool = False,
    ) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        check_framing(path)
        self._db = Rdict(str(path), _options())
        self._name = self._stored_identity()
        self._now_ms = now_ms
        self._max_in_flight_bytes = max_in_flight_bytes
        self.lock = threading.RLock()
        self._appended = threading.Condition(self.lock)
        self._readers: list[EmbeddedReader] = []
        self._reclaiming = threading.Lock()
        self._topics = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._closing = False
        self._failure: Exception | None = None
        self._groups = LocalGroups(self, self._commit)
        self._ends: dict[TopicPartition, _End] = {}
        self._refused: dict[TopicPartition, str] = {}
        self._next_ends_s, self._is_noted = 0.0, True
        self._time_ms = 0
        if accept_ends:
            (path / "ends").unlink(missing_ok=True)
        self._noted = self._noted_ends()
        self._open_topics()
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
        following._reclaiming = threading.Lock()
        following._ends, following._refused, following._time_ms = {}, {}, 0
        following._name, following._noted = (following._db.get(_IDENTITY) or b"").decode(), {}
        following._closing, following._failure = False, Definite("it is open to read only")
        following._committer = None
        following.refresh()
        return following

    def refresh(self) -> None:
        """Catches up with the writing process. Only for a journal from `follow`."""
        self._db.try_catch_up_with_primary()
        self._open_topics()

    def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        with self._topics:
            for topic, spec in topics.items():
                have = len(self.partitions(topic))
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
            check_refusal(partition, self._refused)
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
            return {partition: self._ends[partition].offset for partition in partitions}

    def start_offsets(self, partitions: Sequence[TopicPartition]) -> Positions:
        for partition in partitions:
            self._check_known(partition)
        return {partition: self._start(partition) for partition in partitions}

    def trim(self, positions: Mapping[TopicPartition, int]) -> None:
        batch = WriteBatch(raw_mode=True)
        for partition, offset in positions.items():
            check_trim(partition, offset, self.end_offsets([partition])[partition])
            if offset > (start := self._start(partition)):
                digest = self.digest_before(partition, offset) or _NO_DIGEST
                batch.put(_start_key(partition), offset.to_bytes(8, "big") + digest)
                batch.delete_range(_entry_key(partition, start), _entry_key(partition, offset))
        try:
            self._db.write(batch)
            self._db.flush_wal(True)
        except Exception as error:  # RocksDB's errors have no class of their own
            raise Indefinite(f"it is not known whether the log was cut: {error}") from error

    def reclaim(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            with self._reclaiming:  # `close` must not run beside a compaction
                if self._closing:
                    return
                try:
                    self._db.compact_range(_entry_key(partition, 0), _entry_key(partition, self._start(partition)))
                except Exception as error:  # RocksDB's errors have no class of their own
                    if not self._closing:
                        raise JournalError(f"the space of {partition} cannot be reclaimed: {error}") from error

    def identities(self, topics: Sequence[str]) -> dict[str, str]:
        return {topic: f"{topic}:{self._name}" for topic in topics if self.partitions(topic)}

    def refuse(self, partition: TopicPartition, reason: str) -> None:
        with self._appended:
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
        batch = WriteBatch(raw_mode=True)
        for partition, (offset, epoch) in committed.items():
            batch.put(_group_key(group, partition), offset.to_bytes(8, "big") + (epoch.to_bytes(8, "big") if epoch else b""))
        try:
            self._db.write(batch)
        except Exception as error:  # RocksDB's errors have no class of their own
            raise Definite(f"positions are not committed: {error}") from error

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> Positions:
        return {partition: known.offset for partition, known in self.commits(group, partitions).items()}

    def groups(self, prefix: str) -> list[str]:
        return []

    def commits(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        stored = {partition: self._db.get(_group_key(group, partition)) for partition in partitions}
        return {
            partition: Committed(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))
            for partition, data in stored.items()
            if data is not None
        }

    def partitions(self, topic: str) -> list[TopicPartition]:
        return [partition for partition in self._ends if partition.topic == topic]

    def offsets_at(self, time_ms: int, partitions: Sequence[TopicPartition]) -> Positions:
        starts, ends = self.start_offsets(partitions), self.end_offsets(partitions)
        return {
            partition: bisect_left(
                range(ends[partition]),
                time_ms,
                lo=starts[partition],
                key=lambda offset, partition=partition: self._appended_ms(partition, offset),  # type: ignore[misc]
            )
            for partition in partitions
        }

    def _appended_ms(self, partition: TopicPartition, offset: int) -> int:
        value = self._db.get(key := _entry_key(partition, offset))
        if value is None:
            raise _missing(partition, offset, offset + 1)
        return _stored(partition, key, value).entry.time_ms

    @property
    def failure(self) -> Exception | None:
        return self._failure

    def statistics(self) -> Statistics:
        return {"journal": of_rocksdb([self._db.property_int_value])}

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
            self._note_ends()
        is_cancelled = not self._reclaiming.acquire(blocking=False)
        if is_cancelled:
            self._db.cancel_all_background(False)
            self._reclaiming.acquire()
        try:
            self._db.close()
        except Exception:
            # RocksDB repeats the write failure that the appends have already reported; or, once its background work is cancelled,
            # it does not write its memory to files, and what is synced is read from the write-ahead log.
            if self._failure is None and not is_cancelled:
                raise
        finally:
            self._reclaiming.release()

    def knows(self, partition: TopicPartition) -> bool:
        """Whether the log has this partition."""
        return partition in self._ends

    def _check_known(self, partition: TopicPartition) -> None:
        if not self.knows(partition):
            raise Definite(f"unknown partition: {partition}")

    def _start(self, partition: TopicPartition) -> int:
        return int.from_bytes((self._db.get(_start_key(partition)) or b"")[:8], "big")

    def _stored_identity(self) -> str:
        """The identity of this log, which is made with it. Logs of earlier versions have that of their RocksDB."""
        known = self._db.get(_IDENTITY)
        if known is None:
            is_new = next(scan(self._db, _TOPIC, _TOPIC), None) is None
            name = token_hex(8) if is_new else (self._path / "IDENTITY").read_text().strip()
            self._db[_IDENTITY] = known = name.encode()
            self._db.flush_wal(True)
        return known.decode()

    def _open_topics(self) -> None:
        for key, count in scan(self._db, _TOPIC, _TOPIC):
            self._open_topic(key[1:].decode(), int.from_bytes(count, "big"))

    def _open_topic(self, topic: str, count: int) -> None:
        for index in range(count):
            partition = TopicPartition(topic, index)
            end, time_ms = self._stored_end(partition)
            with self._appended:
                self._ends[partition] = end
                self._time_ms = max(self._time_ms, time_ms)
                if (missing := self._noted.get(str(partition), 0)) > end.offset:
                    self.refuse(partition, lost_end(partition, end.offset, missing))

    def _stored_end(self, partition: TopicPartition) -> tuple[_End, int]:
        """The end of a partition and the append time of its last entry, 0 without one. That entry may be damaged: who reads it
        finds that."""
        entries = self._db.iter()
        entries.seek_for_prev(_entry_key(partition, 2**64 - 1))
        if not entries.valid() or not entries.key().startswith(_entry_prefix(partition)):
            entries.status()
            return _End(self._start(partition), self._digest_at_start(partition)), 0
        key, value = entries.key(), entries.value()
        end = _End(_offset_of(key) + 1, _digest_of(value))
        try:
            return end, _stored(partition, key, value).entry.time_ms
        except _UNDECODABLE:
            return end, 0

    def digest_before(self, partition: TopicPartition, offset: int) -> bytes | None:
        """The digest of the entry before `offset`; None when that entry is not there."""
        if offset == self._start(partition):
            return self._digest_at_start(partition)
        before = self._db.get(_entry_key(partition, offset - 1))
        return None if before is None else _digest_of(before)

    def _digest_at_start(self, partition: TopicPartition) -> bytes:
        return (self._db.get(_start_key(partition)) or b"")[8:] or _NO_DIGEST

    def _noted_ends(self) -> dict[str, int]:
        """The ends of the partitions as they were noted last; none when the file is missing or damaged."""
        try:
            return _ENDS.decode((self._path / "ends").read_bytes())
        except (OSError, *_UNDECODABLE):
            return {}

    def _note_ends(self) -> None:
        """Writes the ends of all partitions to a file. Not synced: it is for damage, which a loss of power does not cause."""
        self._noted |= {str(p): end.offset for p, end in self._ends.items() if p not in self._refused}
        unfinished = self._path / "ends.tmp"
        with contextlib.suppress(OSError):  # as when the disk is full; the next one is written a second later
            unfinished.write_bytes(msgspec.json.encode(self._noted))
            unfinished.rename(self._path / "ends")
        self._is_noted = True
        self._next_ends_s = time.monotonic() + ENDS_EVERY_S

    def _commit_groups(self) -> None:
        while group := self._next_group():
            try:
                acknowledged, ends = self._write(group)
            except Exception as error:  # after a failed write the content of the log is unknown, so it must not continue
                self._fail(error, group)
                self._reopen()
                continue
            with self._appended:
                self._ends |= ends
                self._waiting_bytes -= sum(len(waiting.value) for waiting in group)
                self._wake(reader for reader in self._readers if reader.is_ready())
            self._is_noted = False
            for waiting, appended in zip(group, acknowledged, strict=True):
                waiting.future.set_result(appended)
            if time.monotonic() > self._next_ends_s:
                self._note_ends()

    def _wake(self, readers: Iterable[EmbeddedReader]) -> None:
        """Wakes these readers. Requires the lock. Each reader has its own condition, so only readers with new entries wake."""
        for reader in readers:
            reader.changed.notify_all()

    def _next_group(self) -> list[_Waiting]:
        """Waits for appends and takes those that fit into one commit; empty when the journal is closing and none is left.

        When none comes for a while, the ends are noted first: the next append may be a long time away.
        """
        with self._appended:
            due_s = None if self._is_noted else max(0.0, self._next_ends_s - time.monotonic())
            has_work = self._appended.wait_for(self._has_work, due_s)
        if not has_work:
            self._note_ends()
        with self._appended:
            self._appended.wait_for(self._has_work)
            size = count = 0
            for waiting in self._waiting:
                if count and size + len(waiting.value) > GROUP_BYTES:
                    break
                size, count = size + len(waiting.value), count + 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            return group

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._closing

    def _write(self, group: list[_Waiting]) -> tuple[list[Appended], dict[TopicPartition, _End]]:
        batch = WriteBatch(raw_mode=True)
        acknowledged = []
        ends: dict[TopicPartition, _End] = {}
        now_ms = self._time_ms = max(self._now_ms(), self._time_ms)
        for waiting in group:
            time_ms = now_ms if waiting.time_ms is None else waiting.time_ms
            end = ends.get(waiting.partition) or self._ends[waiting.partition]
            key = _entry_key(waiting.partition, end.offset)
            body = msgspec.msgpack.encode((time_ms, waiting.key, waiting.value, waiting.headers))
            digest = _digest(end.digest, key, body)
            batch.put(key, b"".join((_CHAINED, digest, body)))
            ends[waiting.partition] = _End(end.offset + 1, digest)
            acknowledged.append(Appended(waiting.partition, end.offset, time_ms))
        self._db.write(batch)
        self._db.flush_wal(True)
        return acknowledged, ends

    def _try_disk(self) -> None:
        """Raises OSError when a file cannot be written to the folder of the log."""
        trial = self._path / "trial.tmp"
        try:
            with trial.open("wb") as file:
                file.write(bytes(TRIAL_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            trial.unlink(missing_ok=True)

    def _fail(self, error: Exception, group: list[_Waiting]) -> None:
        log.error("the journal in %s cannot be written, it is opened again every %g s: %s", self._path, REOPEN_S, error)
        with self._appended:
            self._failure = error
            refused, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self._wake(self._readers)
        for waiting in group:
            waiting.future.set_exception(Indefinite(f"the journal failed while writing: {error}"))
        for waiting in refused:
            waiting.future.set_exception(Definite(f"the journal takes no writes: {error}"))

    def _reopen(self) -> None:
        """Opens the log again, until that succeeds, or the journal is closing. Appends are refused meanwhile.

        It is closed only when its folder can be written, so that it stays readable before that.
        """
        while True:
            with self._appended:
                if self._appended.wait_for(lambda: self._closing, REOPEN_S):
                    return
            try:
                self._try_disk()
                with contextlib.suppress(Exception):  # it repeats the failure
                    self._db.close()
                check_framing(self._path)
                db = Rdict(str(self._path), _options())
                self._db = db
                db[_IDENTITY] = self._name.encode()
                db.flush_wal(True)
                self._open_topics()
            except Exception as error:  # RocksDB's errors have no class of their own
                self._failure = error
            else:
                log.info("the journal in %s can be written again", self._path)
                with self._appended:
                    self._failure = None
                    self._wake(self._readers)
                return


class EmbeddedReader:
    """A reader of an EmbeddedJournal."""

    def __init__(self, journal: EmbeddedJournal) -> None:
        self._journal = journal
        self._positions: Positions = {}
        self._digests: dict[TopicPartition, bytes] = {}
        self._woken = False
        self.changed = threading.Condition(journal.lock)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        with self.changed:
            self._positions = dict(positions)
            self._digests = {}

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        with self.changed:
            self.changed.wait_for(lambda: self._woken or self._journal._closing or self.is_ready(), timeout_s)
            self._woken = False
            ends = self._journal._ends
            ready = {p: ends[p].offset for p, offset in self._positions.items() if offset < ends[p].offset}
        entries: list[Entry] = []
        size = 0
        try:
            for partition, end in ready.items():
                for entry, digest, _ in self._read(partition, end):
                    if entries and (len(entries) >= max_records or size + len(entry.value) > max_bytes):
                        return self._batch(entries)
                    entries.append(entry)
                    size += len(entry.value)
                    self._positions[partition] = entry.offset + 1
                    self._digests[partition] = digest
        except Damaged:
            if not entries:  # else the next poll raises it
                raise
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
        return any(offset < ends[partition].offset for partition, offset in self._positions.items())

    def _read(self, partition: TopicPartition, end: int) -> Iterator[_Stored]:
        """The entries from the reader's position up to `end`. Raises Damaged for one that is missing, changed or unreadable."""
        at = self._positions[partition]
        try:
            before = self._digests.get(partition) or self._journal.digest_before(partition, at)
            for key, value in scan(self._journal._db, _entry_key(partition, at), _entry_prefix(partition)):
                stored = _stored(partition, key, value)
                offset = stored.entry.offset
                if offset > at:
                    raise self._gone(partition, at, min(offset, end))
                if offset >= end:
                    return
                if stored.is_changed(before, key):
                    raise Damaged(partition, at, at + 1, "this record or the one before it is not the one that was written")
                yield stored
                at, before = at + 1, stored.digest
        except JournalError:
            raise
        except Exception as error:  # RocksDB's errors have no class of their own
            if is_damage(error) or isinstance(error, _UNDECODABLE):
                raise Damaged(partition, at, at + 1, str(error)) from error
            raise JournalError(f"the journal cannot be read: {error}") from error
        if at < end:
            raise self._gone(partition, at, end)

    def _gone(self, partition: TopicPartition, offset: int, end: int) -> JournalError:
        """The error for records that are not there: they were cut off, or are lost."""
        start = self._journal._start(partition)
        return cut_away(partition, offset, start) if offset < start else _missing(partition, offset, end)

    def _batch(self, entries: list[Entry]) -> Batch:
        """The entries and the positions. The partition read last moves to the end of the order, so that no partition starves."""
        if entries:
            last = entries[-1].partition
            self._positions = {p: o for p, o in self._positions.items() if p != last} | {last: self._positions[last]}
        return Batch(entries, dict(self._positions))


def _stored(partition: TopicPartition, key: bytes, value: bytes) -> _Stored:
    """Raises what is in _UNDECODABLE when the value is damaged."""
    body = value[1 + _DIGEST_BYTES :] if value[:1] == _CHAINED else value
    time_ms, record_key, record, headers = msgspec.msgpack.decode(body)
    entry = Entry(partition, _offset_of(key), time_ms, record_key, record, tuple(map(tuple, headers)))
    return _Stored(entry, _digest_of(value), body)


def _offset_of(key: bytes) -> int:
    return int.from_bytes(key[-8:], "big")


def _digest_of(value: bytes) -> bytes:
    """The digest that is stored with an entry, also of a damaged one."""
    return value[1 : 1 + _DIGEST_BYTES].ljust(_DIGEST_BYTES, b"\x00") if value[:1] == _CHAINED else _NO_DIGEST


def _digest(before: bytes, key: bytes, body: bytes) -> bytes:
    """The digest of an entry: of its place, its content and the digest of the entry before it."""
    digest = blake2b(key, digest_size=_DIGEST_BYTES, key=before)
    digest.update(body)
    return digest.digest()


def _missing(partition: TopicPartition, start: int, end: int) -> Damaged:
    return Damaged(partition, start, end, f"{end - start} records are missing")


def _group_key(group: str, partition: TopicPartition) -> bytes:
    return _GROUP + f"{group}/{partition}".encode()


def _start_key(partition: TopicPartition) -> bytes:
    return _START + str(partition).encode()


def _options() -> Options:
    options = base_options()
    options.set_write_buffer_size(32 << 20)
    # A crash can leave a torn tail, which holds no acknowledged entry. Any other damage must be an error.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    return options
