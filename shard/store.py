"""The RocksDB of one shard: point rows, versions and applied offsets. Only this module and the embedded log import rocksdict.

| family   | key                                 | value                                                   |
|----------|-------------------------------------|---------------------------------------------------------|
| points   | point id                            | `StoredPoint`                                           |
| rows     | row, u64                            | id, payload and latest version of a live point            |
| vectors  | row, u64                            | vectors by name                                         |
| history  | id length u16, id, version, u64     | a write that cannot be read back from the current state |
| meta     | `p` topic/partition, `row`, `alive` | progress, the next row, the number of live points       |
| meta     | `k` tier, idempotency key           | stamp of the record that was applied under the key      |
| meta     | `a` tier, idempotency key           | `Attempt`, of a request with conditions                 |
| meta     | `d` tier, offset u64                | `Decision`: what became of a record with conditions     |
| meta     | `t` tier, stamp u64, key            | stamp of a `k`, `a` or `d` key, which ends at the stamp |
| meta     | `u` version u64, point id           | a point that is not settled up to this version          |
| meta     | `b` number of a write batch, u64    | rows that it created, ended or changed the payload of   |
| meta     | `from`                              | the number up to which `b` keys were removed            |

A row is one vector state of a point; its number is never reused. From the `b` keys a start knows which rows changed after the
checkpoint.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap
from rocksdict import BlockBasedOptions, Cache, ColumnFamily, Options, Rdict, Snapshot, WriteBatch

from journal.log import TopicPartition
from journal.records import SPARSE, Vector
from journal.rocksdb import base_options, scan
from journal.stamps import NEVER, Version
from shard.decisions import Attempt, Decision
from shard.history import Write, decode_write
from shard.join import PointState

log = logging.getLogger(__name__)

NO_ROW = -1
BLOCK_CACHE_BYTES = 32 << 20
WRITE_BUFFER_BYTES = 16 << 20
MAX_WAL_BYTES = 64 << 20
"""The bound of one shard's write-ahead logs, which a start after a crash replays. A log is kept until every column family has
flushed its part of it; without this bound the logs can grow to four times all write buffers before a rarely written family
flushes."""

_FAMILIES = ("points", "rows", "vectors", "history", "meta")
_NEXT_ROW, _ALIVE = b"row", b"alive"
_BATCH, _TOUCHED_FROM, _UNSETTLED = b"b", b"from", b"u"
_ROWS_PER_GET = 1000
EXPIRED_AT_ONCE = 10_000
_cache = Cache(BLOCK_CACHE_BYTES)  # shared by all shards of the process, so that memory does not grow with their number


class StoredPoint(msgspec.Struct, array_like=True, omit_defaults=True):
    """A point without payload and vectors, which are stored under its row. Patches of a point that is not alive are kept here."""

    full: Version
    row: int = NO_ROW
    floor: Version | None = None
    keys: dict[str, Version] = {}
    names: dict[str, Version] = {}
    waiting_payload: bytes = b""
    waiting_vectors: dict[str, bytes] = {}
    decided: Version = NEVER


class Row(NamedTuple):
    """A live point for readers; `version` is of the latest write to it."""

    row: int
    id: bytes
    payload: bytes
    version: Version


class Progress(msgspec.Struct, array_like=True):
    """How far a partition is applied: the next offset, the last stamp, and the highest append time so far.

    `ingested`: for each log of foreign producers, the next offset of its operations that arrived through this partition.
    """

    offset: int = 0
    stamp: int = 0
    time_ms: int = 0
    ingested: dict[str, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_decision = msgspec.msgpack.Decoder(Decision).decode
_decode_attempt = msgspec.msgpack.Decoder(Attempt).decode
_decode_point = msgspec.msgpack.Decoder(StoredPoint).decode
_decode_row = msgspec.msgpack.Decoder(tuple[bytes, bytes, int]).decode
_decode_vectors = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_decode_progress = msgspec.msgpack.Decoder(Progress).decode


class Changes:
    """The changes of one write batch, written atomically (I3)."""

    def __init__(self, store: Store) -> None:
        self._family = store.families
        self._batch = WriteBatch(raw_mode=True)

    def put_point(self, point_id: bytes, point: PointState, row: int) -> None:
        """Writes a point's state; `row` is NO_ROW unless it is alive."""
        floor = None if point.floor == point.full else point.floor
        stored = StoredPoint(point.full, row, floor, point.keys, point.names, decided=point.decided)
        if not point.alive:
            stored.waiting_payload = point.payload
            stored.waiting_vectors = {name: vector.tobytes() for name, vector in point.vectors.items()}
        self._batch.put(point_id, _encode(stored), self._family["points"])

    def put_row(self, row: int, point_id: bytes, point: PointState) -> None:
        self._batch.put(row.to_bytes(8, "big"), _encode((point_id, point.payload, point.version())), self._family["rows"])

    def put_vectors(self, row: int, vectors: Mapping[str, Vector]) -> None:
        data = {name: vector.tobytes() if vector.dtype == SPARSE else vector.data for name, vector in vectors.items()}
        self._batch.put(row.to_bytes(8, "big"), _encode(data), self._family["vectors"])

    def delete_row(self, row: int) -> None:
        key = row.to_bytes(8, "big")
        self._batch.delete(key, self._family["rows"])
        self._batch.delete(key, self._family["vectors"])

    def put_write(self, point_id: bytes, version: Version, write: bytes) -> None:
        self._batch.put(_version_key(point_id, version), write, self._family["history"])

    def put_unsettled(self, version: Version, point_id: bytes) -> None:
        self._batch.put(_UNSETTLED + version.to_bytes(8, "big") + point_id, b"", self._family["meta"])

    def put_settled(self, version: Version, point_id: bytes, point: PointState, row: int) -> None:
        """Replaces a point's state by one that tells only its current value, and forgets the writes before. Nothing is left of a
        deleted point."""
        prefix = _version_prefix(point_id)
        self._batch.delete_range(prefix, prefix + b"\xff" * 9, self._family["history"])
        if not point.alive:
            self._batch.delete(point_id, self._family["points"])
        elif point.is_patched() or point.decided != NEVER:
            self._batch.put(point_id, _encode(StoredPoint(point.version(), row)), self._family["points"])
        self.delete_unsettled(version, point_id)

    def delete_unsettled(self, version: Version, point_id: bytes) -> None:
        self._batch.delete(_UNSETTLED + version.to_bytes(8, "big") + point_id, self._family["meta"])

    def put_decision(self, tier: int, offset: int, decision: Decision, until: int) -> None:
        self._put_until(until, decision.stamp, _decision_key(tier, offset), _encode(decision))

    def put_idempotency_key(self, tier: int, key: str, stamp: int, until: int) -> None:
        self._put_until(until, stamp, _tier_key(b"k", tier, key), _encode(stamp))

    def put_attempt(self, tier: int, key: str, attempt: Attempt, until: int) -> None:
        self._put_until(until, attempt.stamp, _tier_key(b"a", tier, key), _encode(attempt))

    def _put_until(self, until: int, stamp: int, key: bytes, value: bytes) -> None:
        """Puts a key whose second byte is a tier. It expires when the shard has reached the stamp `until` in the tier."""
        self._batch.put(key, value, self._family["meta"])
        self._batch.put(_until_key(key[1], until) + key, _encode(stamp), self._family["meta"])

    def put_progress(self, partition: TopicPartition, progress: Progress) -> None:
        self._batch.put(_progress_key(partition), _encode(progress), self._family["meta"])

    def put_next_row(self, row: int) -> None:
        self._batch.put(_NEXT_ROW, row.to_bytes(8, "big"), self._family["meta"])

    def put_alive(self, count: int) -> None:
        """Records how many points are alive after the batch, for a check at the next start."""
        self._batch.put(_ALIVE, count.to_bytes(8, "big"), self._family["meta"])

    def put_touched(self, number: int, rows: Sequence[int]) -> None:
        """Records which rows write batch `number` created, ended, or changed the payload of."""
        self._batch.put(_batch_key(number), array("I", rows).tobytes(), self._family["meta"])

    def delete_touched(self, number: int) -> None:
        """Removes the records of `put_touched` of write batches up to `number`, inclusive."""
        self._batch.delete_range(_batch_key(0), _batch_key(number + 1), self._family["meta"])
        self._batch.put(_TOUCHED_FROM, number.to_bytes(8, "big"), self._family["meta"])


