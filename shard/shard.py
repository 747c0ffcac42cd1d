"""One shard: applies records in the order of its partitions, and answers what its rows, vectors and payload index know.

Applying a batch is done in these steps; a crash between any two loses nothing but time:
 1. each record gets its stamp and joins into the points it names, in memory (`_Stage.join`);
 2. rows, versions and the applied offsets go to RocksDB in one atomic write (I3);
 3. the in-memory indexes follow under the lock, and a new view of rows and vectors is published, all at once.
One thread applies; any thread reads.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import orjson
from pyroaring import BitMap

from catalog.collection import Collection, CollectionConfig, Distance
from journal.hlc import COUNTER_BITS
from journal.log import Entry, TopicPartition
from journal.records import (
    Delete,
    Ingested,
    PatchPayload,
    PatchVectors,
    PointOperation,
    Record,
    ReplacePayload,
    UnsetVectors,
    Upsert,
    Vector,
    VectorColumn,
    Vectors,
)
from journal.split import take
from journal.stamps import NEVER, Version, next_stamp
from journal.topics import Topics
from shard.join import Point
from shard.payload_index import FieldIndex, PayloadIndex, indexed_values
from shard.rows import RowsView, RowTable
from shard.store import NO_ROW, Changes, Form, Forms, Progress, Store, StoreView
from shard.vectors.graph import GraphSpec
from shard.vectors.index import Index, RowSet, View
from shard.vectors.multi import MultiIndex
from shard.vectors.segments import Build, VectorIndex
from shard.vectors.sparse import SparseIndex

log = logging.getLogger(__name__)

_versions = itertools.count(1)

Background = Callable[[Callable[[], None]], None]
"""Runs a long task later, elsewhere, one at a time."""


class Limits(NamedTuple):
    """Bounds that every replica must hold alike, since they decide what is applied and when."""

    max_drift_ms: int = 500
    max_lateness_ms: int = 10_000
    idempotency_window_ms: int = 24 * 3600 * 1000


class Applied(NamedTuple):
    """What became of a record. `repeated`: its idempotency key was applied before, so it changed nothing."""

    stamp: int
    repeated: bool


class ShardView(NamedTuple):
    """A shard at one moment: what a read sees from beginning to end, whatever is applied meanwhile."""

    collection: Collection
    rows: StoreView
    known: RowsView
    alive: BitMap
    vectors: Mapping[str, View]
    selections: dict[bytes, RowSet]
    """What filters were found to select, by their text; reads put it here for those that come after."""
    version: int
    """Another one for every view of this process: equal versions mean equal answers."""


class Shard:
    """Shard `number` of a collection, in `folder`."""

    def __init__(
        self, folder: Path, collection: Collection, number: int, topics: Topics, limits: Limits, background: Background
    ) -> None:
        self.number = number
        self.collection = collection
        self.lock = threading.RLock()
        self.payload = PayloadIndex()
        self.rows = RowTable()
        self.alive = BitMap()
        self._folder = folder
        self._topics = topics
        self._limits = limits
        self._background = background
        self.store = Store(folder / "rows", _forms(collection.config))
        self.vectors = _indexes(folder / "segments", collection.config, self.lock)
        self._next_row = self.store.next_row()
        self._progress: dict[TopicPartition, Progress] = {}
        for partition in self.home_partitions():
            self._progress[partition] = self.store.progress(partition) or Progress()
        self._load()

    def home_partitions(self) -> list[TopicPartition]:
        """The partitions that may hold records for this shard."""
        return self._topics.home_partitions(self.collection.homes[self.number])

    def progress(self, partition: TopicPartition) -> Progress:
        """How far a home partition is applied here, durably up to a power loss."""
        return self._progress[partition]

    def apply(self, records: Sequence[tuple[Entry, Record]]) -> list[Applied | None]:
        """Applies records of home partitions, in offset order within each. None for one that was applied before."""
        stage = _Stage(self)
        results = [stage.join(entry, record) for entry, record in records]
        self.store.write(stage.changes())
        with self.lock:
            stage.publish()
            self._publish()
        self._progress |= stage.progress
        self.tend()
        return results

    def pass_over(self, positions: Mapping[TopicPartition, int]) -> None:
        """Notes that the home partitions held nothing for this shard below `positions`, so that a restart begins there."""
        changes = Changes(self.store)
        for partition, offset in positions.items():
            progress = msgspec.structs.replace(self._progress[partition], offset=max(offset, self._progress[partition].offset))
            changes.put_progress(partition, progress)
            self._progress[partition] = progress
        self.store.write(changes)

    def configure(self, collection: Collection) -> None:
        """Takes over changed settings and payload schema; new field indexes are built before this returns."""
        kept = {name: index for name, index in self.payload.fields.items() if collection.fields.get(name) == index.schema}
        new = {name: FieldIndex(schema) for name, schema in collection.fields.items() if name not in kept}
        if new:
            for row in self.store.scan_rows():
                for index, values in indexed_values(new, row.payload):
                    index.add(row.row, values)
        with self.lock:
            self.payload.fields = kept | new
            self.collection = collection
            for name, vectors in self.vectors.items():
                if isinstance(vectors, VectorIndex):
                    vectors.spec = graph_spec(collection.config, name)
            self._publish()
        self.tend()

    def tend(self, idle: bool = False) -> None:
        """Starts what is worth building; each finished build looks again. `idle`: no writes are coming in."""
        for vectors in self.vectors.values():
            with self.lock:
                build = vectors.plan(idle)
            vectors.code()
            if build is not None:
                self._background(partial(self._run, vectors, build))

    def status(self) -> dict[str, int]:
        """Counts for people: points, vectors, vectors in graphs, segments."""
        counts = {"points": len(self.alive), "vectors": 0, "indexed": 0, "segments": 0}
        for vectors in self.vectors.values():
            for name, count in vectors.status().items():
                counts[name] += count
        return counts

    def sizes_bytes(self) -> dict[str, int]:
        """What the parts take; those that are mapped files begin with `mapped_`."""
        with self.lock:
            sizes = {"ids": self.rows.size_bytes(), "payload_index": self.payload.size_bytes()}
        for vectors in self.vectors.values():
            for part, size in vectors.sizes_bytes().items():
                sizes[part] = sizes.get(part, 0) + size
        return sizes

    def indexed_points(self, field: str) -> int:
        """How many points have a value in the index of a field."""
        with self.lock:
            index = self.payload.fields.get(field)
            return 0 if index is None else index.points()

    def close(self) -> None:
        """Stops planning builds and closes the files. The state stays."""
        for vectors in self.vectors.values():
            vectors.abandon()
        del self.view  # with its snapshots; RocksDB keeps its lock while a read still holds one
        self.store.close()

    def drop(self) -> None:
        """Closes the shard and removes its state."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _publish(self) -> None:
        """Makes what is applied visible to reads that begin now. Under the lock, by the thread that applies."""
        self.view = ShardView(
            self.collection, self.store.view(), self.rows.view(), BitMap(self.alive), self._vector_views(), {}, next(_versions)
        )

    def _vector_views(self) -> dict[str, View]:
        for vectors in self.vectors.values():
            vectors.publish()
        return {name: vectors.view for name, vectors in self.vectors.items()}

    def _run(self, vectors: Index, build: Build) -> None:
        vectors.run(build)
        with self.lock:
            if hasattr(self, "view"):  # not closed meanwhile
                # A batch may be written and not yet published: the rows stay those of the view.
                # What filters were found to select stands there in the places of the old segments, so it is found anew.
                self.view = self.view._replace(vectors=self._vector_views(), selections={}, version=next(_versions))
        self.tend()

    def _load(self) -> None:
        oldest = min((progress.stamp for progress in self._progress.values() if progress.stamp), default=0)
        self.store.forget_idempotency_keys(oldest - (self._limits.idempotency_window_ms << COUNTER_BITS))
        self.payload.fields = {name: FieldIndex(schema) for name, schema in self.collection.fields.items()}
        for row in self.store.scan_rows():
            self.rows.put(row.row, row.id, row.stamp)
            self.alive.add(row.row)
            self.payload.add(row.row, row.payload)
        alive = np.array(self.alive.to_array(), np.int64)
        for name, vectors in self.vectors.items():
            missing = vectors.load(alive, self._next_row)
            for start in range(0, len(missing), 1000):
                found = [(row, v[name]) for row in missing[start : start + 1000] if name in (v := self.store.vectors(int(row)))]
                if found:
                    vectors.add(np.array([row for row, _ in found]), [vector for _, vector in found])
        self.configure(self.collection)


