"""A read's picture of a collection: all its shards, each at one moment, and which of their rows pass each filter.

What a filter selects is kept with the shard's view. A view never changes, so neither does what was found in it; the next
write makes a new view, and what was kept goes with the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import msgspec
from pyroaring import BitMap

from catalog.collection import Collection
from shard.filters.conditions import Candidate, Condition, Filter, Selection, parse_filter
from shard.shard import Shard
from shard.store import Row
from shard.vectors.index import RowSet
from shard.view import ShardView

MAX_SELECTIONS = 64
MAX_SELECTED_ROWS = 4_000_000
"""Filters whose rows a view remembers, and rows of all of them together: each may take some 30 bytes in the indexes' forms."""

_TEST_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Where:
    """A filter, and a digest of its text, by which equal filters are known."""

    key: bytes
    filter: Filter = field(compare=False)


def where(condition: Condition | None) -> Where | None:
    """The filter of a request. Raises FilterError."""
    filter_ = parse_filter(condition)
    return None if filter_ is None else Where(blake2b(msgspec.json.encode(condition), digest_size=16).digest(), filter_)


class Place(NamedTuple):
    """Where a point stands: which shard of the collection, which row."""

    shard: int
    row: int


class Order(NamedTuple):
    """The first points in order of an indexed payload value, from `start` on; moments in microseconds since 1970."""

    key: str
    descending: bool
    start: float | None
    limit: int
    where: Where | None


class OrderError(ValueError):
    """The field has no index that knows an order. The text names it."""


class Reading:
    """The shards of a collection, at least one, and what `filters` and `orders` select there; no others can be asked for."""

    def __init__(self, shards: Sequence[Shard], filters: Iterable[Where] = (), orders: Iterable[Order] = ()) -> None:
        self.views: list[ShardView] = []
        self._selected: list[dict[bytes, RowSet | Selection]] = []
        self._ordered: list[dict[Order, list[tuple[float, int]]]] = []
        wanted = {where.key: where.filter for where in filters}
        for shard in shards:
            with shard.lock if orders else nullcontext():
                view, selected = _selected(shard, wanted)
                self._ordered.append({order: _in_order(shard, view, order, selected) for order in orders})
            self.views.append(view)
            self._selected.append(selected)

    @property
    def collection(self) -> Collection:
        return self.views[0].collection

    def among(self, shard: int, wanted: Where | None) -> RowSet | None:
        """The rows of a shard that pass a filter; None for all of them."""
        if wanted is None:
            return None
        found = self._selected[shard][wanted.key]
        if isinstance(found, Selection):
            view = self.views[shard]
            found = RowSet(found.rows if found.exact else _tested(view, found.rows, wanted.filter))
            self._selected[shard][wanted.key] = found
            _remember(view, wanted.key, found)
        return found

    def passing(self, shard: int, wanted: Where | None) -> BitMap:
        """As `among`, but all rows where there is no filter."""
        rows = self.among(shard, wanted)
        return self.views[shard].alive if rows is None else rows.rows

    def is_known(self, shard: int, wanted: Where | None) -> bool:
        """Whether the indexes alone said which rows pass."""
        found = None if wanted is None else self._selected[shard][wanted.key]
        return not isinstance(found, Selection) or found.exact

    def ordered(self, shard: int, order: Order) -> list[tuple[float, int]]:
        """Values and rows of a shard in order; a point with several values stands at each."""
        return self._ordered[shard][order]

    def without_payloads(self, places: Sequence[Place]) -> list[Row]:
        """The points at these places, their payloads left out."""
        if len(self.views) == 1:
            known = self.views[0].known.known(row for _, row in places)
        else:
            known = [self.views[shard].known.known((row,))[0] for shard, row in places]
        return [
            Row(place.row, id_, b"", stamp) if id_ else self.views[place.shard].rows.rows((place.row,))[0]
            for place, (id_, stamp) in zip(places, known, strict=True)
        ]

    def rows(self, places: Iterable[Place]) -> list[Row]:
        """The points at these places."""
        return [self.views[shard].rows.rows([row])[0] for shard, row in places]


def is_selected(shards: Sequence[Shard], wanted: Where | None) -> bool:
    """Whether what a filter selects is known already, so that a reading that asks for it is made at once."""
    return wanted is None or all(wanted.key in shard.view.selections for shard in shards)


def _selected(shard: Shard, wanted: Mapping[bytes, Filter]) -> tuple[ShardView, dict[bytes, RowSet | Selection]]:
    """A view, and what filters select at its moment: the rows where they are known, else what the indexes say."""
    view = shard.view
    known: dict[bytes, RowSet | Selection] = {key: rows for key in wanted if (rows := view.selections.get(key)) is not None}
    if len(known) == len(wanted):
        return view, known
    with shard.lock:  # so that the payload index is that of the view
        view = shard.view
        return view, {key: _select(shard, view, key, filter_) for key, filter_ in wanted.items()}


def _select(shard: Shard, view: ShardView, key: bytes, filter_: Filter) -> RowSet | Selection:
    if (known := view.selections.get(key)) is not None:
        return known
    rows, exact = filter_.select(shard)
    return Selection(BitMap(rows), exact)


def _remember(view: ShardView, key: bytes, found: RowSet) -> None:
    """Keeps what a filter selects, instead of the latest of those kept before where there is no room."""
    room = MAX_SELECTED_ROWS - len(found)
    if room < 0:
        return
    for count, (kept, rows) in enumerate(list(view.selections.items()), 1):
        room -= len(rows)
        if room < 0 or count >= MAX_SELECTIONS:
            view.selections.pop(kept, None)
    view.selections[key] = found


def _in_order(
    shard: Shard, view: ShardView, order: Order, selected: Mapping[bytes, RowSet | Selection]
) -> list[tuple[float, int]]:
    """Under the shard's lock."""
    index = shard.payload.fields.get(order.key)
    if index is None or (values := index.ascending(order.start, order.descending)) is None:
        raise OrderError(
            f"order_by.key: {order.key!r} has no index of type integer, float or datetime; create one to order by it"
        )
    if order.where is None:
        return list(islice(values, order.limit))
    found = selected[order.where.key]
    passing = (item for item in values if item[1] in found.rows)
    if isinstance(found, Selection) and not found.exact:
        test = order.where.filter.test
        passing = (item for item in passing if test(Candidate(view.rows.rows([item[1]])[0], view)))
    return list(islice(passing, order.limit))


def _tested(view: ShardView, rows: BitMap, filter_: Filter) -> BitMap:
    """The rows that pass, tested one by one."""
    passed = BitMap()
    numbers = rows.to_array()
    for start in range(0, len(numbers), _TEST_CHUNK):
        points = view.rows.rows(numbers[start : start + _TEST_CHUNK])
        passed.update(point.row for point in points if filter_.test(Candidate(point, view)))
    return passed
