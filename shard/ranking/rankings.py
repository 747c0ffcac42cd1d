"""What one shard is asked to rank its points by, as values that can be encoded. Nothing here says how an answer is found.

Vectors are prepared: checked against the collection, of unit length for Cosine.
"""

from __future__ import annotations

import msgspec

from journal.records import Vector
from shard.filters.where import Where


class Nearest(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Points by closeness to a vector."""

    name: str
    vector: Vector


class BestScore(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Points by the closest of their examples: near a positive one, far from every negative one."""

    name: str
    positive: list[Vector]
    negative: list[Vector]


class SumScores(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Points by their closeness to all positive examples less that to all negative ones."""

    name: str
    positive: list[Vector]
    negative: list[Vector]


class Discover(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Points by how many pairs they stand on the positive side of, then by closeness to the target."""

    name: str
    target: Vector
    pairs: list[tuple[Vector, Vector]]


class Context(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Points that stand on the positive side of all pairs, or nearly so."""

    name: str
    pairs: list[tuple[Vector, Vector]]


class Feedback(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Points by closeness to a target, moved by judged examples: `a`, `b`, `c` are the dialect's coefficients."""

    name: str
    target: Vector
    judged: list[tuple[Vector, float]]
    a: float
    b: float
    c: float


class OrderBy(msgspec.Struct, frozen=True, tag=True):
    """Points by a payload value; `start` is the first value to show, moments in microseconds since 1970."""

    key: str
    descending: bool = False
    start: int | float | None = None


class Sample(msgspec.Struct, frozen=True, tag=True):
    """Points at random. Their values are such that the least values over several shards are a sample of all their points."""

    seed: int


class ById(msgspec.Struct, frozen=True, tag=True):
    """Points in the order of their ids, from `start` on."""

    start: bytes = b""


ByVector = Nearest | BestScore | SumScores | Discover | Context | Feedback
By = ByVector | OrderBy | Sample | ById


class SearchParams(msgspec.Struct, frozen=True):
    """How a search by one vector may go about it."""

    ef: int | None = None
    """Candidates that the walk through a graph keeps; None for as many as the graphs want."""
    exact: bool = False
    ignore_codes: bool = False
    rescore: bool = True
    """Whether the vectors themselves rank what a graph's codes find."""
    oversampling: float = 1.0
    """How many times more candidates than asked for the codes are to find."""


DEFAULT_PARAMS = SearchParams()


class Ranking(msgspec.Struct, frozen=True, eq=False):
    """One ranked list of at most `limit` points of a shard: of those that pass a filter, less those `without`."""

    by: By
    limit: int
    where: Where | None = None
    without: list[bytes] = []
    params: SearchParams = DEFAULT_PARAMS
    explain: bool = False
    """Whether the answer shall say what was done."""
