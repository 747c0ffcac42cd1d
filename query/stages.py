"""Queries as values: a tree of stages, each of which produces a ranked list of points from those of its inner stages."""

from __future__ import annotations

from typing import Literal

import msgspec

from shard.filters.where import Where
from shard.ranking.formula import Formula
from shard.ranking.rankings import DEFAULT_PARAMS, By, SearchParams


class Diversity(msgspec.Struct, frozen=True):
    """Maximal marginal relevance over the `candidates` nearest points. `diversity`: 0 ranks only by relevance, 1 only by
    difference."""

    diversity: float
    candidates: int


class Fusion(msgspec.Struct, frozen=True, tag=True):
    """Fuses the inner lists: by ranks (`rrf`) or by scores normalised by their distribution (`dbsf`)."""

    method: Literal["rrf", "dbsf"]
    k: int = 2
    weights: list[float] | None = None


Query = By | Fusion | Formula


class Stage(msgspec.Struct, frozen=True, eq=False):
    """One ranked list of at most `limit` points: from all points, or from the candidates of the inner stages."""

    query: Query
    limit: int
    where: Where | None = None
    params: SearchParams = DEFAULT_PARAMS
    score_threshold: float | None = None
    exclude: frozenset[bytes] = frozenset()
    inner: list[Stage] = []
    diversity: Diversity | None = None
    """Only for a query by one vector."""
    corpus: Where | None = None
    """The points from which inverse document frequencies are computed; None for all."""
    is_weighed: bool = False
    """Whether the query vectors are already multiplied by inverse document frequencies."""
