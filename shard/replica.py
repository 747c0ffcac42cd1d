"""The protocol of a replica, local or remote: requests are values, results are columns.

A read takes a lease, which pins one view of the shard from the first round of a request to the last (I13). A method returns its
result directly when that is available or quick to compute, and otherwise an awaitable of it.

`shard/local.py` implements the protocol in this process; `shard/wire.py` encodes its requests and results.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, Union

import msgspec

from catalog.collection import Collection
from journal.log import Positions, TopicPartition
from journal.records import Vector, Vectors
from journal.stamps import Version
from shard.deadline import Deadline
from shard.filters.where import Where
from shard.ranking.formula import Formula
from shard.ranking.rankings import Ranking
from shard.vectors.index import SegmentList

T = TypeVar("T")
Answer: TypeAlias = Union[T, Awaitable[T]]  # noqa: UP007 - the other form is no alias for mypy
"""A value, or a future of the running event loop: when nobody wants it any more, it is cancelled."""

Pool: TypeAlias = Callable[[Callable[[], T]], Awaitable[T]]
"""Runs work in another thread; the result is awaited."""


class AsOf(msgspec.Struct, frozen=True):
    """A past moment: the instant `stamp`, which must be closed, or what was applied below `positions`, if these are given.

    `collection` is the collection as it was then.
    """

    collection: Collection
    stamp: int
    positions: Positions | None = None


class RankedPoints(msgspec.Struct):
    """Points in the order of a ranking, as columns of equal length.

    `scores` are float32, as the dialect shows them; `versions` are of the latest write to each point. `values` are the sort keys
    of an order or a sample. `steps` is the trace of the execution, if `explain` was set. `walked`: by a plan that finds
    them approximately, maybe not for this limit.
    """

    ids: list[bytes]
    scores: Vectors
    versions: list[Version]
    values: list[int | float] | None = None
    steps: list[dict[str, Any]] = []
    walked: bool = False

    def since(self, start: int, end: int | None = None) -> RankedPoints:
        """The points from index `start` up to, but not including, index `end`."""
        part = slice(start, end)
        values = None if self.values is None else self.values[part]
        return RankedPoints(self.ids[part], self.scores[part], self.versions[part], values)


class Points(msgspec.Struct):
    """Points as they are stored, as columns of equal length: payloads as JSON, empty for none, and vectors by name."""

    ids: list[bytes]
    versions: list[Version]
    payloads: list[bytes]
    vectors: list[dict[str, Vector]]


class PayloadPart(msgspec.Struct, frozen=True):
    """The part of a payload to return: the paths `include`, or all paths except `exclude`; everything without either."""

    include: list[str] | None = None
    exclude: list[str] | None = None


class Terms(msgspec.Struct):
    """Document frequencies: how many points have a sparse vector, and how many of these have each of the requested indexes."""

    total: int
    having: list[int]


class FacetCount(msgspec.Struct, array_like=True):
    """A value and the number of points that have it."""

    value: str | int | bool
    count: int


class Cursor(NamedTuple):
    """A place in the order of the changes of a collection: after the change of this point with this version."""

    version: Version
    id: bytes = b""


class States(msgspec.Struct):
    """One side of changes: payloads as JSON, empty for none, and vectors by name. None: the point did not exist."""

    payloads: list[bytes | None]
    vectors: list[dict[str, Vector]]


class Changes(msgspec.Struct):
    """Changes of points, as columns of equal length.

    `offsets`, in a history, are those of the records that made them, in the home partition of the version's tier; -1 where they
    are not known any more. `keys` and `names` are the payload keys and the vectors that changed. `reached` is the last change
    that was looked at; None when there are no more.
    """

    ids: list[bytes]
    versions: list[Version]
    offsets: list[int]
    keys: list[list[str]]
    names: list[list[str]]
    after: States
    before: States | None = None
    reached: Cursor | None = None


class ShardStatus(msgspec.Struct):
    """Counts for operators: points, vectors (in all, and by name), vectors in graphs, segments.

    Up to `seal_rows` vectors normally have no graph. `fields`: how many points have a value in each payload index that is built.
    `closed`: the closed stamp; `unsettled`: how many points wait for it to advance.
    """

    points: int
    vectors: int
    indexed: int
    segments: int
    seal_rows: int
    fields: dict[str, int]
    closed: int
    unsettled: int
    vectors_by_name: dict[str, int]


class Held(msgspec.Struct):
    """Bytes of vectors and payload in a shard, estimated from a sample of its points."""

    vector_bytes: int
    payload_bytes: int


class Closable(Protocol):
    """What is final when `stamp` is not above `closed`, the closed stamp of the shard (I7)."""

    @property
    def stamp(self) -> int: ...

    @property
    def closed(self) -> int: ...


class Outcome(msgspec.Struct):
    """What became of records with conditions: the points for which these did not hold."""

    stamp: int
    closed: int
    failed: list[bytes]


class Attempted(msgspec.Struct):
    """The latest attempt of a request with an idempotency key and conditions, as far as it reached the shard.

    `done` are the points that all attempts changed. `result` is there when the request has ended.
    """

    stamp: int
    closed: int
    number: int
    request_id: str
    done: list[bytes]
    result: bytes | None


class Lease(Protocol):
    """A pinned view of a shard. Every method raises DeadlineExceeded when the deadline of the read has passed."""

    @property
    def shard(self) -> int:
        """The number of the shard in its collection."""

    @property
    def version(self) -> Hashable:
        """Identifies the view: equal versions mean equal answers."""

    @property
    def positions(self) -> Positions:
        """The next offsets of the shard's home partitions: the view contains everything below them."""

    def begin(self, deadline: Deadline) -> None:
        """Sets the deadline, when the work of the request begins."""

    def rank(self, ranking: Ranking, among: Sequence[bytes] | None = None) -> Answer[RankedPoints]:
        """The first points of a ranking; `among` limits it to these ids.

        Raises OrderError without a suitable index, and IndexNotBuilt while it is being built.
        """

    def score(self, formula: Formula, ids: Sequence[bytes], scores: Sequence[Sequence[float | None]]) -> Answer[Vectors]:
        """The value of a formula for each point, float32; `scores[i]` are the prefetch scores of point i. Raises FormulaError."""

    def terms(self, name: str, indexes: Sequence[int], where: Where | None) -> Answer[Terms]:
        """Document frequencies of these indexes of a sparse vector, over the points that pass the filter."""

    def fetch(
        self, ids: Sequence[bytes], payload: PayloadPart | None = None, vectors: bool | Sequence[str] = False
    ) -> Answer[Points]:
        """The existing points among these ids, in the given order. Payloads are empty when `payload` is None."""

    def values(self, ids: Sequence[bytes], key: str) -> Answer[list[list[Any]]]:
        """The payload values at a path for each of these points, which must exist; an array counts as its elements."""

    def count(self, where: Where | None) -> Answer[int]:
        """How many points pass the filter."""

    def facet(self, key: str, where: Where | None) -> Answer[list[FacetCount]]:
        """For each string, integer or boolean at a path: how many of the points that pass the filter have it."""

    def history(self, point_id: bytes, before: Version, limit: int, vectors: bool | Sequence[str] = False) -> Answer[Changes]:
        """The changes of a point with versions below `before`, the latest first, at most `limit`, with the states before them."""

    def changes(
        self,
        after: Cursor,
        until: Version,
        limit: int,
        where: Where | None = None,
        vectors: bool | Sequence[str] = False,
        with_before: bool = False,
    ) -> Answer[Changes]:
        """The changes after a cursor up to the version `until`, in order of version and id, at most `limit`.

        `where`: of points that pass the filter before or after the change. Raises PastGone when some are not kept any more.
        """

    def held(self) -> Answer[Held]:
        """The estimated size of the data in the shard."""


