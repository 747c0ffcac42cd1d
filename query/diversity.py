"""Maximal marginal relevance (Carbonell and Goldstein, 1998): hits that are close to the query and different from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalog.collection import Distance
from journal.records import SPARSE, Vector, Vectors
from shard.deadline import Deadline
from shard.vectors.graph import similarities


def diversified(distance: Distance, query: Vector, vectors: Sequence[Vector], diversity: float, deadline: Deadline) -> list[int]:
    """The order of the candidates, by index: the next is always the one with the highest relevance minus its largest similarity
    to the ones before it."""
    if not vectors:
        return []
    relevance = _likeness(distance, vectors, query, deadline)
    order = [int(np.argmax(relevance))]
    likest = _likeness(distance, vectors, vectors[order[0]], deadline, from_each=True)
    waiting = np.ones(len(vectors), np.bool_)
    waiting[order[0]] = False
    while waiting.any():
        gain = np.where(waiting, (1 - diversity) * relevance - diversity * likest, -np.inf)
        chosen = int(np.argmax(gain))
        order.append(chosen)
        waiting[chosen] = False
        likest = np.maximum(likest, _likeness(distance, vectors, vectors[chosen], deadline, from_each=True))
    return order


def _likeness(distance: Distance, vectors: Sequence[Vector], to: Vector, deadline: Deadline, from_each: bool = False) -> Vectors:
    """The similarity of each vector to `to`; higher is closer. Shape (n,).

    The similarity of multi-vectors is not symmetric: `to` is the query, or, if `from_each`, each of the vectors is the query.
    """
    if to.dtype == SPARSE:
        return np.array([_shared(vector, to) for vector in vectors], np.float32)
    if to.ndim == 1:
        return similarities(distance, np.stack(vectors), to)
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
