"""The view of a shard as of an instant: the live rows that are not newer, and the past rows that were valid then."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from heapq import merge

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from catalog.collection import Collection
from journal.stamps import Version
from shard.deadline import Deadline
from shard.past import Instant, Unrepeatable
from shard.store import NO_ROW, Row
from shard.vectors.index import Mask
from shard.vectors.joined import joined
from shard.view import ShardView

MAX_VIEWS, MAX_AGE = 4, 10
MAX_CHANGES = 2**31


class ViewAsOf(ShardView):
    """The state of `view` as of an instant. `collection` is the collection as it was then.

    The payload index has live rows only, so filters test the past rows one by one. It refers to `view`, so that points which were
    deleted later are not removed from RocksDB meanwhile (`shard.settling`).
    """

    def __init__(self, view: ShardView, instant: Instant, collection: Collection) -> None:
        _check_order(view, instant)
        live = np.array(view.alive.to_array(), np.int64)
        live = live[instant.among(view.known.versions(live))]
        ended = view.past.rows.valid_at(instant)
        self._view = view
        self._instant = instant
        self._ended = _bitmap(ended)
        alive = _bitmap(live) | self._ended
        valid = _mask(alive)
        vectors = {
            name: joined([view.vectors[name].limited(valid), view.past.vectors[name].limited(valid)])
            for name in view.vectors
            if name in collection.vector_keys()
        }
        super().__init__(collection, view._store, view.known, alive, vectors, view._payload, view._moment, view.past, {})

    def find(self, ids: Iterable[bytes]) -> list[Row]:
        return self._store.rows(row for id_ in ids if (row := self._row_of(id_)) != NO_ROW)

    def _row_of(self, id_: bytes) -> int:
        """The row of a point; NO_ROW if it did not exist."""
        if (live := self._store.row_of(id_)) != NO_ROW and live in self.alive:
            return live
        for version, row in self._store.past_rows(id_, self._instant.last):
            if row in self.alive:
                return row
            if version <= self._instant.first:
                break
        return NO_ROW

    def ids_from(self, start: bytes, deadline: Deadline) -> Iterator[tuple[bytes, int]]:
        ended = ((id_, row) for id_, row in self._ended_by_id if id_ >= start)
        return merge(super().ids_from(start, deadline), ended)

    @cached_property
    def _ended_by_id(self) -> list[tuple[bytes, int]]:
        """The ids of the past rows, in order, and the rows."""
        rows = list(self._ended)
        return sorted(zip(self.ids(rows)[0], rows, strict=True))

    def _changed(self) -> BitMap:
        return super()._changed() | self._ended


def _check_order(view: ShardView, instant: Instant) -> None:
    """Raises Unrepeatable if a point has a change that is included in the instant after one that is not.

    Only possible in an instant whose stamps differ, and for changes between these. A write that changed nothing is not known;
    if it follows one that is not included, it may have changed something at that time.
    """
    if instant.first == instant.last:
        return
    begun, ended = view.changed_between(instant.first, instant.last, MAX_CHANGES)
    ids = view.ids([row for row, _ in (*begun, *ended)])[0]
    first_left_out: dict[bytes, Version] = {}
    for id_, (_, version) in sorted(zip(ids, (*begun, *ended), strict=True), key=lambda change: change[1][1]):
        if not instant.includes(version):
            first_left_out.setdefault(id_, version)
        elif id_ in first_left_out:
            raise Unrepeatable


class PastViews:
    """Views as of instants, the latest that were made, at most MAX_VIEWS. Thread-safe.

    They stay right whatever is written. Each keeps deleted points and the files of RocksDB from being removed, so one that was
    not asked for during MAX_AGE calls of `expire` is forgotten.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: dict[Instant, tuple[ViewAsOf, int]] = {}
        """By instant the view, and when it was asked for last. The latest made are the last."""
        self._time = 0

    def known(self, instant: Instant, collection: Collection) -> ViewAsOf | None:
        """The view of that instant, if it is remembered."""
        known, _ = self._views.get(instant, (None, 0))
        if known is None or known.collection != collection:
            return None
        self._views[instant] = (known, self._time)
        return known

    def made(self, view: ShardView, instant: Instant, collection: Collection) -> ViewAsOf:
        """The view of that instant; made from the current `view` if it is not remembered, while others wait."""
        with self._lock:
            if (known := self.known(instant, collection)) is None:
                known = ViewAsOf(view, instant, collection)
                self._views = dict(list(self._views.items())[1 - MAX_VIEWS :]) | {instant: (known, self._time)}
            return known

    def expire(self) -> None:
        """Forgets views that were not asked for; called once in a second of the log's time."""
        with self._lock:
            self._time += 1
            self._views = {key: kept for key, kept in self._views.items() if self._time - kept[1] <= MAX_AGE}

    def clear(self) -> None:
        with self._lock:
            self._views = {}


def _bitmap(rows: NDArray[np.int64]) -> BitMap:
    return BitMap(rows.astype(np.uint32))


def _mask(rows: BitMap) -> Mask:
    """Which rows are in a set; see `VectorView.limited`."""
    mask = np.zeros(rows.max() + 2 if rows else 1, np.bool_)
    mask[np.array(rows.to_array(), np.int64)] = True
    return mask
