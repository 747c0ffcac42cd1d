"""One shard: applies records in the order of its partitions, and publishes views for reads.

A batch is applied in three steps; after a crash between any two of them the batch is replayed or complete:
 1. each record gets its stamp and is joined into the points it names, in memory (`WriteBatch.join`);
 2. rows, versions and the applied offsets are written to RocksDB in one atomic write (I3);
 3. under the lock, the in-memory indexes are updated and a new view is published.
One thread applies; any thread reads.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from pyroaring import BitMap

from catalog.collection import Collection, CollectionConfig, Memory, VectorParams, vector_name
from journal.hlc import COUNTER_BITS, millis_of
from journal.log import Entry, Positions, TopicPartition
from journal.records import Record
from journal.rocksdb import is_damage
from journal.stamps import MAX_VERSION, Version, closed_stamp, last_version, stamp_of, tier_of
from journal.topics import TIERS, Topics
from payload.schema import FieldSchema
from shard.batch import Applied, Limits, WriteBatch
from shard.checkpoint import Checkpoint
from shard.files import link_files
from shard.index_build import IndexBuild
from shard.past import Instant, Past, PastGone
from shard.payload_index import FieldIndex, PayloadIndex, index_payload
from shard.replica import AsOf, Attempted, Outcome
from shard.rows import RowTable
from shard.settling import Settling
from shard.store import Changes, Progress, Store, VectorFormat, VectorFormats, stored_progress
from shard.vectors.datatypes import Encoding
from shard.vectors.graph import GraphSpec
from shard.vectors.index import Rows, SegmentList, VectorIndex, VectorView
from shard.vectors.multi import MultiIndex
from shard.vectors.segment_policy import DEFAULT_POLICY, SegmentPolicy
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import Build, DenseIndex
from shard.vectors.sparse import SparseIndex
from shard.view import ShardView
from shard.view_as_of import PastViews

log = logging.getLogger(__name__)

T = TypeVar("T")

Background = Callable[[Callable[[], None]], None]
"""Runs long tasks on another thread, one at a time."""


SEGMENTS, ROWS = "segments", "rows"
"""Folders of a shard."""

CAPTURES = 3
"""How often the links of a capture are made again when files were removed meanwhile."""

_PAST = "-past"
"""Ends the names of the folders with the segments of past rows."""

EXPIRE_EVERY_MS = 1000

SETTLED_PER_BATCH, SETTLED_WHEN_IDLE = 100, 2000
"""Points that are settled after each write batch, and when no more writes come in; each takes about 10 µs."""

EXPIRED_POINTS = 500
"""Points that expire in one write batch."""

EXPIRED_ROWS = 10_000
"""The most past rows that are removed at a time, once in a second of the log's time; each takes about 10 µs."""

READ_SLACK_MS = 120_000
"""Past rows are kept for this time after their instants cannot be asked for any more: reads that have begun may need them. It is
longer than any deadline of a read."""

FEW_ROWS = 1000
"""Payload indexes of up to this many rows are built at once, in the thread that applies."""


class ShardClosed(Exception):
    """The shard was closed after the caller looked it up: its collection was dropped, or the shard failed. Look it up again."""


class DamagedState(ValueError):
    """What is stored is not what was written."""


class Captured(NamedTuple):
    """What a copy of a shard holds: the next offset of each home partition, the closed stamp there, the number of points."""

    positions: Positions
    closed: int
    points: int


