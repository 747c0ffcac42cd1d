"""The payload index of one shard: for each indexed field, which rows hold which values. In memory, rebuilt at start.

Postings are roaring bitmaps of rows. An index answers exactly or says (with None) that it cannot; it never approximates.
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
"""Integers beyond it are not exact as float64."""

RESORT_ROWS = 1000
"""Rows that may change before a sorted index is sorted anew; a tenth of a large index may."""

_CHUNK = 1024
"""Pairs that a walk takes from the sorted copy at a time."""

ROWS_PER_STEP = 256
"""Rows that are changed while the lock is held."""

_LOCKED_KEYS, _LOCKED_ROWS = 64, 4096
"""As many at a time are copied for a checkpoint while the lock is held."""

KEY_BYTES, VALUE_BYTES = 150, 200
"""What a key of postings takes beside its rows, and a row in an order, about."""

Key = str | int | bool
Side = Literal["left", "right"]
ValueOfRow = tuple[float | int, int]
"""A value, and the row that has it."""
RowPayload = tuple[int, bytes]
"""A row, and its payload as JSON."""


class Postings:
    """value -> rows."""

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
                        self._texts, self._new_texts = None, []  # nobody has asked for long; who does, gets them sorted
            rows.add(row)

    def remove(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is not None:
                rows.discard(row)
                if not rows:
                    del self._rows[key]

    def forget(self, rows: BitMap) -> None:
        """Takes rows out, whatever they hold."""
        for key, held in list(self._rows.items()):
            held.difference_update(rows)
            if not held:
                del self._rows[key]

    def parts(self, lock: threading.Lock) -> Iterator[PostingRows]:
        """What a checkpoint keeps. Keys that come meanwhile are left out."""
        with lock:
            keys = list(self._rows)
        for start in range(0, len(keys), _LOCKED_KEYS):
            with lock:
                held = {key: rows.serialize() for key in keys[start : start + _LOCKED_KEYS] if (rows := self._rows.get(key))}
            yield PostingRows(list(held), list(held.values()))

    def restore(self, part: PostingRows) -> None:
        """Takes over what `parts` gave."""
        self._rows.update(zip(part.keys, map(BitMap.deserialize, part.rows), strict=True))

    def any_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that hold at least one of the keys."""
        found = [rows for key in keys if (rows := self._rows.get(key)) is not None]
        return BitMap.union(*found) if found else BitMap()

    def all_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that hold every one of the keys."""
        found = [self._rows.get(key, BitMap()) for key in keys]
        return BitMap.intersection(*found) if found else BitMap()

    def starting(self, prefix: str) -> BitMap:
        """The rows that hold a text that starts with `prefix`."""
        texts = self._sorted_texts()
        found: Iterator[str] = takewhile(lambda text: text.startswith(prefix), islice(texts, bisect_left(texts, prefix), None))
        return self.any_of(found)

    def containing(self, part: str) -> BitMap:
        """The rows that hold a text with `part` in it."""
        return self.any_of(text for text in self._rows if isinstance(text, str) and part in text)

    def keys(self) -> list[Key]:
        """All values that some row holds."""
        return list(self._rows)

    def holders(self, keys: Iterable[Key], among: BitMap) -> list[tuple[Key, BitMap]]:
        """The rows among the given ones that hold each of some values; values that none holds are left out."""
        found = [(key, rows & among) for key in keys if (rows := self._rows.get(key)) is not None]
        return [(key, rows) for key, rows in found if rows]

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
        """The texts in order, some of them gone since; they are kept from the first time that somebody asks."""
        if self._texts is None or len(self._texts) > 2 * len(self._rows) + RESORT_ROWS:
            self._texts, self._new_texts = sorted(text for text in self._rows if isinstance(text, str)), []
        if self._new_texts:
            self._texts.extend(self._new_texts)
            self._texts.sort()  # quick: a long sorted part and a short one
            self._new_texts = []
        return self._texts


Value = TypeVar("Value")


class _Sorted(ABC, Generic[Value]):
    """row -> values, with a sorted copy to find rows by; and the few rows that changed since it was made."""

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

    def forget(self, rows: BitMap) -> None:
        """Takes rows out, whatever they hold."""
        for row in rows:
            self.remove(row)

    def parts(self, lock: threading.Lock) -> Iterator[IndexPart]:
        """What a checkpoint keeps: the sorted copy, then the rows that are not in it; when those are many, all of them sorted."""
        with lock:
            now = copy(self)
            now._changed = BitMap(self._changed)
            rows = list(self._values if self._is_unsettled() else self._changed)
        pairs: list[tuple[Value, int]] = []
        for start in range(0, len(rows), _LOCKED_ROWS):
            with lock:
                held = [(row, self._values.get(row, ())) for row in rows[start : start + _LOCKED_ROWS]]
            pairs.extend((value, row) for row, values in held for value in values)
        if now._is_unsettled():
            now._sort(pairs)
            now._changed = BitMap()
            pairs = []
        yield now._sorted_part()
        if pairs:
            yield self._unsorted_part(pairs)

    @abstractmethod
    def _sorted_part(self) -> IndexPart:
        """The sorted copy without the rows that changed since."""

    @abstractmethod
    def _unsorted_part(self, pairs: list[tuple[Value, int]]) -> IndexPart:
        """Values and rows in any order."""

    def _unchanged(self) -> NDArray[np.bool_]:
        """Which of the sorted rows are as they were when they were sorted."""
        return ~np.isin(self._rows, np.array(self._changed.to_array(), np.uint32))

    def count(self) -> int:
        """How many rows have a value."""
        return len(self._values)

    def _settle(self) -> None:
        """Sorts anew when many rows changed."""
        if self._is_unsettled():
            self._sort([(value, row) for row, values in self._values.items() for value in values])
            self._changed = BitMap()

    def _is_unsettled(self) -> bool:
        return len(self._changed) > max(RESORT_ROWS, len(self._rows) // 10)

    @abstractmethod
    def _sort(self, pairs: list[tuple[Value, int]]) -> None:
        """Makes the sorted copy."""

    def _tested(self, rows: BitMap, accepts: Callable[[Value], bool]) -> BitMap:
        """Those of the rows that have a value that `accepts` takes."""
        return BitMap(row for row in rows if any(accepts(value) for value in self._values.get(row, ())))


class RangeIndex(_Sorted[float | int]):
    """Numbers of rows, for ranges and for order. The sorted copy is searched as float64, which merges some large integers."""

    def __init__(self) -> None:
        super().__init__()
        self._floats = np.empty(0, np.float64)
        self._numbers: list[float | int] = []

    def between(self, accepts: Callable[[float | int], bool], low: float | None, high: float | None) -> BitMap:
        """The rows with a value that `accepts` takes; all such values lie within `low` and `high`, both included."""
        self._settle()
        start = 0 if low is None else self._place(low, "left")
        end = len(self._rows) if high is None else self._place(high, "right")
        # Within the run of values that equal a bound, the bound may be excluded; between the runs everything passes.
        inner_start = start if low is None else min(self._place(low, "right"), end)
        inner_end = end if high is None else max(self._place(high, "left"), inner_start)
        rows = _bitmap(self._rows[inner_start:inner_end])
        for bound, run in ((low, slice(start, inner_start)), (high, slice(inner_end, end))):
            if bound is not None and run.start < run.stop:
                equal = _bitmap(self._rows[run])
                rows |= self._tested(equal, accepts) if abs(bound) >= EXACT_FLOAT else equal if accepts(bound) else BitMap()
        return (rows - self._changed) | self._tested(self._changed, accepts)

    def order(self) -> ValueOrder:
        """The values in order, as they are now."""
        self._settle()
        changed = [(value, row) for row in self._changed for value in self._values.get(row, ())]
        return ValueOrder(self._floats, self._rows, self._numbers, BitMap(self._changed), changed)

    def restore(self, part: NumberRows) -> None:
        """Takes over what `parts` gave."""
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
    """The values of a RangeIndex in order, at one moment: a sorted copy that never changes, and what changed since."""

    floats: NDArray[np.float64]
    rows: NDArray[np.uint32]
    numbers: Sequence[float | int]
    changed: BitMap
    changed_pairs: Sequence[ValueOfRow]

    def ascending(
        self, start: float | None, descending: bool, without: BitMap, pairs: Sequence[ValueOfRow]
    ) -> Iterator[ValueOfRow]:
        """Every value with its row, by value and then row, from value `start` on, itself included; `descending` turns it round.

        A row comes once for each of its values. The rows `without` are left out, and `pairs` take their place.
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
        """The sorted copy, from `start` or a little before it on."""
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
    """Coordinates of rows, for areas: in order of latitude, so that only those in the area's band are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._lons = np.empty(0, np.float64)
        self._lats = np.empty(0, np.float64)

    def within(self, area: Area) -> BitMap:
        """The rows with a place in an area."""
        self._settle()
        west, south, east, north = area.bounds()
        band = slice(int(np.searchsorted(self._lats, south, "left")), int(np.searchsorted(self._lats, north, "right")))
        lons, lats, rows = self._lons[band], self._lats[band], self._rows[band]
        near = (lons >= west) | (lons <= east) if west > east else (lons >= west) & (lons <= east)
        lons, lats, rows = lons[near], lats[near], rows[near]
        held, doubtful = area.holding(lons, lats)
        found = _bitmap(rows[held]) | self._tested(_bitmap(rows[doubtful]), lambda place: area.holds(*place))
        return (found - self._changed) | self._tested(self._changed, lambda place: area.holds(*place))

    def restore(self, part: PlaceRows) -> None:
        """Takes over what `parts` gave."""
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
    """The index of one field, of one type. `rows` have a value of the type, `filled` any value at all, `nulls` a null.

    `keeps_values`: the postings are of the values themselves, so that they can be counted.
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
        """Rows with more than one text: their postings do not say which word stands in which."""

    def size_bytes(self, lock: threading.Lock) -> int:
        """What the index takes, about."""
        with lock:
            rows = sum(map(bitmap_bytes, (self.rows, self.filled, self.nulls)))
        ordered = 0 if self.ordered is None else VALUE_BYTES * self.ordered.count()
        places = 0 if self._places is None else VALUE_BYTES * self._places.count()
        return rows + self.postings.size_bytes(lock) + ordered + places

    def add(self, row: int, nodes: list[Any]) -> None:
        """Indexes what stands at the field in a row's payload."""
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
        """Takes a row out; `nodes` are those that it was added with."""
        for rows in (self.rows, self.filled, self.nulls, self._several):
            rows.discard(row)
        self.postings.remove(row, self._keys(_values(nodes)))
        if self.ordered is not None:
            self.ordered.remove(row)
        if self._places is not None:
            self._places.remove(row)

    def forget(self, rows: BitMap) -> None:
        """Takes rows out, whatever they hold."""
        for held in (self.rows, self.filled, self.nulls, self._several):
            held.difference_update(rows)
        for values in (self.postings, self.ordered, self._places):
            if values is not None:
                values.forget(rows)

    def parts(self, name: str, lock: threading.Lock) -> Iterator[FieldRows | IndexPart]:
        """What a checkpoint keeps of this index of the field `name`. Taken while the index changes: what it has of a row is what
        held at some moment from the call on."""
        with lock:
            rows, filled, nulls, several = (held.serialize() for held in (self.rows, self.filled, self.nulls, self._several))
        yield FieldRows(name, self.schema, rows, filled, nulls, several)
        for values in (self.postings, self.ordered, self._places):
            if values is not None:
                yield from values.parts(lock)

    def restore(self, part: FieldRows | IndexPart) -> None:
        """Takes over what `parts` gave."""
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
        """How many rows have a value here."""
        return len(self.rows)

    def matching(self, wanted: Iterable[Any]) -> BitMap | None:
        """The rows that hold one of the values; None when this type of index cannot tell for one of them."""
        if not self.keeps_values:
            return None
        keys = [self._key(value) for value in wanted]
        return None if None in keys else self.postings.any_of(key for key in keys if key is not None)

    def starting(self, prefix: str) -> BitMap | None:
        """The rows with a text that starts with `prefix`; None when this type of index cannot tell."""
        return self.postings.starting(prefix) if self.schema.type is FieldType.KEYWORD else None

    def containing(self, part: str) -> BitMap | None:
        """The rows with a text that has `part` in it; None when this type of index cannot tell."""
        return self.postings.containing(part) if self.schema.type is FieldType.KEYWORD else None

    def any_word(self, words: Sequence[str]) -> tuple[BitMap, bool]:
        """For a text index: the rows with a text that has one of the words, and True."""
        return self.postings.any_of(words), True

    def all_words(self, words: Sequence[str]) -> tuple[BitMap, bool]:
        """For a text index: the rows whose texts together have all the words, and whether each has them in one text."""
        rows = self.postings.all_of(words)
        return rows, len(set(words)) < 2 or rows.isdisjoint(self._several)

    def between(
        self, kind: FieldType, accepts: Callable[[float | int], bool], low: float | None, high: float | None
    ) -> BitMap | None:
        """The rows with a number (kind FLOAT) or a moment (kind DATETIME) in a range; see `RangeIndex.between`."""
        moments = self.schema.type is FieldType.DATETIME
        if self.ordered is None or moments != (kind is FieldType.DATETIME):
            return None
        return self.ordered.between(accepts, low, high)

    def within(self, area: Area) -> BitMap | None:
        """The rows with a place in an area; None when this is no index of places."""
        return None if self._places is None else self._places.within(area)

    def _keys(self, values: list[Any]) -> Iterable[Key]:
        if self._texts is not None:
            terms = [self._texts.terms(value) for value in values if isinstance(value, str)]
            return terms[0] if len(terms) == 1 else set().union(*terms)
        return [key for value in values if (key := self._key(value)) is not None] if self.keeps_values else []

    def _key(self, value: Any) -> Key | None:
        """The value as a posting's key; None when an index of this type does not hold such values."""
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
    """What a bitmap takes."""
    held = rows.get_statistics()
    return 64 + held["n_bytes_array_containers"] + held["n_bytes_run_containers"] + held["n_bytes_bitset_containers"]


