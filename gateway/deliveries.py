"""The changes of one subscription between being read from the feed and being settled, on one node. Pure: the time is an argument.

A change is settled when it is acknowledged, put aside or skipped. All changes below `settled` are, so a node may go on there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from journal.stamps import Version
from query.feed import Change, Page, Place
from shard.replica import Cursor

Key = Cursor
"""Identifies a change: its place in the feed."""


class Limits(NamedTuple):
    """At most `in_flight` changes are read and not settled; one is delivered `attempts` times, each for `ack_s` seconds."""

    in_flight: int
    ack_s: float
    attempts: int


class Delivery(NamedTuple):
    """A change that is delivered, for the `attempt`th time."""

    change: Change
    attempt: int


class _Entry:
    """A change that is not settled, or one behind such a change. `due_s`: when it is delivered next."""

    __slots__ = ("attempts", "change", "due_s", "is_settled")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.attempts = 0
        self.due_s = float("-inf")
        self.is_settled = False


class Deliveries:
    """Thread-safe: requests of several event loops share it."""

    def __init__(self, settled: Version) -> None:
        self.lock = threading.RLock()
        self.moves = 0
        """Goes up with each change, so that those who wait can see it."""
        self.read_to = Place(Cursor(settled))
        """Up to here changes were read from the feed."""
        self._entries: dict[Key, _Entry] = {}
        """In the order of the feed; the first one is not settled."""
        self._replayed: dict[Key, _Entry] = {}
        """Changes that had been put aside, and are delivered once more. They hold up nothing."""

    @property
    def settled(self) -> Version:
        """All changes below this version are settled."""
        with self.lock:
            return next(iter(self._entries), self.read_to.cursor).version

    def counts(self, now_s: float) -> tuple[int, int]:
        """How many changes are in flight, that is delivered and not due again, and how many wait."""
        with self.lock:
            open_ = [entry for entry in self._all() if not entry.is_settled]
            in_flight = sum(entry.due_s > now_s for entry in open_)
            return in_flight, len(open_) - in_flight

    def room(self, limits: Limits) -> int:
        """How many changes may be read from the feed."""
        return max(0, limits.in_flight - len(self._entries))

    def offer(self, start: Place, page: Page) -> bool:
        """Takes a page that was read from `start`; False when another one was quicker, and this one is not needed."""
        with self.lock:
            if start != self.read_to:
                return False
            self._entries |= {change.place.cursor: _Entry(change) for change in page.changes}
            self.read_to = page.next
            self.moves += 1
            return True

    def replay(self, changes: Iterable[Change]) -> None:
        """Delivers changes again that were put aside."""
        with self.lock:
            for change in changes:
                self._replayed.setdefault(change.place.cursor, _Entry(change))
            self.moves += 1

    def take(self, most: int, now_s: float, limits: Limits) -> list[Delivery]:
        """Delivers changes that are due, the first in the order of the feed first."""
        with self.lock:
            due = [entry for entry in self._all() if not entry.is_settled and entry.due_s <= now_s]
            due = [entry for entry in due if entry.attempts < limits.attempts][:most]
            for entry in due:
                entry.attempts += 1
                entry.due_s = now_s + limits.ack_s
            return [Delivery(entry.change, entry.attempts) for entry in due]

    def next_due_s(self) -> float:
        """When the next change is due; infinity without one."""
        with self.lock:
            return min((entry.due_s for entry in self._all() if not entry.is_settled), default=float("inf"))

    def failed(self, now_s: float, limits: Limits) -> list[Delivery]:
        """The changes that were delivered as often as they may be, and not acknowledged in time."""
        with self.lock:
            return [
                Delivery(entry.change, entry.attempts)
                for entry in self._all()
                if not entry.is_settled and entry.attempts >= limits.attempts and entry.due_s <= now_s
            ]

    def settle(self, keys: Sequence[Key]) -> tuple[list[Key], list[Key]]:
        """Settles changes. Returns those that were open, and of these those that had been put aside."""
        with self.lock:
            open_ = [key for key in keys if (entry := self._entry(key)) is not None and not entry.is_settled and entry.attempts]
            replayed = [key for key in open_ if self._replayed.pop(key, None) is not None]
            for key in open_:
                if (entry := self._entries.get(key)) is not None:
                    entry.is_settled = True
            self._drop_settled()
            self.moves += 1
            return open_, replayed

    def retry(self, keys: Sequence[Key], due_s: float) -> list[Key]:
        """Has changes delivered again from `due_s` on, or given up. Returns those that were open."""
        with self.lock:
            open_ = [entry for key in keys if (entry := self._entry(key)) is not None and not entry.is_settled and entry.attempts]
            for entry in open_:
                entry.due_s = due_s
            self.moves += 1
            return [entry.change.place.cursor for entry in open_]

    def again(self) -> None:
        """Begins to count the attempts anew."""
        with self.lock:
            for entry in self._all():
                entry.attempts, entry.due_s = 0, float("-inf")
            self.moves += 1

    def settled_elsewhere(self, version: Version) -> None:
        """Everything below a version is settled, through another node."""
        with self.lock:
            for key, entry in self._entries.items():
                entry.is_settled |= key.version < version
            self._drop_settled()
            if not self._entries and self.read_to.cursor.version < version:
                self.read_to = Place(Cursor(version))
            self.moves += 1

    def _all(self) -> list[_Entry]:
        return [*self._replayed.values(), *self._entries.values()]

    def _entry(self, key: Key) -> _Entry | None:
        return self._replayed.get(key) or self._entries.get(key)

    def _drop_settled(self) -> None:
        while self._entries and self._entries[first := next(iter(self._entries))].is_settled:
            del self._entries[first]
