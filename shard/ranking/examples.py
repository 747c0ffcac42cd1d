"""Scores of points against several examples at once: recommend, discover, context, feedback, as the dialect defines them.

All formulas use similarities (higher is closer), in a matrix with a row for each example and a column for each point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from journal.records import Vector
from shard.deadline import Deadline
from shard.ranking.rankings import BestScore, Context, Discover, Feedback, SumScores
from shard.vectors.graph import as_similarity
from shard.vectors.index import EPSILON, Rows, RowSet, ScoredRows, VectorView, finite

Matrix = NDArray[np.float64]
"""A row for each example and a column for each point; float64, so that no sum or difference of scores is infinite."""

ByExamples = BestScore | SumScores | Discover | Context | Feedback


def scored(view: VectorView, query: ByExamples, rows: RowSet | None, deadline: Deadline) -> ScoredRows:
    """All points that have the vector, among `rows` or all, with their scores; higher is better."""
    match query:
        case BestScore(_, positive, negative) | SumScores(_, positive, negative):
            candidates, near = _similarities(view, [*positive, *negative], rows, deadline)
            good, bad = near[: len(positive)], near[len(positive) :]
            score = _best(good, bad) if isinstance(query, BestScore) else _total(good) - _total(bad)
        case Discover(_, target, pairs):
            candidates, near = _similarities(view, [target, *_flat(pairs)], rows, deadline)
            score = _total(np.sign(near[1::2] - near[2::2])) + _squashed(near[0])
        case Context(_, pairs):
            candidates, near = _similarities(view, _flat(pairs), rows, deadline)
            score = _total(_sigmoid(np.minimum(near[0::2] - near[1::2] - EPSILON, 0)))
        case Feedback(_, target, judged):
            candidates, near = _similarities(view, [target, *(example for example, _ in judged)], rows, deadline)
            score = query.a * near[0]
            for (better, high), (worse, low) in permutations(enumerate(score for _, score in judged), 2):
                if high > low:
                    score = score + (high - low) ** query.b * query.c * (near[1 + better] - near[1 + worse])
    return ScoredRows(candidates, finite(score))


def _total(near: Matrix) -> Matrix:
    """The sum over the examples, one after the other: how numpy sums an axis depends on the number of points."""
    return reduce(np.add, near, np.zeros(near.shape[1]))


def _best(good: Matrix, bad: Matrix) -> Matrix:
    nearest_good = good.max(axis=0, initial=-np.inf)
    nearest_bad = bad.max(axis=0, initial=-np.inf)
    best: Matrix = np.where(nearest_good > nearest_bad, _squashed(nearest_good), -_squashed(nearest_bad))
    return best


def _similarities(view: VectorView, examples: Sequence[Vector], rows: RowSet | None, deadline: Deadline) -> tuple[Rows, Matrix]:
    """The rows that have the vector, among `rows` or all, and their similarities, shape (examples, rows). The similarity is 0
    for a sparse vector that has no index in common with an example."""
    parts = [view.compare(example, rows, deadline) for example in examples]
    all_rows = parts[0].rows
    if view.is_sparse:
        having = view.all_rows()
        all_rows = RowSet(having if rows is None else having & rows.rows).array()
    near = np.zeros((len(examples), len(all_rows)))
    for at, compared in enumerate(parts):
        where = slice(None) if len(compared.rows) == len(all_rows) else np.searchsorted(all_rows, compared.rows)
        near[at, where] = as_similarity(view.distance, compared.scores)
    return all_rows, near


def _flat(pairs: Sequence[tuple[Vector, Vector]]) -> list[Vector]:
    return [vector for pair in pairs for vector in pair]


def _sigmoid(x: Matrix) -> Matrix:
    """A sigmoid between -1 and 1 without an exponential; infinite values are unchanged."""
    squeezed: Matrix = np.divide(x, 1 + np.abs(x), out=np.array(x, copy=True), where=np.isfinite(x))
    return squeezed


def _squashed(x: Matrix) -> Matrix:
    """The same sigmoid between 0 and 1."""
    return 0.5 * (_sigmoid(x) + 1)
