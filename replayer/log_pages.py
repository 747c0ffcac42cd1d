"""Pages of the log for people: the records of several partitions, newest first by append time, with bounded work for each page.

The log can only be read forwards, so each partition is read in chunks from its end. A page ends at its limit, at one of the
bounds below, or at the deadline; then it says from which positions the next one goes on, even if it has no record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from journal import codec
from journal.log import Damaged, Entry, Journal, Positions, Reader, TopicPartition
from journal.records import Record
from shard.deadline import Deadline, DeadlineExceeded

MAX_LOOKED = 20_000
"""Records that are looked at for one page."""

MAX_BYTES = 64 << 20
"""Bytes that are read for one page; a chunk of each partition more may be read beyond."""

FIRST_CHUNK, MAX_CHUNK, CHUNK_BYTES = 64, 1_000, 4 << 20
"""Records of a partition that are read at once, first and at most. A chunk of more bytes is read again as a smaller one."""

POLL_S = 1.0


class Listed(NamedTuple):
    """A record of a page. `record` is None for one that cannot be read or decoded, and `fault` says why.

    `entry` is None when the log is damaged at `offset`; `time_ms` is that of a neighbour then.
    """

    time_ms: int
    partition: TopicPartition
    offset: int
    entry: Entry | None
    record: Record | None
    fault: str = ""


class Page(NamedTuple):
    """Records, newest first; how many were looked at; and below which positions the next page begins, None after the last one."""

    records: list[Listed]
    looked: int
    next: Positions | None


def page(
    journal: Journal,
    floors: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    wanted: Callable[[Listed], bool],
    limit: int,
    deadline: Deadline,
) -> Page:
    """The newest records from `floors` up to `ends`, excluded, which the log must hold, that are `wanted`: at most `limit`.

    Raises DeadlineExceeded when nothing could be read in time, and JournalError.
    """
    return _Pages(journal, floors, ends, deadline).next(wanted, limit)


class _Row(NamedTuple):
    time_ms: int
    partition: TopicPartition
    offset: int
    content: Entry | Damaged


class _Tail:
    """One partition, read from its end: `rows` are read and not yet looked at, `floor` up to `end` is not yet read."""

    def __init__(self, partition: TopicPartition, floor: int, end: int) -> None:
        self.partition, self.floor, self.end = partition, floor, max(floor, end)
        self.rows: list[_Row] = []
        self.chunk = FIRST_CHUNK

    @property
    def position(self) -> int:
        """All records from here on were looked at."""
        return self.rows[-1].offset + 1 if self.rows else self.end

    def is_dry(self) -> bool:
        return not self.rows and self.end > self.floor


class _Chunk:
    """The last records of a tail that are not read yet, while they are read."""

    def __init__(self, tail: _Tail) -> None:
        self.tail = tail
        self.is_done = False
        self.begin()

    def begin(self) -> None:
        self.start = self.at = max(self.tail.floor, self.tail.end - self.tail.chunk)
        self.rows: list[_Row] = []
        self.bytes = 0

    def add(self, entry: Entry) -> None:
        self.rows.append(_Row(entry.time_ms, entry.partition, entry.offset, entry))
        self.bytes += len(entry.value)

    def add_damage(self, damage: Damaged) -> None:
        time_ms = self.rows[-1].time_ms if self.rows else 0
        self.rows.append(_Row(time_ms, damage.partition, damage.offset, damage))
        self.at = damage.next_offset

    def settle(self) -> bool:
        """Gives the rows to the tail when they are all read. Returns whether they are too large, so that it begins with fewer."""
        tail, count = self.tail, len(self.rows)
        if self.at >= tail.end:
            fitting = max(1, CHUNK_BYTES * count // (2 * self.bytes + 1))
            tail.rows, tail.end, tail.chunk = self.rows, self.start, min(MAX_CHUNK, 4 * tail.chunk, fitting)
            self.is_done = True
        elif self.bytes > CHUNK_BYTES:
            tail.chunk = max(1, count // 2)
            self.begin()
            return True
        return False


class _Pages:
    """The state of one page."""

    def __init__(
        self, journal: Journal, floors: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], deadline: Deadline
    ) -> None:
        self._journal = journal
        self._deadline = deadline
        self._tails = [_Tail(partition, floors[partition], end) for partition, end in ends.items()]
        self._bytes = self._looked = 0

    def next(self, wanted: Callable[[Listed], bool], limit: int) -> Page:
        found: list[Listed] = []
        try:
            while len(found) < limit and self._looked < MAX_LOOKED:
                dry = [tail for tail in self._tails if tail.is_dry()]
                if dry and self._looked and self._bytes > MAX_BYTES:
                    break
                self._fill(dry)
                if (row := self._newest()) is None:
                    break
                if wanted(listed := _listed(row)):
                    found.append(listed)
        except DeadlineExceeded:
            if not self._looked:
                raise
        return Page(found, self._looked, self._rest())

    def _newest(self) -> _Row | None:
        """Takes the newest of all records that are read; None when there is none. Tails that have more must have some read."""
        self._deadline.check()
        tails = [tail for tail in self._tails if tail.rows]
        if not tails:
            return None
        self._looked += 1
        return max(tails, key=lambda tail: tail.rows[-1][:3]).rows.pop()

    def _rest(self) -> Positions | None:
        rest = {tail.partition: tail.position for tail in self._tails}
        return rest if any(rest[tail.partition] > tail.floor for tail in self._tails) else None

    def _fill(self, tails: Iterable[_Tail]) -> None:
        """Reads a chunk of each of these tails that has one.

        With a reader of its own: one of Kafka may still wait for records at the end of a partition, for half a second.
        """
        while dry := {tail.partition: _Chunk(tail) for tail in tails if tail.is_dry()}:
            reader = self._journal.reader()
            try:
                while dry:
                    reader.assign({partition: chunk.at for partition, chunk in dry.items()})
                    while self._step(reader, dry):
                        pass
            finally:
                reader.close()

    def _step(self, reader: Reader, chunks: dict[TopicPartition, _Chunk]) -> bool:
        """Polls once, and takes away the chunks that are done. Returns whether the reader can go on as it is assigned.

        It also does where a chunk is done at the end of the log: Kafka waits there, and would make the others wait, too.
        """
        self._deadline.check()
        goes_on = True
        try:
            batch = reader.poll(min(POLL_S, self._deadline.remaining_s()), MAX_CHUNK, CHUNK_BYTES)
        except Damaged as damage:
            goes_on = False
            if (chunk := chunks.get(damage.partition)) is not None:
                chunk.add_damage(damage)
        else:
            for entry in batch.entries:
                self._bytes += len(entry.value)
                if (chunk := chunks.get(entry.partition)) is not None and entry.offset < chunk.tail.end:
                    chunk.add(entry)
                else:
                    goes_on = False
            for partition, chunk in chunks.items():
                chunk.at = batch.positions[partition]
        for partition, chunk in list(chunks.items()):
            if chunk.settle():
                goes_on = False
            if chunk.is_done:
                del chunks[partition]
        return goes_on and bool(chunks)


def _listed(row: _Row) -> Listed:
    if isinstance(row.content, Damaged):
        return Listed(*row[:3], None, None, str(row.content))
    try:
        return Listed(*row[:3], row.content, codec.decode(row.content.value))
    except codec.DecodeError as error:
        return Listed(*row[:3], row.content, None, str(error))
