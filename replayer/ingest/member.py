"""The way from the ingest topic into the journal: foreign producers' records, checked, joined together, written, exactly once.

All nodes share the topic as one consumer group. A step is: poll; understand each record; write dead letters for the rest; write
the changes, many to a record; then commit. Whatever fails, the member leaves its group and begins again at the last commit, so
records may be written twice, by this node or by another that took over. They are applied once: every record says where its points
came from, and a shard drops what is not above the last offset it saw. For that to lose nothing, writes from one partition to
one shard and tier go out one after the other, each when the one before it is acknowledged.
"""

from __future__ import annotations

import logging
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
from journal.writer import Destination, Receipt, Request, Writer
from replayer.failures import log_failure
from replayer.ingest.format import Change, NotIngestible, change_of
from replayer.projections.dead_letters import Burial, bury
from shard.contract import contract_error
from shard.shards import AppliedPositions

log = logging.getLogger(__name__)

IDLE_POLL_S = 30.0
RETRY_DELAY_S = 1.0
CATALOG_WAITS = 20
CATALOG_WAIT_S = 0.5
ACKNOWLEDGE_TIMEOUT_S = 30.0


class _Origin(NamedTuple):
    """Changes that are written in one order: those of one log to one collection in one tier."""

    partition: TopicPartition
    collection: int
    tier: int


class _Found(NamedTuple):
    """A change that can be written, with the record it came from."""

    entry: Entry
    operation: PointOperation
    key: str


class _Lane(NamedTuple):
    """Parts that go to one shard from one origin, in their order."""

    destination: Destination
    origin: _Origin
    parts: deque[tuple[Part, Ingested]]


