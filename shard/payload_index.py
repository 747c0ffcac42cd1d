"""The payload index of one shard: for each indexed field, which rows have which values. In memory, rebuilt at start.

Postings are roaring bitmaps of rows. An index returns an exact result or None when it cannot answer; it never approximates.
"""

from __future__ import annotations

import array
import math
import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from heapq import merge
from itertools import chain, compress, dropwhile, islice, takewhile
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pyroaring import BitMap

from payload.geo import Area, Coordinates, as_coordinates
from payload.paths import as_uuid, nodes_at
from payload.schema import FieldSchema, FieldType
from payload.text import analyzer_of
from shard.checkpoint_file import FieldRows, IndexPart, NumberRows, PlaceRows, PostingRows

EXACT_FLOAT = 2**53
"""Larger integers are not exact as float64."""

RESORT_ROWS = 1000
"""A sorted index is sorted again when more rows than this, and more than a tenth of it, have changed."""

_CHUNK = 1024
"""Pairs that an iteration reads from the sorted copy at a time."""

ROWS_PER_STEP = 256
"""Rows that are changed each time the lock is held."""

_LOCKED_KEYS, _LOCKED_ROWS = 64, 4096
"""Keys or rows that are copied for a checkpoint each time the lock is held."""

KEY_BYTES, VALUE_BYTES = 150, 200
"""Estimated memory of a posting key without its rows, and of a row in a sorted index."""

Key = str | int | bool
Side = Literal["left", "right"]
ValueOfRow = tuple[float | int, int]
"""A value and a row that has it."""
RowPayload = tuple[int, bytes]
"""A row and its payload as JSON."""


