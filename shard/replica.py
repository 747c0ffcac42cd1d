"""The protocol that makes a shard, wherever it is, look alike: requests go in as values, results come back as columns.

A read takes a lease: one moment of the shard, pinned from the first round of a request to the last (I13). What a lease and its
replica are asked for, they answer with the value itself when it is at hand or quickly made, else with something to await.

`shard/local.py` implements it in this process; `shard/wire.py` encodes everything that goes through it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, Union

import msgspec

from journal.log import Positions, TopicPartition
from journal.records import Vector, Vectors
from shard.deadline import Deadline
from shard.filters.where import Where
from shard.ranking.formula import Formula
from shard.ranking.rankings import Ranking

T = TypeVar("T")
Answer: TypeAlias = Union[T, Awaitable[T]]  # noqa: UP007 - the other form is no alias for mypy

Pool: TypeAlias = Callable[[Callable[[], T]], Awaitable[T]]
"""Runs work in another thread."""


class RankedPoints(msgspec.Struct):
    """Points in the order of a ranking, as columns of equal length.

    `scores` are float32, in the dialect's form; `stamps` those of the latest write that shaped each point. `values` are what the
    points were ordered by, where that is no score. `steps` say what was done, when that was asked for.
    """

    ids: list[bytes]
    scores: Vectors
    stamps: list[int]
    values: list[int | float] | None = None
    steps: list[dict[str, Any]] = []

    def since(self, start: int, end: int | None = None) -> RankedPoints:
        """The points from one place of the ranking on, and before another."""
        part = slice(start, end)
        values = None if self.values is None else self.values[part]
        return RankedPoints(self.ids[part], self.scores[part], self.stamps[part], values)


class Points(msgspec.Struct):
    """Points as they are stored, as columns of equal length: payloads as JSON, empty for none, and vectors by name."""

    ids: list[bytes]
    stamps: list[int]
    payloads: list[bytes]
    vectors: list[dict[str, Vector]]


class PayloadPart(msgspec.Struct, frozen=True):
    """Which part of payloads: what lies at the paths `include`, or all but what lies at `exclude`; all without both."""

    include: list[str] | None = None
    exclude: list[str] | None = None


class Terms(msgspec.Struct):
    """How many points have a sparse vector, and how many of these have each of some indexes."""

    total: int
    having: list[int]


class FacetCount(msgspec.Struct, array_like=True):
    """How many points have a value."""

    value: str | int | bool
    count: int


class ShardStatus(msgspec.Struct):
    """Counts for people: points, vectors, vectors in graphs, segments.
    So many vectors as `seal_rows` may wait for a graph in good order.

    `fields`: how many points have a value in each payload index.
    """

    points: int
    vectors: int
    indexed: int
    segments: int
    seal_rows: int
    fields: dict[str, int]


class Held(msgspec.Struct):
    """How many bytes of vectors and payload a shard holds, estimated from some of its points."""

    vector_bytes: int
    payload_bytes: int


class Lease(Protocol):
    """A shard at one moment. Whatever it is asked for raises DeadlineExceeded when the time of the read is over."""

    @property
    def shard(self) -> int:
        """The number of the shard in its collection."""

    @property
    def version(self) -> Hashable:
        """Equal versions mean equal answers."""

    @property
    def positions(self) -> Positions:
        """The next offsets of the shard's home partitions: everything below is in what the lease shows."""

    def begin(self, deadline: Deadline) -> None:
        """From now on the lease works for its request, until the deadline at most."""

    def rank(self, ranking: Ranking, among: Sequence[bytes] | None = None) -> Answer[RankedPoints]:
        """The points that come first; `among` limits them to those with these ids. Raises OrderError without a fitting index."""

    def score(self, formula: Formula, ids: Sequence[bytes], scores: Sequence[Sequence[float | None]]) -> Answer[Vectors]:
        """The value of a formula for each point, float32; `scores[i]` are those of the i-th point. Raises FormulaError."""

    def terms(self, name: str, indexes: Sequence[int], where: Where | None) -> Answer[Terms]:
        """How many of the points that pass have a sparse vector of this name, and each of these indexes in it."""

    def fetch(
        self, ids: Sequence[bytes], payload: PayloadPart | None = None, vectors: bool | Sequence[str] = False
    ) -> Answer[Points]:
        """The points with these ids, in their order; those that do not exist are left out. Without a part, payloads are empty."""

    def values(self, ids: Sequence[bytes], key: str) -> Answer[list[list[Any]]]:
        """The values at a path in the payload of each of these points, which exist; an array counts as its elements."""

    def count(self, where: Where | None) -> Answer[int]:
        """How many points pass."""

    def facet(self, key: str, where: Where | None) -> Answer[list[FacetCount]]:
        """How many of the points that pass have each text, integer or boolean at a path."""

    def held(self) -> Answer[Held]:
        """How much the shard holds."""


class Replica(Protocol):
    """One shard on one node."""

    @property
    def shard(self) -> int:
        """The number of the shard in its collection."""

    def read(self, positions: Mapping[TopicPartition, int], wait_s: float) -> Answer[Lease]:
        """A lease on a moment at which everything below `positions` is applied.

        Raises NotCaughtUp when that moment does not come within `wait_s`.
        """

    def status(self) -> Answer[ShardStatus]:
        """Counts for people."""

    def sizes(self) -> Answer[dict[str, int]]:
        """Bytes by part; what is in mapped files begins with `mapped_`. Takes time in proportion to the payload indexes."""