class Moment:
    """A state of a payload index, and the way to the states after it: which rows each step removed or changed.

    Each view of a shard holds the moment that it was made at. Steps that no view looks back to are freed with their moments.
    """

    __slots__ = ("changed", "next")

    def __init__(self) -> None:
        self.changed: BitMap | None = None
        self.next: Moment | None = None

    def changed_until(self, later: Moment) -> BitMap:
        """The rows that were removed or changed between this moment and a `later` one."""
        rows = BitMap()
        moment = self
        while moment is not later:
            assert moment.changed is not None
            assert moment.next is not None, "the other moment is not a later one"
            rows |= moment.changed
            moment = moment.next
        return rows


class PayloadIndex:
    """All field indexes of a shard. One thread changes it, any thread asks; both hold `lock` meanwhile, for short."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.fields: dict[str, FieldIndex] = {}
        self.moment = Moment()

    def change(self, removed: Iterable[RowPayload], added: Iterable[RowPayload]) -> None:
        """Takes rows out and puts rows in; a row whose payload changes is in both.

        A row that is taken out comes with the payload that it was put in with. The lock is held for a few rows at a time: whoever
        asks in between, for an earlier moment, tests the rows that were taken out by then one by one.
        """
        steps = chain(((row, payload, True) for row, payload in removed), ((row, payload, False) for row, payload in added))
        while step := list(islice(steps, ROWS_PER_STEP)):
            with self.lock:
                self._change(step)

    def _change(self, step: Sequence[tuple[int, bytes, bool]]) -> None:
        for row, payload, is_removed in step:
            for index, nodes in indexed_values(self.fields, payload):
                if is_removed:
                    index.remove(row, nodes)
                else:
                    index.add(row, nodes)
        self.moment.changed = BitMap(row for row, _, is_removed in step if is_removed)
        self.moment.next = Moment()
        self.moment = self.moment.next

    def replace_fields(self, fields: dict[str, FieldIndex]) -> None:
        """Puts other field indexes in place of all, built from the same rows."""
        with self.lock:
            self.fields = fields

    def size_bytes(self) -> int:
        """What all indexes take, about. The lock is held for some values at a time."""
        return sum(index.size_bytes(self.lock) for index in list(self.fields.values()))

    def points(self, field: str) -> int:
        """How many points have a value in the index of a field; 0 without one."""
        with self.lock:
            index = self.fields.get(field)
            return 0 if index is None else index.points()


def indexed_values(fields: Mapping[str, FieldIndex], payload: bytes) -> Iterator[tuple[FieldIndex, list[Any]]]:
    """What a payload has at each of the indexed fields, arrays as arrays, in the form that a FieldIndex takes."""
    if not payload or not fields:
        return
    content = orjson.loads(payload)
    for name, index in fields.items():
        if nodes := nodes_at(content, name):
            yield index, nodes


def _values(nodes: list[Any]) -> list[Any]:
    """The values that conditions look at: an array counts as each of its elements."""
    if not any(isinstance(node, list) for node in nodes):
        return nodes
    return [value for node in nodes for value in (node if isinstance(node, list) else (node,))]


def _bitmap(rows: np.ndarray[Any, np.dtype[np.uint32]]) -> BitMap:
    numbers = array.array("I")
    numbers.frombytes(rows.tobytes())
    return BitMap(numbers)


def _place(floats: NDArray[np.float64], value: float, side: Side) -> int:
    """Where a value would stand among sorted ones."""
    return int(np.searchsorted(floats, _as_float(value), side))


def _uint32s(numbers: Iterable[int]) -> bytes:
    return np.array(list(numbers), np.uint32).tobytes()


def _by_row(rows: list[int], values: list[Value]) -> dict[int, list[Value]]:
    """The values of each row; nearly always it has one."""
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
