"""Indexes of numbers and of coordinates: each has its values by row, and a sorted copy for lookups by value."""

from __future__ import annotations

import array
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import compress, dropwhile
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from payload.geo import Area, Coordinates
from shard.checkpoint_file import IndexPart, NumberRows, PlaceRows
from shard.fitted import fitted

EXACT_FLOAT = 2**53
"""Larger integers are not exact as float64."""

RESORT_ROWS = 1000
"""An index is sorted again when more rows than this, and more than a tenth of it, have changed."""

LOCKED_ROWS = 4096
"""Rows that are copied each time the lock is held."""

VALUE_BYTES = 200
"""The estimated memory of a row."""

_CHUNK = 1024
"""Pairs that an iteration reads from the sorted copy at a time."""

Side = Literal["left", "right"]
Rows = NDArray[np.uint32]
Floats = NDArray[np.float64]
ValueOfRow = tuple[float | int, int]
"""A value and a row that has it."""


class Sortable(Protocol):
    """An index that raises Unsorted."""

    def sort(self, lock: threading.Lock) -> None:
        """Sorts the index, if that is due. The caller does not hold `lock`, the lock of the payload index; it is held here for
        some values at a time."""


class Unsorted(Exception):
    """Many values changed since `index` was sorted: sort it, without the lock of the payload index, and try again."""

    def __init__(self, index: Sortable) -> None:
        super().__init__()
        self.index = index


class SortedCopy(Protocol):
    """Columns in the order of the values. They never change."""

    @property
    def rows(self) -> Rows: ...


class SortedNumbers(NamedTuple):
    """Numbers with their rows, ordered by number, then row. `floats` are the numbers as float64."""

    rows: Rows
    floats: Floats
    numbers: Sequence[float | int]


class SortedPlaces(NamedTuple):
    """Coordinates in degrees with their rows, ordered by latitude."""

    rows: Rows
    lons: Floats
    lats: Floats


Value = TypeVar("Value")
Copy = TypeVar("Copy", bound=SortedCopy)


