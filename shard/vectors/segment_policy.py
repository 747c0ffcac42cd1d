"""The policy that decides when segments are sealed, merged and rebuilt. Pure; see `segments`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, TypeVar


class Sized(Protocol):
    """A segment, as the policy uses it."""

    @property
    def count(self) -> int:
        """The number of rows, including dead ones."""

    @property
    def alive_count(self) -> int: ...

    @property
    def ef(self) -> int:
        """The beam width that its graph needs; 0 without a graph."""


S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, slots=True)
class SegmentPolicy:
    """All sizes are in rows."""

    seal_rows: int = 10_000
    """A growing segment of this size gets a graph."""
    seal_rows_idle: int = 2_000
    """As `seal_rows`, while nothing is written: a scan of this many rows is already slower than a graph search."""
    coded_rows: int = 5_000
    """A segment of at least this size gets one-bit codes while it waits for its graph; a smaller one is scanned."""
    unsaved_rows: int = 50_000
    """When more rows than this wait for their graph, the oldest segments get files. A restart reads the vectors of the others
    from RocksDB: about 85,000 of 384 dimensions a second."""
    max_build_rows: int = 250_000
    """The most rows without a graph that one build takes. While it runs, all later rows wait for their graph."""
    max_segment_rows: int = 4_000_000
    """The largest segment that a merge may produce."""
    max_merged_ef: int = 512
    """Segments whose graphs need a larger beam width are not merged. Of real embeddings a graph of several times the size needs
    the same width; where the width grows as fast as the size, one large graph is no faster to search than several, and takes much
    longer to build."""
    merge_share: float = 0.25
    """Segments are merged when the smaller ones together have this share of the largest. One large graph is faster to search
    than several; a smaller share would rebuild every row more often."""
    max_dead_share: float = 0.2
    """A segment with a larger share of dead rows is rebuilt without them."""
    large_rows: int = 75_000
    """From this size on ef_construct is doubled, and with it the time of a build. Then a search in 100,000 rows needs half the
    beam width."""
    max_held_out_rows: int = 400
    """The largest number of rows to measure a graph's beam width with: the standard error of the recall is about 0.003."""

    def is_full(self, rows: int, idle: bool) -> bool:
        """Whether a growing segment must be sealed. `idle`: no writes are coming in."""
        return rows >= (self.seal_rows_idle if idle else self.seal_rows)

    def needs_codes(self, rows: int) -> bool:
        """Whether a segment gets codes while it waits for its graph."""
        return rows >= self.coded_rows

    def to_save(self, unsaved: Sequence[S]) -> list[S]:
        """The segments to write to files, among those that wait for their graph without files, the oldest first."""
        rows = sum(segment.count for segment in unsaved)
        return list(unsaved[:1]) if rows > self.unsaved_rows else []

    def to_build(self, waiting: Sequence[S]) -> list[S]:
        """The segments without a graph, the oldest first, that the next build makes into one."""
        ends = accumulate(segment.alive_count for segment in waiting)
        return [
            segment for at, (segment, end) in enumerate(zip(waiting, ends, strict=True)) if not at or end <= self.max_build_rows
        ]

    def to_merge(self, segments: Sequence[S]) -> list[S]:
        """The sealed segments to merge into one; empty when no merge is due.

        Takes a segment and all smaller ones, beginning with the largest segment, if the smaller ones together have `merge_share`
        of its rows. So a row is rebuilt a number of times that is logarithmic in the size of the collection.
        """
        mergeable = [segment for segment in segments if segment.ef <= self.max_merged_ef]
        ranked = sorted(mergeable, key=lambda segment: segment.alive_count, reverse=True)
        for at, largest in enumerate(ranked[:-1]):
            smaller = sum(segment.alive_count for segment in ranked[at + 1 :])
            if self.merge_share * largest.alive_count <= smaller <= self.max_segment_rows - largest.alive_count:
                return ranked[at:]
        return []

    def to_clean(self, segments: Sequence[S]) -> list[S]:
        """The sealed segments with too many dead rows."""
        return [segment for segment in segments if segment.alive_count < (1 - self.max_dead_share) * segment.count]

    def ef_construct(self, wanted: int, rows: int) -> int:
        """The ef_construct for a graph of `rows` rows; `wanted` is that of the settings."""
        return 2 * wanted if rows >= self.large_rows else wanted

    def held_out_rows(self, rows: int) -> int:
        """How many rows to hold out of a graph until its beam width is measured: a small share of the rows and of the time."""
        return min(self.max_held_out_rows, rows // 100)


DEFAULT_POLICY = SegmentPolicy()
