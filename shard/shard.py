"""One shard: applies records in the order of its partitions, and answers what its rows, vectors and payload index know.

Applying a batch is done in these steps; a crash between any two loses nothing but time:
 1. each record gets its stamp and joins into the points it names, in memory (`WriteBatch.join`);
 2. rows, versions and the applied offsets go to RocksDB in one atomic write (I3);
 3. the in-memory indexes follow under the lock, and a new view of rows and vectors is published, all at once.
One thread applies; any thread reads.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from pyroaring import BitMap

from catalog.collection import Collection, CollectionConfig
from journal.hlc import COUNTER_BITS
from journal.log import Entry, TopicPartition
from journal.records import (
    Record,
)
from journal.topics import Topics
from shard.batch import Applied, Limits, WriteBatch
from shard.payload_index import FieldIndex, PayloadIndex, indexed_values
from shard.rows import RowTable
from shard.store import Changes, Form, Forms, Progress, Store
from shard.vectors.graph import GraphSpec
from shard.vectors.index import Index, View
from shard.vectors.multi import MultiIndex
from shard.vectors.segment_policy import DEFAULT_POLICY, SegmentPolicy
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import Build, VectorIndex
from shard.vectors.sparse import SparseIndex
from shard.view import ShardView

log = logging.getLogger(__name__)

_versions = itertools.count(1)

Background = Callable[[Callable[[], None]], None]
"""Runs a long task later, elsewhere, one at a time."""


class Shard:
    """Shard `number` of a collection, in `folder`."""

    def __init__(
        self,
        folder: Path,
        collection: Collection,
        number: int,
        topics: Topics,
        limits: Limits,
        background: Background,
        policy: SegmentPolicy = DEFAULT_POLICY,
    ) -> None:
        self.number = number
        self.collection = collection
        self.policy = policy
        self.lock = threading.RLock()
        self.payload = PayloadIndex()
        self.rows = RowTable()
        self.alive = BitMap()
        self._folder = folder
        self._topics = topics
        self._limits = limits
        self._background = background
        self.store = Store(folder / "rows", _forms(collection.config))
        self.vectors = _indexes(folder / "segments", collection.config, self.lock, policy)
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
        batch = WriteBatch(self)
        results = [batch.join(entry, record) for entry, record in records]
        self.store.write(batch.changes())
        with self.lock:
            batch.publish()
            self._publish()
        self._progress |= batch.progress
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
        """Starts what is to be built; each finished build looks again. `idle`: no writes are coming in."""
        for vectors in self.vectors.values():
            with self.lock:
                build = vectors.plan(idle)
            vectors.add_codes()
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


def _forms(config: CollectionConfig) -> Forms:
    dense = {name: Form(size=params.size if params.multi else None) for name, params in config.vectors.items()}
    return dense | {name: Form(sparse=True) for name in config.sparse_vectors}


def _indexes(folder: Path, config: CollectionConfig, lock: threading.RLock, policy: SegmentPolicy) -> dict[str, Index]:
    indexes: dict[str, Index] = {name: SparseIndex() for name in config.sparse_vectors}
    for number, (name, params) in enumerate(sorted(config.vectors.items())):
        if params.multi:
            indexes[name] = MultiIndex(params.distance, params.size)
        else:
            store, spec = SegmentStore(folder / str(number)), graph_spec(config, name)
            indexes[name] = VectorIndex(store, params.distance, params.size, spec, lock, policy)
    return indexes


def graph_spec(config: CollectionConfig, name: str) -> GraphSpec:
    """How graphs of a dense vector are built: by its own settings, else by the collection's."""
    return GraphSpec(config.vectors[name].hnsw or config.hnsw, config.quantization_of(name))
