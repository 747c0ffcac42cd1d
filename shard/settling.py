"""Settling: below the closed stamp (I7) a point has one state, and the writes that led to it are forgotten.

Above it, a write may still come that has to be ordered among them, so patches, deletes and overwritten states are kept. Once the
stamp is closed, the history of a point goes, the versions of its single keys and vectors become one, and nothing is left of a
deleted point.
"""

from __future__ import annotations

import weakref
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from journal.stamps import MAX_VERSION, Version, last_version
from shard.store import Changes
from shard.view import ShardView

if TYPE_CHECKING:
    from shard.shard import Shard


class _Mark(NamedTuple):
    """Up to `until`, points may be settled when all views before number `view` are gone: in those, deleted points may exist."""

    until: Version
    view: int


class Settling:
    """Settles the points of one shard. The thread that applies calls all methods, `seen` under the shard's lock."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._views: list[weakref.ref[ShardView]] = []
        self._mark: _Mark | None = None
        self.waiting = sum(1 for _ in shard.store.unsettled(MAX_VERSION))

    def seen(self, view: ShardView) -> ShardView:
        """Notes a view that is about to be published."""
        self._views.append(weakref.ref(view))
        return view

    def added(self, count: int) -> None:
        """Notes that so many points wait to be settled."""
        self.waiting += count

    def look(self) -> None:
        """Looks whether the closed stamp has advanced. Call it about once a second."""
        with self._shard.lock:
            self._views = [seen for seen in self._views if seen() is not None]
        if self.waiting and self._mark is None:
            self._mark = _Mark(last_version(self._shard.closed()), self._shard.view.version)

    def step(self, most: int) -> None:
        """Settles up to `most` points, if any are due."""
        if self._mark is None or self._oldest_view() < self._mark.view:
            return
        due = list(islice(self._shard.store.unsettled(self._mark.until), most))
        if len(due) < most:
            self._mark = None
        if due:
            self._settle(due)

    def _oldest_view(self) -> int:
        """The version of the oldest view that is still used."""
        for seen in self._views:
            if (view := seen()) is not None:
                return view.version
        return self._shard.view.version

    def _settle(self, due: list[tuple[Version, bytes]]) -> None:
        store = self._shard.store
        changes, history = Changes(store), store.history_keys(point_id for _, point_id in due)
        for version, point_id in due:
            point, row = store.point(point_id)
            if max(point.version(), point.decided) > version:  # it waits a second time, for its later version
                changes.delete_unsettled(version, point_id)
            else:
                changes.put_settled(version, point_id, point, row, history[point_id])
        store.write(changes)
        self.waiting -= len(due)