class Ingest:
    """A member, called `name`, of the group that reads the ingest topic. A thread of its own runs `run` until `stop`."""

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
        self._member: Member | None = None
        self._identity = ""
        self._seen: Positions = {}
        self._failure: Exception | None = None
        self._stopping = threading.Event()

    def run(self) -> None:
        """Ingests until `stop`."""
        while not self._stopping.is_set():
            try:
                self.open()
                while not self._stopping.is_set():
                    self.step(IDLE_POLL_S)
                    self._failure = None
            except Exception as error:  # nothing is committed that is not written, so beginning again is always safe
                log_failure(self._failure, error, "ingest stopped", RETRY_DELAY_S)
                self._failure = error
                self.close()
                self._stopping.wait(RETRY_DELAY_S)
        self.close()

    def stop(self) -> None:
        """Makes `run` return after the step it is in."""
        self._stopping.set()
        if (member := self._member) is not None:
            member.wake()

    def open(self) -> None:
        """Joins the group, once the catalog is as the log has it now."""
        self._await_catalog()
        self._seen = {}
        self._identity = self._journal.identity(self._topics.ingest)
        self._member = self._journal.join(self.group, self._topics.ingest, self._name)

    def close(self) -> None:
        """Leaves the group."""
        if self._member is not None:
            self._member.close()
            self._member = None

    def step(self, timeout_s: float) -> int:
        """Polls once, and writes and commits what came. Returns how many records that were."""
        assert self._member is not None, "open() comes first"
        batch = self._member.poll(timeout_s)
        self._check_order(batch.entries)
        found, burials = self._understood(batch.entries)
        bury(self._journal, self._topics, burials, self._now_ms())
        self._write(self._lanes(found))
        self.written += len(batch.entries) - len(burials)
        self.dead += len(burials)
        if batch.positions:
            self._commit(batch.positions)
        return len(batch.entries)

    def _check_order(self, entries: Sequence[Entry]) -> None:
        """Offsets that step back may be those of a topic created anew, which has another identity: then it begins again."""
        for entry in entries:
            if entry.offset < self._seen.get(entry.partition, 0):
                raise Indefinite(f"offsets of {entry.partition.topic}/{entry.partition.partition} step back to {entry.offset}")
            self._seen[entry.partition] = entry.offset + 1

    def _commit(self, positions: Positions) -> None:
        assert self._member is not None
        try:
            self._member.commit(positions)
        except JournalError as error:  # another member has them now, and will find what is written already
            log.info("positions of the ingest topic are not committed: %s", error)

    # Understanding.

    def _understood(self, entries: Sequence[Entry]) -> tuple[dict[_Origin, list[_Found]], list[Burial]]:
        """The changes that can be written, in order, and the records that cannot."""
        found: dict[_Origin, list[_Found]] = {}
        burials: list[Burial] = []
        asked = False
        for entry in entries:
            try:
                change = change_of(entry, self.registry)
                if self._view().find(change.collection) is None and not asked:
                    self._await_catalog()  # it may have been created a moment ago, through another node
                    asked = True
                collection = self._checked(change)
            except NotIngestible as error:
                burials.append(Burial(entry, str(error), error.collection))
            else:
                origin = _Origin(entry.partition, collection.id, change.tier)
                found.setdefault(origin, []).append(_Found(entry, change.operation, change.key))
        return found, burials

    def _checked(self, change: Change) -> Collection:
        """The collection of a change that it can take."""
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
        """Returns once all catalog commands are applied that the log holds now."""
        ends = self._journal.end_offsets([self._topics.system_partition])
        for _ in range(CATALOG_WAITS):
            if self._applied.wait(ends, self._catalog_wait_s):
                return
            if self._stopping.is_set():
                break
        raise Indefinite("the catalog is not read to its end yet")

    # Writing.

    def _lanes(self, found: dict[_Origin, list[_Found]]) -> list[_Lane]:
        lanes: dict[tuple[_Origin, int], _Lane] = {}
        view = self._view()
        for origin, changes in found.items():
            collection = view.by_id.get(origin.collection)
            if collection is None:  # dropped a moment ago, and its points with it
                continue
            destination = Destination("", collection.id, view.position, collection.homes)
            for operation, run in _joined(changes):
                for part in split(operation, len(collection.homes)):
                    lane = lanes.setdefault((origin, part.shard), _Lane(destination, origin, deque()))
                    lane.parts.append((part, self._ingested(origin.partition, [run[index] for index in part.indexes])))
        return list(lanes.values())

    def _ingested(self, partition: TopicPartition, changes: Sequence[_Found]) -> Ingested:
        keys = [change.key for change in changes]
        log_name = f"{self._identity}/{partition.partition}"
        return Ingested(log_name, [change.entry.offset for change in changes], keys if any(keys) else [])

    def _write(self, lanes: list[_Lane]) -> None:
        """Writes the first part of every lane at once, waits for all of them, then the next. Raises the first failure."""
        while lanes:
            futures = [self._write_next(lane) for lane in lanes]
            for future in futures:
                acknowledged(future, ACKNOWLEDGE_TIMEOUT_S)
            lanes = [lane for lane in lanes if lane.parts]

    def _write_next(self, lane: _Lane) -> Future[Receipt]:
        part, ingested = lane.parts.popleft()
        topic, partition = lane.origin.partition
        offsets = ingested.offsets
        request = Request(f"{topic}/{partition}/{offsets[0]}-{offsets[-1]}", principal=f"{topic}/{partition}")
        return self._writer.write_ingested(lane.destination, part, lane.origin.tier, ingested, request)


def _joined(changes: Iterable[_Found]) -> Iterable[tuple[PointOperation, list[_Found]]]:
    """Neighbours of the same kind as one operation, with the changes in the order of its ids."""
    run: list[_Found] = []
    for change in changes:
        if run and not (type(change.operation) is type(run[0].operation) and isinstance(change.operation, Upsert | Delete)):
            yield _as_one(run), run
            run = []
        run.append(change)
    if run:
        yield _as_one(run), run


def _as_one(run: Sequence[_Found]) -> PointOperation:
    """Operations of one kind on one point each, as one on all of these."""
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
