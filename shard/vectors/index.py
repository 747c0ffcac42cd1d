"""The protocols of the index of one vector name: `VectorIndex` for the shard that writes, `VectorView` for reads.

Dense vectors are in `segments`, multi-vectors in `multi`, sparse vectors in `sparse`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import isfinite, sqrt
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vector, Vectors
from shard.deadline import NEVER, Deadline

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
T = TypeVar("T")

EPSILON = 1.1920929e-7
"""The machine epsilon of float32."""

LARGEST = float(np.finfo(np.float32).max)

SORTED_BELOW = 256
"""Up to this many scores are sorted completely, without a partition first."""

MAX_DEAD_SHARE = 0.2
MIN_DEAD = 1_000
"""An in-memory index is compacted when it has more dead points than this and a larger share of dead points."""


class ScoredRows(NamedTuple):
    """Rows and their exact scores, as the dialect shows them."""

    rows: Rows
    scores: Vectors


NOTHING = ScoredRows(np.empty(0, np.int64), np.empty(0, np.float32))


MAX_BUILDS = 16
"""Builds of one index that are remembered."""


class SegmentInfo(msgspec.Struct, frozen=True):
    """A segment: its name, unique in its index, and its number of vectors. `waits`: its graph is not built yet."""

    name: str
    vectors: int
    waits: bool = False


class BuildInfo(msgspec.Struct, frozen=True):
    """A build of a segment: the name of the result, empty while it runs or when nothing was left, and its inputs."""

    name: str
    inputs: list[SegmentInfo]


class SegmentList(msgspec.Struct, frozen=True):
    """The segments of one index, the build that runs, and the latest that are done since the start, at most MAX_BUILDS."""

    segments: list[SegmentInfo]
    running: BuildInfo | None = None
    done: list[BuildInfo] = []


class RowSet:
    """A set of rows as a selector of searches, with cached conversions for the indexes. The set never changes."""

    def __init__(self, rows: BitMap) -> None:
        self.rows = rows
        self._cache: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def array(self) -> Rows:
        """The rows, ascending."""
        return self.cached("array", lambda: np.array(self.rows.to_array(), np.int64) if self.rows else np.empty(0, np.int64))

    def cached(self, key: Any, compute: Callable[[], T]) -> T:
        """The result of `compute`, cached under a key."""
        if key not in self._cache:
            self._cache[key] = compute()
        value: T = self._cache[key]
        return value


class VectorView(Protocol):
    """All vectors of one name in one shard at one moment. Immutable; readers need no lock."""

    @property
    def distance(self) -> Distance: ...

    @property
    def is_sparse(self) -> bool:
        """Whether `compare` leaves out rows that have the vector, since they have no index in common with the example."""

    def compare(self, example: Vector, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        """The score of every row that has the vector, among `rows` or all; ordered by row. Raises DeadlineExceeded."""

    def scan(self, query: Vector, limit: int, rows: RowSet | None = None, deadline: Deadline = NEVER) -> ScoredRows:
        """The `limit` closest rows, among `rows` or all, closest first; exact. Raises DeadlineExceeded."""

    def search(self, query: Vector, limit: int, ef: int | None = None, rows: RowSet | None = None) -> ScoredRows:
        """Approximately the `limit` closest rows, closest first; `ef` is the beam width in graphs, None for the measured one."""

    def scan_floats(self, query: Vector, rows: RowSet | None) -> int:
        """The approximate number of floats that `scan` compares."""

    def all_rows(self) -> BitMap:
        """The rows that have this vector."""

    def size(self) -> int:
        """How many rows have this vector."""

    def limited(self, valid: Mask) -> VectorView:
        """The vectors of those rows only for which `valid` is set. Its last element is not set and stands for all rows beyond."""


class VectorIndex(Protocol):
    """The index that the shard writes. All changes are made under the shard's lock."""

    view: Any

    def load(self, alive: Rows, next_row: int) -> Rows:
        """Opens the files. Returns the rows of `alive` that are not in them and must be added."""

    def add(self, rows: Rows, vectors: Sequence[Vector]) -> None:
        """Appends rows, ascending and above all existing ones, with vectors as they are stored. Visible after `publish`."""

    def kill(self, rows: Rows) -> None:
        """Marks rows (ascending) as dead; unknown rows are ignored. Visible after `publish`."""

    def publish(self) -> None:
        """Makes all changes visible to readers at once."""

    def plan(self, idle: bool) -> Any | None:
        """The next build, which the caller must pass to `run`; None when nothing is to be built."""

    def store_waiting(self) -> None:
        """Makes vectors that wait for `run` faster to search and to open again. Called without the lock, after `plan`."""

    def run(self, build: Any) -> None:
        """Executes a build, and replaces its inputs by the result. Long; called without the lock."""

    def abandon(self) -> None:
        """Stops planning builds; the shard is closing or being dropped."""

    def status(self) -> Mapping[str, int]:
        """Counts for operators: vectors alive, vectors with an index, segments."""

    def segments(self) -> SegmentList:
        """The segments, and the builds of them."""

    def sizes_bytes(self) -> Mapping[str, int]:
        """Bytes by part; the names of mapped files begin with `mapped_`."""


