"""Fusion of several ranked lists into one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from query.stages import Fusion

Scored = Sequence[tuple[bytes, float]]
"""Ids of points and their scores, best first."""


def fuse(lists: Sequence[Scored], fusion: Fusion) -> list[tuple[bytes, float]]:
    """The points of all lists by fused score, best first; points with equal scores are ordered by id."""
    weigh = _by_rank if fusion.method == "rrf" else _by_distribution
    totals: dict[bytes, float] = {}
    for at, ranked in enumerate(lists):
        for id_, score in weigh(ranked, fusion, at):
            totals[id_] = totals.get(id_, 0.0) + score
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))


def _by_rank(ranked: Scored, fusion: Fusion, at: int) -> list[tuple[bytes, float]]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009); the ranks of a list are divided by its weight."""
    weight = 1.0 if fusion.weights is None else fusion.weights[at]
    if weight <= 0:
        return [(id_, 0.0) for id_, _ in ranked]
    return [(id_, 1 / ((rank + 1) / weight + fusion.k - 1)) for rank, (id_, _) in enumerate(ranked)]


def _by_distribution(ranked: Scored, fusion: Fusion, at: int) -> list[tuple[bytes, float]]:
    """Scores normalised so that three standard deviations below the mean are 0 and three above are 1."""
    scores = [score for _, score in ranked]
    spread = stdev(scores) if len(scores) > 1 else 0.0
    if spread == 0:
        return [(id_, 0.5) for id_, _ in ranked]
    low = fmean(scores) - 3 * spread
    return [(id_, (score - low) / (6 * spread)) for id_, score in ranked]
