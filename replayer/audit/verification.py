"""Reads the log again, and compares its hash chains with checkpoints that were noted while it was written.

Between two heads that agree, every record is the one that was noted. Where a head does not agree, the noted one is gone on from,
so that each range of offsets with a fault is found, not only the first of a partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

from journal.chain import Head, begin, link
from journal.log import Damaged, Entry, Journal, TopicPartition
from journal.ranges import Range, Stretch, stretches
from replayer.audit.checkpoints import Checkpoints, Run

MAX_FAULTS = 20
"""Faults of a partition that are named; the others are counted."""


class Fault(NamedTuple):
    """Something is wrong with the records from `offset` up to `next_offset`, excluded."""

    partition: TopicPartition
    offset: int
    next_offset: int
    text: str

    def __str__(self) -> str:
        return f"{self.partition}: {self.text}"


class Verified(NamedTuple):
    """What a verification has found. `remarks` are no faults: what the checkpoints do not cover, and why."""

    records: int
    covered: int
    """Records between heads that agree."""
    faults: list[Fault]
    remarks: list[str]


def verify(
    journal: Journal,
    partitions: Sequence[TopicPartition],
    files: Mapping[str, Checkpoints],
    progress: Callable[[int, int], None],
) -> Verified:
    """Compares these partitions with each of the files, by name. Calls `progress` with the records read, and their total number.

    Raises JournalError.
    """
    starts, ends = journal.start_offsets(partitions), journal.end_offsets(partitions)
    total, done, covered = sum(ends[p] - starts[p] for p in partitions), 0, 0
    faults: list[Fault] = []
    remarks = [text for name, known in files.items() for text in _topics_made_anew(journal, name, known)]
    walks = {partition: _Walk(partition, starts[partition], ends[partition], files) for partition in partitions}
    reader = journal.reader()
    try:
        for stretch in stretches(reader, {partition: Range(starts[partition], ends[partition]) for partition in partitions}):
            done += walks[stretch.partition].add(stretch)
            progress(done, total)
    finally:
        reader.close()
    for walk in walks.values():
        walk.conclude()
        covered += walk.covered
        faults += _fewer(walk.faults)
        remarks += walk.remarks
    return Verified(total, covered, faults, remarks)


def differences(files: Mapping[str, Checkpoints]) -> tuple[list[Fault], list[str]]:
    """Where files of several nodes, or copies of one, note different heads of the same log; and what cannot be compared."""
    faults: list[Fault] = []
    remarks: list[str] = []
    for (one, first), (other, second) in combinations(files.items(), 2):
        pair = f"{one} and {other}"
        for partition in sorted(first.runs.keys() & second.runs.keys()):
            pairs = product(first.runs[partition], second.runs[partition])
            common = [(a, b) for a, b in pairs if (a.begin, a.log) == (b.begin, b.log)]
            if not common:
                text = "begin at other offsets, or are of topics with other identities, and are compared with the log only"
                remarks.append(f"{partition}: the chains of {pair} {text}")
            faults += [fault for a, b in common for fault in _disagreement(partition, pair, a, b)]
    return faults, remarks


def _disagreement(partition: TopicPartition, pair: str, one: Run, other: Run) -> list[Fault]:
    """The first range in which the heads of two chains with the same begin differ."""
    heads = {head.offset: head for head in other.heads}
    agreed = one.begin
    for head in one.heads:
        if (same := heads.get(head.offset)) is None:
            continue
        if same != head:
            text = f"{pair} differ in the records {agreed} to {head.offset - 1}"
            return [Fault(partition, agreed, head.offset, text)]
        agreed = head.offset
    return []


def _topics_made_anew(journal: Journal, name: str, known: Checkpoints) -> list[str]:
    present = journal.identities(list(known.log))
    texts = [
        f"topic {topic} is not the one that {name} is about: it was made anew, or is a copy"
        for topic, identity in known.log.items()
        if present.get(topic) != identity
    ]
    if known.logs > 1:
        texts.append(f"topics were made anew {known.logs - 1} times since {name} was begun; what was noted before counts, too")
    return texts


def _fewer(faults: list[Fault]) -> list[Fault]:
    more = faults[MAX_FAULTS:]
    if not more:
        return faults
    last = Fault(more[0].partition, more[0].offset, more[-1].next_offset, f"{len(more)} more ranges differ")
    return [*faults[:MAX_FAULTS], last]


class _Walk:
    """One partition, read from its start to its end."""

    def __init__(self, partition: TopicPartition, start: int, end: int, files: Mapping[str, Checkpoints]) -> None:
        self.covered = 0
        self.faults: list[Fault] = []
        self.remarks: list[str] = []
        self._partition, self._start, self._end = partition, start, end
        self._position = start
        self._followed = [
            _Followed(partition, name, run, start) for name, known in files.items() for run in known.runs.get(partition, ())
        ]

    def add(self, stretch: Stretch) -> int:
        """Compares the next stretch. Returns the number of offsets in it."""
        if stretch.damage is not None:
            self._pass_over(stretch.damage)
        for entry in stretch.entries:
            self._add(entry)
        for each in self._followed:
            each.reach(stretch.next_offset)
        passed, self._position = stretch.next_offset - self._position, stretch.next_offset
        return passed

    def _add(self, entry: Entry) -> None:
        links: dict[bytes, bytes] = {}  # the chains of several files are the same, as a rule
        for each in self._followed:
            each.reach(entry.offset)
            if (before := each.digest) is not None:
                if before not in links:
                    links[before] = link(before, entry)
                each.add(links[before])

    def _pass_over(self, damage: Damaged) -> None:
        self.faults.append(Fault(self._partition, damage.offset, damage.next_offset, str(damage)))
        for each in self._followed:
            each.reach(damage.offset)
            each.skip(damage.next_offset)

    def conclude(self) -> None:
        """Says what the whole of the partition shows."""
        for each in self._followed:
            each.conclude(self._end)
            self.faults += each.faults
            self.remarks += each.remarks
        self.covered = max(self._covered_by_log().values(), default=0)
        first = min((each.begin for each in self._followed), default=self._start)
        if first > self._start:
            text = f"the records {self._start} to {first - 1} were put in: it began at {first} when it was covered first"
            self.faults.append(Fault(self._partition, self._start, first, text))
        last = max((self._start, *(each.last for each in self._followed)))
        if self._end > last:
            self.remarks.append(f"{self._partition}: no checkpoint covers the latest records, {last} to {self._end - 1}")
        if self._start > 0:
            self.remarks.append(f"{self._partition}: the log was cut in front, it begins at {self._start}")
        self.faults = sorted(dict.fromkeys(self.faults), key=lambda fault: fault.offset)

    def _covered_by_log(self) -> Counter[tuple[str, str]]:
        """Records that the chains cover, by file and log: those of one log follow each other, those of several overlap."""
        covered: Counter[tuple[str, str]] = Counter()
        for each in self._followed:
            covered[each.name, each.log] += each.covered
        return covered


class _Followed:
    """One chain of a file, followed while the log is read. `digest` is None where there is nothing to go on from."""

    def __init__(self, partition: TopicPartition, name: str, run: Run, start: int) -> None:
        self.covered = 0
        self.faults: list[Fault] = []
        self.remarks: list[str] = []
        self.name, self.log, self.begin = name, run.log, run.begin
        self.last = run.heads[-1].offset if run.heads else run.begin
        self.digest: bytes | None = None
        self._partition = partition
        self._heads = run.heads
        self._at = 0
        self._agreed = begin(partition, run.begin)
        self._records = 0
        self._has_begun = run.begin < start
        if self._has_begun:  # then the first head that is not below the start is what it goes on from
            self.skip(start)
            first = run.heads[self._at].offset if self._at < len(run.heads) else start
            if first > start:
                self.remarks.append(f"{partition}: {name} cannot tell of the records {start} to {first - 1}, next to the cut")

    def reach(self, offset: int) -> None:
        """All records below `offset` were added: compares the heads up to there."""
        if not self._has_begun and offset >= self.begin:
            self._has_begun, self.digest = True, self._agreed.digest
        while self._at < len(self._heads) and (head := self._heads[self._at]).offset <= offset:
            self._compare(head)
            self._at += 1
        if self._at == len(self._heads):
            self.digest = None

    def add(self, digest: bytes) -> None:
        """The chain with one more record."""
        self.digest = digest
        self._records += 1

    def skip(self, next_offset: int) -> None:
        """The records up to `next_offset` cannot be read: goes on from the first head that is not below it."""
        if next_offset > self.begin:
            self._has_begun, self.digest = True, None
        while self._at < len(self._heads) and self._heads[self._at].offset < next_offset:
            self._at += 1

    def conclude(self, end: int) -> None:
        """Names what is missing at the end."""
        if self.last > end:
            text = f"ends at {end}: the records {end} to {self.last - 1} of {self.name} are missing"
            self.faults.append(Fault(self._partition, end, self.last, text))

    def _compare(self, head: Head) -> None:
        found, noted = self._records, head.records - self._agreed.records
        if self.digest == head.digest and found == noted:
            self.covered += found
        elif self.digest is not None:
            where = f"{self._agreed.offset} to {head.offset - 1}"
            text = f"the records {where} are not those of {self.name}: {_change(found - noted)}"
            self.faults.append(Fault(self._partition, self._agreed.offset, head.offset, text))
        self._agreed, self._records, self.digest = head, 0, head.digest


def _change(more: int) -> str:
    if more == 0:
        return "some were changed, or others are in their places"
    return f"{more} more than there were" if more > 0 else f"{-more} are missing"
