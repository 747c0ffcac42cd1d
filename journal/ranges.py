"""Reads a range of one partition to its end, over what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from journal.log import Damaged, Entry, JournalError, Reader, TopicPartition

POLL_S, MAX_EMPTY_POLLS = 1.0, 30
"""The log holds what is asked for, so these are waits for a broker; then it is an error."""


class Stretch(NamedTuple):
    """A part of a range: entries in offset order, then either nothing more below `next_offset`, or `damage` up to there."""

    entries: list[Entry]
    next_offset: int
    damage: Damaged | None = None


def stretches(
    reader: Reader, partition: TopicPartition, start: int, end: int, max_bytes: int = 8 << 20, max_records: int = 1000
) -> Iterator[Stretch]:
    """The entries of `partition` from `start` up to `end`, excluded, which the log must hold; in parts of about `max_bytes`.

    Assigns the reader. Raises JournalError when nothing comes for MAX_EMPTY_POLLS times POLL_S.
    """
    position, empty = start, 0
    reader.assign({partition: start})
    while position < end:
        try:
            batch = reader.poll(POLL_S, max_records, max_bytes)
        except Damaged as damage:
            position = damage.next_offset
            yield Stretch([], min(position, end), damage)
            reader.assign({partition: position})
            continue
        empty = 0 if batch.positions[partition] > position else empty + 1
        if empty > MAX_EMPTY_POLLS:
            raise JournalError(f"{partition}/{position} cannot be read")
        position = batch.positions[partition]
        yield Stretch([entry for entry in batch.entries if entry.offset < end], min(position, end))
