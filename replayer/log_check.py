"""Reads a log from its start to its end without applying it, and says whether a node may go on with it.

`vecraft topics adopt` asks this of a log that the node does not know, such as a mirror of a lost cluster. Offsets are identities
here: the id of a collection is the offset of the command that created it. Append times decide the order of writes. So a copy is
only as good as its offsets and times, and what a tool may have changed in them is looked for:

- records twice, as after a restart of a tool that copies at least once: the second ones would win over newer records;
- append times of the copying in the place of the original ones: writes of different tiers would change their order;
- catalog commands at other offsets: records would be read as those of another collection.

A state that was made from the original log proves more: each of its shards knows the stamp and the time that follow from all its
records up to its offset, and `differences` compares them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import NamedTuple

from catalog.catalog import Catalog
from journal.hlc import millis_of
from journal.log import Entry, Journal, TopicPartition
from journal.ranges import Range, stretches
from journal.records import Record
from journal.stamps import next_stamp
from journal.topics import Topics
from replayer.loop import bounds_of
from replayer.verdicts import Accepted, Dropped, NeedsCatalog, Refused, claim_failed, judge, judge_command
from shard.batch import Limits
from shard.store import Progress

REMEMBERED = 100_000
"""Records of a partition among which a copy is noticed: the first ones, and the last ones that were read."""

FEW = 0.01
"""The share of records with improbable times, or claims, that a sound log may have: foreign producers can write such records."""


class ShardPartition(NamedTuple):
    """One shard's records in one of its home partitions."""

    collection: int
    shard: int
    partition: TopicPartition


class LogCheck:
    """The log of `topics` in `journal`, up to its present end.

    `applied` says how far the shards of a state have read, for `differences`. Call `read` first; it raises JournalError.
    """

    def __init__(self, journal: Journal, topics: Topics, limits: Limits, applied: Mapping[ShardPartition, Progress]) -> None:
        self.catalog = Catalog(limits.idempotency_window_ms)
        self.count = 0
        """Records of data topics."""
        self.unknown = 0
        """Records that name a catalog position beyond the end of this log."""
        self.refused = 0
        """Records that no replica applies, for other reasons."""
        self._journal = journal
        self._topics = topics
        self._limits = limits
        self._applied = applied
        self._found: dict[ShardPartition, Progress] = {}
        self._late = self._untimely = 0
        self._misplaced: list[str] = []
        self._repeated: list[str] = []
        self._seen = _Seen()
        partitions = [topics.system_partition, *topics.data_partitions()]
        self.bounds = bounds_of(journal, partitions)

    def read(self, progress: Callable[[int, int], None]) -> None:
        """Reads all partitions, one after the other. Calls `progress` with the records done, and their total number."""
        system, *data = self.bounds.ends
        total, done = sum(self.bounds.ends.values()), 0
        for entry in self._entries(system):
            self._add_command(entry)
        for partition in data:
            done += self.bounds.ends[partition]
            for entry in self._entries(partition):
                self._add_record(entry)
            progress(done, total)

    def faults(self) -> list[str]:
        """Why a node must not go on with this log; empty when nothing was found."""
        texts = [*self._misplaced, *self._repeated]
        if self._late > FEW * self.count:
            texts.append(
                f"{self._late} of {self.count} records were appended more than {self._limits.max_lateness_ms} ms after they were "
                "written: the copy does not have the append times of the original (message.timestamp.type must be CreateTime "
                "while it is made)"
            )
        if self._untimely > FEW * self.count:
            texts.append(
                f"{self._untimely} of {self.count} records name a catalog position that was written later: the catalog commands "
                "are not at their original offsets"
            )
        return texts

    def differences(self) -> list[str]:
        """Where the records of this log are others than those that the state has applied, as far as the log goes."""
        texts = []
        for key, kept in self._applied.items():
            if key.collection not in self.catalog.view.by_id:
                continue  # deleted since, or not mirrored
            if (found := self._found.get(key, Progress())) == Progress() and self.bounds.starts[key.partition] > 0:
                continue  # all of its records were cut off
            if kept.offset <= self.bounds.ends[key.partition] and (kept.stamp, kept.time_ms) != (found.stamp, found.time_ms):
                texts.append(f"{key.partition}: the records below {kept.offset} are not those that the state has applied")
        return list(dict.fromkeys(texts))

    def _entries(self, partition: TopicPartition) -> Iterator[Entry]:
        """The entries of a partition."""
        start, end = self.bounds.starts[partition], self.bounds.ends[partition]
        reader = self._journal.reader()
        self._seen = _Seen()
        try:
            for stretch in stretches(reader, {partition: Range(start, end)}):  # of damage the node says so when it is started
                yield from stretch.entries
        finally:
            reader.close()
        if self._seen.repeats:
            again = self._seen.first_repeat
            self._repeated.append(f"{partition}: {self._seen.repeats} records are there twice, the first again at {again}")

    def _add_command(self, entry: Entry) -> None:
        expected = self.catalog.view.position
        if entry.offset != expected and not self._misplaced:
            self._misplaced.append(f"{entry.partition}: the record at {expected} is missing, which shifts the ids of collections")
        verdict = judge_command(entry, self._limits)
        if isinstance(verdict, Refused):
            self.catalog.apply(entry.offset, entry.time_ms, None)
        else:
            self._note(entry, verdict.record)
            operation, key = verdict.record.operation, verdict.record.idempotency_key
            self.catalog.apply(entry.offset, entry.time_ms, operation, key)  # type: ignore[arg-type]

    def _add_record(self, entry: Entry) -> None:
        self.count += 1
        verdict = judge(entry, self.catalog, self._topics, self._limits)
        record = verdict.record
        if record is not None:
            self._note(entry, record)
        match verdict:
            case Accepted():
                self._fold(entry, verdict.record)
            case NeedsCatalog():
                self.unknown += 1
            case Refused() if record is not None and verdict.reason == claim_failed(record).reason:
                self._untimely += 1
            case Refused():
                self.refused += 1
            case Dropped():
                pass

    def _note(self, entry: Entry, record: Record) -> None:
        self._seen.add(entry)
        self._late += entry.time_ms - millis_of(record.hlc) > self._limits.max_lateness_ms

    def _fold(self, entry: Entry, record: Record) -> None:
        """Follows what the shard knows of its partition, up to the offset that its state has applied."""
        key = ShardPartition(record.collection, record.shard, entry.partition)
        if (kept := self._applied.get(key)) is None or entry.offset >= kept.offset:
            return
        before = self._found.get(key, Progress())
        time_ms = max(before.time_ms, entry.time_ms)
        stamp = next_stamp(record.hlc, before.stamp, time_ms, self._limits.max_lateness_ms)
        self._found[key] = Progress(entry.offset + 1, stamp, time_ms)


class _Seen:
    """Counts values that a partition has twice, among its first and its last REMEMBERED."""

    def __init__(self) -> None:
        self.repeats = 0
        self.first_repeat = -1
        self._known: set[bytes] = set()
        self._last: deque[bytes] = deque()
        self._first = 0

    def add(self, entry: Entry) -> None:
        digest = blake2b(entry.value, digest_size=8).digest()
        if digest in self._known:
            self.first_repeat = self.first_repeat if self.repeats else entry.offset
            self.repeats += 1
            return
        self._known.add(digest)
        if self._first < REMEMBERED:
            self._first += 1
            return
        self._last.append(digest)
        if len(self._last) > REMEMBERED:
            self._known.remove(self._last.popleft())