class InMemory(ABC):
    """The base of indexes that are only in memory: no files to open and nothing to build. Keeps which rows there are.

    The first `_count` elements of `_rows` and `_alive` are in use; a view may hold both arrays.
    """

    def __init__(self) -> None:
        self._rows: Rows = np.empty(0, np.int64)
        self._alive: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._count = 0
        self._dead = 0

    def kill(self, rows: Rows) -> None:
        mine = self._rows[: self._count]
        at = np.searchsorted(mine, rows)
        rows, at = rows[at < self._count], at[at < self._count]
        at = at[mine[at] == rows]
        if len(at):
            self._alive = self._alive.copy()
            self._dead += int(np.count_nonzero(self._alive[at]))
            self._alive[at] = False
            if self._dead > max(MIN_DEAD, MAX_DEAD_SHARE * self._count):
                self._compact()

    def _add_rows(self, rows: Rows) -> None:
        end = self._count + len(rows)
        if end > len(self._rows):
            capacity = grown_capacity(end, len(self._rows))
            self._rows = reallocated(self._rows, self._count, (capacity,))
            self._alive = reallocated(self._alive, self._count, (capacity,))
        self._rows[self._count : end] = rows
        self._alive[self._count : end] = True
        self._count = end

    @abstractmethod
    def _compact(self) -> None:
        """Leaves out the dead rows. Makes new arrays; views keep the old ones."""

    def load(self, alive: Rows, next_row: int) -> Rows:
        return alive

    def segments(self) -> SegmentList:
        return SegmentList([SegmentInfo("memory", self._count - self._dead)])

    def plan(self, idle: bool) -> Any | None:
        return None

    def store_waiting(self) -> None:
        return

    def run(self, build: Any) -> None:
        return

    def abandon(self) -> None:
        return


def best(distance: Distance, scores: Vectors, limit: int, error: float = 0.0) -> Rows:
    """The indexes of the `limit` closest scores, closest first, and of those that tie with the last of them: that differ from it
    by `error` at most.

    The caller decides between ties by their ids.
    """
    order = -scores if distance.higher_is_closer else scores
    if len(order) <= SORTED_BELOW:
        chosen = order.argsort(kind="stable")
        end = limit
        while end < len(order) and order[chosen[end]] <= order[chosen[limit - 1]] + error:
            end += 1
        return chosen[:end]
    if limit >= len(order):
        return order.argsort(kind="stable")
    chosen = np.argpartition(order, limit - 1)[:limit]
    last = order[chosen[-1]]
    ties = order == last if not error else np.abs(order - last) <= error
    if np.count_nonzero(ties) > 1:
        chosen = np.concatenate([chosen[order[chosen] < last - error], np.flatnonzero(ties)])
    return chosen[order[chosen].argsort(kind="stable")]


def closest(distance: Distance, scored: ScoredRows, limit: int) -> ScoredRows:
    """The `limit` closest of scored rows, closest first, and those that tie with the last: see `best`."""
    chosen = best(distance, scored.scores, limit)
    return ScoredRows(scored.rows[chosen], scored.scores[chosen])


def reallocated(array: NDArray[Any], count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """A new, larger array with a copy of the first `count` elements; readers of the old array are not affected."""
    larger = np.empty(shape, array.dtype)
    larger[:count] = array[:count]
    return larger


def grown_capacity(count: int, capacity: int) -> int:
    """The capacity to allocate when `count` elements are needed; `capacity` is the current one."""
    return max(1024, count, 2 * capacity)


def normalised(vectors: Vectors) -> Vectors:
    """Vectors, shape (n, d), scaled to unit length. Zero vectors stay zero, and vectors of unit length stay as they are, so that
    a vector that was read and is sent again does not change.

    In float64, where no square of a float32 is too small or too large. Each vector is computed for itself: a sum over the last
    axis does not depend on the number of rows.
    """
    squares = np.add.reduce(np.square(vectors, dtype=np.float64), axis=-1)
    squares[(squares == 0) | (np.abs(squares - 1) <= 2 * EPSILON)] = 1
    scaled: Vectors = np.divide(vectors, np.sqrt(squares)[:, np.newaxis], dtype=np.float64).astype(np.float32)
    return scaled


def unit(vector: Vectors, square: float) -> Vectors:
    """As `normalised`, for one vector, shape (d,), with this `sum_of_squares`."""
    if square == 0 or abs(square - 1) <= 2 * EPSILON:
        return vector
    return np.divide(vector, sqrt(square), dtype=np.float64).astype(np.float32)


def sum_of_squares(numbers: Vectors) -> float:
    """The sum of the squares of all numbers: finite, if they are."""
    return float(np.add.reduce(np.square(numbers, dtype=np.float64), axis=None))


def are_finite(numbers: Vectors) -> bool:
    """Whether all numbers are finite."""
    return isfinite(np.vdot(numbers, numbers)) or bool(np.isfinite(numbers).all())  # of large numbers the product is not


def finite(scores: NDArray[np.float64]) -> Vectors:
    """Scores as float32; what is too large for it becomes its largest number."""
    return np.clip(scores, -LARGEST, LARGEST).astype(np.float32)
