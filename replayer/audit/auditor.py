"""Follows the log at a low pace, and notes checkpoints of its hash chains: a background task of a node."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from journal.chain import EVERY, Head, begin, extended
from journal.hlc import text_of
from journal.log import Journal, JournalError, Positions, TopicPartition
from journal.ranges import Range, stretches
from journal.topics import Topics
from replayer.audit.checkpoints import CheckpointFile, CheckpointsDamaged, Run
from replayer.failures import FailureLog

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
"""What is written to the log is covered by a checkpoint after this time and the time of reading it."""

READY_EVERY_S = 1.0
"""The interval of asking whether the log may be read."""

BYTES_PER_S = 32 << 20
"""The pace of reading."""

LAST_LOOK_S = 1.0
"""The longest work at a stop: what it does not cover is covered after the next start."""

STRETCH_BYTES = 1 << 20
HEADS_PER_LINE = 100


class Heads(NamedTuple):
    """The latest heads that are in the file, and the identities of the topics. `chain` is that of the last of its `lines`."""

    log: dict[str, str]
    heads: dict[TopicPartition, Run]
    """The present chain of each partition, with its latest head alone."""
    lines: int
    chain: bytes
    at: str


class Auditor:
    """Notes checkpoints of the catalog's and the data topics in the file at `path`. `run` is for a thread, which `stop` ends.

    `ready` says whether the log may be read: once the node knows that it is its own. The times in the file are from `now_ms`.
    """

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        path: Path,
        ready: Callable[[], bool],
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.heads: Heads | None = None
        """The latest heads that are in the file; None until the first look."""
        self._journal = journal
        self._partitions = [topics.system_partition, *topics.data_partitions()]
        self._ready = ready
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._file: CheckpointFile | None = None
        self._stopping = threading.Event()
        self._failures = FailureLog()

    def run(self) -> None:
        """Looks at the log as soon as it may be read, then every LOOK_EVERY_S, and a last time at the stop."""
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = LOOK_EVERY_S if self._try(float("inf")) else READY_EVERY_S
        self._try(self._monotonic_s() + LAST_LOOK_S)
        self._close()

    def stop(self) -> None:
        self._stopping.set()

    def positions(self) -> Positions:
        """Up to where each partition is covered by heads that are in the file; empty until the first look. Thread-safe."""
        heads = self.heads
        return {} if heads is None else {partition: run.heads[-1].offset for partition, run in heads.heads.items()}

    def look(self, until_s: float = float("inf")) -> None:
        """Reads what is new in the log, and notes heads of it. Ends early when it is stopped meanwhile; after that, at `until_s`.

        Raises JournalError, OSError, CheckpointsDamaged.
        """
        if self._file is None:
            self._file = CheckpointFile(self.path)
        file = self._file
        starts, ends = self._journal.start_offsets(self._partitions), self._journal.end_offsets(self._partitions)
        if (identities := self._identities()) != file.known.log:
            file.append(self._at(), identities, {partition: starts[partition] for partition in self._partitions})
        if missing := [partition for partition in self._partitions if file.known.head(partition) is None]:
            file.append(self._at(), begins={partition: starts[partition] for partition in missing})
        new = [partition for partition in self._partitions if ends[partition] > self._head(file, partition).offset]
        for partition in new:
            if starts[partition] > self._head(file, partition).offset:  # trimmed before it was read
                file.append(self._at(), begins={partition: starts[partition]})
        self._publish(file)
        if new:
            ranges = {partition: Range(self._head(file, partition).offset, ends[partition]) for partition in new}
            self._follow(file, ranges, until_s)

    def _identities(self) -> dict[str, str]:
        topics = dict.fromkeys(partition.topic for partition in self._partitions)
        identities = self._journal.identities(list(topics))
        if len(identities) < len(topics):
            raise JournalError("the broker that was asked does not know all topics")
        return identities

    def _follow(self, file: CheckpointFile, ranges: Mapping[TopicPartition, Range], until_s: float) -> None:
        """Extends the chains of these partitions by these ranges, and notes them."""
        heads = {partition: self._head(file, partition) for partition in ranges}
        noted: dict[TopicPartition, list[Head]] = {partition: [] for partition in ranges}
        is_last = self._stopping.is_set()
        reader = self._journal.reader()
        try:
            for partition, entries, next_offset, damage in stretches(reader, ranges, STRETCH_BYTES):
                if damage is not None:
                    log.error("%s; the hash chain begins anew after it", damage)
                    noted[partition].append(heads[partition])
                    self._note(file, noted)
                    file.append(self._at(), begins={partition: next_offset})
                    heads[partition] = begin(partition, next_offset)
                    continue
                *passed, head = extended(heads[partition], entries, next_offset)
                noted[partition] += passed if head.offset % EVERY else [*passed, head]
                heads[partition] = head
                if sum(map(len, noted.values())) >= HEADS_PER_LINE:
                    self._note(file, noted)
                if not self._goes_on(sum(len(entry.value) for entry in entries), is_last, until_s):
                    break
        finally:
            reader.close()
        self._note(file, {partition: [*noted[partition], head] for partition, head in heads.items()})

    def _goes_on(self, size: int, is_last: bool, until_s: float) -> bool:
        """Waits after `size` bytes were read. Returns whether to go on."""
        if is_last:
            return self._monotonic_s() < until_s
        return not self._stopping.wait(size / BYTES_PER_S)

    def _note(self, file: CheckpointFile, heads: Mapping[TopicPartition, list[Head]]) -> None:
        """Notes those of the heads that are not in the file, in one line, and empties the lists."""
        new = {}
        for partition, found in heads.items():
            known = self._head(file, partition)
            if ahead := [head for head in dict.fromkeys(found) if head.offset > known.offset]:
                new[partition] = ahead
            found.clear()
        if new:
            file.append(self._at(), heads=new)
            self._publish(file)

    def _head(self, file: CheckpointFile, partition: TopicPartition) -> Head:
        head = file.known.head(partition)
        assert head is not None, "all chains begin with the log"
        return head

    def _publish(self, file: CheckpointFile) -> None:
        known = file.known
        heads = {partition: runs[-1]._replace(heads=[self._head(file, partition)]) for partition, runs in known.runs.items()}
        self.heads = Heads(known.log, heads, known.lines, known.chain, known.at)

    def _at(self) -> str:
        return text_of(self._now_ms())

    def _try(self, until_s: float) -> bool:
        """Looks at the log, if it may be read. Returns whether it may."""
        if not self._ready():
            return False
        try:
            self.look(until_s)
            self._failures.succeeded("checkpoints of the log are noted again")
        except (JournalError, OSError, CheckpointsDamaged) as error:
            known = error if isinstance(error, JournalError) else JournalError(str(error))  # no defect either
            self._failures.failed(f"no checkpoints of the log are noted, trying again every {LOOK_EVERY_S:g} s", known)
            self._close()
        return True

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