class VectorFormat(NamedTuple):
    """How the bytes of a vector are decoded: as a dense vector, a multi-vector of vectors of `size`, or a sparse vector."""

    sparse: bool = False
    size: int | None = None

    def decode(self, data: bytes) -> Vector:
        """The vector, read-only."""
        if self.sparse:
            return np.frombuffer(data, SPARSE)
        flat = np.frombuffer(data, "<f4")
        return flat if self.size is None else flat.reshape(-1, self.size)


VectorFormats = Mapping[str, VectorFormat]


class Store:
    """The RocksDB in the folder `path`; `formats` by vector name. One thread writes, any thread reads."""

    def __init__(self, path: Path, formats: VectorFormats) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._formats = formats
        options = _options(_cache, WRITE_BUFFER_BYTES, MAX_WAL_BYTES)
        self._db = Rdict(str(path), options, column_families=dict.fromkeys(_FAMILIES, options))
        self.families: dict[str, ColumnFamily] = {name: self._db.get_column_family_handle(name) for name in _FAMILIES}
        self._tables = {name: self._db.get_column_family(name) for name in _FAMILIES}
        # Any, because rocksdict's stubs do not distinguish a `get` of one key from a `get` of several.
        self._points: Any = self._tables["points"]
        self._rows: Any = self._tables["rows"]
        self._vectors: Any = self._tables["vectors"]
        self._meta: Any = self._tables["meta"]

    def write(self, changes: Changes) -> None:
        """Writes all changes atomically. Not synced: what is lost in a power loss is replayed from the log."""
        self._db.write(changes._batch)

    def point(self, point_id: bytes) -> tuple[PointState, int]:
        """The state of a point and its row; an empty PointState and NO_ROW when the point was never written."""
        data = self._points.get(point_id)
        if data is None:
            return PointState(), NO_ROW
        stored = _decode_point(data)
        payload, vectors = stored.waiting_payload, _arrays(self._formats, stored.waiting_vectors)
        if stored.row != NO_ROW:
            payload = _decode_row(self._rows[stored.row.to_bytes(8, "big")])[1]
            vectors = self.vectors(stored.row)
        floor = stored.full if stored.floor is None else stored.floor
        alive = stored.row != NO_ROW
        return PointState(stored.full, alive, floor, stored.keys, stored.names, payload, vectors, stored.decided), stored.row

    def vectors(self, row: int) -> dict[str, Vector]:
        """The vectors of a row by name; empty when the row does not exist."""
        data = self._vectors.get(row.to_bytes(8, "big"))
        return {} if data is None else _arrays(self._formats, _decode_vectors(data))

    def existing_vectors(self, rows: Iterable[int]) -> Iterator[tuple[int, dict[str, Vector]]]:
        """The existing rows among `rows`, with their vectors by name. Only for the writing thread."""
        for row, data in self._existing(self._vectors, rows):
            yield row, _arrays(self._formats, _decode_vectors(data))

    def scan_rows(self) -> Iterator[Row]:
        """All live points in row order. Only for the writing thread."""
        for key, data in scan(self._rows):
            yield Row(int.from_bytes(key, "big"), *_decode_row(data))

    def view(self) -> StoreView:
        """A snapshot."""
        return StoreView(self._points.snapshot(), self._rows.snapshot(), self._vectors.snapshot(), self._formats)

    def history(self, point_id: bytes) -> dict[Version, Write]:
        """The writes to a point that cannot be read back from its current state. Only for the writing thread."""
        prefix = _version_prefix(point_id)
        writes: dict[Version, Write] = {}
        for key, data in scan(self._tables["history"], prefix, prefix):
            writes[int.from_bytes(key[len(prefix) :], "big")] = self.decode_write(data)
        return writes

    def decode_write(self, data: bytes) -> Write:
        """The write whose stored form is `data`."""
        return decode_write(data, lambda name, raw: self._formats[name].decode(raw))

    def decision(self, tier: int, offset: int) -> Decision | None:
        """What became of a record with conditions; None when there is none at this offset of the home partition in the tier."""
        data = self._meta.get(_decision_key(tier, offset))
        return None if data is None else _decode_decision(data)

    def unsettled(self, until: Version) -> Iterator[tuple[Version, bytes]]:
        """The points that are not settled up to a version at or below `until`, in its order. Only for the writing thread."""
        for key, _ in scan(self._meta, _UNSETTLED, _UNSETTLED):
            version = int.from_bytes(key[1:9], "big")
            if version > until:
                return
            yield version, key[9:]

    def progress(self, partition: TopicPartition) -> Progress | None:
        """How far a partition is applied here; None when nothing was applied yet."""
        data = self._meta.get(_progress_key(partition))
        return None if data is None else _decode_progress(data)

    def idempotency_stamp(self, tier: int, key: str) -> int | None:
        """The stamp of the write with this key that was applied; None without one."""
        data = self._meta.get(_tier_key(b"k", tier, key))
        return None if data is None else msgspec.msgpack.decode(data, type=int)

    def attempt(self, tier: int, key: str) -> Attempt | None:
        """The latest attempt of the request with this key; None without one."""
        data = self._meta.get(_tier_key(b"a", tier, key))
        return None if data is None else _decode_attempt(data)

    def expire(self, tier: int, stamp: int, most: int = EXPIRED_AT_ONCE) -> None:
        """Removes up to `most` keys that end at or before `stamp`, which the shard has reached in the tier."""
        ended = _until_key(tier, stamp)
        changes = WriteBatch(raw_mode=True)
        for entry, stamped in islice(scan(self._meta, ended[:2]), most):
            if entry[: len(ended)] > ended:
                break
            key = entry[len(ended) :]
            if _stamp_of(self._meta.get(key)) == _stamp_of(stamped):  # else the key was written again, with a later end
                changes.delete(key, self.families["meta"])
            changes.delete(entry, self.families["meta"])
        if changes.len():
            self._db.write(changes)

    def next_row(self) -> int:
        """The number of the next new row."""
        return int.from_bytes(self._meta.get(_NEXT_ROW) or b"", "big")

    def alive(self) -> int:
        """How many points were alive after the latest write batch."""
        return int.from_bytes(self._meta.get(_ALIVE) or b"", "big")

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The live points among these rows. Only for the writing thread."""
        for row, data in self._existing(self._rows, numbers):
            yield Row(row, *_decode_row(data))

    def last_batch(self) -> int:
        """The number of the latest write batch that touched rows; 0 before the first."""
        items = self._meta.iter()
        items.seek_for_prev(_batch_key(_MAX))
        if items.valid() and items.key()[:1] == _BATCH:
            return int.from_bytes(items.key()[1:], "big")
        items.status()
        return self.touched_from()

    def touched_from(self) -> int:
        """The number of the last write batch whose touched rows were removed."""
        return int.from_bytes(self._meta.get(_TOUCHED_FROM) or b"", "big")

    def touched(self, after: int) -> BitMap:
        """The rows that write batches above `after` touched."""
        touched = BitMap()
        for _, rows in scan(self._meta, _batch_key(after + 1), _BATCH):
            touched.update(array("I", rows))
        return touched

    def identity(self) -> str:
        """The identity that RocksDB gave this database; unique."""
        return (self._path / "IDENTITY").read_text(errors="replace").strip()

    def properties(self) -> list[Callable[[str], int | None]]:
        """Of each column family the function from a property of RocksDB to its value."""
        return [table.property_int_value for table in self._tables.values()]

    def sync(self) -> None:
        """Makes all writes so far durable."""
        self._db.flush_wal(True)

    def _existing(self, table: Any, rows: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The existing rows of a table among `rows`, with their data."""
        numbers = list(rows)
        for start in range(0, len(numbers), _ROWS_PER_GET):
            some = numbers[start : start + _ROWS_PER_GET]
            values = table.get([row.to_bytes(8, "big") for row in some])
            yield from ((row, data) for row, data in zip(some, values, strict=True) if data is not None)

    def close(self) -> None:
        """Closes the database and all its handles, since RocksDB keeps its lock while any handle exists.

        Errors are logged: what cannot be written, for example because the disk is full, is replayed from the log.
        """
        for handle in (*self._tables.values(), self._db):
            try:
                handle.close()
            except Exception as error:  # RocksDB's errors have no class of their own
                log.warning("closing %s: %s", self._path, error)
        self.families.clear()


