"""Maximal marginal relevance (Carbonell and Goldstein, 1998): hits that are close to the query and different from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalog.collection import Distance
from journal.records import SPARSE, Vector, Vectors
from shard.deadline import Deadline
from shard.vectors.graph import similarities


def diversified(
    distance: Distance, query: Vector, vectors: Sequence[Vector], diversity: float, limit: int, deadline: Deadline
) -> list[int]:
    """The first `limit` candidates in order, by index: the next is always the one with the highest relevance minus its largest
    similarity to the ones before it. Raises DeadlineExceeded."""
    if not vectors:
        return []
    among = np.stack(vectors) if query.dtype != SPARSE and query.ndim == 1 else vectors
    relevance = _likeness(distance, among, query, deadline)
    order = [int(np.argmax(relevance))]
    likest = np.full(len(vectors), -np.inf, np.float32)
    waiting = np.ones(len(vectors), np.bool_)
    while len(order) < min(limit, len(vectors)):
        waiting[order[-1]] = False
        likest = np.maximum(likest, _likeness(distance, among, vectors[order[-1]], deadline, from_each=True))
        gain = np.where(waiting, (1 - diversity) * relevance - diversity * likest, -np.inf)
        order.append(int(np.argmax(gain)))
    return order


def _likeness(
    distance: Distance, vectors: Sequence[Vector] | Vectors, to: Vector, deadline: Deadline, from_each: bool = False
) -> Vectors:
    """The similarity of each vector to `to`; higher is closer. Shape (n,).

    The similarity of multi-vectors is not symmetric: `to` is the query, or, if `from_each`, each of the vectors is the query.
    """
    deadline.check()
    if to.dtype == SPARSE:
        return np.array([_shared(vector, to) for vector in vectors], np.float32)
    if isinstance(vectors, np.ndarray):
        return similarities(distance, vectors, to)
    scores = np.empty(len(vectors), np.float32)
    for at, vector in enumerate(vectors):
        deadline.check()
        pair = np.stack([similarities(distance, vector, one) for one in to])
        scores[at] = pair.max(axis=0 if from_each else 1).sum()
    return scores


def _shared(a: Vector, b: Vector) -> float:
    """The dot product of two sparse vectors."""
    _, mine, theirs = np.intersect1d(a["index"], b["index"], assume_unique=True, return_indices=True)
    return float(a["value"][mine] @ b["value"][theirs])
