"""The vectors of one name in one shard: a growing segment that is scanned exactly, and sealed ones with a graph each.

After the segments of LSM trees and of Lucene: rows are only appended; a replaced or deleted row is marked dead and leaves when
its segment is built anew. Readers take `view`, an immutable picture, and need no lock. Segment files are caches: whatever is
missing or does not fit the rows is dropped and built again from RocksDB.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vectors
from shard.vectors.graph import Bits, CodeUse, FlatCodes, Graph, GraphSpec, LocalIds, Mask, bits_of, exact_scores, scores_at
from shard.vectors.index import NOTHING, Rows, RowSet, ScoredRows, closest, grown, room_for
from shard.vectors.scans import SharedScan

log = logging.getLogger(__name__)

SEAL_ROWS = 10_000
SEAL_ROWS_IDLE = 2_000
"""While nothing is written, fewer rows are worth a graph: a scan of them would cost each search more than the graph does."""

CODED_ROWS = 5_000
"""Fewer rows that wait for a graph are compared one by one."""
CODES_GAIN = 8
"""How many times faster a scan of one-bit codes is."""

SEGMENT_FLOATS = 500_000
"""What a walk through one graph costs, in floats compared in a row."""

MAX_SEGMENT_ROWS = 4_000_000
"""No merge makes a graph larger than this, which bounds the work of one build."""
MERGE_SHARE = 0.25
"""One large graph answers faster than several; a smaller share builds every row more often."""
MAX_DEAD_SHARE = 0.2
DEFAULT_USE = CodeUse()


@dataclass(slots=True, eq=False)
class Segment:
    """Rows and their vectors, ascending by row. Flat while `graph` is None; `folder` holds the files of a sealed one."""

    rows: Rows
    vectors: Vectors
    count: int
    alive: Mask | None = None
    alive_count: int = 0
    graph: Graph | None = None
    folder: Path | None = None
    shared: SharedScan | None = None
    """Of a sealed one."""
    codes: FlatCodes | None = None
    """Of one that waits for its graph."""

    def local_ids(self, rows: Rows) -> LocalIds:
        """Where those of `rows` (ascending) that this segment holds stand in it."""
        mine = self.rows[: self.count]
        at = np.searchsorted(mine, rows)
        at = at[at < self.count] if len(at) and at[-1] >= self.count else at
        found: LocalIds = at[mine[at] == rows[: len(at)]]
        return found


@dataclass(slots=True, eq=False)
class SegmentView:
    """A segment as it was at one moment: its first `end` rows, less those that `alive` leaves out."""

    segment: Segment
    end: int
    alive: Mask | None
    alive_count: int
    _bits: Bits | None = None

    def bits(self) -> Bits | None:
        """`alive` as the graph wants it, made once."""
        if self._bits is None and self.alive is not None:
            self._bits = bits_of(self.alive)
        return self._bits


class VectorView(NamedTuple):
    """All segments at one moment."""

    distance: Distance
    segments: tuple[SegmentView, ...] = ()

    def scan(self, query: Vectors, limit: int, rows: RowSet | None = None) -> ScoredRows:
        """The `limit` closest of all rows, or of `rows` only, by comparing each."""
        found = [closest(self.distance, self._compare_one(view, query, rows), limit) for view in self.segments]
        return self._merge(found, limit)

    def compare(self, example: Vectors, rows: RowSet | None = None) -> ScoredRows:
        """The score of every row, or of those of `rows` that are here; rows ascend."""
        found = _joined([self._compare_one(view, example, rows) for view in self.segments])
        order = np.argsort(found.rows, kind="stable")
        return ScoredRows(found.rows[order], found.scores[order])

    def search(self, query: Vectors, limit: int, ef: int, rows: RowSet | None = None, use: CodeUse = DEFAULT_USE) -> ScoredRows:
        """Nearly the `limit` closest: through the graphs where there are any, with `ef` candidates each."""
        found = []
        for view in self.segments:
            if view.alive_count <= limit or (view.segment.graph is None and view.segment.codes is None):
                found.append(closest(self.distance, self._compare_one(view, query, rows), limit))
            elif view.segment.graph is None:
                found.append(self._search_codes(view, query, limit, rows))
            else:
                found.append(self._search_one(view, view.segment.graph, query, limit, ef, rows, use))
        return self._merge(found, limit)

    def all_rows(self) -> BitMap:
        """The rows that have this vector."""
        found = BitMap()
        for view in self.segments:
            rows = view.segment.rows[: view.end]
            found.update((rows if view.alive is None else rows[view.alive]).tolist())
        return found

    def floats(self, query: Vectors, rows: RowSet | None) -> int:
        """How many floats `scan` compares."""
        return (self.size() if rows is None else len(rows)) * len(query)

    def flat_floats(self) -> int:
        """How much work `search` is without a selector, as floats compared."""
        flat = [view for view in self.segments if view.segment.graph is None]
        floats = [view.segment.vectors[: view.end].size // (1 if view.segment.codes is None else CODES_GAIN) for view in flat]
        return sum(floats) + SEGMENT_FLOATS * len(self.segments)

    def size(self) -> int:
        """How many vectors there are."""
        return sum(view.alive_count for view in self.segments)

    def _compare_one(self, view: SegmentView, example: Vectors, rows: RowSet | None) -> ScoredRows:
        segment = view.segment
        if rows is not None:
            local = rows.made(view, partial(_places, view, rows))
            return ScoredRows(segment.rows[local], scores_at(self.distance, segment.vectors, example, local))
        every = segment.rows[: view.end]
        if segment.shared is not None and self.distance.higher_is_closer:
            scores = segment.shared.products(example)
        else:
            scores = exact_scores(self.distance, segment.vectors[: view.end], example)
        return ScoredRows(every, scores) if view.alive is None else ScoredRows(every[view.alive], scores[view.alive])

    def _search_one(
        self, view: SegmentView, graph: Graph, query: Vectors, limit: int, ef: int, rows: RowSet | None, use: CodeUse
    ) -> ScoredRows:
        allowed = view.bits() if rows is None else rows.made((view, "bits"), partial(_bits, view, rows))
        fetched = min(view.end, graph.fetched(limit, use))
        local = graph.search(query, fetched, max(ef, fetched), allowed)
        local = local if use.rescore else local[:limit]
        found = ScoredRows(view.segment.rows[local], scores_at(self.distance, view.segment.vectors, query, local))
        return closest(self.distance, found, limit)

    def _search_codes(self, view: SegmentView, query: Vectors, limit: int, rows: RowSet | None) -> ScoredRows:
        assert view.segment.codes is not None
        allowed = view.bits() if rows is None else rows.made((view, "bits"), partial(_bits, view, rows))
        local = view.segment.codes.search(query, limit, allowed)
        found = ScoredRows(view.segment.rows[local], scores_at(self.distance, view.segment.vectors, query, local))
        return closest(self.distance, found, limit)

    def _merge(self, found: list[ScoredRows], limit: int) -> ScoredRows:
        return found[0] if len(found) == 1 else closest(self.distance, _joined(found), limit)


def _places(view: SegmentView, rows: RowSet) -> LocalIds:
    """Where those of `rows` that a segment holds alive stand in it."""
    local = view.segment.local_ids(rows.array())
    local = local[local < view.end]
    return local if view.alive is None else local[view.alive[local]]


def _bits(view: SegmentView, rows: RowSet) -> Bits:
    allowed = np.zeros(view.end, np.bool_)
    allowed[_places(view, rows)] = True
    return bits_of(allowed)


def _joined(found: list[ScoredRows]) -> ScoredRows:
    if not found:
        return NOTHING
    return ScoredRows(np.concatenate([part.rows for part in found]), np.concatenate([part.scores for part in found]))


@dataclass(slots=True)
class Build:
    """A sealed segment in the making: its inputs, and which of their rows it takes over."""

    inputs: list[Segment]
    taken: list[LocalIds] = field(default_factory=list)


class VectorIndex:
    """All segments of one vector name. Guarded by `lock`, the shard's, wherever it changes."""

    def __init__(self, folder: Path, distance: Distance, size: int, spec: GraphSpec, lock: threading.RLock) -> None:
        self._folder = folder
        self._distance = distance
        self._size = size
        self.spec = spec
        self._lock = lock
        self._sealed: list[Segment] = []
        self._growing = self._new_flat()
        self._building = False
        self._dropped = False
        self.view = VectorView(distance)

    def load(self, alive: Iterable[int], next_row: int) -> Rows:
        """Opens the sealed segments that fit the rows, `alive` ascending. Returns the alive rows that none of them holds."""
        missing = np.fromiter(alive, np.int64)
        folders = sorted(self._folder.glob("*"), key=lambda path: path.name, reverse=True)
        for folder in folders:
            segment = self._open(folder)
            if segment is None or segment.rows[-1] >= next_row:
                log.warning("dropping the segment %s: its files are damaged or ahead of the rows", folder)
                shutil.rmtree(folder)
                continue
            local = segment.local_ids(missing)
            if not len(local):
                shutil.rmtree(folder)
                continue
            if len(local) < segment.count:
                segment.alive = np.zeros(segment.count, np.bool_)
                segment.alive[local] = True
            segment.alive_count = len(local)
            self._sealed.append(segment)
            missing = np.setdiff1d(missing, segment.rows[local], assume_unique=True)
        return missing

    def add(self, rows: Rows, vectors: Sequence[Vectors]) -> None:
        """Appends rows, ascending and above all before, with a vector of shape (size,) each. Visible after `publish`."""
        segment, end = self._growing, self._growing.count + len(rows)
        if end > len(segment.rows):
            room = room_for(end, len(segment.rows))
            segment.rows = grown(segment.rows, segment.count, (room,))
            segment.vectors = grown(segment.vectors, segment.count, (room, self._size))
            if segment.alive is not None:
                segment.alive = grown(segment.alive, segment.count, (room,))
        segment.rows[segment.count : end] = rows
        segment.vectors[segment.count : end] = np.stack(vectors)
        if segment.alive is not None:
            segment.alive[segment.count : end] = True
        segment.count = end
        segment.alive_count += len(rows)

    def kill(self, rows: Rows) -> None:
        """Marks rows (ascending) dead, those that are here. Visible after `publish`."""
        for segment in [*self._sealed, self._growing]:
            local = segment.local_ids(rows)
            if len(local):
                alive = np.ones(len(segment.rows), np.bool_) if segment.alive is None else segment.alive.copy()
                alive[local] = False
                segment.alive = alive
                segment.alive_count = int(np.count_nonzero(alive[: segment.count]))

    def publish(self) -> None:
        """Makes all changes visible to readers at once."""
        views = [
            SegmentView(s, s.count, None if s.alive is None else s.alive[: s.count], s.alive_count)
            for s in [*self._sealed, self._growing]
            if s.alive_count
        ]
        self.view = VectorView(self._distance, tuple(views))

    def plan(self, idle: bool) -> Build | None:
        """What is worth building now, and not being built already; the caller then runs it. Holds one build at a time."""
        if self._dropped or self.spec.hnsw.m == 0:
            return None
        if self._growing.count >= (SEAL_ROWS_IDLE if idle else SEAL_ROWS):
            self._sealed.append(self._growing)
            self._growing = self._new_flat()
        if self._building:
            return None
        inputs = [s for s in self._sealed if s.graph is None] or _worth_merging(self._sealed) or self._outdated()
        if not inputs:
            return None
        self._building = True
        taken = [np.arange(s.count) if s.alive is None else np.flatnonzero(s.alive[: s.count]) for s in inputs]
        return Build(list(inputs), taken)

    def _outdated(self) -> list[Segment]:
        """A segment whose graph is not as the settings want it by now."""
        return next(([s] for s in self._sealed if s.graph is not None and s.graph.spec != self.spec), [])

    def code(self) -> None:
        """Gives what waits for its graph codes to be found by meanwhile. Without the lock; a tenth of a second at most."""
        for segment in list(self._sealed):
            if segment.graph is None and segment.codes is None and segment.count >= CODED_ROWS:
                segment.codes = FlatCodes.of(segment.vectors[: segment.count], self._distance)

    def run(self, build: Build) -> None:
        """Builds and swaps in. Long; called without the lock, by one thread at a time."""
        try:
            if not self._dropped:
                self._run(build)
        finally:
            self._building = False

    def _run(self, build: Build) -> None:
        rows = np.concatenate([s.rows[local] for s, local in zip(build.inputs, build.taken, strict=True)])
        vectors = np.concatenate([s.vectors[local] for s, local in zip(build.inputs, build.taken, strict=True)])
        order = np.argsort(rows)
        sealed = self._seal(rows[order], np.ascontiguousarray(vectors[order])) if len(rows) else None
        with self._lock:
            self._swap(build, sealed, order)
            if self._dropped and sealed is not None and sealed.folder:
                shutil.rmtree(sealed.folder, ignore_errors=True)
        for segment in build.inputs:
            if segment.folder:
                shutil.rmtree(segment.folder, ignore_errors=True)

    def abandon(self) -> None:
        """Plans nothing more; the shard is closing or being dropped."""
        self._dropped = True

    def status(self) -> Mapping[str, int]:
        """Counts for people: vectors alive, vectors in graphs, segments."""
        views = self.view.segments
        return {
            "vectors": sum(view.alive_count for view in views),
            "indexed": sum(view.alive_count for view in views if view.segment.graph is not None),
            "segments": len(views),
        }

    def sizes_bytes(self) -> Mapping[str, int]:
        """What the parts take: the growing vectors, and of the sealed the mapped vectors, codes and links."""
        sealed = [(view.segment, view.segment.graph) for view in self.view.segments if view.segment.graph is not None]
        flat = [view.segment for view in self.view.segments if view.segment.graph is None]
        return {
            "growing": sum(segment.vectors.nbytes + segment.rows.nbytes for segment in flat),
            "mapped_vectors": sum(segment.vectors.nbytes for segment, _ in sealed),
            "mapped_codes": sum(graph.code_bytes() for _, graph in sealed),
            "mapped_links": sum(graph.link_bytes() for _, graph in sealed),
            "rows": sum(segment.rows.nbytes for segment, _ in sealed),
        }

    def _swap(self, build: Build, sealed: Segment | None, order: LocalIds) -> None:
        """Replaces the inputs; rows that died while the graph was built are dead in it too."""
        self._sealed = [s for s in self._sealed if s not in build.inputs]
        if sealed is not None and not self._dropped:
            still = np.concatenate(
                [
                    np.ones(len(local), np.bool_) if s.alive is None else s.alive[local]
                    for s, local in zip(build.inputs, build.taken, strict=True)
                ]
            )[order]
            sealed.alive = None if still.all() else still
            sealed.alive_count = int(np.count_nonzero(still))
            self._sealed.append(sealed)
        self.publish()

    def _seal(self, rows: Rows, vectors: Vectors) -> Segment:
        graph = Graph.build(vectors, self._distance, self.spec)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Named so that a later segment sorts after those it was made from, and `load` prefers it.
        numbers = [int(path.name.split("-")[0]) for path in self._folder.glob("*") if not path.suffix]
        folder = self._folder / f"{max(numbers, default=0) + 1:08d}"
        unfinished = folder.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        graph.write(unfinished)
        np.save(unfinished / "rows.npy", rows)
        np.save(unfinished / "vectors.npy", vectors)
        for path in unfinished.iterdir():
            _sync(path)  # a power loss must not leave a whole file with unwritten pages
        unfinished.rename(folder)
        _sync(self._folder)
        # The files are mapped from here on: what memory cannot hold, the system may drop and read again.
        return _sealed(rows, _mapped(folder / "vectors.npy"), Graph.read(folder), folder)

    def _open(self, folder: Path) -> Segment | None:
        """The segment in a folder; None when it was never finished, is damaged, or was built for another collection."""
        try:
            graph = Graph.read(folder)
            rows: Rows = np.load(folder / "rows.npy")
            vectors = _mapped(folder / "vectors.npy")
        except (OSError, ValueError, RuntimeError, EOFError, msgspec.MsgspecError):
            return None
        fits = folder.suffix == "" and len(rows) == len(graph) > 0 and vectors.shape == (len(rows), self._size)
        return _sealed(rows, vectors, graph, folder) if fits else None

    def _new_flat(self) -> Segment:
        return Segment(np.empty(0, np.int64), np.empty((0, self._size), np.float32), 0)


def _sealed(rows: Rows, vectors: Vectors, graph: Graph, folder: Path) -> Segment:
    return Segment(rows, vectors, len(rows), None, len(rows), graph, folder, SharedScan(vectors))


def _worth_merging(segments: list[Segment]) -> list[Segment]:
    """Segments to make one of: the largest run whose smaller members together have a share of its largest, so that a row is
    rebuilt a number of times logarithmic in the collection; else one with many dead rows."""
    ranked = sorted(segments, key=lambda s: s.alive_count, reverse=True)
    for at, largest in enumerate(ranked):
        smaller = sum(s.alive_count for s in ranked[at + 1 :])
        if at + 1 < len(ranked) and MERGE_SHARE * largest.alive_count <= smaller <= MAX_SEGMENT_ROWS - largest.alive_count:
            return ranked[at:]
    return next(([s] for s in ranked if s.alive_count < (1 - MAX_DEAD_SHARE) * s.count), [])


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mapped(path: Path) -> Vectors:
    """An array file as memory; a plain array, since numpy's memmap class makes every small gather slow."""
    return np.asarray(np.load(path, mmap_mode="r"))