class StoreView:
    """The rows at one moment, on RocksDB snapshots; readable even after the store is closed."""

    def __init__(self, points: Snapshot, rows: Snapshot, vectors: Snapshot, formats: VectorFormats) -> None:
        self._formats = formats
        self._points = points
        self._rows = rows
        self._vectors = vectors

    def find(self, point_ids: Iterable[bytes]) -> list[Row]:
        """The live points among these ids, in their order."""
        numbers = [_decode_point(data).row for point_id in point_ids if (data := _get(self._points, point_id)) is not None]
        return self.rows(number for number in numbers if number != NO_ROW)

    def rows(self, numbers: Iterable[int]) -> list[Row]:
        """The points at these rows, which must be alive in this view."""
        return [Row(number, *_decode_row(self._rows[number.to_bytes(8, "big")])) for number in numbers]

    def vectors(self, row: int) -> dict[str, Vector]:
        """The vectors of a row by name."""
        return _arrays(self._formats, _decode_vectors(self._vectors[row.to_bytes(8, "big")]))

    def scan_points(self, start: bytes = b"") -> Iterator[tuple[bytes, int]]:
        """Ids and rows of all points in id order, from `start` (inclusive); NO_ROW for deleted points.

        In rocksdict, `get` on a snapshot returns the snapshot's state, but an iterator does not. The key of a deleted point is
        removed only when no view is left in which it exists, so iterating over the current keys and getting each from the
        snapshot finds all points of the snapshot.
        """
        for key, _ in scan(self._points, start):
            data = _get(self._points, key)
            if data is not None:
                yield key, _decode_point(data).row


