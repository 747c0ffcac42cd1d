"""The file of checkpoints: heads of the hash chains of the log, one JSON object a line, only ever appended to and synced.

The lines are a chain themselves: `chain`, the last field, is the digest of the line without it and of the `chain` before. So a
line that is changed, removed or put in is found, and the last `chain` stands for the whole file. What nobody can tell from the
file alone is that its end was cut off; a copy of the last line, kept elsewhere, tells that.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from errno import ENOSPC
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec

from journal.chain import DIGEST_BYTES, Head, begin
from journal.log import TopicPartition
from shard.deadline import NEVER, Deadline
from shard.files import sync

_FIRST = bytes(DIGEST_BYTES)
_LINE = b'{"at":'
_BEFORE_CHAIN, _AFTER_CHAIN = b',"chain":"', b'"}\n'


class CheckpointsDamaged(Exception):
    """A line of a file of checkpoints is not the one that was written."""


class NotedHead(msgspec.Struct, frozen=True):
    """A head as it is noted; `digest` in hexadecimal digits."""

    offset: int
    records: int
    digest: str

    @classmethod
    def of(cls, head: Head) -> NotedHead:
        return cls(head.offset, head.records, head.digest.hex())

    def head(self) -> Head:
        """Raises ValueError when the digest is none."""
        return Head(self.offset, self.records, bytes.fromhex(self.digest))


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line, without its `chain`. Partitions are written topic/partition.

    `at`: when it was noted. `log`: the identities of the topics, when they are others than before. `begins`: where new chains of
    these partitions begin. `heads`: heads of these chains, ascending.
    """

    at: str
    log: dict[str, str] = {}
    begins: dict[str, int] = {}
    heads: dict[str, list[NotedHead]] = {}


class Run(NamedTuple):
    """The chain of a partition from where it begins, with the heads that were noted of it, ascending. `log`: of its topic."""

    begin: int
    heads: list[Head]
    log: str = ""


@dataclass(slots=True)
class Checkpoints:
    """The content of a file. `log` has the identities of the topics as they were noted last."""

    log: dict[str, str] = field(default_factory=dict)
    runs: dict[TopicPartition, list[Run]] = field(default_factory=dict)
    """The chains of each partition: more than one after records were trimmed, or damaged, before the chain had reached them, and
    after a topic was made anew. All of them count: what was noted once must not be forgotten because of what came later."""

    lines: int = 0
    chain: bytes = _FIRST
    size: int = 0
    """Bytes of the whole lines; what follows is a line that was not written to its end."""

    logs: int = 0
    """Logs that the file is about: more than one after topics were made anew."""

    at: str = ""
    """When the last line was noted."""

    def add(self, line: Line, chain: bytes, size: int) -> None:
        """Adds a line. Raises ValueError for one that does not fit to those before it."""
        if line.log:
            self.log = line.log
            self.logs += 1
        for name, offset in line.begins.items():
            partition = partition_of(name)
            self.runs.setdefault(partition, []).append(Run(offset, [], self.log.get(partition.topic, "")))
        for name, heads in line.heads.items():
            run = self.runs[partition_of(name)][-1]
            for noted in heads:
                if noted.offset < (run.heads[-1].offset if run.heads else run.begin):
                    raise ValueError(f"{name}: {noted.offset} is below the head before it")
                run.heads.append(noted.head())
        self.lines, self.chain, self.size, self.at = self.lines + 1, chain, self.size + size, line.at

    def head(self, partition: TopicPartition) -> Head | None:
        """The latest head of a partition; None when no chain of it has begun."""
        if not (runs := self.runs.get(partition)):
            return None
        return runs[-1].heads[-1] if runs[-1].heads else begin(partition, runs[-1].begin)


def partition_of(name: str) -> TopicPartition:
    """The partition that is written topic/partition. Raises ValueError."""
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))


def read_checkpoints(path: Path, deadline: Deadline = NEVER) -> Checkpoints:
    """The content of the file. An incomplete last line is passed over.

    Raises CheckpointsDamaged, OSError and DeadlineExceeded.
    """
    found = Checkpoints()
    with path.open("rb") as file:
        for line, chain, size in _lines(file, path, found):
            deadline.check()
            try:
                found.add(line, chain, size)
            except (ValueError, LookupError) as error:
                raise _damaged(path, found.lines, str(error)) from error
    return found


class Covering(NamedTuple):
    """The heads next to a position of a partition, in the chain that begins at `begin`: `above` covers all records below it.

    Either is None when there is no such head; `begin` is None, too, when no chain of the partition covers the position.
    """

    partition: TopicPartition
    position: int
    begin: int | None
    below: Head | None
    above: Head | None


