"""The past of a shard: the states that its points had, and the view of the shard as of an instant (N1).

A state of a point is valid from its version until the version of the write that changed it. The current state is a live row; each
earlier one is a past row, with an id, a payload, vectors, a version and an end of its own, in indexes of its own. So reads of the
present do not become slower, and a view as of an instant consists of the live rows whose version is not after the instant, and of
the past rows that were valid then.

Past rows are written in the same write batch as the state that follows. A write that arrives later, but has an earlier version,
changes the past of its point after the closed stamp (I7), which nobody can have read, so `timeline` computes it anew. What ended
before the retention is removed, except what a pinned stamp needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.collection import vector_name
from journal.hlc import LAST_COUNTER
from journal.stamps import MAX_VERSION, TIER_BITS, Version, last_version, stamp_of
from journal.topics import TIERS
from shard.history import Write, holds
from shard.join import PointState
from shard.rows import RowTable
from shard.store import PastState
from shard.vectors.index import Mask, Rows, VectorIndex, VectorView, grown_capacity, reallocated

Versions = NDArray[np.int64]


class Instant(NamedTuple):
    """A moment of a shard: for each tier the last stamp that is included.

    All are equal for a moment that is given by its stamp. A moment that is given by the positions of an answer includes what the
    answer had seen, which may be less in one tier than in another.
    """

    stamps: tuple[int, ...]

    @classmethod
    def at(cls, stamp: int) -> Instant:
        return cls((stamp,) * len(TIERS))

    def includes(self, version: Version) -> bool:
        return bool(self.among(np.array([version], np.int64))[0])

    def among(self, versions: Versions) -> Mask:
        """Which of some versions are included. A point has expired when that is closed, that is in all tiers."""
        closed = versions <= self.first
        if self.first == self.last:
            return closed
        stamps = np.array(self.stamps, np.int64)[versions & (1 << TIER_BITS) - 1]
        included: Mask = closed | ((versions >> TIER_BITS <= stamps) & ~is_expiry(versions))
        return included

    @property
    def first(self) -> Version:
        """All versions up to this one are included."""
        return last_version(min(self.stamps))

    @property
    def last(self) -> Version:
        """The highest version that may be included."""
        return last_version(max(self.stamps))


class Unrepeatable(Exception):
    """An instant includes a change of a point and not one before it, which came later: its state of that time is not kept."""


def is_expiry(versions: Versions) -> Mask:
    """Which versions are of points that expired, and not of records; see `journal.stamps.expiry_of`."""
    end = last_version(LAST_COUNTER)
    mask: Mask = versions & end == end
    return mask


class PastGone(Exception):
    """An instant is before what is kept. `oldest` is the oldest stamp that can be read."""

    def __init__(self, oldest: int) -> None:
        super().__init__(oldest)
        self.oldest = oldest


class PastView(NamedTuple):
    """The past rows at one moment: n rows, their versions and their ends, each of shape (n,)."""

    rows: Rows
    versions: Versions
    ends: Versions

    def valid_at(self, instant: Instant) -> Rows:
        """The past rows that were valid at an instant."""
        valid: Rows = self.rows[instant.among(self.versions) & ~instant.among(self.ends)]
        return valid


NO_PAST = PastView(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


class ShardPast(NamedTuple):
    """The past of a shard at one moment: its past rows, and their vectors by name.

    `kept_since`: the oldest stamp of which all past rows are kept.
    """

    rows: PastView
    vectors: Mapping[str, VectorView]
    kept_since: int

    def held_for(self, stamp: int) -> list[int]:
        """The past rows that are kept for a tagged stamp beyond the retention."""
        at = Instant.at(stamp)
        valid = at.among(self.rows.versions) & ~at.among(self.rows.ends) & (self.rows.ends <= last_version(self.kept_since))
        held: list[int] = self.rows.rows[valid].tolist()
        return held


class Past:
    """The past that the shard writes: past rows, and the indexes of their vectors by key. Guarded by the shard's lock."""

    def __init__(self, vectors: dict[str, VectorIndex], kept_since: int) -> None:
        self.rows = PastRows()
        self.vectors = vectors
        self.kept_since = kept_since

    def change(self, table: RowTable, added: Sequence[tuple[int, PastState]], removed: Sequence[int]) -> None:
        """Adds past rows, ascending and above all existing ones, and removes others, here and in the table of all rows."""
        if added:
            self.rows.add([row for row, _ in added], [past.version for _, past in added], [past.end for _, past in added])
            for row, past in added:
                table.put(row, past.point_id, past.version)
            for key, index in self.vectors.items():
                pairs = [(row, past.vectors[key]) for row, past in added if key in past.vectors]
                if pairs:
                    index.add(np.array([row for row, _ in pairs], np.int64), [vector for _, vector in pairs])
        if removed:
            rows = np.sort(np.array(removed, np.int64))
            self.rows.remove(rows)
            table.remove(removed)
            for index in self.vectors.values():
                index.kill(rows)

    def view(self) -> ShardPast:
        """The current past."""
        for index in self.vectors.values():
            index.publish()
        views = {vector_name(key): index.view for key, index in self.vectors.items()}
        return ShardPast(self.rows.view(), views, self.kept_since)


class PastRows:
    """The past rows that the shard writes. A view may hold the arrays, whose elements never change."""

    def __init__(self, view: PastView = NO_PAST) -> None:
        self._arrays = list(view)
        self._count = len(view.rows)

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Sequence[int] | Rows, versions: Sequence[Version] | Versions, ends: Sequence[Version] | Versions) -> None:
        """Adds rows."""
        end = self._count + len(rows)
        if end > len(self._arrays[0]):
            capacity = (grown_capacity(end, len(self._arrays[0])),)
            self._arrays = [reallocated(array, self._count, capacity) for array in self._arrays]
        for array, values in zip(self._arrays, (rows, versions, ends), strict=True):
            array[self._count : end] = values
        self._count = end

    def remove(self, rows: Rows) -> None:
        """Removes rows."""
        kept = ~np.isin(self._arrays[0][: self._count], rows)
        self._arrays = [array[: self._count][kept] for array in self._arrays]
        self._count = len(self._arrays[0])

    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays)

    def view(self) -> PastView:
        return PastView(*(array[: self._count] for array in self._arrays))

    def has_others_than(self, pinned: Collection[int]) -> bool:
        """Whether there are rows that were not valid at any of the `pinned` stamps."""
        return bool(self._count) and bool(len(self.expired(stamp_of(MAX_VERSION), pinned, 1)))

    def expired(self, kept_since: int, pinned: Iterable[int], most: int) -> Rows:
        """Up to `most` rows that ended at or before the stamp `kept_since`, and were not valid at any `pinned` stamp."""
        view = self.view()
        gone = view.ends <= last_version(kept_since)
        for stamp in pinned:
            gone &= ~((view.versions <= last_version(stamp)) & (view.ends > last_version(stamp)))
        rows: Rows = view.rows[gone][:most]
        return rows


def timeline(point_id: bytes, writes: Sequence[tuple[Version, Write]]) -> Iterator[PastState]:
    """The states that a point had between all writes to it, which are in ascending order of version, but not the last state."""
    point = PointState()
    for version, write in writes:
        if write.condition is not None and not holds(write.condition, point):
            point.decided = version
            continue
        before = PastState(point_id, point.version(), version, point.payload, point.vectors) if point.alive else None
        if write.join(point, version) and before is not None:
            yield before
        if write.condition is not None:
            point.decided = version
