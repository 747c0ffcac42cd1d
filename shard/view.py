"""A view: the state of a shard at one moment, for reads.

The rows, vectors and alive rows of a view never change. The payload index belongs to the shard and changes. A view queries it
under its lock, gets the rows that changed after the view was made, and tests these one by one, without the lock.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

import numpy as np
import orjson
from pyroaring import BitMap

from catalog.collection import Collection
from journal.log import Positions
from journal.stamps import Version
from payload.paths import as_number, values_at
from payload.schema import FieldSchema
from shard.deadline import NEVER, Deadline
from shard.filters.subjects import Filter, PointSubject, Selection, ViewTest
from shard.filters.where import Where
from shard.past import ShardPast
from shard.payload_index import FieldIndex, Moment, PayloadIndex
from shard.postings import bitmap_bytes
from shard.rows import RowsView
from shard.sorted_indexes import ValueOfRow, ValueOrder
from shard.store import Row, StoreView
from shard.vectors.index import RowSet, VectorView

MAX_SELECTIONS = 64
MAX_SELECTION_BYTES = 32 << 20
"""Bounds of a view's cache of filter results: entries, and bytes of texts and rows."""

ROWS_PER_STEP = 500
"""Rows that are read and tested between two checks of the deadline."""

STATES_PER_STEP = 20
"""States of a point that are read at a time."""

KEYS_PER_STEP = 1000
"""Values of a field that are counted each time the payload index is locked."""

Value = str | int | bool
"""A value that a facet counts: what `match` can name."""

MAX_COUNTED = 2**63
"""Whole numbers from this bound on, and below its negative, have no place in the answer to a facet."""

_versions = itertools.count(1)


class OrderError(ValueError):
    """A field has no index that can be sorted by. The text names the field."""


class IndexNotBuilt(Exception):
    """The index that a read needs is still being built."""


