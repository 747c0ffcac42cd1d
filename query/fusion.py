"""Several ranked lists as one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from query.reading import Place
from query.stages import Fusion

Ranked = Sequence[tuple[Place, float]]
"""Points and their scores, best first."""


def fuse(lists: Sequence[Ranked], fusion: Fusion) -> list[tuple[Place, float]]:
    """The points of all lists by their joint score, best first; equal ones in the order in which they were met."""
    weigh = _by_rank if fusion.method == "rrf" else _by_distribution
    totals: dict[Place, float] = {}
    for at, ranked in enumerate(lists):
        for place, score in weigh(ranked, fusion, at):
            totals[place] = totals.get(place, 0.0) + score
    return sorted(totals.items(), key=lambda item: -item[1])


def _by_rank(ranked: Ranked, fusion: Fusion, at: int) -> list[tuple[Place, float]]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009); a weight stretches the ranks of its list."""
    weight = 1.0 if fusion.weights is None else fusion.weights[at]
    if weight <= 0:
        return [(place, 0.0) for place, _ in ranked]
    return [(place, 1 / ((rank + 1) / weight + fusion.k - 1)) for rank, (place, _) in enumerate(ranked)]


def _by_distribution(ranked: Ranked, fusion: Fusion, at: int) -> list[tuple[Place, float]]:
    """Scores where three standard deviations below the mean are 0 and three above are 1."""
    scores = [score for _, score in ranked]
    spread = stdev(scores) if len(scores) > 1 else 0.0
    if spread == 0:
        return [(place, 0.5) for place, _ in ranked]
    low = fmean(scores) - 3 * spread
    return [(place, (score - low) / (6 * spread)) for place, score in ranked]
