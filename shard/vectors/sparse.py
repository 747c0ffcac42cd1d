"""Sparse vectors of one name in one shard: an inverted index from element index to the points that have it, in memory.

Scored term at a time (Manning, Raghavan, Schütze, 2008, chapter 7): the postings of each index of the query are added to one
score per point. Always exact. Postings are append-only; a view ignores postings of points that were added after it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vector, Vectors
from shard.deadline import NEVER, Deadline
from shard.vectors.index import InMemory, Mask, Rows, RowSet, ScoredRows, closest, finite, reallocated

Ordinals = NDArray[np.uint32]
"""The ordinal of a point is its number in insertion order."""


class Posting:
    """The points that have one index, and their values, in order of ordinal."""

    __slots__ = ("count", "ordinals", "values")

    def __init__(self) -> None:
        self.count = 0
        self.ordinals: Ordinals = np.empty(4, np.uint32)
        self.values: Vectors = np.empty(4, np.float32)

    def append(self, ordinals: Ordinals, values: Vectors) -> None:
        end = self.count + len(ordinals)
        if end > len(self.ordinals):
            capacity = max(end, 2 * self.count)
            self.ordinals = reallocated(self.ordinals, self.count, (capacity,))
            self.values = reallocated(self.values, self.count, (capacity,))
        self.ordinals[self.count : end] = ordinals
        self.values[self.count : end] = values
        self.count = end

    def below(self, end: int) -> tuple[Ordinals, Vectors]:
        """Ordinals below `end`, and their values."""
        count = self.count  # must be read before the arrays, which only grow
        ordinals, values = self.ordinals[:count], self.values[:count]
        if count and ordinals[-1] >= end:
            count = int(np.searchsorted(ordinals, end))
        return ordinals[:count], values[:count]


class SparseView:
    """The index at one moment: its first `end` points, except those that are not `alive`."""

    distance = Distance.DOT
    is_sparse = True

    def __init__(self, postings: Mapping[int, Posting], rows: Rows, end: int, alive: NDArray[np.bool_], count: int) -> None:
        self._postings = postings
        self._rows = rows[:end]
        self._end = end
        self._alive = alive[:end]
        self._count = count

    def compare(self, example: Vector, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        """The score of each row that has an index in common with the example; other rows are left out."""
        sums, shares = self._sums(example, np.float32, deadline)
        if rows is not None:
            shares &= self._among(rows)
        at = np.flatnonzero(shares)
        scores = sums[at]
        if not np.isfinite(scores).all():  # some products are too large for float32
            scores = np.where(np.isfinite(scores), scores, finite(self._sums(example, np.float64, deadline)[0][at]))
        return ScoredRows(self._rows[at], scores)

    def _sums(self, example: Vector, dtype: Any, deadline: Deadline) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The score of each point, and which points are alive and have an index in common with the example."""
        sums = np.zeros(self._end, dtype)
        shares = np.zeros(self._end, np.bool_)
        for index, value in example.tolist():
            deadline.check()
            if (posting := self._postings.get(index)) is not None:
                ordinals, values = posting.below(self._end)
                with np.errstate(over="ignore", invalid="ignore"):
                    sums[ordinals] += dtype(value) * values
                shares[ordinals] = True
        return sums, shares & self._alive

    def scan(self, query: Vector, limit: int, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        return closest(self.distance, self.compare(query, rows, deadline), limit)

    def search(self, query: Vector, limit: int, ef: int | None = None, rows: RowSet | None = None) -> ScoredRows:
        return self.scan(query, limit, rows)

    def frequencies(self, indexes: Sequence[int], rows: RowSet | None = None) -> tuple[int, list[int]]:
        """How many rows have a vector, among `rows` or all, and how many of them have each of the indexes."""
        counted = self._alive if rows is None else self._alive & self._among(rows)
        having = [
            0 if (p := self._postings.get(index)) is None else int(counted[p.below(self._end)[0]].sum()) for index in indexes
        ]
        return int(np.count_nonzero(counted)), having

    def scan_floats(self, query: Vector, rows: RowSet | None) -> int:
        postings = [posting for index in query["index"].tolist() if (posting := self._postings.get(index)) is not None]
        return 4 * (self._end + sum(posting.count for posting in postings))

    def all_rows(self) -> BitMap:
        return BitMap(self._rows[self._alive].tolist())

    def size(self) -> int:
        return self._count

    def limited(self, valid: Mask) -> SparseView:
        alive = self._alive & valid.take(self._rows, mode="clip")
        return SparseView(self._postings, self._rows, self._end, alive, int(np.count_nonzero(alive)))

    def _among(self, rows: RowSet) -> NDArray[np.bool_]:
        return rows.cached(self, lambda: np.isin(self._rows, rows.array(), assume_unique=True))


class SparseIndex(InMemory):
    """The index that the shard writes. See `shard.vectors.index.VectorIndex`."""

    def __init__(self) -> None:
        super().__init__()
        self._postings: dict[int, Posting] = {}
        self.publish()

    def add(self, rows: Rows, vectors: Sequence[Vector]) -> None:
        first = self._count
        self._add_rows(rows)
        elements = np.concatenate(vectors)
        ordinals = np.repeat(np.arange(first, self._count, dtype=np.uint32), [len(vector) for vector in vectors])
        order = np.argsort(elements["index"], kind="stable")
        indexes, starts = np.unique(elements["index"][order], return_index=True)
        for index, at in zip(indexes.tolist(), np.split(order, starts[1:]) if len(order) else [], strict=True):
            posting = self._postings.get(index)
            if posting is None:
                posting = self._postings[index] = Posting()
            posting.append(ordinals[at], elements["value"][at])

    def publish(self) -> None:
        self.view = SparseView(self._postings, self._rows, self._count, self._alive, self._count - self._dead)

    def status(self) -> Mapping[str, int]:
        return {"vectors": self.view.size(), "indexed": self.view.size(), "segments": 1}

    def sizes_bytes(self) -> Mapping[str, int]:
        postings = sum(posting.ordinals.nbytes + posting.values.nbytes for posting in list(self._postings.values()))
        return {"postings": postings + self._rows.nbytes + self._alive.nbytes}

    def _compact(self) -> None:
        alive = self._alive[: self._count]
        new_ordinals = np.cumsum(alive, dtype=np.uint32) - np.uint32(1)
        postings = {}
        for index, old in self._postings.items():
            ordinals, values = old.below(self._count)
            kept = alive[ordinals]
            if kept.any():
                posting = postings[index] = Posting()
                posting.append(new_ordinals[ordinals[kept]], values[kept])
        self._postings = postings
        self._rows = self._rows[: self._count][alive]
        self._count = len(self._rows)
        self._alive = np.ones(self._count, np.bool_)
        self._dead = 0


def idf(having: int, total: int) -> float:
    """The inverse document frequency of the dialect's `idf` modifier, that of BM25."""
    return float(np.log((total - having + 0.5) / (having + 0.5) + 1))
