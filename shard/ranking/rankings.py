"""Ranking requests to one shard, as values that can be encoded.

Vectors are prepared: checked against the collection, and normalised to unit length for Cosine.
"""

from __future__ import annotations

import msgspec

from journal.records import Vector
from shard.filters.where import Where


class Nearest(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Orders points by closeness to a vector."""

    name: str
    vector: Vector


class BestScore(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Orders points by their closest example: first those closest to a positive one, last those closest to a negative one."""

    name: str
    positive: list[Vector]
    negative: list[Vector]


class SumScores(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Orders points by the sum of similarities to the positive examples minus the sum of those to the negative examples."""

    name: str
    positive: list[Vector]
    negative: list[Vector]


class Discover(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Orders points by the number of pairs in which they are closer to the positive example, then by closeness to the target."""

    name: str
    target: Vector
    pairs: list[tuple[Vector, Vector]]


class Context(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Orders points by how little they are closer to the negative example than to the positive one, over all pairs."""

    name: str
    pairs: list[tuple[Vector, Vector]]


class Feedback(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Orders points by closeness to a target, corrected by judged examples; `a`, `b`, `c` are the dialect's coefficients."""

    name: str
    target: Vector
    judged: list[tuple[Vector, float]]
    a: float
    b: float
    c: float


class OrderBy(msgspec.Struct, frozen=True, tag=True):
    """Orders points by a payload value, from value `start` (inclusive); datetimes are in microseconds since 1970."""

    key: str
    descending: bool = False
    start: int | float | None = None


class Sample(msgspec.Struct, frozen=True, tag=True):
    """A random sample of points. The points with the smallest values of several shards are a sample of all their points."""

    seed: int


class ById(msgspec.Struct, frozen=True, tag=True):
    """Orders points by id, from `start` (inclusive)."""

    start: bytes = b""


ByVector = Nearest | BestScore | SumScores | Discover | Context | Feedback
By = ByVector | OrderBy | Sample | ById


class SearchParams(msgspec.Struct, frozen=True):
    """Options of a search by one vector."""

    ef: int | None = None
    """The beam width of graph searches; None for the width that was measured for each graph."""
    exact: bool = False
    ignore_codes: bool = False
    rescore: bool = True
    """Whether candidates that a graph found by its codes are ranked by their vectors."""
    oversampling: float = 1.0
    """How many times more candidates than the limit are fetched by codes."""


DEFAULT_PARAMS = SearchParams()


class Ranking(msgspec.Struct, frozen=True, eq=False):
    """One ranked list of at most `limit` points of a shard: those that pass a filter, except those in `exclude`."""

    by: By
    limit: int
    where: Where | None = None
    exclude: list[bytes] = []
    params: SearchParams = DEFAULT_PARAMS
    explain: bool = False
    """Whether the answer contains the trace of the execution."""
