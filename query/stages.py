"""What a query asks for, as values: stages that each give a ranked list of points, the inner ones first."""

from __future__ import annotations

from typing import Literal

import msgspec

from shard.filters.where import Where
from shard.ranking.formula import Formula
from shard.ranking.rankings import DEFAULT_PARAMS, By, SearchParams

MAX_LIMIT = 10_000
"""The bound of limit and offset together."""


class Diversity(msgspec.Struct, frozen=True):
    """Maximal marginal relevance over the `candidates` nearest: 0 ranks by relevance alone, 1 by difference alone."""

    diversity: float
    candidates: int


class Fusion(msgspec.Struct, frozen=True, tag=True):
    """The inner lists as one: by ranks (`rrf`) or by scores normalised by their distribution (`dbsf`)."""

    method: Literal["rrf", "dbsf"]
    k: int = 2
    weights: list[float] | None = None


Query = By | Fusion | Formula


class Stage(msgspec.Struct, frozen=True, eq=False):
    """One ranked list of at most `limit` points: from all points, or from those that the inner stages give."""

    query: Query
    limit: int
    where: Where | None = None
    params: SearchParams = DEFAULT_PARAMS
    score_threshold: float | None = None
    exclude: frozenset[bytes] = frozenset()
    inner: list[Stage] = []
    diversity: Diversity | None = None
    """Of a query by one vector."""
    corpus: Where | None = None
    """The points that inverse document frequencies are counted over; None for all."""
    is_weighed: bool = False
    """Whether inverse document frequencies are in the query vectors already."""
