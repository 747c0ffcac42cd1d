"""The dense vectors of one name in one shard: a growing segment that is scanned, and sealed segments with a graph each.

As in LSM trees and in Lucene, rows are only appended; a replaced or deleted row is marked dead, and removed when its segment is
rebuilt. Readers use `view`, an immutable snapshot, without a lock. Segment files are caches: files that are missing or
inconsistent with the rows are dropped, and their segments are rebuilt from RocksDB.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import NamedTuple

import numpy as np
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vectors
from shard.deadline import NEVER, Deadline
from shard.vectors.datatypes import Encoded, Encoding
from shard.vectors.graph import (
    DEFAULT_USE,
    Bits,
    CodeUse,
    FlatCodes,
    Graph,
    GraphSpec,
    LocalIds,
    Mask,
    bits_of,
)
from shard.vectors.index import (
    EPSILON,
    MAX_BUILDS,
    MAX_DEAD_SHARE,
    MIN_DEAD,
    NOTHING,
    BuildInfo,
    Rows,
    RowSet,
    ScoredRows,
    SegmentInfo,
    SegmentList,
    best,
    closest,
    grown_capacity,
    reallocated,
)
from shard.vectors.scans import SharedScan
from shard.vectors.segment_policy import DEFAULT_POLICY, SegmentPolicy
from shard.vectors.segment_store import DamagedSegment, SegmentStore, StoredSegment

log = logging.getLogger(__name__)

CODES_GAIN = 8
"""How many times faster than a scan of vectors a scan of one-bit codes is."""

SEGMENT_FLOATS = 500_000
"""The fixed cost of searching a segment, in floats of a scan."""

TIES_GROWTH = 4
MAX_TIED = 1_000
"""When all candidates tie, TIES_GROWTH times as many are taken, up to those for MAX_TIED hits; then all rows are compared."""

NO_IDS: LocalIds = np.empty(0, np.int64)

MAX_WIDENING = 4.0
"""The largest factor by which a filter increases the beam width of a graph search."""


class SegmentState(Enum):
    """The life cycle of a segment."""

    GROWING = "growing"
    """Takes new rows."""
    BUILDING = "building"
    """Takes no more rows; its graph is planned or being built. A large one has one-bit codes, and files."""
    SEALED = "sealed"
    """Has a graph, and files."""


@dataclass(slots=True, eq=False)
class Segment:
    """Rows and their vectors, encoded: ordered by row, or in a sealed segment in the order of the graph's ids.

    A local id is an index into these arrays; the first `count` elements are in use.
    """

    state: SegmentState
    rows: Rows
    vectors: Encoded
    count: int
    alive: Mask | None = None
    alive_count: int = 0
    name: str = ""
    """The name in the store; empty for a segment without files."""
    in_memory: bool = False
    """Whether its files could not be written."""
    codes: FlatCodes | None = None
    """Only while the segment waits for its graph."""
    graph: Graph | None = None
    """This field and those below are only set in a sealed segment."""
    scan: SharedScan | None = None
    by_row: RowOrder | None = None

    @classmethod
    def growing(cls, encoding: Encoding) -> Segment:
        """An empty growing segment, for vectors of that encoding."""
        return cls(SegmentState.GROWING, np.empty(0, np.int64), np.empty((0, encoding.width), encoding.dtype), 0)

    def compacted(self) -> Segment:
        """A growing segment without the dead rows of this one, which views may keep."""
        local = self.alive_ids()
        return Segment(SegmentState.GROWING, self.rows[local], self.vectors[local], len(local), alive_count=len(local))

    @classmethod
    def stored(cls, stored: StoredSegment, encoding: Encoding) -> Segment:
        """A segment with files, with all rows alive: sealed, or building when it has no graph yet."""
        name, rows, vectors, index = stored
        segment = cls(SegmentState.BUILDING, rows, vectors, len(rows), alive_count=len(rows), name=name)
        if isinstance(index, FlatCodes):
            segment.codes = index
        else:
            segment.state, segment.graph = SegmentState.SEALED, index
            segment.scan, segment.by_row = SharedScan(vectors, encoding), RowOrder.of(rows)
        return segment

    @property
    def ef(self) -> int:
        """The beam width that its graph needs; 0 without a graph."""
        return 0 if self.graph is None else self.graph.ef

    def local_ids(self, rows: Rows) -> LocalIds:
        """The local ids, ascending, of those of `rows` (ascending) that are in this segment."""
        mine = self.rows[: self.count] if self.by_row is None else self.by_row.rows
        if not len(mine) or not len(rows) or rows[-1] < mine[0] or rows[0] > mine[-1]:
            return NO_IDS
        at = np.searchsorted(mine, rows)
        at = at[at < len(mine)] if at[-1] >= len(mine) else at
        held: LocalIds = at[mine[at] == rows[: len(at)]]
        return held if self.by_row is None else np.sort(self.by_row.local_ids[held])

    def alive_ids(self) -> LocalIds:
        """The local ids of the alive rows, ascending."""
        return np.arange(self.count) if self.alive is None else np.flatnonzero(self.alive[: self.count])

    def alive_among(self, local: LocalIds) -> Mask:
        """Which of some local ids are alive."""
        return np.ones(len(local), np.bool_) if self.alive is None else self.alive[local]


class RowOrder(NamedTuple):
    """The rows of a sealed segment, ascending, and their local ids."""

    rows: Rows
    local_ids: LocalIds

    @classmethod
    def of(cls, rows: Rows) -> RowOrder:
        order = np.argsort(rows)
        return cls(rows[order], order)


@dataclass(slots=True, eq=False)
class SegmentView:
    """A segment at one moment: its first `end` rows, except those that are not in `alive`."""

    segment: Segment
    end: int
    alive: Mask | None
    alive_count: int
    _bits: Bits | None = None

    def alive_ids(self) -> LocalIds:
        """The local ids of the alive rows, ascending."""
        return np.arange(self.end) if self.alive is None else np.flatnonzero(self.alive)

    def bits(self) -> Bits | None:
        """`alive` as packed bits for the graph, cached."""
        if self._bits is None and self.alive is not None:
            self._bits = bits_of(self.alive)
        return self._bits


class DenseView(NamedTuple):
    """All segments at one moment."""

    encoding: Encoding
    segments: tuple[SegmentView, ...] = ()

    @property
    def distance(self) -> Distance:
        return self.encoding.distance

    @property
    def is_sparse(self) -> bool:
        return False

    def scan(self, query: Vectors, limit: int, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        """The `limit` closest rows, among `rows` or all, closest first; exact. Raises DeadlineExceeded."""
        query = self.encoding.compared_query(query)
        parts = [self._scan_one(view, query, limit, rows, deadline) for view in self.segments]
        return self._merge(parts, limit)

    def compare(self, example: Vectors, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        """The score of every row that has the vector, among `rows` or all; ordered by row. Raises DeadlineExceeded."""
        example = self.encoding.compared_query(example)
        scored = _joined([self._compare_one(view, example, rows, deadline) for view in self.segments])
        order = np.argsort(scored.rows, kind="stable")
        return ScoredRows(scored.rows[order], scored.scores[order])

    def search(
        self, query: Vectors, limit: int, ef: int | None = None, rows: RowSet | None = None, use: CodeUse = DEFAULT_USE
    ) -> ScoredRows:
        """Approximately the `limit` closest rows, closest first. Segments without a graph are scanned.

        `ef` is the beam width in each graph; None for its measured width. See `widths`.
        """
        query = self.encoding.compared_query(query)
        parts = []
        for view in self.segments:
            if (graph := self._graph(view, limit)) is not None:
                width = self._width(graph, limit, ef, rows, use)
                parts.append(self._search_graph(view, graph, query, limit, width, rows, use))
            elif view.segment.codes is not None and view.alive_count > limit:
                parts.append(self._search_codes(view, view.segment.codes, query, limit, rows))
            else:
                parts.append(self._scan_one(view, query, limit, rows))
        return self._merge(parts, limit)

    def widths(self, limit: int, ef: int | None, rows: RowSet | None, use: CodeUse) -> list[int]:
        """The beam width that `search` would use in each graph, in the order of the segments."""
        graphs = [graph for view in self.segments if (graph := self._graph(view, limit)) is not None]
        return [self._width(graph, limit, ef, rows, use) for graph in graphs]

    def all_rows(self) -> BitMap:
        """The rows that have this vector."""
        all_rows = BitMap()
        for view in self.segments:
            rows = view.segment.rows[: view.end]
            all_rows.update((rows if view.alive is None else rows[view.alive]).tolist())
        return all_rows

    def scan_floats(self, query: Vectors, rows: RowSet | None) -> int:
        """The number of floats that `scan` compares."""
        return (self.size() if rows is None else len(rows)) * len(query)

    def search_floats(self, limit: int, ef: int | None, use: CodeUse) -> int:
        """The approximate number of floats that `search` compares, without a filter."""
        floats = SEGMENT_FLOATS * len(self.segments)
        for view in self.segments:
            segment, size = view.segment, self.encoding.size
            if segment.graph is not None:  # a search compares the vectors that each candidate links to
                width = self._width(segment.graph, limit, ef, None, use)
                floats += width * segment.graph.spec.hnsw.m * size
            elif segment.codes is not None:
                floats += view.end * size // CODES_GAIN + segment.codes.fetched(limit) * size
            else:
                floats += view.end * size
        return floats

    def size(self) -> int:
        """The number of vectors."""
        return sum(view.alive_count for view in self.segments)

    def limited(self, valid: Mask) -> DenseView:
        views = [SegmentView(view.segment, view.end, *_mask_of(view, valid)) for view in self.segments]
        return DenseView(self.encoding, tuple(view for view in views if view.alive_count))

    def _graph(self, view: SegmentView, limit: int) -> Graph | None:
        """The graph that `search` uses; None when it scans the segment: without a graph, or with at most `limit` rows."""
        return view.segment.graph if view.alive_count > limit else None

    def _width(self, graph: Graph, limit: int, ef: int | None, rows: RowSet | None, use: CodeUse) -> int:
        width = graph.ef if ef is None else ef
        if rows is not None:  # the fewer rows pass the filter, the more must be visited to find enough of them
            width = int(width * min(MAX_WIDENING, max(1.0, self.size() / max(1, len(rows)))))
        return max(width, graph.fetched(limit, use))

    def _compare_one(self, view: SegmentView, example: Vectors, rows: RowSet | None, deadline: Deadline = NEVER) -> ScoredRows:
        """The score of every alive row, or of those of `rows`, in the order of their local ids."""
        deadline.check()
        local = view.alive_ids() if rows is None else rows.cached(view, partial(_local_ids, view, rows))
        return ScoredRows(view.segment.rows[local], self.encoding.scores_at(view.segment.vectors, example, local))

    def _scan_one(
        self, view: SegmentView, query: Vectors, limit: int, rows: RowSet | None, deadline: Deadline = NEVER
    ) -> ScoredRows:
        """The `limit` closest of the alive rows, or of those of `rows`."""
        if rows is not None or not self.distance.higher_is_closer:
            return closest(self.distance, self._compare_one(view, query, rows, deadline), limit)
        deadline.check()
        segment, alive = view.segment, view.alive_ids()
        if not len(alive):
            return NOTHING
        scan = segment.scan
        products = self.encoding.products(segment.vectors[: view.end], query) if scan is None else scan.products(query)
        if view.alive is not None:
            products = products[alive]
        if not np.isfinite(products).all():  # some are too large for float32
            return closest(self.distance, self._compare_one(view, query, rows, deadline), limit)
        # Products are rounded in another way in the last rows, so they only choose; see `exact_scores`.
        length = 1.0
        if self.distance is Distance.DOT:
            last = best(self.distance, products, limit)[:limit][-1:]
            length = float(np.linalg.norm(self.encoding.compared(segment.vectors[alive[last]])))
        error = len(query) * EPSILON * length * float(np.linalg.norm(query))
        return self._ranked(view, query, alive[best(self.distance, products, limit, error)], limit)

    def _search_graph(
        self, view: SegmentView, graph: Graph, query: Vectors, limit: int, width: int, rows: RowSet | None, use: CodeUse
    ) -> ScoredRows:
        def walk(limit: int) -> LocalIds:
            fetched = min(view.end, graph.fetched(limit, use))
            local = graph.search(query, fetched, max(width, fetched), _allowed(view, rows))
            return local if use.rescore else local[:limit]

        return self._best_of(view, query, limit, rows, walk)

    def _search_codes(self, view: SegmentView, codes: FlatCodes, query: Vectors, limit: int, rows: RowSet | None) -> ScoredRows:
        allowed = _allowed(view, rows)
        if allowed is None and view.end < view.segment.count:  # the codes include rows that were added after this view
            allowed = bits_of(np.ones(view.end, np.bool_))
        return self._best_of(view, query, limit, rows, lambda limit: codes.search(query, limit, allowed))

    def _best_of(
        self, view: SegmentView, query: Vectors, limit: int, rows: RowSet | None, candidates: Callable[[int], LocalIds]
    ) -> ScoredRows:
        """The `limit` closest of the candidates for a limit. When all that were not needed tie with the last hit, there may be
        more such points, so more candidates are taken, and at last all rows."""
        wanted = limit
        while wanted < min(MAX_TIED, view.alive_count):
            local = candidates(wanted)
            ranked = self._ranked(view, query, local, limit)
            if len(ranked.rows) <= limit or len(ranked.rows) < len(local):
                return ranked
            wanted *= TIES_GROWTH
        return self._scan_one(view, query, limit, rows)

    def _ranked(self, view: SegmentView, query: Vectors, local: LocalIds, limit: int) -> ScoredRows:
        """The `limit` closest of some candidates, ranked by their vectors."""
        scored = ScoredRows(view.segment.rows[local], self.encoding.scores_at(view.segment.vectors, query, local))
        return closest(self.distance, scored, limit)

    def _merge(self, parts: list[ScoredRows], limit: int) -> ScoredRows:
        return parts[0] if len(parts) == 1 else closest(self.distance, _joined(parts), limit)


def _mask_of(view: SegmentView, valid: Mask) -> tuple[Mask, int]:
    """Which rows of a segment are alive and valid, and their number."""
    alive = valid.take(view.segment.rows[: view.end], mode="clip")
    if view.alive is not None:
        alive &= view.alive
    return alive, int(np.count_nonzero(alive))


def _local_ids(view: SegmentView, rows: RowSet) -> LocalIds:
    """The local ids, ascending, of those of `rows` that are in a segment and alive."""
    local = view.segment.local_ids(rows.array())
    local = local[local < view.end]
    return local if view.alive is None else local[view.alive[local]]


def _allowed(view: SegmentView, rows: RowSet | None) -> Bits | None:
    """The alive rows, or those of `rows`, as packed bits; None when all rows are allowed."""
    return view.bits() if rows is None else rows.cached((view, "bits"), partial(_bits, view, rows))


def _bits(view: SegmentView, rows: RowSet) -> Bits:
    allowed = np.zeros(view.end, np.bool_)
    allowed[_local_ids(view, rows)] = True
    return bits_of(allowed)


def _joined(parts: list[ScoredRows]) -> ScoredRows:
    if not parts:
        return NOTHING
    return ScoredRows(np.concatenate([part.rows for part in parts]), np.concatenate([part.scores for part in parts]))


class Build(NamedTuple):
    """A planned build of a sealed segment: its inputs, and for each input the local ids that are alive at planning time."""

    inputs: list[Segment]
    local_ids: list[LocalIds]


Parts = list[tuple[Segment, LocalIds]]
"""Segments, and for each the local ids of some of its rows."""


class DenseIndex:
    """All segments of one vector name. All changes are made under `lock`, the shard's lock."""

    def __init__(
        self,
        store: SegmentStore,
        distance: Distance,
        size: int,
        spec: GraphSpec,
        lock: threading.RLock,
        policy: SegmentPolicy = DEFAULT_POLICY,
    ) -> None:
        """For vectors of shape (size,), of the datatype of `spec`."""
        self.store = store
        self._encoding = Encoding(spec.datatype, distance, size)
        self.spec = spec
        self._lock = lock
        self._policy = policy
        self._full: list[Segment] = []
        self._growing = Segment.growing(self._encoding)
        self._build: BuildInfo | None = None
        """The build that is planned or running."""
        self._done: deque[BuildInfo] = deque(maxlen=MAX_BUILDS)
        self._abandoned = False
        self.view = DenseView(self._encoding)

    def load(self, alive: Iterable[int], next_row: int) -> Rows:
        """Opens the segments with files. Returns those of the rows `alive` (ascending) that are in none of them."""
        rows = np.fromiter(alive, np.int64)
        missing = np.ones(len(rows), np.bool_)
        for name in self.store.names():
            segment = self._opened(name, next_row)
            if segment is None or not _take_rows(segment, rows, missing):
                self.store.remove(name)
                continue
            self._full.append(segment)
        return rows[missing]

    def add(self, rows: Rows, vectors: Sequence[Encoded]) -> None:
        """Appends rows, ascending and above all existing ones, with encoded vectors, shape (width,). Visible after `publish`."""
        segment, end = self._growing, self._growing.count + len(rows)
        if end > len(segment.rows):
            capacity = grown_capacity(end, len(segment.rows))
            segment.rows = reallocated(segment.rows, segment.count, (capacity,))
            segment.vectors = reallocated(segment.vectors, segment.count, (capacity, self._encoding.width))
            if segment.alive is not None:
                segment.alive = reallocated(segment.alive, segment.count, (capacity,))
        segment.rows[segment.count : end] = rows
        segment.vectors[segment.count : end] = np.stack(vectors)
        if segment.alive is not None:
            segment.alive[segment.count : end] = True
        segment.count = end
        segment.alive_count += len(rows)
        self._close_if_full(idle=False)

    def kill(self, rows: Rows) -> None:
        """Marks rows (ascending) as dead; unknown rows are ignored. Visible after `publish`."""
        for segment in [*self._full, self._growing]:
            local = segment.local_ids(rows)
            if len(local):
                alive = np.ones(len(segment.rows), np.bool_) if segment.alive is None else segment.alive.copy()
                segment.alive_count -= int(np.count_nonzero(alive[local]))
                alive[local] = False
                segment.alive = alive
        dead = self._growing.count - self._growing.alive_count
        if dead > max(MIN_DEAD, MAX_DEAD_SHARE * self._growing.count):
            self._growing = self._growing.compacted()

    def publish(self) -> None:
        """Makes all changes visible to readers at once."""
        views = [
            SegmentView(s, s.count, None if s.alive is None else s.alive[: s.count], s.alive_count)
            for s in [*self._full, self._growing]
            if s.alive_count
        ]
        self.view = DenseView(self._encoding, tuple(views))

    def plan(self, idle: bool) -> Build | None:
        """The next build, which the caller must pass to `run`; None when nothing is due, or a build is planned or running."""
        self._close_if_full(idle)
        if not self._builds_graphs():
            return None
        inputs = [] if self._build is not None else self._inputs()
        if not inputs:
            return None
        self._build = BuildInfo("", [_described(segment) for segment in inputs])
        return Build(inputs, [segment.alive_ids() for segment in inputs])

    def _close_if_full(self, idle: bool) -> None:
        """Makes a full growing segment wait for its graph, and begins a new one."""
        if self._policy.is_full(self._growing.count, idle) and self._builds_graphs():
            self._growing.state = SegmentState.BUILDING
            self._full.append(self._growing)
            self._growing = Segment.growing(self._encoding)

    def _builds_graphs(self) -> bool:
        return not self._abandoned and self.spec.hnsw.m > 0

    def store_waiting(self) -> None:
        """Gives a segment that waits for its graph one-bit codes, and one files. Called without the lock; takes at most 0.2 s.

        With the files a restart need not read the vectors from RocksDB, and the system may evict their pages.
        """
        waiting = [segment for segment in list(self._full) if segment.state is SegmentState.BUILDING]
        if not waiting:
            return
        coded = [segment.codes for segment in waiting if segment.codes is not None]
        for segment in waiting:
            if segment.codes is None and self._policy.needs_codes(segment.count):
                vectors = self._encoding.compared(segment.vectors[: segment.count])
                segment.codes = FlatCodes.of(vectors, self._encoding.distance, coded[-1].factor if coded else None)
                break
        unsaved = [segment for segment in waiting if segment.codes is not None and not (segment.name or segment.in_memory)]
        for segment in self._policy.to_save(unsaved):
            self._write_waiting(segment)

    def _write_waiting(self, segment: Segment) -> None:
        """Writes a segment that waits, and uses its files from then on, unless its graph was finished meanwhile."""
        assert segment.codes is not None
        try:
            stored = self.store.write(segment.rows[: segment.count], segment.vectors[: segment.count], segment.codes)
        except (OSError, RuntimeError, DamagedSegment) as error:
            log.warning("a segment of %d rows stays in memory until it has its graph: %s", segment.count, error)
            segment.in_memory = True
            return
        with self._lock:
            if segment in self._full and not self._abandoned:
                segment.name, segment.rows, segment.vectors = stored.name, stored.rows, stored.vectors
            else:
                self.store.remove(stored.name)

    def run(self, build: Build) -> None:
        """Executes a build, and replaces its inputs by the result. Long; called without the lock, by one thread at a time."""
        try:
            if not self._abandoned:
                self._run(build)
        finally:
            with self._lock:
                self._build = None

    def abandon(self) -> None:
        """Stops planning builds; the shard is closing or being dropped."""
        self._abandoned = True

    def segment_names(self) -> list[str]:
        """The segments that have files."""
        return [view.segment.name for view in self.view.segments if view.segment.name]

    def status(self) -> Mapping[str, int]:
        """Counts for operators: vectors alive, vectors in graphs, segments."""
        views = self.view.segments
        return {
            "vectors": sum(view.alive_count for view in views),
            "indexed": sum(view.alive_count for view in views if view.segment.state is SegmentState.SEALED),
            "segments": len(views),
        }

    def segments(self) -> SegmentList:
        """The segments, those that wait for their graph, and the builds."""
        with self._lock:
            return SegmentList([_described(view.segment) for view in self.view.segments], self._build, list(self._done))

    def sizes_bytes(self) -> Mapping[str, int]:
        """Bytes by part; the names of mapped files begin with `mapped_`. `growing`: all vectors without files."""
        segments = [view.segment for view in self.view.segments]
        stored, others = [s for s in segments if s.name], [s for s in segments if not s.name]
        graphs = [segment.graph for segment in stored if segment.graph is not None]
        mapped, pinned = ([graph for graph in graphs if graph.spec.is_pinned is wanted] for wanted in (False, True))
        orders = [segment.by_row for segment in stored if segment.by_row is not None]
        return {
            "growing": sum(segment.vectors.nbytes + segment.rows.nbytes for segment in others),
            "mapped_vectors": sum(segment.vectors.nbytes for segment in stored),
            "mapped_codes": sum(graph.code_bytes() for graph in mapped),
            "mapped_links": sum(graph.link_bytes() for graph in mapped),
            "pinned_codes": sum(graph.code_bytes() for graph in pinned),
            "pinned_links": sum(graph.link_bytes() for graph in pinned),
            "mapped_rows": sum(segment.rows.nbytes for segment in stored),
            "rows": sum(order.rows.nbytes + order.local_ids.nbytes for order in orders),
        }

    def _opened(self, name: str, next_row: int) -> Segment | None:
        """Opens a segment of the store; None when it is damaged or inconsistent with the rows."""
        try:
            segment = Segment.stored(self.store.open(name), self._encoding)
        except DamagedSegment as error:
            log.warning("dropping a segment: %s", error)
            return None
        is_other = segment.vectors.dtype != self._encoding.dtype or segment.vectors.shape[1:] != (self._encoding.width,)
        if is_other or int(segment.rows.max()) >= next_row:
            log.warning("dropping the segment %s: it is ahead of the rows, or of another collection", name)
            return None
        return segment

    def _inputs(self) -> list[Segment]:
        """The segments that the next build merges into one."""
        sealed = [segment for segment in self._full if segment.state is SegmentState.SEALED]
        return (
            self._policy.to_build([segment for segment in self._full if segment.state is SegmentState.BUILDING])
            or self._policy.to_merge(sealed)
            or self._policy.to_clean(sealed)[:1]
            or [segment for segment in sealed if segment.graph is not None and segment.graph.spec != self.spec][:1]
        )

    def _run(self, build: Build) -> None:
        parts: Parts = []
        sealed, order = None, np.arange(0)
        if count := sum(map(len, build.local_ids)):
            held_out = self._policy.held_out_rows(count)
            parts = _held_out_last(build, held_out)
            rows = np.concatenate([segment.rows[local] for segment, local in parts])
            vectors = np.concatenate([segment.vectors[local] for segment, local in parts])
            ef_construct = self._policy.ef_construct(self.spec.hnsw.ef_construct, count)
            compared = self._encoding.compared(vectors)
            graph, order = Graph.build(compared, self._encoding.distance, self.spec, held_out, ef_construct)
            if self._abandoned:  # the folder may already be gone, or in use by an index that was opened after this one
                return
            sealed = Segment.stored(self.store.write(rows[order], vectors[order], graph), self._encoding)
        with self._lock:
            if self._abandoned:
                return
            self._replace(build.inputs, sealed, parts, order)
            if self._build is not None:
                self._done.append(BuildInfo("" if sealed is None else sealed.name, self._build.inputs))
        for segment in build.inputs:
            if segment.name:
                self.store.remove(segment.name)

    def _replace(self, inputs: list[Segment], sealed: Segment | None, parts: Parts, order: LocalIds) -> None:
        """Replaces the inputs by the new segment; rows that died during the build are marked dead in it."""
        self._full = [segment for segment in self._full if segment not in inputs]
        if sealed is not None:
            alive = np.concatenate([segment.alive_among(local) for segment, local in parts])[order]
            sealed.alive = None if alive.all() else alive
            sealed.alive_count = int(np.count_nonzero(alive))
            self._full.append(sealed)
        self.publish()