class Shard:
    """Shard `number` of a collection, in `folder`.

    `builds` runs builds of segments, which may take minutes; `checkpoints` runs checkpoints and builds of payload indexes, by
    default as `builds`.
    """

    def __init__(
        self,
        folder: Path,
        collection: Collection,
        number: int,
        topics: Topics,
        limits: Limits,
        builds: Background,
        policy: SegmentPolicy = DEFAULT_POLICY,
        checkpoints: Background | None = None,
    ) -> None:
        self.number = number
        self.collection = collection
        self.policy = policy
        self.lock = threading.RLock()
        self.payload = PayloadIndex()
        self.rows = RowTable()
        self.alive = BitMap()
        self._past_views = PastViews()
        self.on_damage: Callable[[Exception], None] = lambda error: None
        """Called, from any thread, with the error that says that the shard's files are damaged."""
        self._folder = folder
        self._topics = topics
        self._limits = limits
        self._builds = builds
        self._checkpoints = checkpoints or builds
        self._homes = topics.home_partitions(collection.homes[number])
        self._progress: dict[TopicPartition, Progress] = {}
        self._expired_ms = 0
        self._past_is_due = False
        """Whether there is more of the past to remove."""
        self._next_expiry: Version = MAX_VERSION
        """When the first point may have to expire."""
        self._indexing: IndexBuild | None = None
        self._view: ShardView | None = None
        self.store = Store(folder / ROWS, _vector_formats(collection))
        try:
            self.vectors = {key: self._new_index(collection, key) for key in self.store.formats}
            past_vectors = {key: self._new_index(collection, key, _PAST) for key in self.store.formats}
            self.past = Past(past_vectors, self.store.kept_since())
            self._remove_segments()
            self.checkpoint = Checkpoint(self, folder / "checkpoint")
            self._settling = Settling(self)
            self._load()
        except BaseException:
            self._view = None
            self.store.close()  # otherwise RocksDB's lock would make the next attempt fail
            raise

    @property
    def view(self) -> ShardView:
        """The current view. Raises ShardClosed after `close`."""
        if (view := self._view) is None:
            raise ShardClosed(f"shard {self.number} of collection {self.collection.name!r} is closed")
        return view

    @property
    def latest_view(self) -> ShardView | None:
        """The current view; None after `close`."""
        return self._view

    @property
    def keeps_history(self) -> bool:
        """Whether states that end are kept as past rows."""
        return self.history_ms() > 0

    def home_partitions(self) -> list[TopicPartition]:
        """The partitions that may hold records for this shard."""
        return self._homes

    def progress(self, partition: TopicPartition) -> Progress:
        """How far a home partition is applied here. It survives a process crash, but not a power loss."""
        return self._progress[partition]

    def closed(self) -> int:
        """The closed stamp (I7): nothing is applied here later at or below it, neither a record nor the expiry of a point."""
        return min(self._closed_for_records(), stamp_of(self._next_expiry) - 1)

    def _closed_for_records(self) -> int:
        late_ms = self._limits.max_lateness_ms
        return min(closed_stamp(self._progress[p].stamp, self._progress[p].time_ms, late_ms) for p in self._homes)

    def keeps_too_much(self, now_ms: int) -> bool:
        """Whether past rows are kept only because nothing was written since, so that the closed stamp stands still."""
        due_ms = millis_of(self.closed()) + self.history_ms() + READ_SLACK_MS
        return now_ms > due_ms and self.past.rows.has_others_than(self.collection.tags.values())

    def next_expiry_ms(self) -> int:
        """When the next point expires, in ms since 1970: a partition without records must be closed then, by a barrier."""
        return millis_of(stamp_of(self._next_expiry))

    def outcome(self, tier: int, offsets: Sequence[int]) -> Outcome | None:
        """See `Replica.outcome`. Called from any thread."""
        closed = self.closed()  # read first: what is closed now is in the decisions that are read next
        decisions = [self.store.decision(tier, offset) for offset in offsets]
        known = [decision for decision in decisions if decision is not None]
        if len(known) < len(decisions):
            return None
        failed = [point_id for decision in known for point_id in decision.failed]
        return Outcome(max(decision.stamp for decision in known), closed, failed)

    def offset_of(self, version: Version) -> int:
        """The offset of the record with a version in the home partition of its tier; -1 when it is not known any more."""
        offset = self.store.offset_of(tier_of(version), stamp_of(version))
        return -1 if offset is None else offset

    def attempted(self, tier: int, key: str) -> Attempted | None:
        """See `Replica.attempted`. Called from any thread."""
        closed = self.closed()
        if (attempt := self.store.attempt(tier, key)) is None:
            return None
        if attempt.result is not None:
            return Attempted(closed, closed, attempt.number, attempt.request_id, [], attempt.result)
        decisions = [known for offset in attempt.offsets if (known := self.store.decision(tier, offset)) is not None]
        done = [point_id for decision in decisions for point_id in decision.ids if point_id not in decision.failed]
        stamp = max((decision.stamp for decision in decisions), default=attempt.stamp)
        return Attempted(stamp, closed, attempt.number, attempt.request_id, done, attempt.result)

    def guarded(self, work: Callable[[], T]) -> T:
        """Runs work that reads the shard's files. If they are damaged, reports that and raises ShardClosed."""
        try:
            return work()
        except Exception as error:
            if not is_damage(error):
                raise
            self.on_damage(error)
            raise ShardClosed(f"the state of shard {self.number} of collection {self.collection.name!r} is damaged") from error

    def apply(self, records: Sequence[tuple[Entry, Record]]) -> list[Applied | None]:
        """Applies records of home partitions, in offset order within each partition. None for a record applied before."""
        batch = WriteBatch(self)
        results = [batch.join(entry, record) for entry, record in records]
        self._write(batch)
        self._expire_points()
        self._tidy()
        self._settling.step(SETTLED_PER_BATCH)
        self.tend()
        return results

    def view_as_of(self, as_of: AsOf) -> ShardView:
        """The shard as it was. Raises PastGone for an instant before what is kept. Called from any thread.

        The time is proportional to the number of points. The view is remembered for `known_as_of`.
        """
        view = self.view
        return self._past_views.made(view, self._instant(as_of, view.past.kept_since), as_of.collection)

    def known_as_of(self, as_of: AsOf) -> ShardView | None:
        """The shard as it was, if that was asked for just before; quick."""
        return None if as_of.positions is not None else self._past_views.known(Instant.at(as_of.stamp), as_of.collection)

    def _instant(self, as_of: AsOf, kept_since: int) -> Instant:
        if as_of.positions is None:
            if as_of.stamp < kept_since and as_of.stamp not in self.collection.tags.values():
                raise PastGone(kept_since)
            return Instant.at(as_of.stamp)
        stamps = []
        for tier, home in enumerate(self._homes):
            below, following = self.store.stamps_around(tier, as_of.positions.get(home, 0))
            if following is not None and following <= kept_since:
                raise PastGone(kept_since)
            stamps.append(below)
        return Instant(tuple(stamps))

    def _write(self, batch: WriteBatch) -> None:
        self.store.write(batch.changes())
        with self.lock:
            batch.publish()
            self.checkpoint.applied(batch.touched)
            self._progress |= batch.progress
            self._publish()
        self._next_expiry = min(self._next_expiry, batch.next_expiry)
        self._settling.added(batch.unsettled)

    def _expire_points(self) -> None:
        """Deletes the points that have expired, up to what is closed for records: every replica does it at the same version."""
        while self._next_expiry <= (until := last_version(self._closed_for_records())):
            batch = WriteBatch(self)
            for version, point_id in islice(self.store.expiring(until), EXPIRED_POINTS):
                batch.expire(version, point_id)
            self._write(batch)
            self._next_expiry = next(self.store.expiring(MAX_VERSION), (MAX_VERSION, b""))[0]

    def unsettled(self) -> int:
        """How many times a point waits to be settled (`shard.settling`). It falls when the closed stamp advances."""
        return self._settling.waiting

    def _tidy(self) -> None:
        """Settles points, and removes idempotency keys whose window has passed; once in a second of the log's time."""
        time_ms = max(progress.time_ms for progress in self._progress.values())
        if time_ms - self._expired_ms < EXPIRE_EVERY_MS:
            return
        self._expired_ms = time_ms
        self._settling.look()
        self._expire_past()
        for partition, progress in self._progress.items():
            self.store.expire(self._topics.tier_of(partition.topic), progress.stamp)

    def _expire_past(self) -> None:
        """Removes past rows, and what is known of the stamps of records, that no read needs any more."""
        self._past_views.expire()
        if not self.keeps_history:
            return
        kept_since = max(self.past.kept_since, self.closed() - (self.history_ms() << COUNTER_BITS))
        removed_to = kept_since - (READ_SLACK_MS << COUNTER_BITS)
        rows = self.past.rows.expired(removed_to, self.collection.tags.values(), EXPIRED_ROWS).tolist()
        changes = Changes(self.store)
        changes.put_kept_since(kept_since)
        if rows:
            for row in self.store.rows(rows):
                changes.delete_past(row)
            changes.put_counts(len(self.alive), len(self.past.rows) - len(rows))
            changes.put_touched(self.checkpoint.batch + 1, rows)
        self.store.write(changes)
        with self.lock:
            self.past.kept_since = kept_since
            if rows:
                self.past.change(self.rows, [], rows)
                self.checkpoint.applied(rows)
                self._publish()
        self._past_is_due = len(rows) == EXPIRED_ROWS
        for tier in TIERS:
            self.store.expire_stamps(tier, removed_to)

    def history_ms(self) -> int:
        """How long past rows are kept after their end."""
        return history_ms(self.collection, self._limits)

    def pass_over(self, positions: Mapping[TopicPartition, int]) -> None:
        """Advances the applied offsets over records that are not for this shard, so that a restart begins at `positions`."""
        changes = Changes(self.store)
        for partition, offset in positions.items():
            progress = msgspec.structs.replace(self._progress[partition], offset=max(offset, self._progress[partition].offset))
            changes.put_progress(partition, progress)
            self._progress[partition] = progress
        self.store.write(changes)

    def configure(self, collection: Collection) -> None:
        """Applies changed settings and a changed payload schema. New field indexes are built in the background; until then,
        filters test points one by one."""
        kept = {name: index for name, index in self.payload.fields.items() if collection.fields.get(name) == index.schema}
        with self.lock:
            self.payload.replace_fields(kept)
            self.collection = collection
            self._set_vectors()
            self._publish()
        self.tend()

    def _set_vectors(self) -> None:
        """Adds the new vectors of the collection, and forgets those that it does not have any more. Under the lock."""
        before, self.store.formats = self.vectors, _vector_formats(self.collection)
        ended = self.past.vectors
        self.vectors = {key: before.get(key) or self._new_index(self.collection, key) for key in self.store.formats}
        self.past.vectors = {key: ended.get(key) or self._new_index(self.collection, key, _PAST) for key in self.store.formats}
        for key, vectors in self._indexes():
            if isinstance(vectors, DenseIndex | MultiIndex):
                vectors.spec = graph_spec(self.collection.config, vector_name(key))
            if isinstance(vectors, DenseIndex):
                vectors.store.cached = _is_cached(self.collection, key)
        if gone := before.keys() - self.vectors.keys():
            for key in gone:
                before[key].abandon()
                ended[key].abandon()
            self._checkpoints(partial(self.guarded, self._remove_segments))

    def _indexes(self) -> Iterator[tuple[str, VectorIndex]]:
        """All indexes of vectors, those of the present first, with their keys."""
        return chain(self.vectors.items(), self.past.vectors.items())

    def _new_index(self, collection: Collection, key: str, suffix: str = "") -> VectorIndex:
        params = collection.config.vectors.get(name := vector_name(key))
        if params is None:
            return SparseIndex()
        if params.multi:
            return MultiIndex(params.distance, params.size, graph_spec(collection.config, name))
        store = SegmentStore(self._folder / SEGMENTS / (_folder_name(key) + suffix), _is_cached(collection, key))
        return DenseIndex(store, params.distance, params.size, graph_spec(collection.config, name), self.lock, self.policy)

    def _remove_segments(self) -> None:
        """Removes the segments of vectors that the collection does not have."""
        known = {_folder_name(key) + suffix for key in self.store.formats for suffix in ("", _PAST)}
        for folder in (self._folder / SEGMENTS).glob("*"):
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)

    def install(self, fields: Mapping[str, FieldIndex]) -> None:
        """Adds built field indexes, if the collection still wants them. Under the lock."""
        wanted = {name: index for name, index in fields.items() if self.collection.fields.get(name) == index.schema}
        self.checkpoint.stale_rows += len(self.alive)
        self.payload.replace_fields(self.payload.fields | wanted)
        self._publish()

    def _missing_fields(self) -> dict[str, FieldSchema]:
        """The fields of the collection that have no index yet."""
        return {name: schema for name, schema in self.collection.fields.items() if name not in self.payload.fields}

    def _index(self, build: IndexBuild) -> None:
        try:
            build.run()
        finally:
            self._indexing = None
        self.tend()

    def tend(self, idle: bool = False) -> None:
        """Starts due background work: a checkpoint, and builds of segments. Each finished build calls it again.

        `idle`: no writes are coming in.
        """
        if idle:
            self._expire_points()
            if self._past_is_due:
                self._expire_past()
            self._settling.step(SETTLED_WHEN_IDLE)
        if self.checkpoint.plan(idle):
            self._checkpoints(partial(self.guarded, self.checkpoint.take))
        lacks = len(self.payload.fields) < len(self.collection.fields)
        if lacks and self._indexing is None and (missing := self._missing_fields()):
            self._indexing = IndexBuild(self, missing)
            if len(self.alive) <= FEW_ROWS:
                self._index(self._indexing)
            else:
                self._checkpoints(partial(self.guarded, partial(self._index, self._indexing)))
        self._plan(self.vectors.values(), idle)
        if idle:  # the present comes first
            self._plan(self.past.vectors.values(), idle)
        else:
            for vectors in self.past.vectors.values():
                vectors.store_waiting()

    def _plan(self, indexes: Iterable[VectorIndex], idle: bool) -> None:
        for vectors in indexes:
            with self.lock:
                build = vectors.plan(idle)
            vectors.store_waiting()
            if build is not None:
                self._builds(partial(self.guarded, partial(self._run, vectors, build)))

    def status(self) -> dict[str, Any]:
        """Counts for operators: points, vectors (also by name), vectors in graphs, segments."""
        counts: dict[str, Any] = {"points": len(self.alive), "vectors": 0, "indexed": 0, "segments": 0}
        counts["vectors_by_name"] = {name: vectors.status()["vectors"] for name, vectors in self.vectors.items()}
        for vectors in self.vectors.values():
            for name, count in vectors.status().items():
                counts[name] += count
        return counts

    def segments(self) -> dict[str, SegmentList]:
        """The segments and their builds, by vector name."""
        return {name: vectors.segments() for name, vectors in self.vectors.items()}

    def sizes_bytes(self) -> dict[str, int]:
        """Bytes by part; the names of mapped files begin with `mapped_`."""
        with self.lock:
            sizes = {"ids": self.rows.size_bytes(), "past_rows": self.past.rows.size_bytes()}
        sizes["payload_index"] = self.payload.size_bytes()
        for _, vectors in self._indexes():
            for part, size in vectors.sizes_bytes().items():
                sizes[part] = sizes.get(part, 0) + size
        return sizes

    def capture(self, target: Path) -> Captured:
        """Makes a copy of the shard's files in the new folder `target`, of the state between two write batches, from which a
        shard can be opened. The files are links, so `target` must be on the same file system. Called from any thread; no write
        waits.

        Raises ShardClosed after `close`.
        """
        with self.checkpoint.writing:  # the shard is not closed, and its checkpoint not replaced, during that time
            if self._view is None:
                raise ShardClosed(f"shard {self.number} of collection {self.collection.name!r} is closed")
            for _ in range(CAPTURES):
                shutil.rmtree(target, ignore_errors=True)
                # RocksDB comes last, so no other file is ahead of it. A segment that is incomplete only takes time at the start.
                if link_files(self._folder, target, without=ROWS):
                    break
            self.store.checkpoint(target / ROWS)
        progress, points = stored_progress(target / ROWS, self._homes)
        late_ms = self._limits.max_lateness_ms
        closed = min(closed_stamp(of.stamp, of.time_ms, late_ms) for of in progress.values())
        return Captured({partition: of.offset for partition, of in progress.items()}, closed, points)

    def close(self) -> None:
        """Takes a last checkpoint if one is due, stops planning builds and closes the files. The state stays on disk."""
        self.checkpoint.take_last()
        self.release()

    def release(self) -> None:
        """Closes the files without a checkpoint, as after a failure, when the in-memory state may be wrong."""
        for _, vectors in self._indexes():
            vectors.abandon()
        with self.checkpoint.writing:
            self._past_views.clear()
            self._view = None  # and its snapshots; RocksDB keeps its lock until the last read has released its snapshot
            self.store.close()

    def _publish(self) -> None:
        """Makes the applied state visible to new reads. Under the lock, by the thread that applies."""
        self._view = self._settling.seen(
            ShardView(
                self.collection,
                self.store.view(),
                self.rows.view(),
                BitMap(self.alive),
                self._vector_views(),
                self.payload,
                self.payload.moment,
                self.past.view(),
                {partition: progress.offset for partition, progress in self._progress.items()},
            )
        )

    def _vector_views(self) -> dict[str, VectorView]:
        for vectors in self.vectors.values():
            vectors.publish()
        return {vector_name(key): vectors.view for key, vectors in self.vectors.items()}

    def _run(self, vectors: VectorIndex, build: Build) -> None:
        vectors.run(build)
        with self.lock:
            if self._view is not None:  # not closed during the build
                # A batch may be written and not yet published, so the rows of the old view are kept.
                self._view = self._settling.seen(self._view.with_vectors(self._vector_views(), self.past.view().vectors))
        self.tend()

    def _load(self) -> None:
        self._next_row = self.store.next_row()
        self._next_expiry = next(self.store.expiring(MAX_VERSION), (MAX_VERSION, b""))[0]
        for partition in self.home_partitions():
            self._progress[partition] = self.store.progress(partition) or Progress()
        if (restored := self.checkpoint.load(self.collection.fields)) is not None:
            self.rows, self.alive, self.past.rows, self.payload.fields = restored
        else:
            self._read_all_rows()
        self._load_vectors(self.vectors, np.array(self.alive.to_array(), np.int64))
        self._load_vectors(self.past.vectors, np.sort(self.past.rows.view().rows))
        if new := {name: FieldIndex(schema) for name, schema in self._missing_fields().items()}:
            for row in self.store.scan_rows():
                if not row.is_past:
                    index_payload(new, row.row, row.payload)
            self.payload.fields |= new
            self.checkpoint.stale_rows += len(self.alive)
        self.configure(self.collection)

    def _load_vectors(self, indexes: Mapping[str, VectorIndex], rows: Rows) -> None:
        """Opens the indexes of vectors, of these rows (ascending); adds what is not in their files."""
        for key, vectors in indexes.items():
            missing = vectors.load(rows, self._next_row)
            for start in range(0, len(missing), 1000):
                some = self.store.existing_vectors(missing[start : start + 1000].tolist())
                pairs = [(row, named[key]) for row, named in some if key in named]
                if pairs:
                    vectors.add(np.array([row for row, _ in pairs]), [vector for _, vector in pairs])

    def _read_all_rows(self) -> None:
        self.payload.fields = {name: FieldIndex(schema) for name, schema in self.collection.fields.items()}
        past: list[tuple[int, Version, Version]] = []
        for row in self.store.scan_rows():
            self.rows.put(row.row, row.id, row.version)
            if row.is_past:
                past.append((row.row, row.version, row.end))
                continue
            self.alive.add(row.row)
            index_payload(self.payload.fields, row.row, row.payload)
        if past:
            self.past.rows.add(*zip(*past, strict=True))
        self.checkpoint.stale_rows = len(self.alive) + len(past)
        if (stored := (len(self.alive), len(past))) != (counted := self.store.counts()):
            raise DamagedState(f"{stored} live points and past rows are stored, and {counted} were after the last write")


def history_ms(collection: Collection, limits: Limits) -> int:
    """How long the past rows of a collection are kept after their end."""
    own_s = collection.config.history_retention_s
    return limits.history_ms if own_s is None else own_s * 1000


def _vector_formats(collection: Collection) -> VectorFormats:
    return {key: _vector_format(collection.config.vectors.get(name)) for name, key in collection.vector_keys().items()}


def _vector_format(params: VectorParams | None) -> VectorFormat:
    """The format of a dense vector; without `params`, of a sparse one."""
    if params is None:
        return VectorFormat()
    return VectorFormat(Encoding(params.datatype, params.distance, params.size), params.multi)


def _is_cached(collection: Collection, key: str) -> bool:
    return collection.config.vectors[vector_name(key)].memory is Memory.CACHED


def _folder_name(key: str) -> str:
    """The folder of the segments of a vector. Keys may have more characters, and other ones, than the names of files."""
    return blake2b(key.encode(), digest_size=8).hexdigest()


def graph_spec(config: CollectionConfig, name: str) -> GraphSpec:
    """How graphs and codes of a dense vector are built: by its own settings, else by the collection's."""
    params = config.vectors[name]
    return GraphSpec(params.hnsw or config.hnsw, config.quantization_of(name), params.datatype)
