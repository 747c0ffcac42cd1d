"""Multi-vectors of one name in one shard, for late-interaction models: all vectors of all points in one array.

The score is MaxSim (Khattab and Zaharia, 2020): the sum, over the vectors of the query, of the similarity to the point's closest
vector. A search compares the query with all vectors of the selected rows. With quantisation it first finds, by codes in memory
beside the vectors, the vectors closest to each vector of the query; only the points that have one of them are then compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vector, Vectors
from shard.deadline import NEVER, Deadline
from shard.vectors.datatypes import Encoded, Encoding
from shard.vectors.graph import DEFAULT_USE, TRAINED, CodeUse, GraphSpec, ScannedCodes, bits_of, similarities
from shard.vectors.index import InMemory, Mask, Rows, RowSet, ScoredRows, closest, finite, grown_capacity, reallocated

CHUNK_VECTORS = 16_384
"""Vectors that are compared at a time, which bounds memory."""

CODED_VECTORS, CODED_WHEN_IDLE = 10_000, 2_000
"""Vectors without codes that get them, and when no more writes come in. Fewer are compared as fast without."""

QUERIES_PER_STEP = 16
"""Vectors of a query that are compared with codes between two checks of the deadline."""

CODES_GAIN = 8
"""How many times faster than a scan of vectors a scan of codes is."""


DEFAULT_SPEC = GraphSpec()


class Coded(NamedTuple):
    """The codes of the vectors of the first `points` points, as long as the points are those of that `generation`."""

    codes: ScannedCodes
    points: int
    generation: int


class CodesBuild(NamedTuple):
    """Planned codes: of the first `vectors` of an array, which belong to so many points."""

    vectors: int
    points: int
    spec: GraphSpec
    generation: int


class MultiView:
    """The array at one moment. Point i has the vectors `starts[i]` to `starts[i + 1]`, exclusive."""

    is_sparse = False

    def __init__(
        self, encoding: Encoding, vectors: Encoded, starts: Rows, rows: Rows, alive: NDArray[np.bool_], coded: Coded | None
    ) -> None:
        self._coded = coded
        self.distance = encoding.distance
        self._encoding = encoding
        self._vectors = vectors
        self._starts = starts
        self._rows = rows
        self._alive = alive

    def compare(self, example: Vector, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        return self._scored(self._encoding.compared_query(example), np.flatnonzero(self._among(rows)), deadline)

    def scan(self, query: Vector, limit: int, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        return closest(self.distance, self.compare(query, rows, deadline), limit)

    def search(
        self,
        query: Vector,
        limit: int,
        ef: int | None = None,
        rows: RowSet | None = None,
        use: CodeUse = DEFAULT_USE,
        deadline: Deadline = NEVER,
    ) -> ScoredRows:
        """Approximately the `limit` closest rows, closest first, if there are codes. Raises DeadlineExceeded."""
        if self._coded is None:
            return self.scan(query, limit, rows, deadline)
        query, among = self._encoding.compared_query(query), self._among(rows)
        near, end = self._near(self._coded, query, limit, among, use, deadline), self._coded.points
        chosen = np.concatenate([near, end + np.flatnonzero(among[end:])])
        return closest(self.distance, self._scored(query, chosen, deadline), limit)

    @property
    def is_coded(self) -> bool:
        """Whether `search` uses codes."""
        return self._coded is not None

    def search_floats(self, query: Vector) -> int:
        """The approximate number of floats that `search` compares."""
        return self.scan_floats(query, None) // (CODES_GAIN if self.is_coded else 1)

    def _among(self, rows: RowSet | None) -> NDArray[np.bool_]:
        """Which points are alive, and among `rows`."""
        return self._alive if rows is None else self._alive & np.isin(self._rows, rows.array(), assume_unique=True)

    def _scored(self, query: Vectors, chosen: Rows, deadline: Deadline) -> ScoredRows:
        """The scores of chosen points, in their order."""
        scores = [self._max_sim(query, part, deadline) for part in self._parts(chosen)]
        return ScoredRows(self._rows[chosen], np.concatenate(scores) if scores else np.empty(0, np.float32))

    def _near(self, coded: Coded, query: Vectors, limit: int, among: NDArray[np.bool_], use: CodeUse, deadline: Deadline) -> Rows:
        """The points that have one of the vectors that are, by their codes, closest to a vector of the query; ascending.

        The best points by MaxSim need not have one of the very closest vectors, so many are fetched, by any codes.
        """
        starts, among = self._starts[: coded.points + 1], among[: coded.points]
        allowed = None if among.all() else bits_of(np.repeat(among, np.diff(starts)))
        fetched = min(len(coded.codes), max(16 * limit + 160, int(limit * use.oversampling)))
        near: list[Rows] = [np.empty(0, np.int64)]
        for start in range(0, len(query), QUERIES_PER_STEP):
            deadline.check()
            ids = coded.codes.search_each(query[start : start + QUERIES_PER_STEP], fetched, allowed)
            near.append(np.unique(np.searchsorted(starts, ids[ids >= 0], side="right") - 1))
        return np.unique(np.concatenate(near))

    def scan_floats(self, query: Vector, rows: RowSet | None) -> int:
        share = 1.0 if rows is None else len(rows) / max(1, len(self._rows))
        return int(share * self._starts[-1]) * query.size

    def all_rows(self) -> BitMap:
        return BitMap(self._rows[self._alive].tolist())

    def size(self) -> int:
        return int(np.count_nonzero(self._alive))

    def limited(self, valid: Mask) -> MultiView:
        alive = self._alive & valid.take(self._rows, mode="clip")
        return MultiView(self._encoding, self._vectors, self._starts, self._rows, alive, self._coded)

    def _parts(self, chosen: Rows) -> list[Rows]:
        """The chosen points in groups of about CHUNK_VECTORS vectors."""
        if not len(chosen):
            return []
        total = np.cumsum(self._starts[chosen + 1] - self._starts[chosen])
        cuts = np.searchsorted(total, np.arange(CHUNK_VECTORS, int(total[-1]), CHUNK_VECTORS))
        return [part for part in np.split(chosen, np.unique(cuts)) if len(part)]

    def _max_sim(self, example: Vector, points: Rows, deadline: Deadline) -> Vectors:
        lengths = self._starts[points + 1] - self._starts[points]
        ends = np.cumsum(lengths)
        at = np.arange(int(ends[-1])) + np.repeat(self._starts[points] - (ends - lengths), lengths)
        vectors = self._encoding.compared(self._vectors[at])
        total = np.zeros(len(points), np.float64)
        for one in example:
            deadline.check()
            total += np.maximum.reduceat(similarities(self.distance, vectors, one), ends - lengths)
        # Similarities are negated distances, squared for Euclid; the dialect shows the distance.
        if self.distance is Distance.EUCLID:
            return finite(np.sqrt(np.abs(total)))
        return finite(np.abs(total) if self.distance is Distance.MANHATTAN else total)


class MultiIndex(InMemory):
    """The array that the shard writes. See `shard.vectors.index.VectorIndex`."""

    def __init__(self, distance: Distance, size: int, spec: GraphSpec = DEFAULT_SPEC) -> None:
        """For multi-vectors of vectors of shape (size,), of the datatype and with the quantisation of `spec`."""
        super().__init__()
        self.spec = spec
        self._encoding = Encoding(spec.datatype, distance, size)
        self._coded: Coded | None = None
        self._latest: CodesBuild | None = None
        self._generation = 0
        self._builds = False
        self._abandoned = False
        self._vectors: Encoded = np.empty((0, self._encoding.width), self._encoding.dtype)
        self._starts: Rows = np.zeros(1, np.int64)
        self.publish()

    def add(self, rows: Rows, vectors: Sequence[Encoded]) -> None:
        count, end = self._count, self._count + len(rows)
        if end >= len(self._starts):
            self._starts = reallocated(self._starts, count + 1, (grown_capacity(end + 1, len(self._starts)),))
        first = int(self._starts[count])
        starts = first + np.cumsum([len(vector) for vector in vectors])
        if starts[-1] > len(self._vectors):
            shape = (grown_capacity(int(starts[-1]), len(self._vectors)), self._vectors.shape[1])
            self._vectors = reallocated(self._vectors, first, shape)
        self._vectors[first : starts[-1]] = np.concatenate(vectors)
        self._starts[count + 1 : end + 1] = starts
        self._add_rows(rows)

    def publish(self) -> None:
        count = self._count
        coded = self._coded
        if coded is not None and coded.generation != self._generation:
            coded = None
        starts, rows, alive = self._starts[: count + 1], self._rows[:count], self._alive[:count]
        self.view = MultiView(self._encoding, self._vectors, starts, rows, alive, coded)

    def plan(self, idle: bool) -> tuple[CodesBuild, Encoded] | None:
        """Codes for all vectors, and these, when half as many more have none, or when there are others than the settings want."""
        if self.spec.quantization is None:
            self._coded = None
        if self.spec.quantization is None or self._builds or self._abandoned:
            return None
        latest, total = self._latest, int(self._starts[self._count])
        is_valid = latest is not None and (latest.generation, latest.spec) == (self._generation, self.spec)
        done = latest.vectors if latest is not None and is_valid else 0
        if total - done < max(CODED_WHEN_IDLE if idle else CODED_VECTORS, done // 2):
            return None
        self._builds = True
        self._latest = CodesBuild(total, self._count, self.spec, self._generation)
        return self._latest, self._vectors[:total]

    def run(self, planned: tuple[CodesBuild, Encoded]) -> None:
        build, vectors = planned
        try:
            if not self._abandoned:
                codes = self._codes_of(vectors, build.spec)
                self._coded = None if codes is None else Coded(codes, build.points, build.generation)
        finally:
            self._builds = False

    def _codes_of(self, vectors: Encoded, spec: GraphSpec) -> ScannedCodes | None:
        sample = np.sort(np.random.default_rng(len(vectors)).permutation(len(vectors))[:TRAINED])
        codes = ScannedCodes.trained(self._encoding.compared(vectors[sample]), self._encoding.distance, spec)
        if codes is not None:
            for _, some in self._encoding.parts(vectors):
                codes.add(some)
        return codes

    def abandon(self) -> None:
        self._abandoned = True

    def status(self) -> Mapping[str, int]:
        return {"vectors": self.view.size(), "indexed": 0, "segments": 1}

    def sizes_bytes(self) -> Mapping[str, int]:
        held = {"vectors": self._vectors.nbytes + self._starts.nbytes + self._rows.nbytes + self._alive.nbytes}
        coded = self._coded
        return held if coded is None else held | {"codes": coded.codes.size_bytes()}

    def _compact(self) -> None:
        self._generation += 1
        kept = np.flatnonzero(self._alive[: self._count])
        rows = self._rows[kept]
        vectors = [self._vectors[self._starts[at] : self._starts[at + 1]] for at in kept.tolist()]
        self._vectors, self._starts = self._vectors[:0], np.zeros(1, np.int64)
        self._rows, self._alive, self._count, self._dead = self._rows[:0], self._alive[:0], 0, 0
        if len(rows):
            self.add(rows, vectors)