_MAX = 2**64 - 1


def _version_prefix(point_id: bytes) -> bytes:
    return len(point_id).to_bytes(2, "big") + point_id


def _version_key(point_id: bytes, version: Version) -> bytes:
    return _version_prefix(point_id) + version.to_bytes(8, "big")


def _batch_key(number: int) -> bytes:
    return _BATCH + number.to_bytes(8, "big")


def _stamp_of(value: bytes | None) -> int | None:
    """The stamp with which the value of a `k`, `a`, `d` or `t` key begins."""
    stamped = None if value is None else msgspec.msgpack.decode(value)
    return stamped[0] if isinstance(stamped, list) else stamped


def _tier_key(kind: bytes, tier: int, key: str) -> bytes:
    return kind + bytes([tier]) + key.encode()


def _until_key(tier: int, stamp: int) -> bytes:
    return b"t" + bytes([tier]) + stamp.to_bytes(8, "big")


def _decision_key(tier: int, offset: int) -> bytes:
    return b"d" + bytes([tier]) + offset.to_bytes(8, "big")


def _progress_key(partition: TopicPartition) -> bytes:
    return b"p" + str(partition).encode()


def _arrays(formats: VectorFormats, vectors: Mapping[str, bytes]) -> dict[str, Vector]:
    return {name: formats[name].decode(data) for name, data in vectors.items()}


def _get(snapshot: Snapshot, key: bytes) -> Any:
    try:
        return snapshot[key]
    except Exception as error:  # a snapshot has no `get`, and rocksdict's errors have no class of their own
        if "key not found" in str(error):
            return None
        raise


@lru_cache(1)
def _options(cache: Cache, write_buffer_bytes: int, max_wal_bytes: int) -> Options:
    """The same for every shard, because making them takes as long as a fifth of opening one."""
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(10, False)
    options = base_options()
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_total_wal_size(max_wal_bytes)
    options.set_max_file_opening_threads(1)  # starting the default of 16 takes longer than opening a shard's few files
    return options