class _SortedIndex(ABC, Generic[Value, Copy]):
    """row -> values, with a sorted copy for lookups by value, and the rows that changed after the copy was made."""

    def __init__(self) -> None:
        self._values: dict[int, list[Value]] = {}
        self._copy = self._sorted_copy([])
        self._changed = BitMap()
        self._changed_in_sort: BitMap | None = None
        """The rows that have changed since the sort began that is running; those of an interrupted sort have no effect."""
        self._sorting = threading.Lock()

    def add(self, row: int, values: list[Value]) -> None:
        if values:
            self._values[row] = values if len(values) == 1 else list(dict.fromkeys(values))
            self._note(row)

    def remove(self, row: int) -> None:
        if self._values.pop(row, None) is not None:
            self._note(row)
            self._values = fitted(self._values)

    def remove_rows(self, rows: BitMap) -> None:
        """Removes several rows."""
        for row in rows:
            self.remove(row)

    def count(self) -> int:
        """How many rows have a value."""
        return len(self._values)

    def sort(self, lock: threading.Lock) -> None:
        """Makes a new sorted copy, if many rows have changed. Concurrent calls wait for the first."""
        with self._sorting:
            with lock:
                if not self._needs_sort():
                    return
                rows = list(self._values)
                self._changed_in_sort = BitMap()
            made = self._sorted_copy(self._pairs(rows, lock))
            with lock:
                self._copy, self._changed, self._changed_in_sort = made, self._changed_in_sort, None

    def parts(self, lock: threading.Lock) -> Iterator[IndexPart]:
        """The content for a checkpoint: the sorted copy, then the rows that have changed since it was made."""
        self.sort(lock)
        with lock:
            made, changed = self._copy, BitMap(self._changed)
        pairs = self._pairs(list(changed), lock)
        yield self._sorted_part(made, ~np.isin(made.rows, np.array(changed.to_array(), np.uint32)))
        if pairs:
            yield self._unsorted_part(pairs)

    @abstractmethod
    def _sorted_copy(self, pairs: list[tuple[Value, int]]) -> Copy:
        """A sorted copy of these values with their rows."""

    @abstractmethod
    def _sorted_part(self, made: Copy, kept: NDArray[np.bool_]) -> IndexPart:
        """A sorted copy without the rows that are not `kept`."""

    @abstractmethod
    def _unsorted_part(self, pairs: list[tuple[Value, int]]) -> IndexPart:
        """Values and rows in any order."""

    def _sorted_now(self) -> Copy:
        """The sorted copy. Raises Unsorted when many rows have changed since it was made."""
        if self._needs_sort():
            raise Unsorted(self)
        return self._copy

    def _needs_sort(self) -> bool:
        return len(self._changed) > max(RESORT_ROWS, len(self._copy.rows) // 10)

    def _note(self, row: int) -> None:
        self._changed.add(row)
        if self._changed_in_sort is not None:
            self._changed_in_sort.add(row)

    def _pairs(self, rows: list[int], lock: threading.Lock) -> list[tuple[Value, int]]:
        """The current values of some rows; the lock is held for some rows at a time."""
        pairs: list[tuple[Value, int]] = []
        for start in range(0, len(rows), LOCKED_ROWS):
            with lock:
                held = [(row, self._values.get(row, ())) for row in rows[start : start + LOCKED_ROWS]]
            pairs.extend((value, row) for row, values in held for value in values)
        return pairs

    def _tested(self, rows: BitMap, accepts: Callable[[Value], bool]) -> BitMap:
        """The rows among `rows` that have a value for which `accepts` is true."""
        return BitMap(row for row in rows if any(accepts(value) for value in self._values.get(row, ())))


class RangeIndex(_SortedIndex[float | int, SortedNumbers]):
    """Numbers by row, for ranges and sorting. Lookups use float64, so that some large integers compare as equal."""

    def between(self, accepts: Callable[[float | int], bool], low: float | None, high: float | None) -> BitMap:
        """The rows with a value for which `accepts` is true; all such values must lie between `low` and `high`, inclusive.

        Raises Unsorted.
        """
        sorted_rows, floats, _ = self._sorted_now()
        start = 0 if low is None else _place(floats, low, "left")
        end = len(sorted_rows) if high is None else _place(floats, high, "right")
        # All values strictly between the bounds pass. Values equal to a bound are tested: the bound may be exclusive.
        inner_start = start if low is None else min(_place(floats, low, "right"), end)
        inner_end = end if high is None else max(_place(floats, high, "left"), inner_start)
        rows = _bitmap(sorted_rows[inner_start:inner_end])
        for bound, run in ((low, slice(start, inner_start)), (high, slice(inner_end, end))):
            if bound is not None and run.start < run.stop:
                equal = _bitmap(sorted_rows[run])
                rows |= self._tested(equal, accepts) if abs(bound) >= EXACT_FLOAT else equal if accepts(bound) else BitMap()
        return (rows - self._changed) | self._tested(self._changed, accepts)

    def order(self) -> ValueOrder:
        """The values in order, a snapshot. Raises Unsorted."""
        made = self._sorted_now()
        changed = [(value, row) for row in self._changed for value in self._values.get(row, ())]
        return ValueOrder(made, BitMap(self._changed), changed)

    def restore(self, part: NumberRows) -> None:
        """Adds a part that `parts` produced."""
        rows = np.frombuffer(part.rows, np.uint32)
        by_row = _by_row(rows.tolist(), part.numbers)
        if part.in_order:
            self._values, self._copy = by_row, SortedNumbers(rows, np.array(part.numbers, np.float64), part.numbers)
        else:
            self._values |= by_row
            self._changed.update(by_row)

    def _sorted_copy(self, pairs: list[tuple[float | int, int]]) -> SortedNumbers:
        floats = np.fromiter((value for value, _ in pairs), np.float64, len(pairs))
        rows = np.fromiter((row for _, row in pairs), np.uint32, len(pairs))
        if len(pairs) and np.abs(floats).max() >= EXACT_FLOAT:
            order = np.array(sorted(range(len(pairs)), key=pairs.__getitem__))
        else:
            order = np.lexsort((rows, floats))
        return SortedNumbers(rows[order], floats[order], [pairs[at][0] for at in order.tolist()])

    def _sorted_part(self, made: SortedNumbers, kept: NDArray[np.bool_]) -> NumberRows:
        return NumberRows(True, made.rows[kept].tobytes(), list(compress(made.numbers, kept.tolist())))

    def _unsorted_part(self, pairs: list[tuple[float | int, int]]) -> NumberRows:
        return NumberRows(False, _uint32s(row for _, row in pairs), [number for number, _ in pairs])


class ValueOrder(NamedTuple):
    """A snapshot of a RangeIndex: its sorted copy, and the rows that changed after the copy was made."""

    made: SortedNumbers
    changed: BitMap
    changed_pairs: Sequence[ValueOfRow]

    def ascending(
        self, start: float | None, descending: bool, without: BitMap, pairs: Sequence[ValueOfRow]
    ) -> Iterator[ValueOfRow]:
        """Pairs of value and row in order of value, then row, from value `start` (inclusive); reversed if `descending`.

        A row is returned once for each of its values. The rows `without` are left out; `pairs` are merged in instead.
        """
        unsorted = [pair for pair in self.changed_pairs if pair[1] not in without]
        merged = merge(
            self._walk(start, descending, self.changed | without),
            sorted([*unsorted, *pairs], reverse=descending),
            reverse=descending,
        )
        if start is None:
            return merged
        return dropwhile(lambda pair: pair[0] > start if descending else pair[0] < start, merged)

    def _walk(self, start: float | None, descending: bool, without: BitMap) -> Iterator[ValueOfRow]:
        """The pairs of the sorted copy, beginning at `start` or slightly before it."""
        rows, floats, numbers = self.made
        first, last = 0, len(rows)
        if start is not None and descending:
            last = _place(floats, start, "right")
        elif start is not None:
            first = _place(floats, start, "left")
        chunks = range(first, last, _CHUNK)
        for at in reversed(chunks) if descending else chunks:
            chunk = slice(at, min(at + _CHUNK, last))
            pairs = list(zip(numbers[chunk], rows[chunk].tolist(), strict=True))
            yield from (pair for pair in (reversed(pairs) if descending else pairs) if pair[1] not in without)


class GeoIndex(_SortedIndex[Coordinates, SortedPlaces]):
    """Coordinates by row, sorted by latitude, so that a search tests only those between the southern and northern bounds."""

    def within(self, area: Area) -> BitMap:
        """The rows with a point in an area. Raises Unsorted."""
        made = self._sorted_now()
        west, south, east, north = area.bounds()
        band = slice(int(np.searchsorted(made.lats, south, "left")), int(np.searchsorted(made.lats, north, "right")))
        rows, lons, lats = (column[band] for column in made)
        near = (lons >= west) | (lons <= east) if west > east else (lons >= west) & (lons <= east)
        lons, lats, rows = lons[near], lats[near], rows[near]
        certain, doubtful = area.holding(lons, lats)
        inside = _bitmap(rows[certain]) | self._tested(_bitmap(rows[doubtful]), lambda place: area.holds(*place))
        return (inside - self._changed) | self._tested(self._changed, lambda place: area.holds(*place))

    def restore(self, part: PlaceRows) -> None:
        """Adds a part that `parts` produced."""
        rows = np.frombuffer(part.rows, np.uint32)
        lons, lats = np.frombuffer(part.lons), np.frombuffer(part.lats)
        by_row = _by_row(rows.tolist(), list(map(Coordinates, lons.tolist(), lats.tolist())))
        if part.in_order:
            self._values, self._copy = by_row, SortedPlaces(rows, lons, lats)
        else:
            self._values |= by_row
            self._changed.update(by_row)

    def _sorted_copy(self, pairs: list[tuple[Coordinates, int]]) -> SortedPlaces:
        lats = np.fromiter((place.lat for place, _ in pairs), np.float64, len(pairs))
        lons = np.fromiter((place.lon for place, _ in pairs), np.float64, len(pairs))
        rows = np.fromiter((row for _, row in pairs), np.uint32, len(pairs))
        order = np.argsort(lats)
        return SortedPlaces(rows[order], lons[order], lats[order])

    def _sorted_part(self, made: SortedPlaces, kept: NDArray[np.bool_]) -> PlaceRows:
        return PlaceRows(True, *(column[kept].tobytes() for column in made))

    def _unsorted_part(self, pairs: list[tuple[Coordinates, int]]) -> PlaceRows:
        lons, lats = np.array([place for place, _ in pairs], np.float64).T
        return PlaceRows(False, _uint32s(row for _, row in pairs), lons.tobytes(), lats.tobytes())


def _bitmap(rows: np.ndarray[Any, np.dtype[np.uint32]]) -> BitMap:
    numbers = array.array("I")
    numbers.frombytes(rows.tobytes())
    return BitMap(numbers)


def _place(floats: Floats, value: float, side: Side) -> int:
    """The insertion index of a value in a sorted array."""
    return int(np.searchsorted(floats, _as_float(value), side))


def _uint32s(numbers: Iterable[int]) -> bytes:
    return np.array(list(numbers), np.uint32).tobytes()


def _by_row(rows: list[int], values: list[Value]) -> dict[int, list[Value]]:
    """The values of each row; nearly every row has one."""
    by_row = {row: [value] for row, value in zip(rows, values, strict=True)}
    if len(by_row) < len(rows):
        by_row = {row: [] for row in by_row}
        for row, value in zip(rows, values, strict=True):
            by_row[row].append(value)
    return by_row


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
