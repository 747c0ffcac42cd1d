"""What to build when: the sizes at which segments are sealed and merged, and how that is decided. Pure; see `segments`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class Sized(Protocol):
    """What the policy needs of a segment."""

    @property
    def count(self) -> int:
        """Rows, dead ones too."""

    @property
    def alive_count(self) -> int: ...


S = TypeVar("S", bound=Sized)


@dataclass(frozen=True, slots=True)
class SegmentPolicy:
    """Counts are of rows."""

    seal_rows: int = 10_000
    """A growing segment of this size gets a graph."""
    seal_rows_idle: int = 2_000
    """The same while nothing is written: a scan of so few rows already costs a search more than a graph does."""
    coded_rows: int = 5_000
    """A segment of this size that waits for its graph gets one-bit codes for the time being; a smaller one is scanned."""
    max_segment_rows: int = 4_000_000
    """No merge makes a larger segment, which bounds the work of one build."""
    merge_share: float = 0.25
    """Segments are merged when the smaller ones together have this share of the largest. One large graph answers faster than
    several; a smaller share would build every row more often."""
    max_dead_share: float = 0.2
    """A segment with a larger share of dead rows is built again without them."""
    large_rows: tuple[int, ...] = (75_000, 500_000)
    """At each of these sizes the candidates for the links of a row double, and with them the time of a build. At 100,000 rows a
    search then needs half the width; at a million no reasonable width would do without."""
    max_held_out_rows: int = 400
    """Rows that a graph's search width is measured with: the standard error of the recall is then about 0.003."""

    def is_full(self, rows: int, idle: bool) -> bool:
        """Whether a growing segment takes no more rows. `idle`: nothing is being written."""
        return rows >= (self.seal_rows_idle if idle else self.seal_rows)

    def needs_codes(self, rows: int) -> bool:
        """Whether a segment that waits for its graph gets codes meanwhile."""
        return rows >= self.coded_rows

    def to_merge(self, segments: Sequence[S]) -> list[S]:
        """The sealed segments to make one of; empty when none are to be merged.

        The largest run, in order of size, whose smaller members together have a share of its largest: so a row is built again a
        number of times that is logarithmic in the collection.
        """
        ranked = sorted(segments, key=lambda segment: segment.alive_count, reverse=True)
        for at, largest in enumerate(ranked[:-1]):
            smaller = sum(segment.alive_count for segment in ranked[at + 1 :])
            if self.merge_share * largest.alive_count <= smaller <= self.max_segment_rows - largest.alive_count:
                return ranked[at:]
        return []

    def to_clean(self, segments: Sequence[S]) -> list[S]:
        """The sealed segments with too many dead rows."""
        return [segment for segment in segments if segment.alive_count < (1 - self.max_dead_share) * segment.count]

    def ef_construct(self, wanted: int, rows: int) -> int:
        """How many candidates to build a graph of so many rows with, where the settings want `wanted`."""
        return int(wanted * 2 ** sum(rows >= size for size in self.large_rows))

    def held_out_rows(self, rows: int) -> int:
        """How many rows to hold out of a graph until its width is measured: a small share, as is the time that this takes."""
        return min(self.max_held_out_rows, rows // 100)


DEFAULT_POLICY = SegmentPolicy()