class ShardView:
    """A shard at one moment. Thread-safe, and its answers never change."""

    def __init__(
        self,
        collection: Collection,
        store: StoreView,
        known: RowsView,
        alive: BitMap,
        vectors: Mapping[str, VectorView],
        payload: PayloadIndex,
        moment: Moment,
        past: ShardPast,
        positions: Positions,
    ) -> None:
        self.collection = collection
        self.positions = positions
        """The next offset of each home partition: the view contains exactly the shard's records below them."""
        self.alive = alive
        self.past = past
        self.vectors = vectors
        self.version = next(_versions)
        """Unique in this process: equal versions mean equal answers."""
        self._store = store
        self.known = known
        """Ids and versions of the rows, in memory."""
        self._payload = payload
        self._moment = moment
        self._selections = _Selections()

    def with_vectors(self, vectors: Mapping[str, VectorView], past: Mapping[str, VectorView]) -> ShardView:
        """The same state after a build, with the vectors, those of the present and those of the past, in other segments.

        The cache of filter results refers to segments, so the new view begins with an empty one.
        """
        ended = self.past._replace(vectors=past)
        return ShardView(
            self.collection, self._store, self.known, self.alive, vectors, self._payload, self._moment, ended, self.positions
        )

    def removed_since(self, earlier: ShardView) -> BitMap:
        """The rows that ended, or whose payload changed, between an earlier view of the shard and this one."""
        return earlier._moment.changed_until(self._moment)

    def added_since(self, earlier: ShardView) -> BitMap:
        """The rows of this view that are new, or whose payload changed, since an earlier view of the shard."""
        return self.alive & ((self.alive - earlier.alive) | self.removed_since(earlier))

    # Points.

    def ids(self, rows: Sequence[int]) -> tuple[list[bytes], list[Version]]:
        """The ids of rows, and the versions of the latest writes to them."""
        ids, versions = self.known.known(rows)
        if b"" in ids:
            ids = [id_ or self._store.rows((row,))[0].id for row, id_ in zip(rows, ids, strict=True)]
        return ids, versions

    def find(self, ids: Iterable[bytes]) -> list[Row]:
        """The existing points among these ids, in the given order."""
        return self._store.find(ids)

    def points(self, rows: Iterable[int]) -> list[Row]:
        """The points at these rows, which must be alive in this view."""
        return self._store.rows(rows)

    def vectors_of(self, row: int) -> dict[str, Any]:
        """The vectors of a point by name, as a client reads them."""
        return self._store.vectors(row)

    def vector_bytes(self, row: int) -> int:
        """The bytes of a point's vectors, as stored."""
        return sum(self._store.vector_sizes(row).values())

    def ids_from(self, start: bytes, deadline: Deadline) -> Iterator[tuple[bytes, int]]:
        """Ids and rows of all points in id order, from `start` (inclusive); NO_ROW for deleted ones."""
        for count, (id_, row) in enumerate(self._store.scan_points(start)):
            if count % ROWS_PER_STEP == 0:
                deadline.check()
            yield id_, row

    # Changes.

    def states_of(self, point_id: bytes, before: Version) -> Iterator[Row]:
        """The states of a point that began before a version, the latest first."""
        yield from (row for row in self.find((point_id,)) if row.version < before)
        numbers = (row for _, row in self._store.past_rows(point_id, before - 1))
        while some := list(islice(numbers, STATES_PER_STEP)):
            yield from self._store.rows(some)

    def changed_between(
        self, low: Version, high: Version, most: int
    ) -> tuple[list[tuple[int, Version]], list[tuple[int, Version]]]:
        """The states that began at a version from `low` to `high`, as pairs of row and version, and those that ended then, as
        pairs of row and end.

        The first `most` in order of version after `low`, and more if the last of them are of one version.
        """
        past = self.past.rows
        live, versions = self.known.between(self.alive, low, high)
        begun, ended = (past.versions >= low) & (past.versions <= high), (past.ends >= low) & (past.ends <= high)
        rows, versions = np.concatenate([live, past.rows[begun]]), np.concatenate([versions, past.versions[begun]])
        gone, ends = past.rows[ended], past.ends[ended]
        every = np.concatenate([versions, ends])
        last = most + int(np.count_nonzero(every == low))
        if last < len(every):
            bound = np.partition(every, last - 1)[last - 1]
            rows, versions, gone, ends = (
                rows[versions <= bound],
                versions[versions <= bound],
                gone[ends <= bound],
                ends[ends <= bound],
            )
        return list(zip(rows.tolist(), versions.tolist(), strict=True)), list(zip(gone.tolist(), ends.tolist(), strict=True))

    # Filters.

    def select(self, where: Where | None, deadline: Deadline = NEVER) -> RowSet | None:
        """The rows that pass a filter; None, which means all rows, without a filter."""
        if where is None:
            return None
        deadline.check()
        if (known := self._selections.get(where.text)) is not None:
            return known
        rows, exact = self.may_pass(where, deadline)
        passing = RowSet(rows if exact else self.tested(rows, where.filter, deadline))
        self._selections.put(where.text, passing)
        return passing

    def is_selected(self, where: Where | None) -> bool:
        """Whether `select` can answer from its cache."""
        return where is None or self._selections.get(where.text) is not None

    def may_pass(self, where: Where, deadline: Deadline) -> Selection:
        """The rows that may pass a filter, from the indexes. The caller may change the bitmap."""
        if (known := self._selections.get(where.text)) is not None:
            return Selection(BitMap(known.rows), True)
        indexes = _Indexes(self, self._payload.fields, where.filter, deadline)

        def select() -> tuple[BitMap, bool, BitMap]:
            indexes.fields = self._payload.fields
            rows, exact = where.filter.select(indexes)
            return rows & self.alive, exact, self._changed()

        rows, exact, changed = self._payload.read(select)
        if exact:
            return Selection((rows - changed) | self.tested(changed, where.filter, deadline), True)
        return Selection(rows | changed, False)

    def tested(self, rows: BitMap, filter_: Filter, deadline: Deadline) -> BitMap:
        """The rows among `rows` that pass, tested one by one."""
        passed = BitMap()
        for points in self._in_steps(rows, deadline):
            passed.update(point.row for point in points if filter_.test(PointSubject(point, self)))
        return passed

    def passes(self, row: int, filter_: Filter) -> bool:
        """Whether one point passes."""
        return filter_.test(PointSubject(self._store.rows((row,))[0], self))

    # Order and counts.

    def in_order(self, key: str, descending: bool, start: float | None, deadline: Deadline) -> Iterator[ValueOfRow]:
        """Values of an indexed field with their rows, in order of value, then row, from value `start` (inclusive).

        A row is returned once for each of its values; datetimes are in microseconds since 1970.
        Raises OrderError without a suitable index, and IndexNotBuilt while it is being built.
        """

        def order_now() -> tuple[ValueOrder, BitMap]:
            index = self.field_index(key, self._payload.fields)
            if index is None and key in self.fields:
                raise IndexNotBuilt(f"order_by.key: the index of {key!r} is still being built")
            if index is None or index.ordered is None:
                raise OrderError(
                    f"order_by.key: {key!r} has no index of type integer, float or datetime; create one to order by it"
                )
            return index.ordered.order(), self._changed()

        order, since = self._payload.read(order_now)
        pairs = [(value, row) for row, values in self.numbers(since, key, deadline) for value in values]
        return (pair for pair in order.ascending(start, descending, since, pairs) if pair[1] in self.alive)

    def numbers(self, rows: BitMap, key: str, deadline: Deadline) -> Iterator[tuple[int, list[float | int]]]:
        """The numbers at a field of these rows, read from their payloads; for a datetime field microseconds since 1970."""
        schema = self.fields.get(key)
        as_value = as_number if schema is None else schema.number
        for points in self._in_steps(rows, deadline):
            for point in points:
                numbers = [number for value in _values(point, key) if (number := as_value(value)) is not None]
                yield point.row, list(dict.fromkeys(numbers))

    def facet(self, key: str, among: RowSet | None, deadline: Deadline) -> Counter[tuple[str, Value]]:
        """For each string, integer or boolean at a field: how many of the rows have it, by `facet_key`."""
        rows = self.alive if among is None else among.rows
        index = self.field_index(key, self._payload.fields)
        counts: Counter[tuple[str, Value]] = Counter()
        if index is not None and index.keeps_values:
            rows = self._count_by_index(index, rows, counts, deadline)
        for points in self._in_steps(rows, deadline):
            for point in points:
                values = _values(point, key) if index is None else map(index.shown, _values(point, key))
                counts.update({facet_key(value) for value in values if _is_counted(value)})
        return counts

    # For filters.

    @property
    def fields(self) -> Mapping[str, FieldSchema]:
        """The schemas of the collection's indexed fields."""
        return self.collection.fields

    def vector_names(self, row: int) -> Set[str]:
        """The names of the vectors that a row has."""
        return self._store.vector_sizes(row).keys()

    def field_index(self, path: str, indexes: Mapping[str, FieldIndex]) -> FieldIndex | None:
        """The index of a field among `indexes`, if its schema is the one in this view's collection."""
        index = indexes.get(path)
        return index if index is not None and index.schema == self.collection.fields.get(path) else None

    def _changed(self) -> BitMap:
        """The rows of this view of which the payload index has another payload now, or none. Under its lock."""
        return self._moment.changed_until(self._payload.moment) & self.alive

    def _count_by_index(self, index: FieldIndex, rows: BitMap, counts: Counter[tuple[str, Value]], deadline: Deadline) -> BitMap:
        """Counts by an index, a few values at a time.

        Returns the rows that are not counted: those that changed after this view, or have values that the index does not have.
        """
        with self._payload.lock:
            keys = index.postings.keys()
        holders = []
        for start in range(0, len(keys), KEYS_PER_STEP):
            deadline.check()
            with self._payload.lock:
                holders += index.postings.holders(keys[start : start + KEYS_PER_STEP], rows)
        with self._payload.lock:
            others = (self._changed() | index.with_others()) & rows
        for key, held in holders:
            if (count := len(held - others if others else held)) and _is_counted(key):
                counts[facet_key(key)] = count
        return others

    def _in_steps(self, rows: BitMap, deadline: Deadline) -> Iterator[list[Row]]:
        numbers = iter(rows)
        while step := list(islice(numbers, ROWS_PER_STEP)):
            deadline.check()
            yield self._store.rows(step)