class _Staged:
    """A point that a batch touches: its state before and after."""

    __slots__ = ("new_vectors", "old_payload", "old_row", "point", "point_id", "touched")

    def __init__(self, point_id: bytes, point: Point, row: int) -> None:
        self.point_id = point_id
        self.point = point
        self.old_row = row
        self.old_payload = point.payload
        self.new_vectors = False
        self.touched = False


class _Stage:
    """One batch on its way into the shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._changes = Changes(shard.store)
        self._points: dict[bytes, _Staged] = {}
        self._keys: dict[str, int] = {}
        self._dead: list[tuple[int, bytes]] = []
        self._born: list[tuple[int, _Staged]] = []
        self._repainted: list[tuple[int, _Staged]] = []
        self.progress: dict[TopicPartition, Progress] = {}

    def join(self, entry: Entry, record: Record) -> Applied | None:
        """Step 1 for one record."""
        before = self.progress.get(entry.partition) or self._shard.progress(entry.partition)
        if entry.offset < before.offset:
            return None
        limits = self._shard._limits
        time_ms = max(before.time_ms, entry.time_ms)
        stamp = next_stamp(record.hlc, before.stamp, time_ms, limits.max_lateness_ms)
        self.progress[entry.partition] = Progress(entry.offset + 1, stamp, time_ms, before.ingested)
        tier = self._shard._topics.tier_of(entry.partition.topic)
        scope = f"{tier}/{entry.partition.partition}"
        operation: PointOperation | None = record.operation  # type: ignore[assignment]
        if record.idempotency_key and self._repeats(f"{scope}/{record.idempotency_key}", stamp):
            operation = None
        elif record.ingested is not None:
            operation = self._fresh(record.operation, record.ingested, entry.partition, scope)  # type: ignore[arg-type]
        if operation is not None:
            self._operate(Version(stamp, tier, entry.partition.partition, entry.offset), operation)
        return Applied(stamp, repeated=operation is None)

    def changes(self) -> Changes:
        """Step 2, to be written: everything that the batch changes, with the offsets it reaches."""
        for point_id, staged in self._points.items():
            if staged.touched:
                self._write_point(point_id, staged)
        for key, stamp in self._keys.items():
            self._changes.put_idempotency_key(key, stamp)
        for partition, progress in self.progress.items():
            self._changes.put_progress(partition, progress)
        self._changes.put_next_row(self._shard._next_row)
        return self._changes

    def publish(self) -> None:
        """Step 3: the in-memory indexes. Called under the shard's lock, after the write."""
        shard = self._shard
        for row, payload in self._dead:
            shard.payload.remove(row, payload)
        for row, staged in self._repainted:
            shard.payload.remove(row, staged.old_payload)
            shard.payload.add(row, staged.point.payload)
        for row, staged in self._born:
            shard.payload.add(row, staged.point.payload)
            shard.rows.put(row, staged.point_id, staged.point.stamp())
        shard.rows.restamp([(row, staged.point.stamp()) for row, staged in self._repainted])
        dead = np.array(sorted(row for row, _ in self._dead), np.int64)
        shard.rows.remove(dead.tolist())
        shard.alive.update(row for row, _ in self._born)
        shard.alive.difference_update(BitMap(dead.astype(np.uint32)))
        for name, vectors in shard.vectors.items():
            born = [(row, staged.point.vectors[name]) for row, staged in self._born if name in staged.point.vectors]
            if born:
                vectors.add(np.array([row for row, _ in born], np.int64), [vector for _, vector in born])
            if len(dead):
                vectors.kill(dead)

    def _fresh(
        self, operation: PointOperation, ingested: Ingested, partition: TopicPartition, scope: str
    ) -> PointOperation | None:
        """What of an ingested operation was not applied before; None when nothing is left.

        Whoever ingests writes what comes from one log to one partition in the order of its offsets and leaves no gap, beginning
        at or below what was acknowledged. So what stands below the highest offset seen here was applied, whoever wrote it again.
        """
        progress = self.progress[partition]
        seen = progress.ingested.get(ingested.log, 0)
        indexes = [index for index, offset in enumerate(ingested.offsets) if offset >= seen]
        if not indexes:
            return None
        progress.ingested = progress.ingested | {ingested.log: ingested.offsets[-1] + 1}
        if ingested.keys:
            indexes = [
                index
                for index in indexes
                if not (key := ingested.keys[index])
                or not self._repeats(f"{scope}/i/{operation.ids[index].hex()}/{key}", progress.stamp)
            ]
        if len(indexes) == len(operation.ids):
            return operation
        return take(operation, indexes) if indexes else None

    def _repeats(self, key: str, stamp: int) -> bool:
        """Whether a write with this key was applied within the window; else remembers it."""
        earlier = self._keys.get(key) or self._shard.store.idempotency_stamp(key)
        if earlier is not None and earlier > stamp - (self._shard._limits.idempotency_window_ms << COUNTER_BITS):
            return True
        self._keys[key] = stamp
        return False

    def _operate(self, version: Version, operation: PointOperation) -> None:
        match operation:
            case Upsert(ids, columns, payloads):
                vectors = self._by_point(columns, len(ids))
                for index, staged in self._staged(ids):
                    payload = b"" if payloads[index] == b"{}" else payloads[index]
                    self._full_write(ids[index], staged, version, vectors[index], payload)
            case Delete(ids):
                for index, staged in self._staged(ids):
                    self._full_write(ids[index], staged, version, None, b"")
            case PatchPayload(ids, changes, unset):
                fields = orjson.loads(changes)
                for index, staged in self._staged(ids):
                    self._remember_patch(ids[index], staged, version, ("patch_payload", changes, unset))
                    staged.touched |= staged.point.patch_payload(version, fields, unset)
            case ReplacePayload(ids, payload):
                for index, staged in self._staged(ids):
                    self._remember_patch(ids[index], staged, version, ("replace_payload", payload))
                    staged.touched |= staged.point.replace_payload(version, b"" if payload == b"{}" else payload)
            case PatchVectors(ids, columns):
                vectors = self._by_point(columns, len(ids))
                for index, staged in self._staged(ids):
                    self._patch_vectors(ids[index], staged, version, vectors[index])
            case UnsetVectors(ids, names):
                for index, staged in self._staged(ids):
                    self._patch_vectors(ids[index], staged, version, dict.fromkeys(names))

    def _staged(self, ids: Sequence[bytes]) -> Iterable[tuple[int, _Staged]]:
        for index, point_id in enumerate(ids):
            staged = self._points.get(point_id)
            if staged is None:
                staged = self._points[point_id] = _Staged(point_id, *self._shard.store.point(point_id))
            yield index, staged

    def _full_write(
        self, point_id: bytes, staged: _Staged, version: Version, vectors: Mapping[str, Vector] | None, payload: bytes
    ) -> None:
        """An upsert, or a delete where `vectors` is None."""
        point = staged.point
        if version > point.full:
            self._remember_current(point_id, point)
        joined = point.delete(version) if vectors is None else point.upsert(version, vectors, payload)
        if not joined or point.is_patched():  # the state will not show this write as it was
            self._remember(point_id, version, _full(vectors, payload))
        staged.touched |= joined
        staged.new_vectors |= joined

    def _patch_vectors(self, point_id: bytes, staged: _Staged, version: Version, vectors: Mapping[str, Vector | None]) -> None:
        data = {name: None if vector is None else vector.tobytes() for name, vector in vectors.items()}
        self._remember_patch(point_id, staged, version, ("patch_vectors", data))
        joined = staged.point.patch_vectors(version, vectors)
        staged.touched |= joined
        staged.new_vectors |= joined

    def _remember_patch(self, point_id: bytes, staged: _Staged, version: Version, write: object) -> None:
        """Keeps a patch, and before the first one the full write that it changes."""
        self._remember_current(point_id, staged.point)
        self._remember(point_id, version, write)

    def _remember_current(self, point_id: bytes, point: Point) -> None:
        """Keeps the full write that the state shows, unless patches changed it: then it was kept when the first one came."""
        if point.full != NEVER and not point.is_patched():
            self._remember(point_id, point.full, _full(point.vectors if point.alive else None, point.payload))

    def _remember(self, point_id: bytes, version: Version, write: object) -> None:
        self._changes.put_version(point_id, version, msgspec.msgpack.encode(write))

    def _by_point(self, columns: Sequence[VectorColumn], count: int) -> list[dict[str, Vector]]:
        """The vectors of each point by name, as they are stored: of unit length where the distance is Cosine."""
        by_point: list[dict[str, Vector]] = [{} for _ in range(count)]
        for column in columns:
            params = self._shard.collection.config.vectors.get(column.name)
            if params is not None and params.distance is Distance.COSINE:
                column = msgspec.structs.replace(column, data=normalised(column.array()).tobytes())
            for index, vector in zip(column.indexes(count), column.each(), strict=True):
                by_point[index][column.name] = vector
        return by_point

    def _write_point(self, point_id: bytes, staged: _Staged) -> None:
        point, row = staged.point, staged.old_row
        if row != NO_ROW and (staged.new_vectors or not point.alive):
            self._changes.delete_row(row)
            self._dead.append((row, staged.old_payload))
        if not point.alive:
            self._changes.put_point(point_id, point, NO_ROW)
            return
        if row == NO_ROW or staged.new_vectors:
            row = self._shard._next_row
            self._shard._next_row += 1
            self._changes.put_vectors(row, point.vectors)
            self._born.append((row, staged))
        else:
            self._repainted.append((row, staged))
        self._changes.put_row(row, point_id, point)
        self._changes.put_point(point_id, point, row)


