"""The checkpoint of a shard: what it holds in memory, in a file, so that a start need not read every row.

It is a cache like the graphs: its loss costs time only. It is taken in these steps; a crash between any two leaves a file that
can be used, the old one or the new one:
 1. under the lock, the view and the number of the last write batch in it are noted;
 2. RocksDB makes durable what was written so far, so that no file is ever ahead of the rows;
 3. the file is written, while batches go on: the lock is taken for a few keys or rows of an index at a time;
 4. what RocksDB notes of the rows that older batches touched is removed.
A start reads the file and takes out of it all rows that later batches touched, whatever it has of them, for it may have some of
their changes and not others; then it adds those that are alive as RocksDB has them.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from pyroaring import BitMap

from payload.schema import FieldSchema
from shard.checkpoint_file import AliveRows, Damaged, FieldRows, Head, Part, RowChunk, read, sync_folder, write
from shard.payload_index import FieldIndex, indexed_values
from shard.rows import RowTable
from shard.store import Changes

if TYPE_CHECKING:
    from shard.shard import Shard

log = logging.getLogger(__name__)

ROWS, SHARE = 100_000, 0.1
ROWS_QUIET, SHARE_QUIET = 1_000, 0.01
"""While writes come in, and when none do or the shard closes: a checkpoint is worth taking when a start would have to read so
many rows anew, and such a share of all. A start reads about 100,000 rows a second."""


class Restored(NamedTuple):
    """What a checkpoint gave a start. An index whose schema is not the collection's is left out."""

    rows: RowTable
    alive: BitMap
    fields: dict[str, FieldIndex]


class Checkpoint:
    """The checkpoint of `shard` in the file `path`."""

    def __init__(self, shard: Shard, path: Path) -> None:
        self._shard = shard
        self._path = path
        self._planned = False
        self.batch = shard.store.last_batch()
        """The number of the last write batch that is in memory. Changes under the shard's lock, as `stale_rows` does."""
        self.stale_rows = 0
        """How many rows a start would have to read anew now."""
        self.writing = threading.Lock()
        """Held while the file is written, so that the shard does not close meanwhile."""

    def applied(self, touched: BitMap) -> None:
        """Notes that a write batch which touched these rows is in memory. Under the lock."""
        if touched:
            self.batch += 1
            self.stale_rows += len(touched)

    def plan(self, quiet: bool) -> bool:
        """Whether it is worth taking now, and the caller is to run `take`. `quiet`: no writes are coming in."""
        if self._planned or not self._is_worth(quiet):
            return False
        self._planned = True
        return True

    def take(self) -> None:
        """Writes the file anew, unless the shard is closed. Long; called without the lock."""
        self._planned = False
        with self.writing:
            shard = self._shard
            with shard.lock:
                if (view := shard.latest_view) is None:
                    return
                head = Head(shard.store.identity(), self.batch)
                known, alive, fields = view.known, view.alive, dict(shard.payload.fields)
                del view  # which would keep RocksDB locked
                self.stale_rows = 0  # also when it fails: the next attempt comes after as many changes
            shard.store.sync()
            write(self._path, self._parts(head, known.chunks(), alive, fields))
            changes = Changes(shard.store)
            changes.forget_touched(head.batch)
            shard.store.write(changes)

    def take_last(self) -> None:
        """Takes it, if it is worth that, before the shard closes."""
        if self._is_worth(quiet=True):
            try:
                self.take()
            except Exception as error:  # RocksDB's errors have no class of their own
                log.warning("the checkpoint %s is not written: %s", self._path, error)

    def load(self, schemas: Mapping[str, FieldSchema]) -> Restored | None:
        """The state in memory as RocksDB has it now. None when there is no checkpoint that can be used.

        A file that cannot be used is removed: a later batch would get the number that it names.
        """
        try:
            parts = read(self._path)
            head = next(parts, None)
            with _no_garbage_collection():
                return self._caught_up(_restored(parts, schemas), self._batch_of(head))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, IndexError, msgspec.MsgspecError) as error:
            log.warning("the checkpoint %s is not used, all rows are read: %s", self._path, error)
            self._path.unlink()
            sync_folder(self._path.parent)
            return None

    def _is_worth(self, quiet: bool) -> bool:
        rows, share = (ROWS_QUIET, SHARE_QUIET) if quiet else (ROWS, SHARE)
        return self.stale_rows >= max(rows, share * len(self._shard.alive))

    def _parts(
        self, head: Head, chunks: Iterator[tuple[int, bytearray]], alive: BitMap, fields: Mapping[str, FieldIndex]
    ) -> Iterator[Part]:
        yield head
        yield AliveRows(alive.serialize())
        for number, chunk in chunks:
            yield RowChunk(number, chunk)
        for name, index in fields.items():
            yield from index.parts(name, self._shard.payload.lock)

    def _batch_of(self, head: Part | None) -> int:
        """The batch that a file is true for. Raises Damaged when RocksDB does not know all that was touched since."""
        store = self._shard.store
        if not isinstance(head, Head) or head.store != store.identity():
            raise Damaged("it belongs to another RocksDB")
        if not store.touched_from() <= head.batch <= store.last_batch():
            raise Damaged(f"it is of batch {head.batch}, RocksDB knows those from {store.touched_from()} to {store.last_batch()}")
        return head.batch

    def _caught_up(self, restored: Restored, batch: int) -> Restored:
        """With the rows that batches above `batch` touched read anew."""
        rows, alive, fields = restored
        touched = self._shard.store.touched(batch)
        alive.difference_update(touched)
        rows.keep(alive)
        for index in fields.values():
            index.forget(touched)
        for row in self._shard.store.rows(touched):
            rows.put(row.row, row.id, row.stamp)
            alive.add(row.row)
            for index, nodes in indexed_values(fields, row.payload):
                index.add(row.row, nodes)
        self.stale_rows = len(touched)
        return restored


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of objects are made that all stay; Python's collector would search the growing heap for garbage many times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _restored(parts: Iterator[Part], schemas: Mapping[str, FieldSchema]) -> Restored:
    restored = Restored(RowTable(), BitMap(), {})
    index: FieldIndex | None = None
    for part in parts:
        match part:
            case Head():
                raise Damaged("it has two heads")
            case AliveRows(rows):
                restored.alive.update(BitMap.deserialize(rows))
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
