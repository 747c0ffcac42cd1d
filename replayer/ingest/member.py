"""Copies records of foreign producers from the topic of a source into the journal, exactly once.

All nodes form one consumer group for each source. One step:

1. Poll, and check each record.
2. Write dead letters for the invalid records.
3. Write the changes, several per journal record.
4. Commit the offsets.

After a failure the member leaves the group and starts again at the last commit. So a change may be written twice, by this node or
by the one that took over the partition. It is applied once: each record has the source offsets of its points, and a shard drops
points whose offset is not above the last one that it saw. For this to lose nothing, the writes from one source partition to one
shard and tier are sequential: each waits for the acknowledgement of the previous one.

Operators pause, move and restart a source by commands of the catalog (`catalog/ingest.py`). A member that finds its source
changed leaves the group and joins again; where it begins then, and which partitions it does not read, `_begin` says. With a move,
a partition gets a new epoch, which its records and commits carry: a commit of an earlier epoch does not count, and a shard drops
the records of one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import msgspec

from catalog.catalog import CatalogView
from catalog.collection import Collection
from catalog.ingest import DEFAULT_SOURCE, DEFAULT_SOURCES, IngestSource
from journal.log import (
    Committed,
    Entry,
    Indefinite,
    Journal,
    JournalError,
    Member,
    Positions,
    TopicPartition,
    acknowledged,
)
from journal.records import Delete, Ingested, PointOperation, Upsert, VectorColumn
from journal.registry import SchemaRegistry
from journal.split import Part, PointTooLarge, split
from journal.topics import Topics
from journal.writer import Destination, Origin, Receipt, Writer
from replayer.failures import FailureLog
from replayer.ingest.format import Change, NotIngestible, change_of
from replayer.ingest.mapping import mapped_change
from replayer.projections.dead_letters import Burial, bury
from shard.contract import contract_error
from shard.shards import AppliedPositions

log = logging.getLogger(__name__)

IDLE_POLL_S = 30.0
RETRY_DELAY_S = 1.0
CATALOG_WAITS = 20
CATALOG_WAIT_S = 0.5
ACKNOWLEDGE_TIMEOUT_S = 30.0


class Failure(NamedTuple):
    """Why a member did not work, in words, and when, in ms since 1970."""

    text: str
    at_ms: int


class _Line(NamedTuple):
    """The unit of order: changes from one ingest partition to one collection in one tier are written in order."""

    partition: TopicPartition
    collection: int
    tier: int


class _CheckedChange(NamedTuple):
    """A valid change, and the entry it came from."""

    entry: Entry
    operation: PointOperation
    key: str


class _Lane(NamedTuple):
    """The ordered queue of parts from one line to one shard."""

    destination: Destination
    line: _Line
    parts: deque[tuple[Part, Ingested]]


def topic_of(topics: Topics, source: IngestSource) -> str:
    """The topic that a source reads."""
    return topics.ingest if source.config is None else source.config.topic


def group_of(topics: Topics, source: IngestSource) -> str:
    """The consumer group of a source. One that is created again under the same name has another one, and begins anew."""
    return f"{topics.prefix}.ingest" if source.config is None else f"{topics.prefix}.ingest.{source.name}.{source.id}"


def position_of(source: IngestSource, partition: TopicPartition, committed: Committed | None, identity: str) -> int:
    """Where a source goes on in a partition of the topic with this identity: at the commit, or at a move that is later."""
    is_moved = source.epoch(partition.partition) > (0 if committed is None else committed.epoch)
    return source.moved_to(partition.partition, identity) if is_moved or committed is None else committed.offset


class Ingest:
    """A member, with the static id `name`, of the consumer group of the source `source`. Its own thread calls `run`."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        writer: Writer,
        registry: SchemaRegistry,
        view: Callable[[], CatalogView],
        applied: AppliedPositions,
        name: str,
        now_ms: Callable[[], int],
        catalog_wait_s: float = CATALOG_WAIT_S,
        check_log: Callable[[], None] = lambda: None,
        claim_name: Callable[[], None] = lambda: None,
        source: IngestSource = DEFAULT_SOURCES[DEFAULT_SOURCE],
    ) -> None:
        self.source = source
        """The source as of the last `open`."""
        self.topic = topic_of(topics, source)
        self.group = group_of(topics, source)
        self.written = 0
        self.dead = 0
        self._journal = journal
        self._topics = topics
        self._writer = writer
        self.registry = registry
        self._view = view
        self._applied = applied
        self._name = name
        self._now_ms = now_ms
        self._catalog_wait_s = catalog_wait_s
        self._check_log = check_log
        self._claim_name = claim_name
        self._member: Member | None = None
        self._identity = ""
        self._seen: Positions = {}
        self.running: Mapping[TopicPartition, int] = {}
        """The partitions that this member reads, and since when, in ms since 1970."""
        self.failure: Exception | None = None
        """Why the ingest does not work now; None while it does."""
        self.failing_ms: int | None = None
        """Since when it does not work."""
        self.last_failure: Failure | None = None
        self._failures, self._commits = FailureLog(), FailureLog()
        self._stopping, self._woken = threading.Event(), threading.Event()

    def run(self) -> None:
        """Ingests until `stop`."""
        while not self._stopping.is_set() and self._current() is not None:
            try:
                self.open()
                while not self._stopping.is_set():
                    self.step(RETRY_DELAY_S if self.failure else IDLE_POLL_S)
                    self.failure = self.failing_ms = None
                    self._failures.succeeded(f"the {self._what} goes on")
            except Exception as error:  # offsets are committed only after the writes, so a restart is always safe
                self._failures.failed(f"{self._what} stopped, trying again every {RETRY_DELAY_S:g} s", error)
                self._note(error)
                self.close()
                self._woken.wait(RETRY_DELAY_S)
                self._woken.clear()
        self.close()

    @property
    def _what(self) -> str:
        return "ingest" if self.source.config is None else f"ingest of source {self.source.name}"

    def _note(self, error: Exception) -> None:
        now_ms = self._now_ms()
        self.failing_ms = now_ms if self.failing_ms is None else self.failing_ms
        self.last_failure = Failure(str(error) or type(error).__name__, now_ms)
        self.failure = error

    def wake(self) -> None:
        """Makes it look at its source in the catalog now: for a changed one it joins again, also if it waits after a failure."""
        self._woken.set()
        if (member := self._member) is not None:
            member.wake()

    def stop(self) -> None:
        """Makes `run` return after the current step. Thread-safe."""
        self._stopping.set()
        self.wake()

    def open(self) -> None:
        """Joins the group, after the catalog has been replayed to the current end of its topic."""
        self._check_log()
        self._claim_name()
        self._await_catalog()
        if (source := self._current()) is None:
            raise Indefinite(f"source {self.source.name} was deleted")
        self.source = source
        self._seen = {}
        self.running = {}
        self._identity = self._topic_identity()
        self._member = self._journal.join(self.group, self.topic, self._name, self._begin)

    def close(self) -> None:
        """Leaves the group."""
        self.running = {}
        if self._member is not None:
            self._member.close()
            self._member = None

    def _current(self) -> IngestSource | None:
        """The source as the catalog has it now; None when it was deleted, also if it was created again since."""
        source = self._view().sources.get(self.source.name)
        return source if source is not None and source.id == self.source.id else None

    def _topic_identity(self) -> str:
        if (identity := self._journal.identities([self.topic]).get(self.topic)) is None:
            raise Indefinite(f"topic {self.topic} does not exist")
        return identity

    def _begin(self, committed: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
        """Where to begin in the partitions that this member has just got. Leaves out those that are paused.

        Raises Indefinite when the topic was made anew: its offsets are others.
        """
        if (identity := self._topic_identity()) != self._identity:
            raise Indefinite(f"topic {self.topic} was made anew")
        begins = {
            partition: position_of(self.source, partition, known, identity)
            for partition, known in committed.items()
            if self.source.paused_since(partition.partition) is None
        }
        self.running = {**self.running, **dict.fromkeys(begins, self._now_ms())}
        return begins

    def step(self, timeout_s: float) -> int:
        """Polls once, writes the changes and commits. Returns the number of entries polled.

        When the source was changed it joins the group again, and drops what was polled: this is not committed, so it is read
        again where the source says so now.
        """
        assert self._member is not None, "open() comes first"
        if self._current() != self.source:
            self.close()
            self.open()
        batch = self._member.poll(timeout_s)
        if self._current() != self.source:  # while it waited, which may be long
            return len(batch.entries)
        self._check_order(batch.entries)
        changes, burials = self._checked_changes(batch.entries)
        if burials:
            self._check_log()  # in another log, good records look wrong
            bury(self._journal, self._topics, burials, self._now_ms())
            for entry, reason, *_ in burials:
                log.warning("dead letter: %s/%d: %s", entry.partition, entry.offset, reason)
        self._write(self._lanes(changes))
        self.written += len(batch.entries) - len(burials)
        self.dead += len(burials)
        if batch.positions:
            self._commit(batch.positions)
        return len(batch.entries)

    def _check_order(self, entries: Sequence[Entry]) -> None:
        """Raises Indefinite when offsets step back: the topic may have been created again, with another identity."""
        for entry in entries:
            if entry.offset < self._seen.get(entry.partition, 0):
                raise Indefinite(f"offsets of {entry.partition} step back to {entry.offset}")
            self._seen[entry.partition] = entry.offset + 1

    def _commit(self, positions: Positions) -> None:
        assert self._member is not None
        try:
            self._member.commit(positions, {partition: self.source.epoch(partition.partition) for partition in positions})
            self._commits.succeeded(f"positions of {self.topic} are committed again")
        except JournalError as error:  # another member has the partitions now; repeated changes are deduplicated
            self._commits.failed(f"positions of {self.topic} are not committed", error)

    # Checking.

    def _checked_changes(self, entries: Sequence[Entry]) -> tuple[dict[_Line, list[_CheckedChange]], list[Burial]]:
        """The valid changes by line, in order, and the invalid records as burials."""
        changes: dict[_Line, list[_CheckedChange]] = {}
        burials: list[Burial] = []
        waited = False
        for entry in entries:
            try:
                change = self._change_of(entry)
                if self._view().find(change.collection) is None and not waited:
                    self._await_catalog()  # another node may have created it just now
                    waited = True
                collection = self._checked(change)
            except NotIngestible as error:
                burials.append(Burial(entry, str(error), error.collection, self._run_of(entry.partition)))
            else:
                line = _Line(entry.partition, collection.id, change.tier)
                changes.setdefault(line, []).append(_CheckedChange(entry, change.operation, change.key))
        return changes, burials

    def _change_of(self, entry: Entry) -> Change:
        config = self.source.config
        return change_of(entry, self.registry) if config is None else mapped_change(entry, config, self.registry)

    def _checked(self, change: Change) -> Collection:
        """The collection of a change. Raises NotIngestible when it does not exist or its contract refuses the change."""
        collection = self._view().find(change.collection)
        if collection is None:
            raise NotIngestible(f"collection `{change.collection}` doesn't exist", change.collection)
        if breach := contract_error(collection, change.operation):
            raise NotIngestible(breach, collection.name)
        try:
            list(split(change.operation, 1))
        except PointTooLarge as error:
            raise NotIngestible(str(error), collection.name) from error
        return collection

    def _await_catalog(self) -> None:
        """Waits until all catalog commands that are now in the log are applied. Raises Indefinite after a timeout."""
        ends = self._journal.end_offsets([self._topics.system_partition])
        for _ in range(CATALOG_WAITS):
            if self._applied.wait(ends, self._catalog_wait_s):
                return
            if self._stopping.is_set():
                break
        raise Indefinite("the catalog is not read to its end yet")

    # Writing.

    def _lanes(self, changes: dict[_Line, list[_CheckedChange]]) -> list[_Lane]:
        lanes: dict[tuple[_Line, int], _Lane] = {}
        view = self._view()
        for line, changes_of_line in changes.items():
            collection = view.by_id.get(line.collection)
            if collection is None:  # deleted since the check
                continue
            destination = Destination("", collection.id, view.position, collection.homes)
            for operation, run in _runs(changes_of_line):
                if isinstance(operation, Upsert) and collection.config.ttl_s:
                    operation = msgspec.structs.replace(operation, ttl_ms=1000 * collection.config.ttl_s)
                for part in split(operation, len(collection.homes)):
                    lane = lanes.setdefault((line, part.shard), _Lane(destination, line, deque()))
                    lane.parts.append((part, self._ingested(line.partition, [run[index] for index in part.indexes])))
        return list(lanes.values())

    def _ingested(self, partition: TopicPartition, changes: Sequence[_CheckedChange]) -> Ingested:
        keys = [change.key for change in changes]
        prefix = f"{self.source.id}/" if self.source.id else ""
        log_name = f"{prefix}{self._identity}/{partition.partition}"
        epoch = self.source.epoch(partition.partition)
        return Ingested(log_name, [change.entry.offset for change in changes], keys if any(keys) else [], epoch)

    def _run_of(self, partition: TopicPartition) -> str:
        """Tells the records that are read after a move, or by another source, from those that were read before; "" at first."""
        epoch = self.source.epoch(partition.partition)
        return f"{self.source.id}.{epoch}/" if self.source.id or epoch else ""

    def _write(self, lanes: list[_Lane]) -> None:
        """Writes the first part of every lane in parallel, waits for all, then the next parts. Raises the first error."""
        while lanes:
            futures = [self._write_next(lane) for lane in lanes]
            for future in futures:
                acknowledged(future, ACKNOWLEDGE_TIMEOUT_S)
            lanes = [lane for lane in lanes if lane.parts]

    def _write_next(self, lane: _Lane) -> Future[Receipt]:
        part, ingested = lane.parts.popleft()
        topic, partition = lane.line.partition
        offsets = ingested.offsets
        origin = Origin(f"{topic}/{partition}/{offsets[0]}-{offsets[-1]}", principal=f"{topic}/{partition}")
        return self._writer.write_ingested(lane.destination, part, lane.line.tier, ingested, origin)


def _runs(changes: Iterable[_CheckedChange]) -> Iterable[tuple[PointOperation, list[_CheckedChange]]]:
    """Combines consecutive upserts, and consecutive deletes. Yields each operation and its changes, in the order of its ids."""
    run: list[_CheckedChange] = []
    for change in changes:
        if run and not (type(change.operation) is type(run[0].operation) and isinstance(change.operation, Upsert | Delete)):
            yield _as_one(run), run
            run = []
        run.append(change)
    if run:
        yield _as_one(run), run


def _as_one(run: Sequence[_CheckedChange]) -> PointOperation:
    """Combines operations of one kind, each on one point, into one operation."""
    first = run[0].operation
    if len(run) == 1:
        return first
    ids = [change.operation.ids[0] for change in run]
    if isinstance(first, Delete):
        return Delete(ids)
    upserts = [change.operation for change in run if isinstance(change.operation, Upsert)]
    columns: dict[str, list[tuple[int, VectorColumn]]] = {}
    for index, upsert in enumerate(upserts):
        for column in upsert.vectors:
            columns.setdefault(column.name, []).append((index, column))
    vectors = [
        VectorColumn(
            name,
            given[0][1].size,
            None if len(given) == len(upserts) else [index for index, _ in given],
            b"".join(column.data for _, column in given),
        )
        for name, given in columns.items()
    ]
    return Upsert(ids, vectors, [upsert.payloads[0] for upsert in upserts])
