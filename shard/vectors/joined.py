"""The vectors of one name in several indexes as one view: those of the present and those of the past."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vector
from shard.deadline import NEVER, Deadline
from shard.vectors.index import Mask, RowSet, ScoredRows, VectorView, closest
from shard.vectors.segments import DenseView
from shard.vectors.sparse import SparseView


def joined(views: Sequence[VectorView]) -> VectorView:
    """One view of all vectors of `views`, at least one, which are of one name and of different rows."""
    held = [view for view in views if view.size()] or views[:1]
    if len(held) == 1:
        return held[0]
    dense = [view for view in held if isinstance(view, DenseView)]
    if len(dense) == len(held):
        return DenseView(dense[0].encoding, tuple(segment for view in dense for segment in view.segments))
    return JoinedView(held)


class JoinedView:
    """Sparse vectors or multi-vectors of several views. All searches are exact. See `shard.vectors.index.VectorView`."""

    def __init__(self, views: Sequence[VectorView]) -> None:
        self._views = views

    @property
    def distance(self) -> Distance:
        return self._views[0].distance

    @property
    def is_sparse(self) -> bool:
        return self._views[0].is_sparse

    def compare(self, example: Vector, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        parts = [view.compare(example, rows, deadline) for view in self._views]
        scored = ScoredRows(np.concatenate([part.rows for part in parts]), np.concatenate([part.scores for part in parts]))
        order = np.argsort(scored.rows, kind="stable")
        return ScoredRows(scored.rows[order], scored.scores[order])

    def scan(self, query: Vector, limit: int, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        return closest(self.distance, self.compare(query, rows, deadline), limit)

    def search(self, query: Vector, limit: int, ef: int | None = None, rows: RowSet | None = None) -> ScoredRows:
        return self.scan(query, limit, rows)

    def frequencies(self, indexes: Sequence[int], rows: RowSet | None = None) -> tuple[int, list[int]]:
        """See `SparseView.frequencies`."""
        parts = [view.frequencies(indexes, rows) for view in self._views if isinstance(view, SparseView)]
        return sum(total for total, _ in parts), [sum(counts) for counts in zip(*(having for _, having in parts), strict=True)]

    def scan_floats(self, query: Vector, rows: RowSet | None) -> int:
        return sum(view.scan_floats(query, rows) for view in self._views)

    def all_rows(self) -> BitMap:
        return BitMap.union(*(view.all_rows() for view in self._views))

    def size(self) -> int:
        return sum(view.size() for view in self._views)

    def limited(self, valid: Mask) -> VectorView:
        return joined([view.limited(valid) for view in self._views])
