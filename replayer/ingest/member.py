"""Copies records of foreign producers from the ingest topic into the journal, exactly once.

All nodes form one consumer group. One step:

1. Poll, and check each record.
2. Write dead letters for the invalid records.
3. Write the changes, several per journal record.
4. Commit the offsets.

After a failure the member leaves the group and starts again at the last commit. So a change may be written twice, by this node or
by the one that took over the partition. It is applied once: each record has the source offsets of its points, and a shard drops
points whose offset is not above the last one that it saw. For this to lose nothing, the writes from one source partition to one
shard and tier are sequential: each waits for the acknowledgement of the previous one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from catalog.catalog import CatalogView
from catalog.collection import Collection
from journal.log import Entry, Indefinite, Journal, JournalError, Member, Positions, TopicPartition, acknowledged
from journal.records import Delete, Ingested, PointOperation, Upsert, VectorColumn
from journal.registry import SchemaRegistry
from journal.split import Part, PointTooLarge, split
from journal.topics import Topics
from journal.writer import Destination, Origin, Receipt, Writer
from replayer.failures import FailureLog
from replayer.ingest.format import Change, NotIngestible, change_of
from replayer.projections.dead_letters import Burial, bury
from shard.contract import contract_error
from shard.shards import AppliedPositions

IDLE_POLL_S = 30.0
RETRY_DELAY_S = 1.0
CATALOG_WAITS = 20
CATALOG_WAIT_S = 0.5
ACKNOWLEDGE_TIMEOUT_S = 30.0


class _Source(NamedTuple):
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
    """The ordered queue of parts from one source to one shard."""

    destination: Destination
    source: _Source
    parts: deque[tuple[Part, Ingested]]


class Ingest:
    """A member, with the static id `name`, of the consumer group of the ingest topic. Its own thread calls `run`."""

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
    ) -> None:
        self.group = f"{topics.prefix}.ingest"
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
        self.failure: Exception | None = None
        """Why the ingest does not work now; None while it does."""
        self._failures, self._commits = FailureLog(), FailureLog()
        self._stopping = threading.Event()

    def run(self) -> None:
        """Ingests until `stop`."""
        while not self._stopping.is_set():
            try:
                self.open()
                while not self._stopping.is_set():
                    self.step(RETRY_DELAY_S if self.failure else IDLE_POLL_S)
                    self.failure = None
                    self._failures.succeeded("the ingest goes on")
            except Exception as error:  # offsets are committed only after the writes, so a restart is always safe
                self._failures.failed(f"ingest stopped, trying again every {RETRY_DELAY_S:g} s", error)
                self.failure = error
                self.close()
                self._stopping.wait(RETRY_DELAY_S)
        self.close()

    def stop(self) -> None:
        """Makes `run` return after the current step. Thread-safe."""
        self._stopping.set()
        if (member := self._member) is not None:
            member.wake()

    def open(self) -> None:
        """Joins the group, after the catalog has been replayed to the current end of its topic."""
        self._check_log()
        self._claim_name()
        self._await_catalog()
        self._seen = {}
        self._identity = self._journal.identities([self._topics.ingest])[self._topics.ingest]
        self._member = self._journal.join(self.group, self._topics.ingest, self._name)

    def close(self) -> None:
        """Leaves the group."""
        if self._member is not None:
            self._member.close()
            self._member = None

    def step(self, timeout_s: float) -> int:
        """Polls once, writes the changes and commits. Returns the number of entries polled."""
        assert self._member is not None, "open() comes first"
        batch = self._member.poll(timeout_s)
        self._check_order(batch.entries)
        changes, burials = self._checked_changes(batch.entries)
        if burials:
            self._check_log()  # in another log, good records look wrong
            bury(self._journal, self._topics, burials, self._now_ms())
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
            self._member.commit(positions)
            self._commits.succeeded("positions of the ingest topic are committed again")
        except JournalError as error:  # another member has the partitions now; repeated changes are deduplicated
            self._commits.failed("positions of the ingest topic are not committed", error)

    # Checking.

    def _checked_changes(self, entries: Sequence[Entry]) -> tuple[dict[_Source, list[_CheckedChange]], list[Burial]]:
        """The valid changes by source, in order, and the invalid records as burials."""
        changes: dict[_Source, list[_CheckedChange]] = {}
        burials: list[Burial] = []
        waited = False
        for entry in entries:
            try:
                change = change_of(entry, self.registry)
                if self._view().find(change.collection) is None and not waited:
                    self._await_catalog()  # another node may have created it just now
                    waited = True
                collection = self._checked(change)
            except NotIngestible as error:
                burials.append(Burial(entry, str(error), error.collection))
            else:
                source = _Source(entry.partition, collection.id, change.tier)
                changes.setdefault(source, []).append(_CheckedChange(entry, change.operation, change.key))
        return changes, burials

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

    def _lanes(self, changes: dict[_Source, list[_CheckedChange]]) -> list[_Lane]:
        lanes: dict[tuple[_Source, int], _Lane] = {}
        view = self._view()
        for source, changes_of_source in changes.items():
            collection = view.by_id.get(source.collection)
            if collection is None:  # deleted since the check
                continue
            destination = Destination("", collection.id, view.position, collection.homes)
            for operation, run in _runs(changes_of_source):
                for part in split(operation, len(collection.homes)):
                    lane = lanes.setdefault((source, part.shard), _Lane(destination, source, deque()))
                    lane.parts.append((part, self._ingested(source.partition, [run[index] for index in part.indexes])))
        return list(lanes.values())

    def _ingested(self, partition: TopicPartition, changes: Sequence[_CheckedChange]) -> Ingested:
        keys = [change.key for change in changes]
        log_name = f"{self._identity}/{partition.partition}"
        return Ingested(log_name, [change.entry.offset for change in changes], keys if any(keys) else [])

    def _write(self, lanes: list[_Lane]) -> None:
        """Writes the first part of every lane in parallel, waits for all, then the next parts. Raises the first error."""
        while lanes:
            futures = [self._write_next(lane) for lane in lanes]
            for future in futures:
                acknowledged(future, ACKNOWLEDGE_TIMEOUT_S)
            lanes = [lane for lane in lanes if lane.parts]

    def _write_next(self, lane: _Lane) -> Future[Receipt]:
        part, ingested = lane.parts.popleft()
        topic, partition = lane.source.partition
        offsets = ingested.offsets
        origin = Origin(f"{topic}/{partition}/{offsets[0]}-{offsets[-1]}", principal=f"{topic}/{partition}")
        return self._writer.write_ingested(lane.destination, part, lane.source.tier, ingested, origin)


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