class Replica(Protocol):
    """One shard on one node."""

    @property
    def shard(self) -> int:
        """The number of the shard in its collection."""

    def read(self, positions: Mapping[TopicPartition, int], wait_s: float, as_of: AsOf | None = None) -> Answer[Lease]:
        """A lease on a view in which everything below `positions` is applied; with `as_of` on the shard as it was.

        Raises NotCaughtUp when the positions are not reached within `wait_s` seconds, PastGone for an instant before what is
        kept, and Unrepeatable for positions at which the state was one that is not kept.
        """

    def outcome(self, tier: int, offsets: Sequence[int]) -> Answer[Outcome | None]:
        """What became of the records at these offsets of the shard's home partition in the tier.

        None when one of them was not applied, because a later attempt of its request had begun, or was long ago.
        """

    def attempted(self, tier: int, key: str) -> Answer[Attempted | None]:
        """The latest attempt of the request with this idempotency key and conditions; None without one."""

    def closed(self) -> Answer[int]:
        """The closed stamp (I7): reads as of instants up to it are exact."""

    def held_for(self, stamps: Sequence[int]) -> Answer[list[int]]:
        """For each of some tagged stamps: the estimated bytes of the states that are kept for it beyond the retention."""

    def status(self) -> Answer[ShardStatus]:
        """The current counts of the shard."""

    def segments(self) -> Answer[dict[str, SegmentList]]:
        """The segments of each vector name, and their builds."""

    def sizes(self) -> Answer[dict[str, int]]:
        """Bytes by part; the names of mapped files begin with `mapped_`. The time is proportional to the payload indexes."""
