"""What a query asks for, as values: stages that each give a ranked list of points, the inner ones first.

Vectors are prepared: checked, of unit length for Cosine. Nothing here is decided yet about how an answer is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from journal.records import Vector
from query.reading import Order, Where
from shard.ranking.formula import Formula
from shard.vectors.graph import DEFAULT_USE, CodeUse

MAX_LIMIT = 10_000
"""The bound of limit and offset together."""


@dataclass(frozen=True, slots=True)
class Params:
    """How a vector search may go about it."""

    ef: int | None = None
    """Candidates of a search through a graph; None for as many as the graph was measured to need."""
    exact: bool = False
    ignore_codes: bool = False
    use: CodeUse = DEFAULT_USE
    idf_among: Where | None = None
    """The points that inverse document frequencies are counted over; None for all."""


@dataclass(frozen=True, slots=True)
class Diversity:
    """Maximal marginal relevance over the `candidates` nearest: 0 ranks by relevance alone, 1 by difference alone."""

    diversity: float
    candidates: int


@dataclass(frozen=True, slots=True)
class Nearest:
    """Points by closeness to a vector."""

    name: str
    vector: Vector
    diversity: Diversity | None = None


@dataclass(frozen=True, slots=True)
class BestScore:
    """Points by the closest of their examples: near a positive one, far from every negative one."""

    name: str
    positive: Sequence[Vector]
    negative: Sequence[Vector]


@dataclass(frozen=True, slots=True)
class SumScores:
    """Points by their closeness to all positive examples less that to all negative ones."""

    name: str
    positive: Sequence[Vector]
    negative: Sequence[Vector]


@dataclass(frozen=True, slots=True)
class Discover:
    """Points by how many pairs they stand on the positive side of, then by closeness to the target."""

    name: str
    target: Vector
    pairs: Sequence[tuple[Vector, Vector]]


@dataclass(frozen=True, slots=True)
class Context:
    """Points that stand on the positive side of all pairs, or nearly so."""

    name: str
    pairs: Sequence[tuple[Vector, Vector]]


@dataclass(frozen=True, slots=True)
class Feedback:
    """Points by closeness to a target, moved by judged examples: `a`, `b`, `c` are the dialect's coefficients."""

    name: str
    target: Vector
    judged: Sequence[tuple[Vector, float]]
    a: float
    b: float
    c: float


@dataclass(frozen=True, slots=True)
class OrderBy:
    """Points by a payload value; `start` is the first value to show, moments in microseconds since 1970."""

    key: str
    descending: bool = False
    start: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Points at random."""

    seed: int


@dataclass(frozen=True, slots=True)
class Fusion:
    """The inner lists as one: by ranks (`rrf`) or by scores normalised by their distribution (`dbsf`)."""

    method: Literal["rrf", "dbsf"]
    k: int = 2
    weights: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class ById:
    """Points in the order of their ids."""


VectorQuery = Nearest | BestScore | SumScores | Discover | Context | Feedback
Query = VectorQuery | OrderBy | Sample | Fusion | Formula | ById


@dataclass(frozen=True, slots=True)
class Stage:
    """One ranked list of at most `limit` points: from all points, or from those that the inner stages give."""

    query: Query
    limit: int
    where: Where | None = None
    params: Params = field(default_factory=Params)
    score_threshold: float | None = None
    exclude: frozenset[bytes] = frozenset()
    inner: Sequence[Stage] = ()

    def stages(self) -> Iterator[Stage]:
        """This stage and all inner ones."""
        yield self
        for stage in self.inner:
            yield from stage.stages()

    def filters(self) -> Iterator[Where]:
        """All filters that the stages ask for."""
        for stage in self.stages():
            yield from (wanted for wanted in (stage.where, stage.params.idf_among) if wanted is not None)

    def orders(self) -> Iterator[Order]:
        """All orders that the stages ask for of an index."""
        for stage in self.stages():
            if isinstance(stage.query, OrderBy) and not stage.inner:
                yield stage.order(stage.query)

    def order(self, by: OrderBy) -> Order:
        """The points that come first."""
        return Order(by.key, by.descending, by.start, self.limit + len(self.exclude), self.where)
