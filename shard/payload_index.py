"""The payload index of one shard: for each indexed field, which rows have which values. In memory, rebuilt at start.

An index returns an exact result or None when it cannot answer; it never approximates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import orjson
from pyroaring import BitMap

from payload.geo import Area, as_coordinates
from payload.paths import as_uuid, nodes_at
from payload.schema import FieldSchema, FieldType
from payload.text import analyzer_of
from shard.checkpoint_file import FieldRows, IndexPart, NumberRows, PlaceRows, PostingRows
from shard.postings import Key, Postings, bitmap_bytes
from shard.sorted_indexes import VALUE_BYTES, GeoIndex, RangeIndex, Unsorted

ROWS_PER_STEP = 256
"""Rows that are changed each time the lock is held."""

ChangedRow = tuple[int, bytes | None, bytes | None]
"""A row with its payloads before and after, as JSON; None before it was added, and after it was removed."""

T = TypeVar("T")


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
        """Of texts: rows with more than one, whose postings do not say which text contains a word. Of an index that keeps values:
        rows with values of other types as well, which it does not have."""

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
        if self.keeps_values and any(value is not None and self._key(value) is None for value in values):
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

    def with_others(self) -> BitMap:
        """For an index that keeps values: the rows that have values of other types, which it does not have."""
        return self._several

    def shown(self, value: Any) -> Any:
        """A value as a facet shows it: a UUID of a field of that type in the usual notation."""
        return (as_uuid(value) or value) if self.schema.type is FieldType.UUID else value

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

    def change(self, rows: Iterable[ChangedRow]) -> None:
        """Adds, changes and removes rows.

        An old payload must be the one that the row was added with. The lock is held for a few rows at a time; a reader of an
        earlier version tests the rows that have been removed or changed since then one by one.
        """
        steps = iter(rows)
        while step := list(islice(steps, ROWS_PER_STEP)):
            with self.lock:
                self._change(step)

    def _change(self, step: Sequence[ChangedRow]) -> None:
        fields = self.fields
        for row, old, new in step:
            if old is None:
                index_payload(fields, row, new or b"")
                continue
            if new is None:
                unindex_payload(fields, row, old)
                continue
            before = dict(_indexed_values(fields, old))
            after = dict(_indexed_values(fields, new))
            for index, nodes in before.items():
                if not _are_same(nodes, after.get(index)):
                    index.remove(row, nodes)
            for index, nodes in after.items():
                if not _are_same(nodes, before.get(index)):
                    index.add(row, nodes)
        self.moment.changed = BitMap(row for row, old, _ in step if old is not None)
        self.moment.next = Moment()
        self.moment = self.moment.next

    def read(self, work: Callable[[], T]) -> T:
        """Runs `work` under the lock. Indexes that it needs sorted are sorted before, without the lock."""
        while True:
            try:
                with self.lock:
                    return work()
            except Unsorted as unsorted:
                unsorted.index.sort(self.lock)

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


def unindex_payload(fields: Mapping[str, FieldIndex], row: int, payload: bytes) -> None:
    """Removes a row from the indexes of the fields that are in its payload, with which it was added."""
    for index, nodes in _indexed_values(fields, payload):
        index.remove(row, nodes)


def _indexed_values(fields: Mapping[str, FieldIndex], payload: bytes) -> Iterator[tuple[FieldIndex, list[Any]]]:
    """For each indexed field of a payload: its index and the JSON values at the field, as `FieldIndex.add` takes them."""
    if not payload or not fields:
        return
    content = orjson.loads(payload)
    for name, index in fields.items():
        if nodes := nodes_at(content, name):
            yield index, nodes


def _are_same(nodes: list[Any], others: list[Any] | None) -> bool:
    """Whether JSON values are equal; for Python 1, 1.0 and True are."""
    return nodes == others and repr(nodes) == repr(others)


def _values(nodes: list[Any]) -> list[Any]:
    """The values that conditions test: an array is replaced by its elements."""
    if not any(isinstance(node, list) for node in nodes):
        return nodes
    return [value for node in nodes for value in (node if isinstance(node, list) else (node,))]