def covering(known: Checkpoints, partition: TopicPartition, position: int) -> Covering:
    """What a file says of a position."""
    runs = known.runs.get(partition, ())
    begun = [run for run in runs if run.begin <= position]
    if not begun:
        return Covering(partition, position, None, None, None)
    start, heads, _ = begun[-1]
    at = bisect_left(heads, position, key=lambda head: head.offset)
    below = heads[at - 1] if at else begin(partition, start)
    above = begin(partition, start) if start == position else heads[at] if at < len(heads) else None
    return Covering(partition, position, start, below, above)


class _KeptHead(msgspec.Struct):
    """A head as it is in an answer; `covered_by` has it in a proof."""

    partition: str
    begin: int | None = None
    covered_by: NotedHead | None = None
    offset: int | None = None
    records: int = 0
    digest: str = ""

    def run(self, log: Mapping[str, str]) -> Run | None:
        """None when no head covers the position of a proof. Raises ValueError."""
        noted = self.covered_by if self.offset is None else NotedHead(self.offset, self.records, self.digest)
        if noted is None or self.begin is None:
            return None
        return Run(self.begin, [noted.head()], log.get(partition_of(self.partition).topic, ""))


class _KeptResult(msgspec.Struct):
    log: dict[str, str]
    noted: str
    heads: list[_KeptHead] = []
    partitions: list[_KeptHead] = []


class _KeptAnswer(msgspec.Struct):
    """An answer of `GET /audit/checkpoints` or `GET /audit/proof`, of which the heads count."""

    result: _KeptResult


def read_kept(path: Path) -> Checkpoints:
    """The content of a file of checkpoints, or of one with an answer of the API that has heads.

    Raises CheckpointsDamaged and OSError.
    """
    with path.open("rb") as file:
        if file.read(len(_LINE)) == _LINE:
            return read_checkpoints(path)
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_KeptAnswer).result
        runs = {partition_of(each.partition): each.run(kept.log) for each in (*kept.heads, *kept.partitions)}
    except (msgspec.MsgspecError, ValueError):  # ValueError: not a head
        return read_checkpoints(path)
    known = {partition: [run] for partition, run in runs.items() if run is not None}
    return Checkpoints(kept.log, known, lines=1, logs=1, at=kept.noted)


def _lines(file: Iterator[bytes], path: Path, found: Checkpoints) -> Iterator[tuple[Line, bytes, int]]:
    for text in file:
        if not text.endswith(b"\n"):
            return
        body, _, chain = text.rpartition(_BEFORE_CHAIN)
        expected = _chain(found.chain, body + b"}")
        if chain != expected.hex().encode() + _AFTER_CHAIN:
            raise _damaged(path, found.lines, "it, or a line before it, was changed, removed or put in")
        try:
            line = msgspec.json.decode(body + b"}", type=Line)
        except msgspec.MsgspecError as error:
            raise _damaged(path, found.lines, str(error)) from error
        yield line, expected, len(text)


def _damaged(path: Path, lines: int, reason: str) -> CheckpointsDamaged:
    return CheckpointsDamaged(f"line {lines + 1} of {path} is not as it was written: {reason}")


def _chain(before: bytes, body: bytes) -> bytes:
    return blake2b(before + body, digest_size=DIGEST_BYTES).digest()


class CheckpointFile:
    """The file at `path`, to append to; made when it is not there. One process at a time may have it open.

    Raises CheckpointsDamaged when it cannot be gone on with, and OSError.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        self.known = Checkpoints() if is_new else read_checkpoints(path)
        """All lines, but of each partition's chain only the latest head."""
        self._forget()
        self._file = path.open("ab", buffering=0)
        if is_new:
            sync(path.parent)
        elif self._file.tell() > self.known.size:
            self._file.truncate(self.known.size)

    def append(
        self,
        at: str,
        log: Mapping[str, str] | None = None,
        begins: Mapping[TopicPartition, int] | None = None,
        heads: Mapping[TopicPartition, Sequence[Head]] | None = None,
    ) -> None:
        """Appends a line and syncs it. Raises OSError; the file is then to be opened again."""
        line = Line(
            at,
            dict(log or {}),
            {str(partition): offset for partition, offset in (begins or {}).items()},
            {str(partition): [NotedHead.of(head) for head in noted] for partition, noted in (heads or {}).items()},
        )
        body = msgspec.json.encode(line)
        chain = _chain(self.known.chain, body)
        text = body[:-1] + _BEFORE_CHAIN + chain.hex().encode() + _AFTER_CHAIN
        if self._file.write(text) < len(text):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        os.fsync(self._file.fileno())
        self.known.add(line, chain, len(text))
        self._forget()

    def close(self) -> None:
        self._file.close()

    def _forget(self) -> None:
        """Keeps of each chain only its latest head: the file has the others."""
        self.known.runs = {
            partition: [runs[-1]._replace(heads=runs[-1].heads[-1:])] for partition, runs in self.known.runs.items()
        }