def _forms(config: CollectionConfig) -> Forms:
    dense = {name: Form(size=params.size if params.multi else None) for name, params in config.vectors.items()}
    return dense | {name: Form(sparse=True) for name in config.sparse_vectors}


def _indexes(folder: Path, config: CollectionConfig, lock: threading.RLock) -> dict[str, Index]:
    indexes: dict[str, Index] = {name: SparseIndex() for name in config.sparse_vectors}
    for number, (name, params) in enumerate(sorted(config.vectors.items())):
        if params.multi:
            indexes[name] = MultiIndex(params.distance, params.size)
        else:
            indexes[name] = VectorIndex(folder / str(number), params.distance, params.size, graph_spec(config, name), lock)
    return indexes


def graph_spec(config: CollectionConfig, name: str) -> GraphSpec:
    """How graphs of a dense vector are built: by its own settings, else by the collection's."""
    return GraphSpec(config.vectors[name].hnsw or config.hnsw, config.quantization_of(name))


def normalised(vectors: Vectors) -> Vectors:
    """Vectors, shape (n, d), at unit length; zero vectors stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    norms[norms == 0] = 1
    unit: Vectors = vectors / norms
    return unit


def _full(vectors: Mapping[str, Vector] | None, payload: bytes) -> object:
    if vectors is None:
        return ("delete",)
    return ("upsert", {name: vector.tobytes() for name, vector in vectors.items()}, payload)
