"""The payload index of one shard: for each indexed field, which rows hold which values. In memory, rebuilt at start.

Postings are roaring bitmaps of rows. An index answers exactly or says (with None) that it cannot; it never approximates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from pyroaring import BitMap

from catalog.collection import FieldSchema, FieldType
from catalog.payload import as_micros, as_number, as_uuid, tokens, values_at

EXACT_FLOAT = 2**53
"""Integers beyond it are not exact as float64."""

RESORT_ROWS = 1000
"""Rows that may change before an ordered index is sorted anew; a tenth of a large index may."""

Key = str | int | bool


class Postings:
    """value -> rows."""

    def __init__(self) -> None:
        self._rows: dict[Key, BitMap] = {}

    def add(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is None:
                rows = self._rows[key] = BitMap()
            rows.add(row)

    def remove(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is not None:
                rows.discard(row)
                if not rows:
                    del self._rows[key]

    def any_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that hold at least one of the keys."""
        found = [rows for key in keys if (rows := self._rows.get(key)) is not None]
        return BitMap.union(*found) if found else BitMap()

    def all_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that hold every one of the keys."""
        found = [self._rows.get(key, BitMap()) for key in keys]
        return BitMap.intersection(*found) if found else BitMap()

    def all_rows(self) -> BitMap:
        """The rows that hold anything."""
        return self.any_of(self._rows)

    def counts(self, among: BitMap) -> Counter[Key]:
        """How many rows among the given ones hold each value."""
        counted = {key: rows.intersection_cardinality(among) for key, rows in self._rows.items()}
        return Counter({key: count for key, count in counted.items() if count})


class Ordered:
    """number -> rows, for ranges: a sorted copy, and the few rows that changed since it was made."""

    def __init__(self) -> None:
        self._values: dict[int, list[float | int]] = {}
        self._sorted_values = np.empty(0, np.float64)
        self._sorted_rows = np.empty(0, np.uint32)
        self._changed = BitMap()

    def add(self, row: int, values: list[float | int]) -> None:
        if values:
            self._values[row] = values
            self._changed.add(row)

    def remove(self, row: int) -> None:
        if self._values.pop(row, None) is not None:
            self._changed.add(row)

    def __len__(self) -> int:
        return len(self._values)

    def between(self, accepts: Callable[[float | int], bool], low: float | None, high: float | None) -> BitMap:
        """The rows with a value that `accepts` takes; all such values lie within `low` and `high`, both included."""
        if len(self._changed) > max(RESORT_ROWS, len(self._sorted_rows) // 10):
            self._sort()
        start = 0 if low is None else int(np.searchsorted(self._sorted_values, low, "left"))
        end = len(self._sorted_values) if high is None else int(np.searchsorted(self._sorted_values, high, "right"))
        # The edges may hold values equal to a bound that is excluded; they are few, and each is looked at.
        inner_start = start if low is None else int(np.searchsorted(self._sorted_values, low, "right"))
        inner_end = end if high is None else int(np.searchsorted(self._sorted_values, high, "left"))
        doubtful = BitMap(self._changed)
        doubtful.update(self._sorted_rows[start : min(inner_start, end)].tolist())
        doubtful.update(self._sorted_rows[max(inner_end, start) : end].tolist())
        rows = BitMap(self._sorted_rows[inner_start:inner_end].tolist()) if inner_start < inner_end else BitMap()
        rows -= doubtful
        rows.update(row for row in doubtful if any(accepts(value) for value in self._values.get(row, ())))
        return rows

    def _sort(self) -> None:
        pairs = [(value, row) for row, values in self._values.items() for value in values if abs(value) <= EXACT_FLOAT]
        values = np.array([value for value, _ in pairs], np.float64)
        order = np.argsort(values, kind="stable")
        self._sorted_values = values[order]
        self._sorted_rows = np.array([row for _, row in pairs], np.uint32)[order]
        self._changed = BitMap(row for row, held in self._values.items() if any(abs(value) > EXACT_FLOAT for value in held))


class FieldIndex:
    """The index of one field, of one type."""

    def __init__(self, schema: FieldSchema) -> None:
        self.schema = schema
        self.postings = Postings()
        self._ordered = Ordered() if schema.type in (FieldType.INTEGER, FieldType.FLOAT, FieldType.DATETIME) else None

    def add(self, row: int, values: list[Any]) -> None:
        self.postings.add(row, self._keys(values))
        if self._ordered is not None:
            self._ordered.add(row, self._numbers(values))

    def remove(self, row: int, values: list[Any]) -> None:
        self.postings.remove(row, self._keys(values))
        if self._ordered is not None:
            self._ordered.remove(row)

    def points(self) -> int:
        """How many rows have a value here."""
        return len(self._ordered) if self._ordered is not None else len(self.postings.all_rows())

    def matching(self, wanted: Iterable[Any]) -> BitMap | None:
        """The rows that hold one of the values; None when this type of index cannot tell for one of them."""
        keys = [self._key(value) for value in wanted]
        return None if None in keys else self.postings.any_of(key for key in keys if key is not None)

    def text(self, query: str) -> BitMap | None:
        """The rows whose text holds every token of the query."""
        return self.postings.all_of(self._tokens(query)) if self.schema.type is FieldType.TEXT else None

    def between(
        self, kind: FieldType, accepts: Callable[[float | int], bool], low: float | None, high: float | None
    ) -> BitMap | None:
        """The rows with a number (kind FLOAT) or a moment (kind DATETIME) in a range; see `Ordered.between`."""
        moments = self.schema.type is FieldType.DATETIME
        if self._ordered is None or moments != (kind is FieldType.DATETIME):
            return None
        return self._ordered.between(accepts, low, high)

    def _keys(self, values: list[Any]) -> list[Key]:
        if self.schema.type is FieldType.TEXT:
            return [token for value in values if isinstance(value, str) for token in self._tokens(value)]
        return [key for value in values if (key := self._key(value)) is not None]

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
                return value if as_uuid(value) else None
            case FieldType.FLOAT | FieldType.DATETIME | FieldType.TEXT:
                return None

    def _numbers(self, values: list[Any]) -> list[float | int]:
        convert = as_micros if self.schema.type is FieldType.DATETIME else as_number
        return [number for value in values if (number := convert(value)) is not None]

    def _tokens(self, text: str) -> list[str]:
        return tokens(text, self.schema.lowercase, self.schema.min_token_len, self.schema.max_token_len)


class PayloadIndex:
    """All field indexes of a shard. Guarded by the shard's lock."""

    def __init__(self) -> None:
        self.fields: dict[str, FieldIndex] = {}

    def add(self, row: int, payload: bytes) -> None:
        """Indexes a row's payload."""
        for index, values in indexed_values(self.fields, payload):
            index.add(row, values)

    def remove(self, row: int, payload: bytes) -> None:
        """Takes a row out; `payload` is what it was added with."""
        for index, values in indexed_values(self.fields, payload):
            index.remove(row, values)


def indexed_values(fields: Mapping[str, FieldIndex], payload: bytes) -> Iterator[tuple[FieldIndex, list[Any]]]:
    """The values that a payload has for each of the indexed fields."""
    if not payload or not fields:
        return
    content = orjson.loads(payload)
    for name, index in fields.items():
        if values := values_at(content, name):
            yield index, values