def _is_counted(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and -MAX_COUNTED <= value < MAX_COUNTED)


def facet_key(value: Value) -> tuple[str, Value]:
    """A value with its type, since in Python True == 1."""
    return type(value).__name__, value


class _Indexes:
    """The view and the payload index, as `Filter.select` uses them. The caller holds the lock of the payload index.

    The tests that need only the view may take long; they are evaluated in the constructor, before the lock is taken.
    """

    def __init__(self, view: ShardView, fields: Mapping[str, FieldIndex], filter_: Filter, deadline: Deadline) -> None:
        self.alive = view.alive
        self.fields = fields
        self._view = view
        self._rows = {id(test): test.rows(view, deadline) for test in filter_.view_tests()}

    def field(self, path: str) -> FieldIndex | None:
        return self._view.field_index(path, self.fields)

    def rows_of(self, test: ViewTest) -> BitMap:
        return self._rows[id(test)]


class _Selections:
    """A cache of the rows that filters select in one view, by text. The oldest entries are evicted. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, RowSet] = OrderedDict()
        self._size_bytes = 0

    def get(self, text: bytes) -> RowSet | None:
        return self._kept.get(text)

    def put(self, text: bytes, rows: RowSet) -> None:
        with self._lock:
            if text in self._kept or _weight(text, rows) > MAX_SELECTION_BYTES // 4:
                return
            self._kept[text] = rows
            self._size_bytes += _weight(text, rows)
            while len(self._kept) > MAX_SELECTIONS or self._size_bytes > MAX_SELECTION_BYTES:
                self._size_bytes -= _weight(*self._kept.popitem(last=False))


def _weight(text: bytes, rows: RowSet) -> int:
    """The memory of an entry: its text, its bitmap, and the array that searches make of the bitmap."""
    return len(text) + bitmap_bytes(rows.rows) + 8 * len(rows)


def _values(point: Row, key: str) -> list[Any]:
    return values_at(orjson.loads(point.payload), key) if point.payload else []
