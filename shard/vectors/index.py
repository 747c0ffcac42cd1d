"""What an index of one vector name is to the shard that feeds it and to the reads that ask it. Dense vectors: `segments`;
multi-vectors: `multi`; sparse ones: `sparse`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.collection import Distance
from journal.records import Vector, Vectors

Rows = NDArray[np.int64]
T = TypeVar("T")

MAX_TIES = 10_000
"""Points that tie with the last of an answer and are looked at to order them by id."""

SORTED_BELOW = 256
"""So few scores are sorted as a whole."""

MAX_DEAD_SHARE = 0.2
MIN_DEAD = 1_000
"""An index in memory with fewer dead points than this is not made again."""


class ScoredRows(NamedTuple):
    """Rows and their exact scores in the dialect's form."""

    rows: Rows
    scores: Vectors


NOTHING = ScoredRows(np.empty(0, np.int64), np.empty(0, np.float32))


class RowSet:
    """A set of rows that reads are confined to, and the forms in which indexes want it, each made once. Never changes."""

    def __init__(self, rows: BitMap) -> None:
        self.rows = rows
        self._made: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def array(self) -> Rows:
        """The rows, ascending."""
        return self.made("array", lambda: np.array(self.rows.to_array(), np.int64) if self.rows else np.empty(0, np.int64))

    def made(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` gives, remembered under a key."""
        if key not in self._made:
            self._made[key] = make()
        value: T = self._made[key]
        return value


class View(Protocol):
    """All vectors of one name in one shard at one moment. Immutable; readers need no lock."""

    @property
    def distance(self) -> Distance: ...

    def compare(self, example: Vector, rows: RowSet | None = None) -> ScoredRows:
        """The score of every row, or of those of `rows` that have the vector; rows ascend."""

    def scan(self, query: Vector, limit: int, rows: RowSet | None = None) -> ScoredRows:
        """The `limit` closest of all rows, or of `rows` only, closest first, by comparing each."""

    def search(self, query: Vector, limit: int, ef: int | None = None, rows: RowSet | None = None) -> ScoredRows:
        """Nearly the `limit` closest, closest first; by `ef` candidates, or as many as were measured, where there are graphs."""

    def scan_floats(self, query: Vector, rows: RowSet | None) -> int:
        """How many floats `scan` compares, about."""

    def all_rows(self) -> BitMap:
        """The rows that have this vector."""

    def size(self) -> int:
        """How many rows have this vector."""


class Index(Protocol):
    """Guarded by the shard's lock wherever it changes."""

    view: Any

    def load(self, alive: Rows, next_row: int) -> Rows:
        """Opens what is kept in files. Returns those of the rows `alive` that are missing and must be added."""

    def add(self, rows: Rows, vectors: Sequence[Vector]) -> None:
        """Appends rows, ascending and above all before. Visible after `publish`."""

    def kill(self, rows: Rows) -> None:
        """Removes those of `rows` (ascending) that are here. Visible after `publish`."""

    def publish(self) -> None:
        """Makes all changes visible to readers at once."""

    def plan(self, idle: bool) -> Any | None:
        """What is to be built now; the caller then gives it to `run`. None for nothing."""

    def add_codes(self) -> None:
        """Adds codes that make it cheaper to search what waits for `run`. Called without the lock, after `plan`."""

    def run(self, build: Any) -> None:
        """Builds, and replaces what it was built from. Long; called without the lock."""

    def abandon(self) -> None:
        """Plans nothing more; the shard is closing or being dropped."""

    def status(self) -> Mapping[str, int]:
        """Counts for people: vectors alive, vectors with an index, segments."""

    def sizes_bytes(self) -> Mapping[str, int]:
        """What the parts take; those that are mapped files begin with `mapped_`."""


class InMemory:
    """What indexes have in common that are as they are: in memory, with no files to open and nothing to build."""

    def load(self, alive: Rows, next_row: int) -> Rows:
        return alive

    def plan(self, idle: bool) -> None:
        return None

    def add_codes(self) -> None:
        pass

    def run(self, build: None) -> None:
        pass

    def abandon(self) -> None:
        pass


def must_compact(dead: int, count: int) -> bool:
    """Whether so many of the points of an index in memory are dead that it is to be made again without them."""
    return dead > max(MIN_DEAD, MAX_DEAD_SHARE * count)


def best(distance: Distance, scores: Vectors, limit: int) -> Rows:
    """The indexes of the `limit` closest scores, closest first, and of those that are as close as the last of them.

    Which of these belong to an answer is decided by their ids; of more than MAX_TIES, by chance.
    """
    order = -scores if distance.higher_is_closer else scores
    if len(order) <= SORTED_BELOW:
        chosen = np.argsort(order, kind="stable")
        end = limit
        while end < len(order) and order[chosen[end]] == order[chosen[limit - 1]]:
            end += 1
        return chosen[:end]
    if limit >= len(order):
        return np.argsort(order, kind="stable")
    chosen = np.argpartition(order, limit - 1)[:limit]
    last = order[chosen[-1]]
    ties = order == last
    if np.count_nonzero(ties) > 1:
        chosen = np.concatenate([chosen[order[chosen] < last], np.flatnonzero(ties)[: max(limit, MAX_TIES)]])
    return chosen[np.argsort(order[chosen], kind="stable")]


def closest(distance: Distance, found: ScoredRows, limit: int) -> ScoredRows:
    """The `limit` closest of what was found, closest first, and those that tie with the last: see `best`."""
    chosen = best(distance, found.scores, limit)
    return ScoredRows(found.rows[chosen], found.scores[chosen])


def grown(array: NDArray[Any], count: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """A larger array that begins with the first `count` elements. A new one, so that readers of the old are not disturbed."""
    larger = np.empty(shape, array.dtype)
    larger[:count] = array[:count]
    return larger


def room_for(count: int, now: int) -> int:
    """How many elements to make room for when `count` are needed."""
    return max(1024, count, 2 * now)


def normalised(vectors: Vectors) -> Vectors:
    """Vectors, shape (n, d), at unit length; zero vectors stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, np.newaxis]
    norms[norms == 0] = 1
    unit: Vectors = vectors / norms
    return unit