class Postings:
    """An inverted index: value -> rows."""

    def __init__(self) -> None:
        self._rows: dict[Key, BitMap] = {}
        self._texts: list[str] | None = None
        self._new_texts: list[str] = []

    def add(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is None:
                rows = self._rows[key] = BitMap()
                if self._texts is not None and isinstance(key, str):
                    self._new_texts.append(key)
                    if len(self._new_texts) > RESORT_ROWS + len(self._texts) // 2:
                        self._texts, self._new_texts = None, []  # not used recently; the next lookup sorts all again
            rows.add(row)

    def remove(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is not None:
                rows.discard(row)
                if not rows:
                    del self._rows[key]

    def remove_rows(self, rows: BitMap) -> None:
        """Removes rows whose values the caller does not know; slower than `remove`."""
        for key, held in list(self._rows.items()):
            held.difference_update(rows)
            if not held:
                del self._rows[key]

    def parts(self, lock: threading.Lock) -> Iterator[PostingRows]:
        """The content for a checkpoint. Keys that are added during the iteration are left out."""
        with lock:
            keys = list(self._rows)
        for start in range(0, len(keys), _LOCKED_KEYS):
            with lock:
                held = {key: rows.serialize() for key in keys[start : start + _LOCKED_KEYS] if (rows := self._rows.get(key))}
            yield PostingRows(list(held), list(held.values()))

    def restore(self, part: PostingRows) -> None:
        """Adds a part that `parts` produced."""
        self._rows.update(zip(part.keys, map(BitMap.deserialize, part.rows), strict=True))

    def any_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that have at least one of the keys."""
        postings = [rows for key in keys if (rows := self._rows.get(key)) is not None]
        return BitMap.union(*postings) if postings else BitMap()

    def all_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that have all of the keys."""
        postings = [self._rows.get(key, BitMap()) for key in keys]
        return BitMap.intersection(*postings) if postings else BitMap()

    def starting(self, prefix: str) -> BitMap:
        """The rows that have a string that starts with `prefix`."""
        texts = self._sorted_texts()
        matching: Iterator[str] = takewhile(lambda text: text.startswith(prefix), islice(texts, bisect_left(texts, prefix), None))
        return self.any_of(matching)

    def containing(self, part: str) -> BitMap:
        """The rows that have a string that contains `part`."""
        return self.any_of(text for text in self._rows if isinstance(text, str) and part in text)

    def keys(self) -> list[Key]:
        """All values of all rows."""
        return list(self._rows)

    def holders(self, keys: Iterable[Key], among: BitMap) -> list[tuple[Key, BitMap]]:
        """For each of some values its rows within `among`; values without such rows are left out."""
        common = [(key, rows & among) for key in keys if (rows := self._rows.get(key)) is not None]
        return [(key, rows) for key, rows in common if rows]

    def size_bytes(self, lock: threading.Lock) -> int:
        with lock:
            keys = list(self._rows)
        size = 0
        for start in range(0, len(keys), _LOCKED_KEYS):
            with lock:
                held = [rows for key in keys[start : start + _LOCKED_KEYS] if (rows := self._rows.get(key)) is not None]
                size += sum(KEY_BYTES + bitmap_bytes(rows) for rows in held)
        return size

    def _sorted_texts(self) -> list[str]:
        """The strings in order; some may have no rows any more. Built at the first call, then updated."""
        if self._texts is None or len(self._texts) > 2 * len(self._rows) + RESORT_ROWS:
            self._texts, self._new_texts = sorted(text for text in self._rows if isinstance(text, str)), []
        if self._new_texts:
            self._texts.extend(self._new_texts)
            self._texts.sort()  # quick: a long sorted part and a short one
            self._new_texts = []
        return self._texts


Value = TypeVar("Value")


class _Sorted(ABC, Generic[Value]):
    """row -> values, with a sorted copy for lookups by value, and the rows that changed after the copy was made."""

    def __init__(self) -> None:
        self._values: dict[int, list[Value]] = {}
        self._rows = np.empty(0, np.uint32)
        self._changed = BitMap()

    def add(self, row: int, values: list[Value]) -> None:
        if values:
            self._values[row] = values if len(values) == 1 else list(dict.fromkeys(values))
            self._changed.add(row)

    def remove(self, row: int) -> None:
        if self._values.pop(row, None) is not None:
            self._changed.add(row)

    def remove_rows(self, rows: BitMap) -> None:
        """Removes several rows."""
        for row in rows:
            self.remove(row)

    def parts(self, lock: threading.Lock) -> Iterator[IndexPart]:
        """The content for a checkpoint: the sorted copy, then the changed rows; if these are many, all rows sorted again."""
        with lock:
            now = copy(self)
            now._changed = BitMap(self._changed)
            rows = list(self._values if self._needs_sort() else self._changed)
        pairs: list[tuple[Value, int]] = []
        for start in range(0, len(rows), _LOCKED_ROWS):
            with lock:
                held = [(row, self._values.get(row, ())) for row in rows[start : start + _LOCKED_ROWS]]
            pairs.extend((value, row) for row, values in held for value in values)
        if now._needs_sort():
            now._sort(pairs)
            now._changed = BitMap()
            pairs = []
        yield now._sorted_part()
        if pairs:
            yield self._unsorted_part(pairs)

    @abstractmethod
    def _sorted_part(self) -> IndexPart:
        """The sorted copy without the rows that changed after it was made."""

    @abstractmethod
    def _unsorted_part(self, pairs: list[tuple[Value, int]]) -> IndexPart:
        """Values and rows in any order."""

    def _unchanged(self) -> NDArray[np.bool_]:
        """A mask of the sorted rows that have not changed."""
        return ~np.isin(self._rows, np.array(self._changed.to_array(), np.uint32))

    def count(self) -> int:
        """How many rows have a value."""
        return len(self._values)

    def _sort_if_needed(self) -> None:
        """Makes a new sorted copy when many rows have changed."""
        if self._needs_sort():
            self._sort([(value, row) for row, values in self._values.items() for value in values])
            self._changed = BitMap()

    def _needs_sort(self) -> bool:
        return len(self._changed) > max(RESORT_ROWS, len(self._rows) // 10)

    @abstractmethod
    def _sort(self, pairs: list[tuple[Value, int]]) -> None:
        """Makes the sorted copy."""

    def _tested(self, rows: BitMap, accepts: Callable[[Value], bool]) -> BitMap:
        """The rows among `rows` that have a value for which `accepts` is true."""
        return BitMap(row for row in rows if any(accepts(value) for value in self._values.get(row, ())))


class RangeIndex(_Sorted[float | int]):
    """Numbers by row, for ranges and sorting. Lookups use float64, so that some large integers compare as equal."""

    def __init__(self) -> None:
        super().__init__()
        self._floats = np.empty(0, np.float64)
        self._numbers: list[float | int] = []

    def between(self, accepts: Callable[[float | int], bool], low: float | None, high: float | None) -> BitMap:
        """The rows with a value for which `accepts` is true; all such values must lie between `low` and `high`, inclusive."""
        self._sort_if_needed()
        start = 0 if low is None else self._place(low, "left")
        end = len(self._rows) if high is None else self._place(high, "right")
        # All values strictly between the bounds pass. Values equal to a bound are tested: the bound may be exclusive.
        inner_start = start if low is None else min(self._place(low, "right"), end)
        inner_end = end if high is None else max(self._place(high, "left"), inner_start)
        rows = _bitmap(self._rows[inner_start:inner_end])
        for bound, run in ((low, slice(start, inner_start)), (high, slice(inner_end, end))):
            if bound is not None and run.start < run.stop:
                equal = _bitmap(self._rows[run])
                rows |= self._tested(equal, accepts) if abs(bound) >= EXACT_FLOAT else equal if accepts(bound) else BitMap()
        return (rows - self._changed) | self._tested(self._changed, accepts)

    def order(self) -> ValueOrder:
        """The values in order, a snapshot."""
        self._sort_if_needed()
        changed = [(value, row) for row in self._changed for value in self._values.get(row, ())]
        return ValueOrder(self._floats, self._rows, self._numbers, BitMap(self._changed), changed)

    def restore(self, part: NumberRows) -> None:
        """Adds a part that `parts` produced."""
        rows = np.frombuffer(part.rows, np.uint32)
        by_row = _by_row(rows.tolist(), part.numbers)
        if part.in_order:
            self._values, self._rows, self._numbers = by_row, rows, part.numbers
            self._floats = np.array(part.numbers, np.float64)
        else:
            self._values |= by_row
            self._changed.update(by_row)

    def _sorted_part(self) -> NumberRows:
        unchanged = self._unchanged()
        return NumberRows(True, self._rows[unchanged].tobytes(), list(compress(self._numbers, unchanged.tolist())))

    def _unsorted_part(self, pairs: list[tuple[float | int, int]]) -> NumberRows:
        return NumberRows(False, _uint32s(row for _, row in pairs), [number for number, _ in pairs])

    def _place(self, value: float, side: Side) -> int:
        return _place(self._floats, value, side)

    def _sort(self, pairs: list[tuple[float | int, int]]) -> None:
        floats = np.fromiter((value for value, _ in pairs), np.float64, len(pairs))
        rows = np.fromiter((row for _, row in pairs), np.uint32, len(pairs))
        if len(pairs) and np.abs(floats).max() >= EXACT_FLOAT:
            order = np.array(sorted(range(len(pairs)), key=pairs.__getitem__))
        else:
            order = np.lexsort((rows, floats))
        self._floats, self._rows = floats[order], rows[order]
        self._numbers = [pairs[at][0] for at in order.tolist()]


class ValueOrder(NamedTuple):
    """A snapshot of a RangeIndex: a sorted copy that never changes, and the rows that changed after it was made."""

    floats: NDArray[np.float64]
    rows: NDArray[np.uint32]
    numbers: Sequence[float | int]
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
        first, last = 0, len(self.rows)
        if start is not None and descending:
            last = _place(self.floats, start, "right")
        elif start is not None:
            first = _place(self.floats, start, "left")
        chunks = range(first, last, _CHUNK)
        for at in reversed(chunks) if descending else chunks:
            chunk = slice(at, min(at + _CHUNK, last))
            pairs = list(zip(self.numbers[chunk], self.rows[chunk].tolist(), strict=True))
            yield from (pair for pair in (reversed(pairs) if descending else pairs) if pair[1] not in without)


class GeoIndex(_Sorted[Coordinates]):
    """Coordinates by row, sorted by latitude, so that a search tests only those between the southern and northern bounds."""

    def __init__(self) -> None:
        super().__init__()
        self._lons = np.empty(0, np.float64)
        self._lats = np.empty(0, np.float64)

    def within(self, area: Area) -> BitMap:
        """The rows with a point in an area."""
        self._sort_if_needed()
        west, south, east, north = area.bounds()
        band = slice(int(np.searchsorted(self._lats, south, "left")), int(np.searchsorted(self._lats, north, "right")))
        lons, lats, rows = self._lons[band], self._lats[band], self._rows[band]
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
            self._values, self._rows, self._lons, self._lats = by_row, rows, lons, lats
        else:
            self._values |= by_row
            self._changed.update(by_row)

    def _sorted_part(self) -> PlaceRows:
        unchanged = self._unchanged()
        return PlaceRows(True, *(column[unchanged].tobytes() for column in (self._rows, self._lons, self._lats)))

    def _unsorted_part(self, pairs: list[tuple[Coordinates, int]]) -> PlaceRows:
        lons, lats = np.array([place for place, _ in pairs], np.float64).T
        return PlaceRows(False, _uint32s(row for _, row in pairs), lons.tobytes(), lats.tobytes())

    def _sort(self, pairs: list[tuple[Coordinates, int]]) -> None:
        lats = np.fromiter((place.lat for place, _ in pairs), np.float64, len(pairs))
        order = np.argsort(lats)
        self._lats = lats[order]
        self._lons = np.fromiter((place.lon for place, _ in pairs), np.float64, len(pairs))[order]
        self._rows = np.fromiter((row for _, row in pairs), np.uint32, len(pairs))[order]


class FieldIndex:
    """The index of one field. `rows` have a value of the index's type, `filled` any value except null, `nulls` a null.

    `keeps_values`: the posting keys are the values themselves, so that facets can be counted from them.
    """

    def __init__(self, schema: FieldSchema) -> None:
        self.schema = schema
        self.rows = BitMap()
        self.filled = BitMap()
        self.nulls = BitMap()
        self.postings = Postings()
        self.keeps_values = schema.type in _BY_VALUE and schema.lookup is not False
        self.ordered = RangeIndex() if schema.type in _BY_ORDER and schema.range is not False else None
        self._places = GeoIndex() if schema.type is FieldType.GEO else None
        self._texts = analyzer_of(schema) if schema.type is FieldType.TEXT else None
        self._several = BitMap()
        """Rows with more than one text: their postings do not say which text contains a word."""

    def size_bytes(self, lock: threading.Lock) -> int:
        """The estimated memory of the index."""
        with lock:
            rows = sum(map(bitmap_bytes, (self.rows, self.filled, self.nulls)))
        ordered = 0 if self.ordered is None else VALUE_BYTES * self.ordered.count()
        places = 0 if self._places is None else VALUE_BYTES * self._places.count()
        return rows + self.postings.size_bytes(lock) + ordered + places

    def add(self, row: int, nodes: list[Any]) -> None:
        """Adds a row; `nodes` are the JSON values at the field in its payload."""
        values = _values(nodes)
        if any(node is not None and node != [] for node in nodes):
            self.filled.add(row)
        if None in values:
            self.nulls.add(row)
        if keys := self._keys(values):
            self.postings.add(row, keys)
        numbers = self._numbers(values) if self.ordered is not None else []
        if self.ordered is not None:
            self.ordered.add(row, numbers)
        places = [place for value in values if (place := as_coordinates(value)) is not None] if self._places is not None else []
        if self._places is not None:
            self._places.add(row, places)
        if keys or numbers or places:
            self.rows.add(row)
        if self._texts is not None and sum(isinstance(value, str) for value in values) > 1:
            self._several.add(row)

    def remove(self, row: int, nodes: list[Any]) -> None:
        """Removes a row; `nodes` must be those that it was added with."""
        for rows in (self.rows, self.filled, self.nulls, self._several):
            rows.discard(row)
        self.postings.remove(row, self._keys(_values(nodes)))
        if self.ordered is not None:
            self.ordered.remove(row)
        if self._places is not None:
            self._places.remove(row)

    def remove_rows(self, rows: BitMap) -> None:
        """Removes rows whose values the caller does not know; slower than `remove`."""
        for held in (self.rows, self.filled, self.nulls, self._several):
            held.difference_update(rows)
        for values in (self.postings, self.ordered, self._places):
            if values is not None:
                values.remove_rows(rows)

    def parts(self, name: str, lock: threading.Lock) -> Iterator[FieldRows | IndexPart]:
        """The content for a checkpoint; `name` is the field. The index may change during the iteration: each row is then
        included as it was at some moment after the call."""
        with lock:
            rows, filled, nulls, several = (held.serialize() for held in (self.rows, self.filled, self.nulls, self._several))
        yield FieldRows(name, self.schema, rows, filled, nulls, several)
        for values in (self.postings, self.ordered, self._places):
            if values is not None:
                yield from values.parts(lock)

    def restore(self, part: FieldRows | IndexPart) -> None:
        """Adds a part that `parts` produced."""
        match part:
            case FieldRows():
                sets = (part.rows, part.filled, part.nulls, part.several)
                self.rows, self.filled, self.nulls, self._several = map(BitMap.deserialize, sets)
            case PostingRows():
                self.postings.restore(part)
            case NumberRows() if self.ordered is not None:
                self.ordered.restore(part)
            case PlaceRows() if self._places is not None:
                self._places.restore(part)

    def points(self) -> int:
        """How many rows have a value of the index's type."""
        return len(self.rows)

    def matching(self, wanted: Iterable[Any]) -> BitMap | None:
        """The rows that have one of the values; None when this type of index does not support one of them."""
        if not self.keeps_values:
            return None
        keys = [self._key(value) for value in wanted]
        return None if None in keys else self.postings.any_of(key for key in keys if key is not None)

    def starting(self, prefix: str) -> BitMap | None:
        """The rows with a string that starts with `prefix`; None when this type of index does not support it."""
        return self.postings.starting(prefix) if self.schema.type is FieldType.KEYWORD else None

    def containing(self, part: str) -> BitMap | None:
        """The rows with a string that contains `part`; None when this type of index does not support it."""
        return self.postings.containing(part) if self.schema.type is FieldType.KEYWORD else None

    def any_word(self, words: Sequence[str]) -> tuple[BitMap, bool]:
        """For a text index: the rows with one of the words. The second result is always True, as in `all_words`."""
        return self.postings.any_of(words), True

    def all_words(self, words: Sequence[str]) -> tuple[BitMap, bool]:
        """For a text index: the rows with all the words. The second result is False when the words may be in different texts."""
        rows = self.postings.all_of(words)
        return rows, len(set(words)) < 2 or rows.isdisjoint(self._several)

    def between(
        self, kind: FieldType, accepts: Callable[[float | int], bool], low: float | None, high: float | None
    ) -> BitMap | None:
        """The rows with a number (kind FLOAT) or a datetime (kind DATETIME) in a range; see `RangeIndex.between`."""
        moments = self.schema.type is FieldType.DATETIME
        if self.ordered is None or moments != (kind is FieldType.DATETIME):
            return None
        return self.ordered.between(accepts, low, high)

    def within(self, area: Area) -> BitMap | None:
        """The rows with a point in an area; None when this is not a geo index."""
        return None if self._places is None else self._places.within(area)

    def _keys(self, values: list[Any]) -> Iterable[Key]:
        if self._texts is not None:
            terms = [self._texts.terms(value) for value in values if isinstance(value, str)]
            return terms[0] if len(terms) == 1 else set().union(*terms)
        return [key for value in values if (key := self._key(value)) is not None] if self.keeps_values else []

    def _key(self, value: Any) -> Key | None:
        """The value as a posting key; None when an index of this type does not contain such values."""
        match self.schema.type:
            case FieldType.KEYWORD:
                return value if isinstance(value, str) else None
            case FieldType.INTEGER:
                return value if isinstance(value, int) and not isinstance(value, bool) else None
            case FieldType.BOOL:
                return value if isinstance(value, bool) else None
            case FieldType.UUID:
                return as_uuid(value)
            case _:
                return None

    def _numbers(self, values: list[Any]) -> list[float | int]:
        return [number for value in values if (number := self.schema.number(value)) is not None]


_BY_VALUE = (FieldType.KEYWORD, FieldType.INTEGER, FieldType.BOOL, FieldType.UUID)
_BY_ORDER = (FieldType.INTEGER, FieldType.FLOAT, FieldType.DATETIME)


def bitmap_bytes(rows: BitMap) -> int:
    """The memory of a bitmap."""
    held = rows.get_statistics()
    return 64 + held["n_bytes_array_containers"] + held["n_bytes_run_containers"] + held["n_bytes_bitset_containers"]


class Moment:
    """A version of a payload index, linked to the next version by the rows that were removed or changed between the two.

    Each view of a shard refers to the version it was made from. Older versions are garbage-collected.
    """

    __slots__ = ("changed", "next")

    def __init__(self) -> None:
        self.changed: BitMap | None = None
        self.next: Moment | None = None

    def changed_until(self, later: Moment) -> BitMap:
        """The rows that were removed or changed between this version and a `later` one."""
        rows = BitMap()
        moment = self
        while moment is not later:
            assert moment.changed is not None
            assert moment.next is not None, "the other moment is not a later one"
            rows |= moment.changed
            moment = moment.next
        return rows


class PayloadIndex:
    """All field indexes of a shard. One thread writes, any thread reads; both hold `lock`, for a short time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fields: dict[str, FieldIndex] = {}
        self.moment = Moment()

    def change(self, removed: Iterable[RowPayload], added: Iterable[RowPayload]) -> None:
        """Removes rows, then adds rows; a row whose payload changes is in both lists.

        A removed row must be given with the payload that it was added with. The lock is held for a few rows at a time; a reader
        of an earlier version tests the rows that have been removed since then one by one.
        """
        steps = chain(((row, payload, True) for row, payload in removed), ((row, payload, False) for row, payload in added))
        while step := list(islice(steps, ROWS_PER_STEP)):
            with self.lock:
                self._change(step)

    def _change(self, step: Sequence[tuple[int, bytes, bool]]) -> None:
        for row, payload, is_removed in step:
            for index, nodes in _indexed_values(self.fields, payload):
                if is_removed:
                    index.remove(row, nodes)
                else:
                    index.add(row, nodes)
        self.moment.changed = BitMap(row for row, _, is_removed in step if is_removed)
        self.moment.next = Moment()
        self.moment = self.moment.next

    def replace_fields(self, fields: dict[str, FieldIndex]) -> None:
        """Replaces all field indexes by others, built from the same rows."""
        with self.lock:
            self.fields = fields

    def size_bytes(self) -> int:
        """The estimated memory of all indexes. The lock is held for some values at a time."""
        return sum(index.size_bytes(self.lock) for index in list(self.fields.values()))

    def points(self, field: str) -> int:
        """How many points have a value in the index of a field; 0 without an index."""
        with self.lock:
            index = self.fields.get(field)
            return 0 if index is None else index.points()


def index_payload(fields: Mapping[str, FieldIndex], row: int, payload: bytes) -> None:
    """Adds a row to the indexes of the fields that are in its payload."""
    for index, nodes in _indexed_values(fields, payload):
        index.add(row, nodes)


def _indexed_values(fields: Mapping[str, FieldIndex], payload: bytes) -> Iterator[tuple[FieldIndex, list[Any]]]:
    """For each indexed field of a payload: its index and the JSON values at the field, as `FieldIndex.add` takes them."""
    if not payload or not fields:
        return
    content = orjson.loads(payload)
    for name, index in fields.items():
        if nodes := nodes_at(content, name):
            yield index, nodes


def _values(nodes: list[Any]) -> list[Any]:
    """The values that conditions test: an array is replaced by its elements."""
    if not any(isinstance(node, list) for node in nodes):
        return nodes
    return [value for node in nodes for value in (node if isinstance(node, list) else (node,))]


def _bitmap(rows: np.ndarray[Any, np.dtype[np.uint32]]) -> BitMap:
    numbers = array.array("I")
    numbers.frombytes(rows.tobytes())
    return BitMap(numbers)


def _place(floats: NDArray[np.float64], value: float, side: Side) -> int:
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
