"""The loop from journal to state. `step` is the whole of it, and takes its clock from outside, so the simulator can run it.

One step: poll; apply catalog commands; judge each data record; write dead letters and wait for them; apply the rest to the
shards; announce the positions; now and then commit them for the dashboards. After a failure of the journal it reads on; any
other throws the in-memory state away and begins again from disk, the same way as a restarted process does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from itertools import pairwise

from catalog.catalog import Catalog
from catalog.collection import Collection
from journal import codec
from journal.hlc import Clock
from journal.log import Batch, Entry, Journal, JournalError, Positions, Reader, TopicPartition, Unfit
from journal.records import CATALOG_OPERATIONS, POINT_OPERATIONS, CatalogOperation, Ingested, Record
from journal.stamps import drift_error
from journal.topics import Topics, shard_of
from replayer.failures import log_failure
from replayer.lag import LagMeter
from replayer.operations import AppliedRecord, Operations
from replayer.projections.dead_letters import Burial, DeadLetters, bury
from shard.batch import Limits
from shard.contract import contract_error
from shard.shard import Shard
from shard.shards import AppliedPositions, Shards

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0
IDLE_POLL_S = 30.0
TRIM_FROM = 100
"""Dead letters are removed from the log when as many at its beginning are of no more use."""
RESTART_DELAY_S = 1.0


class _Refused(Exception):
    """A record that no replica applies; the text says why."""


class Replayer:
    """Replays a journal into `catalog` and `shards`, under the consumer group `group`."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        clock: Clock,
        shards: Shards,
        group: str,
        limits: Limits,
        letters: DeadLetters,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalog = Catalog()
        self.applied = AppliedPositions()
        self.operations = Operations()
        self.lag = LagMeter()
        self.letters = letters
        self.buried = 0
        self.failure: Exception | None = None
        self.refusal: Unfit | None = None
        self._journal = journal
        self._topics = topics
        self._clock = clock
        self._shards = shards
        self._group = group
        self._limits = limits
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._reader: Reader | None = None
        self._committed: Positions = {}
        self._buried: Positions = {}
        self._next_commit_s = 0.0
        self._tended = True
        self._stopping = threading.Event()
        self._ready_at: Positions = {}
        self._letters_from = 0

    # The owner's side: a thread of its own runs `run` until `stop`.

    def run(self) -> None:
        """Replays until `stop`. After a failure of the journal it reads on from where it is; after any other it opens anew.

        Gives up only when the topics are unfit (`refusal`): somebody has to change them first.
        """
        opened = False
        while not self._stopping.is_set():
            try:
                if opened:
                    self._read_on()
                else:
                    self.open()
                opened, self.failure = True, None
                while not self._stopping.is_set():
                    self.step(self._poll_timeout_s())
            except Unfit as error:
                self.failure = self.refusal = error
                break
            except Exception as error:  # whatever it was, the state on disk is sound, and the log is the truth
                what = "replay stopped" if opened else "the journal cannot be opened yet"
                log_failure(self.failure, error, what, RESTART_DELAY_S)
                self.failure = error
                if not (opened and isinstance(error, JournalError)):
                    self.close()
                    opened = False
                self._stopping.wait(RESTART_DELAY_S)
        self.close()

    def stop(self) -> None:
        """Makes `run` return after the step it is in."""
        self._stopping.set()
        if (reader := self._reader) is not None:
            reader.wake()

    def caught_up(self) -> bool:
        """Whether everything is applied that the log held when this replayer opened."""
        return bool(self._ready_at) and self.applied.covers(self._ready_at)

    def behind(self) -> tuple[int, int]:
        """Records applied and to apply since the replayer opened, for progress reports."""
        done = self.applied.get()
        return sum(min(done.get(p, 0), end) for p, end in self._ready_at.items()), sum(self._ready_at.values())

    # The loop.

    def open(self) -> None:
        """Sees to the topics, reads the catalog to its end, opens the shards, and finds where each partition is to be read on."""
        self._journal.ensure_topics(self._topics.all())
        reader = self._reader = self._journal.reader()
        system = self._topics.system_partition
        data = self._topics.data_partitions()
        self.catalog = Catalog()
        ends = self._journal.end_offsets([system, *data])
        self._buried = self._journal.committed(self._group, [system, *data])
        self._read_catalog(ends[system])
        view = self.catalog.view
        self._shards.drop_strangers(view.by_id)
        for number, collection in enumerate(view.by_id.values(), 1):
            log.info("opening collection %s (%d of %d)", collection.name, number, len(view.by_id))
            self._open_shards(collection, ends)
        positions = self._resume_positions(data)
        self._committed = {}
        positions |= {system: view.position} | self._letters_start()
        reader.assign(positions)
        self.applied.restart(positions)
        self._ready_at = ends

    def _letters_start(self) -> Positions:
        """Where the dead letters begin: their list is always folded from there."""
        letters = self._topics.dead_letter_partition
        self._letters_from = self._journal.start_offsets([letters])[letters]
        return {letters: self._letters_from}

    def _open_shards(self, collection: Collection, ends: Positions) -> None:
        """Opens a collection's shards; state that is ahead of the log is of another log, and is built anew."""
        shards = self._shards.open(collection)
        if any(shard.progress(p).offset > ends[p] for shard in shards for p in shard.home_partitions()):
            log.warning("the state of collection %s is ahead of the log: building it anew", collection.name)
            self._shards.drop(collection.id)
            self._shards.open(collection)

    def _read_on(self) -> None:
        """Goes on at the applied positions with a new reader; what is read twice is recognised by its offset."""
        assert self._reader is not None
        self._reader.close()
        self._reader = self._journal.reader()
        applied = self.applied.get()
        letters = {p: max(start, applied[p]) for p, start in self._letters_start().items()}  # another node may have trimmed them
        self._reader.assign(applied | letters)

    def step(self, timeout_s: float) -> int:
        """Polls once and applies what came. Returns how many records that were."""
        assert self._reader is not None, "open() comes first"
        batch = self._reader.poll(timeout_s)
        self.lag.begin(batch.entries)
        data = []
        for entry in batch.entries:
            if entry.partition == self._topics.system_partition:
                self._apply_command(entry)
            elif entry.partition == self._topics.dead_letter_partition:
                self.letters.apply(entry)
            else:
                data.append(entry)
        self._apply_data(data)
        self.applied.advance(batch.positions)
        self.lag.done()
        self._commit(batch)
        return len(batch.entries)

    def close(self) -> None:
        """Notes how far it came, and lets go of reader and shards."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._shards.close()

    def _poll_timeout_s(self) -> float:
        """Short while something is to be committed soon, long when idle: a new record ends the wait anyway."""
        return IDLE_POLL_S if self._tended and self.applied.get() == self._committed else COMMIT_EVERY_S

    def _resume_positions(self, partitions: list[TopicPartition]) -> Positions:
        """Where the least advanced shard of each partition stands; what the group committed where there is no shard."""
        positions = self._journal.committed(self._group, partitions)
        positions = {partition: positions.get(partition, 0) for partition in partitions}
        homes: dict[TopicPartition, list[int]] = {}
        for shard in self._shards.all():
            for partition in shard.home_partitions():
                progress = shard.progress(partition)
                homes.setdefault(partition, []).append(progress.offset)
                self._clock.seed(progress.stamp)
        return positions | {partition: min(offsets) for partition, offsets in homes.items()}

    # The catalog.

    def _apply_command(self, entry: Entry) -> None:
        if entry.offset < self.catalog.view.position:
            return
        before = self.catalog.view
        record = self._fold(entry)
        after = self.catalog.view
        for collection_id in before.by_id.keys() - after.by_id.keys():
            self._shards.drop(collection_id)
        for collection_id, collection in after.by_id.items():
            if collection_id not in before.by_id:
                self._create_shards(collection)
            elif collection is not before.by_id[collection_id]:
                for shard in self._shards.of(collection_id):
                    shard.configure(collection)
        if record is not None:
            self._note(entry, record, record.hlc, "applied")

    def _fold(self, entry: Entry) -> Record | None:
        """Applies a system record to the catalog; one that holds no command goes to the dead letters."""
        try:
            record = self._decoded(entry)
            if not isinstance(record.operation, CATALOG_OPERATIONS):
                raise _Refused(f"{type(record.operation).__name__} does not belong in {entry.partition.topic}")
        except _Refused as refusal:
            self._bury([Burial(entry, str(refusal))])
            self.catalog.apply(entry.offset, entry.time_ms, None)
            return None
        operation: CatalogOperation = record.operation
        self.catalog.apply(entry.offset, entry.time_ms, operation)
        return record

    def _create_shards(self, collection: Collection) -> None:
        """Opens the shards of a collection created just now: what is applied so far holds nothing for them."""
        for shard in self._shards.open(collection):
            applied = self.applied.get()
            shard.pass_over({partition: applied[partition] for partition in shard.home_partitions()})

    def _read_catalog(self, position: int, into: Callable[[Entry], object] | None = None) -> None:
        """Applies the system topic up to `position`, which the log must hold."""
        system = self._topics.system_partition
        reader = self._journal.reader()
        try:
            reader.assign({system: self.catalog.view.position})
            while self.catalog.view.position < position and not self._stopping.is_set():
                batch = reader.poll(1.0)
                for entry in batch.entries:
                    (into or self._fold)(entry)
                if batch.positions[system] >= position > self.catalog.view.position:
                    self.catalog.view = self.catalog.view._replace(position=position)  # what is left are markers
        finally:
            reader.close()

    # Data records.

    def _apply_data(self, entries: list[Entry]) -> None:
        accepted: list[tuple[Entry, Record]] = []
        refused: list[Burial] = []
        for entry in entries:
            try:
                accepted.append((entry, self._judge(entry)))
            except _Refused as refusal:
                refused.append(Burial(entry, str(refusal), self._collection_of(entry)))
        self._bury(refused)
        by_shard: dict[Shard, list[tuple[Entry, Record]]] = {}
        for entry, record in accepted:  # shards only now: judging one record may bring the command that drops another's
            if shards := self._shards.of(record.collection):
                by_shard.setdefault(shards[record.shard], []).append((entry, record))
            else:
                self._note(entry, record, record.hlc, "dropped")
        for shard, records in by_shard.items():
            results = shard.apply(records)
            for (entry, record), result in zip(records, results, strict=True):
                if result is not None:
                    self._clock.seed(record.hlc)
                    self._note(entry, record, result.stamp, "repeated" if result.repeated else "applied")

    def _judge(self, entry: Entry) -> Record:
        """The record, if every replica applies it. Raises _Refused if none does."""
        record = self._decoded(entry)
        if not isinstance(record.operation, POINT_OPERATIONS):
            raise _Refused(f"{type(record.operation).__name__} does not belong in {entry.partition.topic}")
        if not 0 <= record.collection < record.catalog_position:
            raise _Refused(f"collection {record.collection} cannot be known at catalog position {record.catalog_position}")
        self._await_catalog(entry, record)
        collection = self.catalog.ever(record.collection)
        if collection is None:
            raise _Refused(f"collection {record.collection} does not exist at catalog position {record.catalog_position}")
        tier = self._topics.tier_of(entry.partition.topic)
        if not 0 <= record.shard < len(collection.homes) or collection.homes[record.shard][tier] != entry.partition.partition:
            raise _Refused(f"shard {record.shard} of collection {collection.name!r} is not at home in this partition")
        if breach := contract_error(collection, record.operation):
            raise _Refused(breach)
        if record.ingested is not None and (breach := _ingested_error(record.ingested, len(record.operation.ids))):
            raise _Refused(breach)
        if any(shard_of(point_id, len(collection.homes)) != record.shard for point_id in record.operation.ids):
            raise _Refused(f"a point does not belong in shard {record.shard}")
        return record

    def _decoded(self, entry: Entry) -> Record:
        try:
            record = codec.decode(entry.value)
        except codec.DecodeError as error:
            raise _Refused(str(error)) from error
        if drift := drift_error(record.hlc, entry.time_ms, self._limits.max_drift_ms):
            raise _Refused(drift)
        return record

    def _await_catalog(self, entry: Entry, record: Record) -> None:
        """Waits until the catalog is where the record's writer knew it to be.

        A writer knows only what was in the log before. A record that claims more is refused: when that position is filled too
        late after it, or is still empty by then.
        """
        position = record.catalog_position
        latest_ms = entry.time_ms + self._limits.max_lateness_ms
        while self.catalog.view.position < position:
            if self._journal.end_offsets([self._topics.system_partition])[self._topics.system_partition] >= position:
                self._read_catalog(position, self._apply_command)
            elif self._now_ms() > latest_ms:
                raise _Refused(f"catalog position {position} did not exist when this was written")
            elif self._stopping.wait(0.1):
                raise JournalError("stopped while waiting for the catalog")
        if self.catalog.known_at_ms(position) > latest_ms:
            raise _Refused(f"catalog position {position} did not exist when this was written")

    def _bury(self, refused: list[Burial]) -> None:
        """Writes dead letters and waits until they are durable; raises JournalError when they are not.

        What was read before under this group, in an earlier life of this node, has its dead letters.
        """
        new = [burial for burial in refused if burial.entry.offset >= self._buried.get(burial.entry.partition, 0)]
        bury(self._journal, self._topics, new, self._now_ms())
        for entry, reason, _ in new:
            self.buried += 1
            log.warning("dead letter: %s/%d/%d: %s", *entry.partition, entry.offset, reason)
            self._note_refusal(entry, reason)

    def _collection_of(self, entry: Entry) -> str:
        """The name of the collection that a refused record was for, as far as that can be seen."""
        try:
            collection = self.catalog.ever(codec.decode(entry.value).collection)
        except codec.DecodeError:
            return ""
        return "" if collection is None else collection.name

    # Positions and memory.

    def _commit(self, batch: Batch) -> None:
        """Commits for the dashboards, at most once a second and when idle, and moves idle shards on."""
        if batch.entries:
            self._tended = False
        elif not self._tended:
            self._tended = True
            for shard in self._shards.all():
                shard.tend(idle=True)
        now_s = self._monotonic_s()
        applied = self.applied.get()
        if applied == self._committed or (batch.entries and now_s < self._next_commit_s):
            return
        for shard in self._shards.all():
            lagging = {p: applied[p] for p in shard.home_partitions() if shard.progress(p).offset < applied[p]}
            if lagging:
                shard.pass_over(lagging)
        try:
            self._journal.commit(self._group, applied)
            self._trim_letters(applied[self._topics.dead_letter_partition])
        except JournalError as error:  # dashboards can wait; the state knows its own positions
            log.warning("positions are not committed: %s", error)
        self._committed = applied
        self._next_commit_s = now_s + COMMIT_EVERY_S

    def _trim_letters(self, applied: int) -> None:
        """Removes dead letters from the log that have left the list, from its beginning on."""
        self.letters.expire(self._now_ms())
        first = self.letters.first()
        useless = applied if first is None else first
        if useless - self._letters_from >= TRIM_FROM:
            self._journal.trim({self._topics.dead_letter_partition: useless})
            self._letters_from = useless

    def _note(self, entry: Entry, record: Record, stamp: int, verdict: str, reason: str = "") -> None:
        if not record.request_id:
            return
        operation = type(record.operation).__name__
        applied = AppliedRecord(
            entry.partition, entry.offset, record.collection, record.shard, operation, record.hlc, stamp, verdict, reason
        )
        self.operations.note(record.request_id, applied)

    def _note_refusal(self, entry: Entry, reason: str) -> None:
        try:
            record = codec.decode(entry.value)
        except codec.DecodeError:
            return
        self._note(entry, record, record.hlc, "refused", reason)


def _ingested_error(ingested: Ingested, count: int) -> str | None:
    """Why a record's account of where its points came from cannot be; None when it can."""
    offsets = ingested.offsets
    if len(offsets) != count or len(ingested.keys) not in (0, count):
        return f"origins are given for {len(offsets)} and keys for {len(ingested.keys)} of {count} points"
    if any(later <= earlier for earlier, later in pairwise([-1, *offsets])):
        return "offsets of origin do not ascend from 0"
    return None
