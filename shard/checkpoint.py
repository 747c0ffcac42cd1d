"""The checkpoint of a shard: its in-memory state in a file, so that a start need not read every row from RocksDB.

It is a cache like the graphs: its loss costs time only. It is taken in four steps. A crash between any two of them leaves a
usable file, the old one or the new one:
 1. under the lock, the view and the number of its last write batch are recorded;
 2. RocksDB is synced, so that the file is never ahead of the durable rows;
 3. the file is written while batches are still applied: the lock is held only for a few keys or rows of an index at a time;
 4. the lists of touched rows of older batches are removed from RocksDB.
The file may contain some changes of later batches and miss others. So a start reads the file, drops all rows that later batches
touched, and adds those of them that are alive from RocksDB.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap

from payload.schema import FieldSchema
from shard.checkpoint_file import AliveRows, Damaged, FieldRows, Head, Part, PastParts, RowChunk, read, write
from shard.descriptors import is_shortage
from shard.files import sync
from shard.past import PastRows, PastView
from shard.payload_index import FieldIndex, index_payload
from shard.rows import RowTable
from shard.store import Changes

if TYPE_CHECKING:
    from shard.shard import Shard

log = logging.getLogger(__name__)

ROWS, SHARE = 50_000, 0.05
ROWS_IDLE, SHARE_IDLE = 1_000, 0.01
"""A checkpoint is due when a start would have to reread at least this many rows and this share of all rows. The second pair is
used while no writes come in and when the shard closes. A start reads about 100,000 rows per second."""


class Restored(NamedTuple):
    """The state that was read from a checkpoint. An index whose schema differs from the collection's is left out."""

    rows: RowTable
    alive: BitMap
    past: PastRows
    fields: dict[str, FieldIndex]


class Checkpoint:
    """The checkpoint of `shard` in the file `path`."""

    def __init__(self, shard: Shard, path: Path) -> None:
        self._shard = shard
        self._path = path
        self._planned = False
        self.batch = shard.store.last_batch()
        """The number of the last write batch applied in memory. It and `stale_rows` change under the shard's lock."""
        self.stale_rows = 0
        """How many rows a start would have to reread from RocksDB now."""
        self.writing = threading.Lock()
        """Held while the file is written, so that the shard cannot close during that time."""

    def applied(self, touched: Sequence[int]) -> None:
        """Records that a write batch that touched these rows is applied in memory. Under the shard's lock."""
        if touched:
            self.batch += 1
            self.stale_rows += len(touched)

    def plan(self, idle: bool) -> bool:
        """Whether a checkpoint is due; if so the caller must run `take`. `idle`: no writes are coming in."""
        if self._planned or not self._is_due(idle):
            return False
        self._planned = True
        return True

    def take(self) -> None:
        """Takes a checkpoint, unless the shard is closed. Long; called without the lock."""
        self._planned = False
        with self.writing:
            shard = self._shard
            with shard.lock:
                if (view := shard.latest_view) is None:
                    return
                head = Head(shard.store.identity(), self.batch)
                known, alive, past, fields = view.known, view.alive, view.past.rows, dict(shard.payload.fields)
                del view  # its snapshots would keep RocksDB locked
                self.stale_rows = 0  # also if writing fails: the next attempt comes after the same number of changes
            shard.store.sync()
            write(self._path, self._parts(head, known.chunks(), alive, past, fields))
            changes = Changes(shard.store)
            changes.delete_touched(head.batch)
            shard.store.write(changes)

    def take_last(self) -> None:
        """Takes a checkpoint before the shard closes, if one is due. Errors are logged."""
        if self._is_due(idle=True):
            try:
                self.take()
            except Exception as error:  # RocksDB's errors have no class of their own
                log.warning("the checkpoint %s is not written: %s", self._path, error)

    def load(self, schemas: Mapping[str, FieldSchema]) -> Restored | None:
        """The in-memory state, from the checkpoint and the batches after it. None when there is no usable checkpoint.

        An unusable file is removed, because a later batch could get the batch number that is recorded in it.
        """
        try:
            parts = read(self._path)
            head = next(parts, None)
            with _no_garbage_collection():
                return self._caught_up(_restored(parts, schemas), self._batch_of(head))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, IndexError, msgspec.MsgspecError) as error:
            if is_shortage(error):
                raise
            log.warning("the checkpoint %s is not used, all rows are read: %s", self._path, error)
            self._path.unlink()
            sync(self._path.parent)
            return None

    def _is_due(self, idle: bool) -> bool:
        rows, share = (ROWS_IDLE, SHARE_IDLE) if idle else (ROWS, SHARE)
        return self.stale_rows >= max(rows, share * len(self._shard.alive))

    def _parts(
        self,
        head: Head,
        chunks: Iterator[tuple[int, bytearray]],
        alive: BitMap,
        past: PastView,
        fields: Mapping[str, FieldIndex],
    ) -> Iterator[Part]:
        yield head
        yield AliveRows(alive.serialize())
        yield PastParts(past.rows.tobytes(), past.versions.tobytes(), past.ends.tobytes())
        for number, chunk in chunks:
            yield RowChunk(number, chunk)
        for name, index in fields.items():
            yield from index.parts(name, self._shard.payload.lock)

    def _batch_of(self, head: Part | None) -> int:
        """The last batch that a file contains. Raises Damaged when RocksDB does not know all rows touched since then."""
        store = self._shard.store
        if not isinstance(head, Head) or head.store != store.identity():
            raise Damaged("it belongs to another RocksDB")
        if not store.touched_from() <= head.batch <= store.last_batch():
            raise Damaged(f"it is of batch {head.batch}, RocksDB knows those from {store.touched_from()} to {store.last_batch()}")
        return head.batch

    def _caught_up(self, restored: Restored, batch: int) -> Restored:
        """Replaces the rows that batches after `batch` touched by their state in RocksDB."""
        rows, alive, past, fields = restored
        touched = self._shard.store.touched(batch)
        alive.difference_update(touched)
        past.remove(np.array(touched.to_array(), np.int64))
        rows.keep(alive | BitMap(past.view().rows.tolist()))
        for index in fields.values():
            index.remove_rows(touched)
        ended = []
        for row in self._shard.store.rows(touched):
            rows.put(row.row, row.id, row.version)
            if row.is_past:
                ended.append(row)
                continue
            alive.add(row.row)
            index_payload(fields, row.row, row.payload)
        past.add([row.row for row in ended], [row.version for row in ended], [row.end for row in ended])
        self.stale_rows = len(touched)
        if (counts := (len(alive), len(past))) != (stored := self._shard.store.counts()):
            raise Damaged(f"it leads to (live points, past rows) {counts}, RocksDB has {stored}")
        return restored


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of objects are allocated and none is garbage; the collector would scan the growing heap many times for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _restored(parts: Iterator[Part], schemas: Mapping[str, FieldSchema]) -> Restored:
    restored = Restored(RowTable(), BitMap(), PastRows(), {})
    index: FieldIndex | None = None
    for part in parts:
        match part:
            case Head():
                raise Damaged("it has two heads")
            case AliveRows(rows):
                restored.alive.update(BitMap.deserialize(rows))
            case PastParts(rows, versions, ends):
                restored.past.add(*(np.frombuffer(column, np.int64) for column in (rows, versions, ends)))
            case RowChunk(number, data):
                restored.rows.restore(number, data)
            case FieldRows(name, schema) if schemas.get(name) != schema:
                index = None
            case FieldRows(name, schema):
                index = restored.fields[name] = FieldIndex(schema)
                index.restore(part)
            case _ if index is not None:
                index.restore(part)
    return restored
