"""The RocksDB of one shard: point rows, versions and applied offsets. Only this module and the embedded log import rocksdict.

| family  | key                                     | value                                                   |
|---------|-----------------------------------------|---------------------------------------------------------|
| rows    | row, u64                                | id, payload, version; of a past row also its end        |
| vectors | row, u64                                | vectors by name                                         |
| default | `i` point id                            | `StoredPoint`                                           |
| default | `h` id length u16, id, version, u64     | a write that cannot be read back from the current state |
| default | `e` id length u16, id, version, u64     | the past row of that version                            |
| default | `o` tier, offset u64                    | offsets and stamps of the records of one write batch    |
| default | `p` topic/partition                     | progress                                                |
| default | `row`, `alive`, `past`                  | the next row, the numbers of live points and past rows  |
| default | `since`                                 | the oldest stamp of which all past rows are kept        |
| default | `k` tier, idempotency key               | stamp of the record that was applied under the key      |
| default | `a` tier, idempotency key               | `Attempt`, of a request with conditions                 |
| default | `d` tier, offset u64                    | `Decision`: what became of a record with conditions     |
| default | `t` tier, stamp u64, key                | stamp of a `k`, `a` or `d` key, which ends at the stamp |
| default | `u` version u64, point id               | a point that is not settled up to this version          |
| default | `x` version u64, point id               | a point that may have to expire at this version         |
| default | `b` number of a write batch, u64        | rows that it created, ended or changed the payload of   |
| default | `from`                                  | the number up to which `b` keys were removed            |

Rows and vectors are written in ascending order, and RocksDB never has to merge their files, as it would if they shared a family
with anything else. More families would cost each shard more time to open and more files.

A row is one vector state of a live point, or a past row: one state that a point had, from its version until its end, see
`shard.past`. The number of a row is never reused. From the `b` keys a start knows which rows changed after the checkpoint.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap
from rocksdict import AccessType, BlockBasedOptions, Cache, Checkpoint, ColumnFamily, Options, Rdict, Snapshot, WriteBatch

from catalog.collection import vector_name
from journal.log import TopicPartition
from journal.records import SPARSE, Vector
from journal.rocksdb import Damage, base_options, check_framing, scan
from journal.stamps import MAX_VERSION, NEVER, Version
from shard.decisions import Attempt, Decision
from shard.history import Write, decode_write
from shard.join import PointState
from shard.vectors.datatypes import Encoding

log = logging.getLogger(__name__)

NO_ROW = -1
BLOCK_CACHE_BYTES = 32 << 20
WRITE_BUFFER_BYTES = 16 << 20
MAX_WAL_BYTES = 64 << 20
"""The bound of one shard's write-ahead logs, which a start after a crash replays. A log is kept until every column family has
flushed its part of it; without this bound the logs can grow to four times all write buffers before a rarely written family
flushes."""

SMALL_BYTES = 4 << 20
"""Up to this much memory of rows, which each family takes by the megabyte, stays in the write-ahead log when a store is closed.
Writing the rows to files would take longer than reading the log at the next start, and these files need descriptors."""

LOG_SIZES = "log-sizes.json"

MAX_LOGS = 8
"""The bound of write-ahead logs that are kept when a store is opened. Each start begins a new one."""

_UNWRITTEN = "rocksdb.cur-size-all-mem-tables"
_FAMILIES = ("default", "rows", "vectors")
_NEXT_ROW, _ALIVE, _PAST, _KEPT_SINCE = b"row", b"alive", b"past", b"since"
_POINT, _HISTORY, _BATCH, _TOUCHED_FROM, _UNSETTLED = b"i", b"h", b"b", b"from", b"u"
_PAST_ROW, _STAMPS, _EXPIRY = b"e", b"o", b"x"
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
    expires: Version = NEVER


class Row(msgspec.Struct, array_like=True, gc=False):
    """A state of a point: that of a live point, or one that it had until the version `end`, not included.

    `version` is of the write that led to it.
    """

    id: bytes
    payload: bytes
    version: Version
    end: Version = MAX_VERSION
    row: int = NO_ROW

    @property
    def is_past(self) -> bool:
        return self.end != MAX_VERSION


class PastState(NamedTuple):
    """A state that a point had from one version until another, not included."""

    point_id: bytes
    version: Version
    end: Version
    payload: bytes
    vectors: Mapping[str, Vector]


class Progress(msgspec.Struct, array_like=True):
    """How far a partition is applied: the next offset, the last stamp, and the highest append time so far.

    `ingested`: for each log of foreign producers, the next offset of its operations that arrived through this partition.
    `epochs`: the epoch that this offset belongs to, of logs that were moved.
    """

    offset: int = 0
    stamp: int = 0
    time_ms: int = 0
    ingested: dict[str, int] = {}
    epochs: dict[str, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_decision = msgspec.msgpack.Decoder(Decision).decode
_decode_attempt = msgspec.msgpack.Decoder(Attempt).decode
_decode_point = msgspec.msgpack.Decoder(StoredPoint).decode
_decode_stored_row = msgspec.msgpack.Decoder(Row).decode
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
        stored = StoredPoint(point.full, row, floor, point.keys, point.names, decided=point.decided, expires=point.expires)
        if not point.alive:
            stored.waiting_payload = point.payload
            stored.waiting_vectors = {name: vector.tobytes() for name, vector in point.vectors.items()}
        self._batch.put(_POINT + point_id, _encode(stored), self._family["default"])

    def put_row(self, row: int, point_id: bytes, point: PointState) -> None:
        self._batch.put(row.to_bytes(8, "big"), _encode((point_id, point.payload, point.version())), self._family["rows"])

    def put_vectors(self, row: int, vectors: Mapping[str, Vector]) -> None:
        data = {name: vector.tobytes() if vector.dtype == SPARSE else vector.data for name, vector in vectors.items()}
        self._batch.put(row.to_bytes(8, "big"), _encode(data), self._family["vectors"])

    def put_past(self, row: int, past: PastState) -> None:
        """Writes a past row."""
        data = _encode((past.point_id, past.payload, past.version, past.end))
        self._batch.put(row.to_bytes(8, "big"), data, self._family["rows"])
        self.put_vectors(row, past.vectors)
        self._batch.put(_past_key(past.point_id, past.version), row.to_bytes(8, "big"), self._family["default"])

    def delete_past(self, row: Row) -> None:
        self.delete_row(row.row)
        self._batch.delete(_past_key(row.id, row.version), self._family["default"])

    def put_stamps(self, tier: int, offsets: Sequence[int], stamps: Sequence[int]) -> None:
        """Records the stamps of the records at these offsets, ascending, of the home partition in the tier."""
        self._batch.put(_stamps_key(tier, offsets[0]), array("Q", [*offsets, *stamps]).tobytes(), self._family["default"])

    def put_kept_since(self, stamp: int) -> None:
        """Records the oldest stamp of which all past rows are kept."""
        self._batch.put(_KEPT_SINCE, stamp.to_bytes(8, "big"), self._family["default"])

    def delete_row(self, row: int) -> None:
        key = row.to_bytes(8, "big")
        self._batch.delete(key, self._family["rows"])
        self._batch.delete(key, self._family["vectors"])

    def put_write(self, point_id: bytes, version: Version, write: bytes) -> None:
        self._batch.put(_version_key(point_id, version), write, self._family["default"])

    def put_unsettled(self, version: Version, point_id: bytes) -> None:
        self._batch.put(_UNSETTLED + version.to_bytes(8, "big") + point_id, b"", self._family["default"])

    def put_settled(self, version: Version, point_id: bytes, point: PointState, row: int, history: Iterable[bytes]) -> None:
        """Replaces a point's state by one that tells only its current value, and forgets the writes before, whose keys are
        `history`. Nothing is left of a deleted point."""
        for key in history:
            self._batch.delete(key, self._family["default"])
        if not point.alive:
            self._batch.delete(_POINT + point_id, self._family["default"])
        elif point.is_patched() or point.decided != NEVER:
            settled = StoredPoint(point.version(), row, expires=point.expires)
            self._batch.put(_POINT + point_id, _encode(settled), self._family["default"])
        self.delete_unsettled(version, point_id)

    def delete_unsettled(self, version: Version, point_id: bytes) -> None:
        self._batch.delete(_UNSETTLED + version.to_bytes(8, "big") + point_id, self._family["default"])

    def put_expiry(self, version: Version, point_id: bytes) -> None:
        """Records that a point may have to expire at a version."""
        self._batch.put(_EXPIRY + version.to_bytes(8, "big") + point_id, b"", self._family["default"])

    def delete_expiry(self, version: Version, point_id: bytes) -> None:
        self._batch.delete(_EXPIRY + version.to_bytes(8, "big") + point_id, self._family["default"])

    def put_decision(self, tier: int, offset: int, decision: Decision, until: int) -> None:
        self._put_until(until, decision.stamp, _decision_key(tier, offset), _encode(decision))

    def put_idempotency_key(self, tier: int, key: str, stamp: int, until: int) -> None:
        self._put_until(until, stamp, _tier_key(b"k", tier, key), _encode(stamp))

    def put_attempt(self, tier: int, key: str, attempt: Attempt, until: int) -> None:
        self._put_until(until, attempt.stamp, _tier_key(b"a", tier, key), _encode(attempt))

    def _put_until(self, until: int, stamp: int, key: bytes, value: bytes) -> None:
        """Puts a key whose second byte is a tier. It expires when the shard has reached the stamp `until` in the tier."""
        self._batch.put(key, value, self._family["default"])
        self._batch.put(_until_key(key[1], until) + key, _encode(stamp), self._family["default"])

    def put_progress(self, partition: TopicPartition, progress: Progress) -> None:
        self._batch.put(_progress_key(partition), _encode(progress), self._family["default"])

    def put_next_row(self, row: int) -> None:
        self._batch.put(_NEXT_ROW, row.to_bytes(8, "big"), self._family["default"])

    def put_counts(self, alive: int, past: int) -> None:
        """Records how many live points and past rows there are after the batch, for a check at the next start."""
        self._batch.put(_ALIVE, alive.to_bytes(8, "big"), self._family["default"])
        self._batch.put(_PAST, past.to_bytes(8, "big"), self._family["default"])

    def put_touched(self, number: int, rows: Sequence[int]) -> None:
        """Records which rows write batch `number` created, ended, or changed the payload of."""
        self._batch.put(_batch_key(number), array("I", rows).tobytes(), self._family["default"])

    def delete_touched(self, number: int) -> None:
        """Removes the records of `put_touched` of write batches up to `number`, inclusive."""
        self._batch.delete_range(_batch_key(0), _batch_key(number + 1), self._family["default"])
        self._batch.put(_TOUCHED_FROM, number.to_bytes(8, "big"), self._family["default"])


class VectorFormat(NamedTuple):
    """How the bytes of a vector are decoded: by `encoding`, of a multi-vector or not; without one as a sparse vector."""

    encoding: Encoding | None = None
    multi: bool = False

    def stored(self, data: bytes) -> Vector:
        """The vector as it is stored, read-only."""
        if self.encoding is None:
            return np.frombuffer(data, SPARSE)
        flat = np.frombuffer(data, self.encoding.dtype)
        return flat.reshape(-1, self.encoding.width) if self.multi else flat

    def decode(self, data: bytes) -> Vector:
        """The vector as a client reads it: dense ones are of float32."""
        stored = self.stored(data)
        return stored if self.encoding is None else self.encoding.decode(stored)


VectorFormats = Mapping[str, VectorFormat]
"""The formats of the vectors of a collection by key, see `Collection.vector_keys`. What is stored under other keys belongs to
vectors that were removed: it is never read, and not written again."""


class Store:
    """The RocksDB in the folder `path`. One thread writes, any thread reads."""

    def __init__(self, path: Path, formats: VectorFormats) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.formats = formats
        for unused in glob("OPTIONS-*", root_dir=path):
            (path / unused).unlink()  # rocksdict would parse it, which takes a seventh of the time to open
        options = _options(_cache, WRITE_BUFFER_BYTES, MAX_WAL_BYTES)
        check_framing(path)
        if (path / "CURRENT").exists() and (lost := set(_FAMILIES) - set(Rdict.list_cf(str(path)))):
            raise Damage(f"{path} has no {' and no '.join(sorted(lost))}")  # RocksDB would make them anew, empty
        _check_logs(path)
        self._db = Rdict(str(path), options, column_families=dict.fromkeys(_FAMILIES, options))
        self.families: dict[str, ColumnFamily] = {name: self._db.get_column_family_handle(name) for name in _FAMILIES}
        self._tables = {name: self._db.get_column_family(name) for name in _FAMILIES}
        # Any, because rocksdict's stubs do not distinguish a `get` of one key from a `get` of several.
        self._state: Any = self._tables["default"]
        self._rows: Any = self._tables["rows"]
        self._vectors: Any = self._tables["vectors"]
        if len(glob("*.log", root_dir=path)) > MAX_LOGS:
            for table in self._tables.values():
                table.flush()

    def write(self, changes: Changes) -> None:
        """Writes all changes atomically. Not synced: what is lost in a power loss is replayed from the log."""
        self._db.write(changes._batch)

    def point(self, point_id: bytes) -> tuple[PointState, int]:
        """The state of a point and its row; an empty PointState and NO_ROW when the point was never written."""
        data = self._state.get(_POINT + point_id)
        if data is None:
            return PointState(), NO_ROW
        stored = _decode_point(data)
        payload, vectors = stored.waiting_payload, _stored(self.formats, stored.waiting_vectors)
        if stored.row != NO_ROW:
            payload = _existing_row(self._rows, stored.row).payload
            vectors = self.vectors(stored.row)
        floor = stored.full if stored.floor is None else stored.floor
        alive = stored.row != NO_ROW
        return PointState(
            stored.full, alive, floor, stored.keys, stored.names, payload, vectors, stored.decided, stored.expires
        ), stored.row

    def vectors(self, row: int) -> dict[str, Vector]:
        """The vectors of a row by name, as they are stored; empty when the row does not exist."""
        data = self._vectors.get(row.to_bytes(8, "big"))
        return {} if data is None else _stored(self.formats, _decode_vectors(data))

    def existing_vectors(self, rows: Iterable[int]) -> Iterator[tuple[int, dict[str, Vector]]]:
        """The existing rows among `rows`, with their vectors by name, as they are stored. Only for the writing thread."""
        for row, data in self._existing(self._vectors, rows):
            yield row, _stored(self.formats, _decode_vectors(data))

    def scan_rows(self) -> Iterator[Row]:
        """All live points and past rows in row order. Only for the writing thread."""
        for key, data in scan(self._rows):
            yield _decode_row(int.from_bytes(key, "big"), data)

    def view(self) -> StoreView:
        """A snapshot."""
        return StoreView(self._state.snapshot(), self._rows.snapshot(), self._vectors.snapshot(), self.formats)

    def history(self, point_id: bytes) -> dict[Version, Write]:
        """The writes to a point that cannot be read back from its current state. Only for the writing thread."""
        prefix = _version_prefix(point_id)
        writes: dict[Version, Write] = {}
        for key, data in scan(self._state, prefix, prefix):
            writes[int.from_bytes(key[len(prefix) :], "big")] = self.decode_write(data)
        return writes

    def history_keys(self, point_ids: Iterable[bytes]) -> dict[bytes, list[bytes]]:
        """By point id the keys under which its `history` is stored. Only for the writing thread."""
        items = self._state.iter()
        keys: dict[bytes, list[bytes]] = {}
        for point_id in point_ids:
            prefix, found = _version_prefix(point_id), keys.setdefault(point_id, [])
            items.seek(prefix)
            while items.valid() and (key := items.key()).startswith(prefix):
                found.append(key)
                items.next()
            items.status()
        return keys

    def past_rows(self, point_id: bytes) -> dict[Version, int]:
        """The past rows of a point by version, ascending. Only for the writing thread."""
        prefix = _past_prefix(point_id)
        return {
            int.from_bytes(key[len(prefix) :], "big"): int.from_bytes(row, "big")
            for key, row in scan(self._state, prefix, prefix)
        }

    def stamps_around(self, tier: int, offset: int) -> tuple[int, int | None]:
        """The stamps of the last record below an offset of the home partition in the tier, and of the next one.

        0 and None where there is none, or where it is not known any more.
        """
        items, prefix = self._state.iter(), _stamps_key(tier, 0)[:2]
        items.seek_for_prev(_stamps_key(tier, offset))
        below = 0
        if items.valid() and items.key().startswith(prefix):
            offsets, stamps = _offsets_and_stamps(items.value())
            at = bisect_left(offsets, offset)
            if at:
                below = stamps[at - 1]
            if at < len(offsets):
                if not at:
                    items.prev()
                    if items.valid() and items.key().startswith(prefix):
                        below = _offsets_and_stamps(items.value())[1][-1]
                return below, stamps[at]
        items.seek(_stamps_key(tier, offset + 1))
        following = _offsets_and_stamps(items.value())[1][0] if items.valid() and items.key().startswith(prefix) else None
        items.status()
        return below, following

    def offset_of(self, tier: int, stamp: int) -> int | None:
        """The offset of the record with that stamp in the home partition in the tier; None when it is not known."""
        low, high = 0, 1 << 62  # stamps ascend with offsets, so a search over offsets finds the stamp
        items = self._state.iter()
        while low < high:
            middle = (low + high) // 2
            items.seek_for_prev(_stamps_key(tier, middle))
            if not items.valid() or items.key()[:2] != _stamps_key(tier, 0)[:2]:
                items.status()
                low = middle + 1
                continue
            offsets, stamps = _offsets_and_stamps(items.value())
            if stamp < stamps[0]:
                high = offsets[0]
            elif stamp > stamps[-1]:
                low = max(middle, offsets[-1]) + 1
            else:
                at = bisect_left(stamps, stamp)
                return offsets[at] if stamps[at] == stamp else None
        return None

    def kept_since(self) -> int:
        """The oldest stamp of which all past rows are kept."""
        return int.from_bytes(self._state.get(_KEPT_SINCE) or b"", "big")

    def decode_write(self, data: bytes) -> Write:
        """The write whose stored form is `data`."""
        return decode_write(data, lambda key, raw: self.formats[key].stored(raw) if key in self.formats else None)

    def decision(self, tier: int, offset: int) -> Decision | None:
        """What became of a record with conditions; None when there is none at this offset of the home partition in the tier."""
        data = self._state.get(_decision_key(tier, offset))
        return None if data is None else _decode_decision(data)

    def expiring(self, until: Version) -> Iterator[tuple[Version, bytes]]:
        """The points that may have to expire at a version up to `until`, in its order. Only for the writing thread."""
        for key, _ in scan(self._state, _EXPIRY, _EXPIRY):
            version = int.from_bytes(key[1:9], "big")
            if version > until:
                return
            yield version, key[9:]

    def unsettled(self, until: Version) -> Iterator[tuple[Version, bytes]]:
        """The points that are not settled up to a version at or below `until`, in its order. Only for the writing thread."""
        for key, _ in scan(self._state, _UNSETTLED, _UNSETTLED):
            version = int.from_bytes(key[1:9], "big")
            if version > until:
                return
            yield version, key[9:]

    def progress(self, partition: TopicPartition) -> Progress | None:
        """How far a partition is applied here; None when nothing was applied yet."""
        data = self._state.get(_progress_key(partition))
        return None if data is None else _decode_progress(data)

    def idempotency_stamp(self, tier: int, key: str) -> int | None:
        """The stamp of the write with this key that was applied; None without one."""
        data = self._state.get(_tier_key(b"k", tier, key))
        return None if data is None else msgspec.msgpack.decode(data, type=int)

    def attempt(self, tier: int, key: str) -> Attempt | None:
        """The latest attempt of the request with this key; None without one."""
        data = self._state.get(_tier_key(b"a", tier, key))
        return None if data is None else _decode_attempt(data)

    def expire(self, tier: int, stamp: int, most: int = EXPIRED_AT_ONCE) -> None:
        """Removes up to `most` keys that end at or before `stamp`, which the shard has reached in the tier."""
        ended = _until_key(tier, stamp)
        changes = WriteBatch(raw_mode=True)
        for entry, stamped in islice(scan(self._state, ended[:2]), most):
            if entry[: len(ended)] > ended:
                break
            key = entry[len(ended) :]
            if _stamp_of(self._state.get(key)) == _stamp_of(stamped):  # else the key was written again, with a later end
                changes.delete(key, self.families["default"])
            changes.delete(entry, self.families["default"])
        if changes.len():
            self._db.write(changes)

    def expire_stamps(self, tier: int, stamp: int, most: int = EXPIRED_AT_ONCE) -> None:
        """Removes the stamps of records before the write batch that contains `stamp`, of up to `most` batches."""
        prefix, kept = _stamps_key(tier, 0)[:2], b""
        for key, data in islice(scan(self._state, prefix, prefix), most):
            if _offsets_and_stamps(data)[1][0] > stamp:
                break
            kept = key
        if kept:
            self._state.delete_range(_stamps_key(tier, 0), kept)

    def next_row(self) -> int:
        """The number of the next new row."""
        return int.from_bytes(self._state.get(_NEXT_ROW) or b"", "big")

    def counts(self) -> tuple[int, int]:
        """How many live points and past rows there were after the latest write batch."""
        return tuple(int.from_bytes(self._state.get(key) or b"", "big") for key in (_ALIVE, _PAST))  # type: ignore[return-value]

    def rows(self, numbers: Iterable[int]) -> Iterator[Row]:
        """The live points and past rows among these rows. Only for the writing thread."""
        for row, data in self._existing(self._rows, numbers):
            yield _decode_row(row, data)

    def last_batch(self) -> int:
        """The number of the latest write batch that touched rows; 0 before the first."""
        items = self._state.iter()
        items.seek_for_prev(_batch_key(_MAX))
        if items.valid() and items.key()[:1] == _BATCH:
            return int.from_bytes(items.key()[1:], "big")
        items.status()
        return self.touched_from()

    def touched_from(self) -> int:
        """The number of the last write batch whose touched rows were removed."""
        return int.from_bytes(self._state.get(_TOUCHED_FROM) or b"", "big")

    def touched(self, after: int) -> BitMap:
        """The rows that write batches above `after` touched."""
        touched = BitMap()
        for _, rows in scan(self._state, _batch_key(after + 1), _BATCH):
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

    def checkpoint(self, folder: Path) -> None:
        """Makes a database in `folder`, which must not exist, as this one is now; its files are links. Called from any thread."""
        for table in self._tables.values():
            table.flush()  # RocksDB would do it too, but rocksdict would hold the interpreter lock meanwhile
        Checkpoint(self._db).create_checkpoint(str(folder))

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
        try:
            if sum(table.property_int_value(_UNWRITTEN) or 0 for table in self._tables.values()) <= SMALL_BYTES:
                self._db.cancel_all_background(True)  # so that closing does not write them to files
        except Exception as error:  # RocksDB's errors have no class of their own
            log.warning("closing %s: %s", self._path, error)
        for handle in (*self._tables.values(), self._db):
            try:
                handle.close()
            except Exception as error:
                if not str(error).startswith("Shutdown in progress"):
                    log.warning("closing %s: %s", self._path, error)
        self.families.clear()


_Sizes = msgspec.json.Decoder(dict[str, int])


def _check_logs(path: Path) -> None:
    """Compares the sizes of the write-ahead logs with those at the last opening, and notes them for the next one.

    An opening begins a new log, so all that exist now are complete. RocksDB opens without a word when one of them is cut short.
    """
    noted = path / LOG_SIZES
    sizes = {log.name: log.stat().st_size for log in path.glob("*.log")}
    with suppress(OSError, msgspec.MsgspecError):  # without the note, nothing can be compared
        known = _Sizes.decode(noted.read_bytes())
        if cut := [name for name in known.keys() & sizes.keys() if known[name] != sizes[name]]:
            raise Damage(f"write-ahead log {path / min(cut)} has {sizes[min(cut)]} bytes, and had {known[min(cut)]}")
    noted.write_bytes(msgspec.json.encode(sizes))


def stored_progress(folder: Path, partitions: Iterable[TopicPartition]) -> tuple[dict[TopicPartition, Progress], int]:
    """How far the database in `folder`, which nobody has open, has applied these partitions; and how many points are alive.

    Opens it read-only. Raises what RocksDB raises for files that are damaged.
    """
    check_framing(folder)
    options = _options(_cache, WRITE_BUFFER_BYTES, MAX_WAL_BYTES)
    families = dict.fromkeys(_FAMILIES, options)
    database = Rdict(str(folder), options, column_families=families, access_type=AccessType.read_only())
    try:
        stored = {partition: database.get(_progress_key(partition)) for partition in partitions}
        progress = {partition: Progress() if data is None else _decode_progress(data) for partition, data in stored.items()}
        return progress, int.from_bytes(database.get(_ALIVE) or b"", "big")
    finally:
        database.close()


class StoreView:
    """The rows at one moment, on RocksDB snapshots; readable even after the store is closed."""

    def __init__(self, state: Snapshot, rows: Snapshot, vectors: Snapshot, formats: VectorFormats) -> None:
        self._formats = formats
        self._state = state
        self._rows = rows
        self._vectors = vectors

    def find(self, point_ids: Iterable[bytes]) -> list[Row]:
        """The live points among these ids, in their order."""
        return self.rows(number for point_id in point_ids if (number := self.row_of(point_id)) != NO_ROW)

    def row_of(self, point_id: bytes) -> int:
        """The row of a point; NO_ROW unless it is alive."""
        data = _get(self._state, _POINT + point_id)
        return NO_ROW if data is None else _decode_point(data).row

    def rows(self, numbers: Iterable[int]) -> list[Row]:
        """The points at these rows, which must be alive in this view."""
        return [_existing_row(self._rows, number) for number in numbers]

    def past_rows(self, point_id: bytes, until: Version) -> Iterator[tuple[Version, int]]:
        """The versions and the past rows of a point, from version `until` backwards.

        As in `scan_points`, the keys are the current ones. Those that an earlier view has and that are removed belong to versions
        that may not be read any more (`shard.past`).
        """
        prefix = _past_prefix(point_id)
        items = self._state.iter()
        items.seek_for_prev(prefix + until.to_bytes(8, "big"))
        while items.valid() and (key := items.key()).startswith(prefix):
            if (data := _get(self._state, key)) is not None:
                yield int.from_bytes(key[len(prefix) :], "big"), int.from_bytes(data, "big")
            items.prev()
        items.status()

    def vectors(self, row: int) -> dict[str, Vector]:
        """The vectors of a row by name, as a client reads them."""
        return {vector_name(key): self._formats[key].decode(data) for key, data in self._vector_data(row).items()}

    def vector_sizes(self, row: int) -> dict[str, int]:
        """The vectors of a row by name: the bytes of each, as stored."""
        return {vector_name(key): len(data) for key, data in self._vector_data(row).items()}

    def _vector_data(self, row: int) -> dict[str, bytes]:
        stored = _decode_vectors(self._vectors[row.to_bytes(8, "big")])
        return {key: data for key, data in stored.items() if key in self._formats}

    def scan_points(self, start: bytes = b"") -> Iterator[tuple[bytes, int]]:
        """Ids and rows of all points in id order, from `start` (inclusive); NO_ROW for deleted points.

        In rocksdict, `get` on a snapshot returns the snapshot's state, but an iterator does not. The key of a deleted point is
        removed only when no view is left in which it exists, so iterating over the current keys and getting each from the
        snapshot finds all points of the snapshot.
        """
        for key, _ in scan(self._state, _POINT + start, _POINT):
            data = _get(self._state, key)
            if data is not None:
                yield key[len(_POINT) :], _decode_point(data).row


_MAX = 2**64 - 1


def _version_prefix(point_id: bytes) -> bytes:
    return _HISTORY + len(point_id).to_bytes(2, "big") + point_id


def _version_key(point_id: bytes, version: Version) -> bytes:
    return _version_prefix(point_id) + version.to_bytes(8, "big")


def _past_prefix(point_id: bytes) -> bytes:
    return _PAST_ROW + len(point_id).to_bytes(2, "big") + point_id


def _past_key(point_id: bytes, version: Version) -> bytes:
    return _past_prefix(point_id) + version.to_bytes(8, "big")


def _stamps_key(tier: int, offset: int) -> bytes:
    return _STAMPS + bytes([tier]) + offset.to_bytes(8, "big")


def _offsets_and_stamps(data: bytes) -> tuple[array[int], array[int]]:
    numbers = array("Q", data)
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]


def _existing_row(table: Any, number: int) -> Row:
    """A row that must be in the table, or in the snapshot of it."""
    try:
        return _decode_row(number, table[number.to_bytes(8, "big")])
    except Exception as error:  # rocksdict's errors have no class of their own
        if "not found" in str(error):
            raise Damage(f"row {number} is missing") from error
        raise


def _decode_row(number: int, data: bytes) -> Row:
    row = _decode_stored_row(data)
    row.row = number
    return row


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


def _stored(formats: VectorFormats, vectors: Mapping[str, bytes]) -> dict[str, Vector]:
    return {key: formats[key].stored(data) for key, data in vectors.items() if key in formats}


def _get(snapshot: Snapshot, key: bytes) -> Any:
    try:
        return snapshot[key]
    except Exception as error:  # a snapshot has no `get`, and rocksdict's errors have no class of their own
        if "key not found" in str(error):
            return None
        raise


@lru_cache(1)
def _options(cache: Cache, write_buffer_bytes: int, max_wal_bytes: int) -> Options:
    """The same for all shards, made once: it takes a tenth of the time to open a shard."""
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(10, False)
    options = base_options(keeps_logs=True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_total_wal_size(max_wal_bytes)
    options.set_max_file_opening_threads(1)  # starting the default of 16 takes longer than opening a shard's few files
    return options