def _described(segment: Segment) -> SegmentInfo:
    name = segment.name or f"from-row-{segment.rows[0]}"
    return SegmentInfo(name, segment.alive_count, segment.state is SegmentState.BUILDING)


def _take_rows(segment: Segment, rows: Rows, missing: Mask) -> int:
    """Makes those rows of a segment alive that are among the `missing` ones of `rows` (ascending); they are no longer missing.

    Returns their number.
    """
    at = np.minimum(np.searchsorted(rows, segment.rows), max(0, len(rows) - 1))
    alive = missing[at] & (rows[at] == segment.rows) if len(rows) else np.zeros(segment.count, np.bool_)
    missing[at[alive]] = False
    segment.alive_count = int(np.count_nonzero(alive))
    if segment.alive_count < segment.count:
        segment.alive = alive
    return segment.alive_count


def _held_out_last(build: Build, held_out: int) -> Parts:
    """The rows of a build, with a random sample of `held_out` rows at the end, as `Graph.build` requires."""
    ends = np.cumsum([len(local) for local in build.local_ids])
    count = int(ends[-1])
    sampled = np.zeros(count, np.bool_)
    sampled[np.random.default_rng(count).choice(count, held_out, replace=False)] = True
    masks = np.split(sampled, ends[:-1])
    parts = list(zip(build.inputs, build.local_ids, masks, strict=True))
    return [(s, local[~mask]) for s, local, mask in parts] + [(s, local[mask]) for s, local, mask in parts]
