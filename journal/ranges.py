"""Reads ranges of partitions to their ends, over what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from journal.log import Damaged, Entry, JournalError, Reader, TopicPartition

POLL_S, MAX_EMPTY_POLLS = 1.0, 30
"""The log holds what is asked for, so these are waits for a broker; then it is an error."""


class Range(NamedTuple):
    """The offsets from `start` up to `end`, excluded."""

    start: int
    end: int


class Stretch(NamedTuple):
    """A part of a range: entries in offset order, then either nothing more below `next_offset`, or `damage` up to there."""

    partition: TopicPartition
    entries: list[Entry]
    next_offset: int
    damage: Damaged | None = None


def stretches(
    reader: Reader, ranges: Mapping[TopicPartition, Range], max_bytes: int = 8 << 20, max_records: int = 1000
) -> Iterator[Stretch]:
    """The entries of these ranges, which end at the end of the log or before it; in parts of about `max_bytes`.

    The partitions are read together: one after the other, each would cost half a second on Kafka, which waits at an end for more.
    Assigns the reader. Raises JournalError when nothing comes for MAX_EMPTY_POLLS times POLL_S.
    """
    at = {partition: start for partition, (start, end) in ranges.items() if start < end}
    empty = 0
    if at:
        reader.assign(at)
    while at:
        try:
            entries, positions = reader.poll(POLL_S, max_records, max_bytes)
        except Damaged as damage:
            partition, end = damage.partition, ranges[damage.partition].end
            if partition in at:
                yield Stretch(partition, [], min(damage.next_offset, end), damage)
            at = _ahead(at | {partition: damage.next_offset}, ranges)
            reader.assign(at)
            continue
        moved = {partition: positions[partition] for partition, offset in at.items() if positions[partition] > offset}
        empty = 0 if moved else empty + 1
        if empty > MAX_EMPTY_POLLS:
            partition, offset = next(iter(at.items()))
            raise JournalError(f"{partition}/{offset} cannot be read")
        found: dict[TopicPartition, list[Entry]] = {partition: [] for partition in moved}
        for entry in entries:
            if entry.partition in found and entry.offset < ranges[entry.partition].end:
                found[entry.partition].append(entry)
        for partition, offset in moved.items():
            yield Stretch(partition, found[partition], min(offset, ranges[partition].end))
        at = _ahead(at | moved, ranges)


def _ahead(at: Mapping[TopicPartition, int], ranges: Mapping[TopicPartition, Range]) -> dict[TopicPartition, int]:
    """The partitions that are not yet read to the end of their range."""
    return {partition: offset for partition, offset in at.items() if offset < ranges[partition].end}
