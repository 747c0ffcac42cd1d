"""Multi-vectors of one name in one shard, for late-interaction models: all vectors of all points in one array.

The score is MaxSim (Khattab and Zaharia, 2020): the sum, over the vectors of the query, of the similarity to the point's closest
vector. Always exact: a search compares the query with all vectors of the selected rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.collection import Datatype, Distance
from journal.records import Vector, Vectors
from shard.deadline import NEVER, Deadline
from shard.vectors.datatypes import Encoded, Encoding
from shard.vectors.graph import similarities
from shard.vectors.index import InMemory, Rows, RowSet, ScoredRows, closest, finite, grown_capacity, reallocated

CHUNK_VECTORS = 16_384
"""Vectors that are compared at a time, which bounds memory."""


class MultiView:
    """The array at one moment. Point i has the vectors `starts[i]` to `starts[i + 1]`, exclusive."""

    def __init__(self, encoding: Encoding, vectors: Encoded, starts: Rows, rows: Rows, alive: NDArray[np.bool_]) -> None:
        self.distance = encoding.distance
        self._encoding = encoding
        self._vectors = vectors
        self._starts = starts
        self._rows = rows
        self._alive = alive

    def compare(self, example: Vector, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        among = self._alive if rows is None else self._alive & np.isin(self._rows, rows.array(), assume_unique=True)
        chosen = np.flatnonzero(among)
        example = self._encoding.compared_query(example)
        scores = [self._max_sim(example, part, deadline) for part in self._parts(chosen)]
        return ScoredRows(self._rows[chosen], np.concatenate(scores) if scores else np.empty(0, np.float32))

    def scan(self, query: Vector, limit: int, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        return closest(self.distance, self.compare(query, rows, deadline), limit)

    def search(self, query: Vector, limit: int, ef: int | None = None, rows: RowSet | None = None) -> ScoredRows:
        return self.scan(query, limit, rows)

    def scan_floats(self, query: Vector, rows: RowSet | None) -> int:
        share = 1.0 if rows is None else len(rows) / max(1, len(self._rows))
        return int(share * self._starts[-1]) * query.size

    def all_rows(self) -> BitMap:
        return BitMap(self._rows[self._alive].tolist())

    def size(self) -> int:
        return int(np.count_nonzero(self._alive))

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

    def __init__(self, distance: Distance, size: int, datatype: Datatype = Datatype.FLOAT32) -> None:
        """For multi-vectors of vectors of shape (size,)."""
        super().__init__()
        self._encoding = Encoding(datatype, distance, size)
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
        self.view = MultiView(self._encoding, self._vectors, self._starts[: count + 1], self._rows[:count], self._alive[:count])

    def status(self) -> Mapping[str, int]:
        return {"vectors": self.view.size(), "indexed": 0, "segments": 1}

    def sizes_bytes(self) -> Mapping[str, int]:
        return {"vectors": self._vectors.nbytes + self._starts.nbytes + self._rows.nbytes + self._alive.nbytes}

    def _compact(self) -> None:
        kept = np.flatnonzero(self._alive[: self._count])
        rows = self._rows[kept]
        vectors = [self._vectors[self._starts[at] : self._starts[at + 1]] for at in kept.tolist()]
        self._vectors, self._starts = self._vectors[:0], np.zeros(1, np.int64)
        self._rows, self._alive, self._count, self._dead = self._rows[:0], self._alive[:0], 0, 0
        if len(rows):
            self.add(rows, vectors)
