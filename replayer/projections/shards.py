"""The shards as a projection of the data topics: judges records, buries refused ones, applies the others.

Two conditions delay a record. Neither blocks other partitions or shards:
- The record names a catalog position that this node has not reached. Its partition is paused until the catalog is there, or until
  the claim is known to be false (`verdicts.claim_failed`). Nothing is buffered: the partition is read again from that record.
- The shard failed. It is quarantined (`Shards.quarantine`), and the positions advance without it. After an exponential
  backoff it is opened again, in the background, from disk or from nothing if its files are damaged, and reads the missing entries
  with its own reader (`_CatchUp`). Then it is served again.

A shard is also quarantined when the log has lost records that the shard needs or has applied (`_Fault`). Its state is kept, since
it may be all that is left of them, and it is not opened again: an operator must decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import NamedTuple

from catalog.catalog import CatalogView
from catalog.collection import Collection
from journal.hlc import Clock
from journal.log import Damaged, Entry, Journal, JournalError, Positions, TopicPartition, lost_end
from journal.records import Record
from journal.topics import TIERS, Topics
from replayer.failures import FailureLog
from replayer.ingest.claims import Claim, IngestClaims
from replayer.known_log import KnownLog
from replayer.loop import IDLE_POLL_S, POLL_BYTES, LogBounds, Projection, bounds_of
from replayer.operations import Operations
from replayer.projections.catalog import CatalogProjection
from replayer.refusals import Refusal, Refusals
from replayer.verdicts import Accepted, Dropped, NeedsCatalog, NeedsIngest, Refused, Verdict, claim_failed, judge
from shard.batch import Limits
from shard.shard import Shard
from shard.shards import FIRST_DELAY_S, AppliedPositions, LogFault, Quarantine, Remedy, Shards

log = logging.getLogger(__name__)

WAIT_CHECK_S = 0.25
"""Interval between checks of a record that waits for a catalog position that may never be written."""

FAR_POSITIONS = 1_000_000
"""The catalog gets fewer commands than this within `max_lateness`: a claim so far ahead is known at once to be false."""

CATCH_UPS = 2
"""Maximum number of shards that catch up at the same time; other quarantined shards wait for their turn."""

CATCH_UP_POLL_S = 0.05
CATCH_UP_RECORDS = 1000
PASS_S, PASSED_RECORDS = 30.0, 1_000
"""A shard's stored position is advanced past records of other shards every PASS_S, or after so many records."""

FIRST_TIERS = 2
"""The first tiers are separate passes, applied before all others; the remaining tiers are one pass."""

Records = list[tuple[Entry, Record]]


class _Waiting(NamedTuple):
    """The offset at which a partition waits, and the verdict that says for what."""

    offset: int
    needs: NeedsCatalog | NeedsIngest


class _Retry(NamedTuple):
    """The time of the next attempt for a quarantined shard, and its number of failures so far."""

    failures: int
    at_s: float


class _Fault(NamedTuple):
    """What is wrong with a partition. It affects the shards that have not applied all records below `below`."""

    below: int
    reason: str


ALL_OFFSETS = 2**63
"""As what is accepted of a partition: nothing needs to be there, as for the scratch state of a repair."""


class _Opened(NamedTuple):
    """What became of a shard that was opened in the background."""

    collection: Collection
    number: int
    result: Shard | Quarantine


class _CatchUp:
    """A quarantined shard that was opened again. `missing` has the next offset of each partition in which it is behind."""

    def __init__(self, shard: Shard, journal: Journal, starts: Positions, applied: Positions) -> None:
        self.shard = shard
        homes = shard.home_partitions()
        progress = {partition: max(starts[partition], shard.progress(partition).offset) for partition in homes}
        self.missing = {partition: offset for partition, offset in progress.items() if offset < applied[partition]}
        self._reader = journal.reader()
        self._reader.assign(self.missing)

    def read(self, applied: Positions) -> list[Entry]:
        """The next missing entries, below `applied`; later entries reach the shard through the loop, as all others.

        Removes a partition from `missing` when this returns its last missing entries, so the caller must apply them.
        """
        if not self.missing:
            return []
        entries, positions = self._reader.poll(CATCH_UP_POLL_S, CATCH_UP_RECORDS, POLL_BYTES)
        self.missing = {p: offset for p, offset in positions.items() if offset < applied[p]}
        if len(self.missing) < len(positions):
            self._reader.assign(self.missing)
        return [entry for entry in entries if entry.offset < applied[entry.partition]]

    def close(self) -> None:
        self._reader.close()


class ShardsProjection(Projection):
    """Applies data records to `shards`. Opens, configures and drops shards when the catalog changes."""

    def __init__(
        self,
        journal: Journal,
        topics: Topics,
        clock: Clock,
        catalog: CatalogProjection,
        shards: Shards,
        limits: Limits,
        operations: Operations,
        refusals: Refusals,
        applied: AppliedPositions,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float],
        known: KnownLog,
    ) -> None:
        self._journal = journal
        self._known = known
        self._claims = IngestClaims(journal, topics, now_ms, limits.max_lateness_ms)
        self._faults: dict[TopicPartition, _Fault] = {}
        self.behind: list[str] = []
        """Where the log was cut beyond what the shards had applied when they were opened: the partition, and the offsets."""
        self._opening: set[tuple[int, int]] = set()
        self._opened: SimpleQueue[_Opened] = SimpleQueue()
        self._life = 0
        """Counts how often this projection was opened: what was opened in the background for an earlier life is closed."""
        self.wake: Callable[[], None] = lambda: None
        """Called from any thread when `end_step` has something to do."""
        self._topics = topics
        self._clock = clock
        self._catalog = catalog
        self._shards = shards
        self._limits = limits
        self._operations = operations
        self._refusals = refusals
        self._applied = applied
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._pass_at_s = 0.0
        self._waiting: dict[TopicPartition, _Waiting] = {}
        self._retries: dict[tuple[int, int], _Retry] = {}
        self._catch_ups: dict[tuple[int, int], _CatchUp] = {}
        self._reading = FailureLog()
        catalog.follow(self._on_command)

    # Opening and closing.

    def passes(self) -> Sequence[Sequence[TopicPartition]]:
        tiers = [[p for p in self._topics.data_partitions() if self._topics.tier_of(p.topic) == tier] for tier in TIERS]
        return [*tiers[:FIRST_TIERS], [p for later in tiers[FIRST_TIERS:] for p in later]]

    def open(self, bounds: LogBounds, committed: Positions) -> Positions:
        """Opens the shards of all collections. Each partition is read from the lowest applied offset of its shards."""
        partitions = self._topics.data_partitions()
        self._known.note(self._journal, bounds.ends)
        self._shards.log = self._known.identity
        self._shards.on_damage = self.wake
        self._life += 1
        self._refusals.skip_below({p: offset for p, offset in committed.items() if p in partitions})
        view = self._catalog.catalog.view
        self._shards.drop_strangers(view.by_id, self._catalog.catalog.history.deleted, self._now_ms())
        for number, collection in enumerate(view.by_id.values(), 1):
            log.info("opening collection %s (%d of %d)", collection.name, number, len(view.by_id))
            self._shards.open(collection)
        self._pass_shards(bounds.starts)
        self._hold_shards(bounds)
        positions = {p: max(bounds.starts[p], min(committed.get(p, 0), bounds.ends[p])) for p in partitions}
        homes: dict[TopicPartition, list[int]] = {}
        for shard in self._shards.all():
            for partition in shard.home_partitions():
                progress = shard.progress(partition)
                homes.setdefault(partition, []).append(progress.offset)
                self._clock.seed(progress.stamp)
        return positions | {partition: max(bounds.starts[partition], min(offsets)) for partition, offsets in homes.items()}

    def _pass_shards(self, starts: Positions) -> None:
        """Advances shards of collections that are later than the snapshot from which this state was restored, or than what was
        cut off while this node was down."""
        for shard in self._shards.all():
            passed = {p: self._known.passed(p, shard.collection.id, starts[p]) for p in shard.home_partitions()}
            if any(shard.progress(partition).offset < offset for partition, offset in passed.items()):
                with self._quarantine_on_failure(shard):
                    shard.pass_over(passed)

    def _hold_shards(self, bounds: LogBounds) -> None:
        """Quarantines the shards that have applied what the log does not have any more, or need it."""
        self._faults, self.behind = {}, []
        for shard in self._shards.all():
            self._compare(shard, bounds)
        for partition, reason in self._journal.refusals().items():
            if self._known.accepted(partition) >= ALL_OFFSETS:
                continue
            self._faults[partition] = _Fault(ALL_OFFSETS, reason)
        self._hold_affected()

    def _compare(self, shard: Shard, bounds: LogBounds) -> None:
        """Compares what a shard has applied with the log."""
        for partition in shard.home_partitions():
            offset, start, end = shard.progress(partition).offset, bounds.starts[partition], bounds.ends[partition]
            if offset > end:  # no more appends, by this node at least: the lost offsets would be given out again
                self._journal.refuse(partition, lost_end(partition, end, offset))
            elif offset < start and start > self._known.accepted(partition):
                reason = f"{partition} begins at {start}, and records from {offset} on are needed; see `vecraft restore --help`"
                self.behind.append(reason)
                self._faults[partition] = _Fault(start, reason)

    def _hold_affected(self) -> None:
        for shard in self._shards.all():
            if fault := self._fault_of(shard):
                self._shards.quarantine(shard, LogFault(fault.reason))

    def _fault_of(self, shard: Shard) -> _Fault | None:
        """The fault in one of its partitions that affects a shard."""
        for partition in shard.home_partitions():
            if (fault := self._faults.get(partition)) and shard.progress(partition).offset < fault.below:
                return fault
        return None

    def skip(self, damage: Damaged) -> None:
        """Quarantines the shards that have not applied the damaged records."""
        if damage.next_offset <= self._known.accepted(damage.partition):
            log.warning("%s; an operator has accepted that", damage)
            return
        known = self._faults.get(damage.partition)
        self._faults[damage.partition] = _Fault(max(damage.next_offset, known.below if known else 0), str(damage))
        self._hold_affected()

    def close(self) -> None:
        for key in list(self._catch_ups):
            self._end_catch_up(key)
        self._waiting, self._retries = {}, {}
        self._life += 1
        self._opening.clear()
        self._discard_opened()
        self._shards.close()

    # The catalog.

    def _on_command(self, before: CatalogView, after: CatalogView) -> None:
        for collection_id in before.by_id.keys() - after.by_id.keys():
            for key in [key for key in self._catch_ups if key[0] == collection_id]:
                self._end_catch_up(key)
            self._shards.drop(before.by_id[collection_id], self._now_ms())
        for collection_id, collection in after.by_id.items():
            if collection_id not in before.by_id:
                self._create(collection)
            elif collection is not before.by_id[collection_id]:
                self._configure(collection)

    def _create(self, collection: Collection) -> None:
        """Opens the shards of a new collection at the applied positions, because no earlier record is for them."""
        self._shards.open(collection)
        applied = self._applied.get()
        for shard in self._shards.served(collection.id):
            with self._quarantine_on_failure(shard):
                shard.pass_over({partition: applied[partition] for partition in shard.home_partitions()})

    def _configure(self, collection: Collection) -> None:
        for shard in self._shards.served(collection.id):
            with self._quarantine_on_failure(shard):
                shard.configure(collection)
        for key in [key for key in self._catch_ups if key[0] == collection.id]:
            self._end_catch_up(key)  # opens again later, with the new settings

    # Records.

    def apply(self, entries: Sequence[Entry]) -> Positions:
        self._clock.compare_read(max((entry.time_ms for entry in entries), default=0))
        accepted: Records = []
        refused: list[Refusal] = []
        waiting: dict[TopicPartition, _Waiting] = {}
        for entry in entries:
            if entry.partition in waiting:
                continue
            match self.judge(entry):
                case Accepted(record):
                    accepted.append((entry, record))
                case Refused() as verdict:
                    refused.append(Refusal(entry, verdict, self._collection_of(verdict)))
                case Dropped(record):
                    self._operations.note_entry(entry, record, record.hlc, "dropped")
                case NeedsCatalog() | NeedsIngest() as needs:
                    waiting[entry.partition] = _Waiting(entry.offset, needs)
                    self._say_waiting(entry, needs)
        if refused:
            self._refusals.bury(refused)
        by_shard: dict[Shard, Records] = {}
        for entry, record in accepted:
            if shard := self._shard_of(entry.partition, record):
                by_shard.setdefault(shard, []).append((entry, record))
        for shard, records in by_shard.items():
            self._apply_to(shard, records)
        self._waiting |= waiting
        return {partition: where.offset for partition, where in waiting.items()}

    def judge(self, entry: Entry) -> Verdict:
        """The verdict on an entry of a data topic, by the catalog and the ingest topic as they are now. Raises JournalError."""
        verdict = judge(entry, self._catalog.catalog, self._topics, self._limits)
        if isinstance(verdict, NeedsCatalog) and self._never_came(verdict):
            return claim_failed(verdict.record)
        if isinstance(verdict, Accepted) and verdict.record.ingested is not None:
            match self._claims.check(entry, verdict.record.ingested):
                case Claim.FALSE:
                    last, log_name = verdict.record.ingested.offsets[-1], verdict.record.ingested.log
                    return Refused(f"offset {last} of {log_name} did not exist when this was written", verdict.record)
                case Claim.UNKNOWN:
                    return NeedsIngest(verdict.record, entry)
        return verdict

    def _never_came(self, needs: NeedsCatalog) -> bool:
        """Whether the system topic was below that position after the deadline, or is so far below it that it will be.

        Reads the clock first, then the end offset.
        """
        system, now_ms = self._topics.system_partition, self._now_ms()
        end = self._journal.end_offsets([system])[system]
        return end < needs.position if now_ms > needs.latest_ms else end + FAR_POSITIONS < needs.position

    def _is_due(self, needs: NeedsCatalog | NeedsIngest) -> bool:
        """Whether a record that waits can be judged now."""
        if isinstance(needs, NeedsCatalog):
            return self._catalog.catalog.view.position >= needs.position or self._never_came(needs)
        assert needs.record.ingested is not None
        return self._claims.check(needs.entry, needs.record.ingested) is not Claim.UNKNOWN

    def _say_waiting(self, entry: Entry, needs: NeedsCatalog | NeedsIngest) -> None:
        """Logs which request and principal a partition waits for: a writer that claims what is not there holds it up."""
        if entry.partition not in self._waiting:
            what = f"catalog position {needs.position}" if isinstance(needs, NeedsCatalog) else "its source offsets"
            who = f"request {needs.record.request_id or '-'}, principal {needs.record.origin or '-'}"
            log.info("%s/%d waits at %d for %s, of %s", *entry.partition, entry.offset, what, who)

    def _shard_of(self, partition: TopicPartition, record: Record) -> Shard | None:
        """The shard to apply a record to; None when it is quarantined and will read the record while it catches up."""
        catching_up = self._catch_ups.get((record.collection, record.shard))
        if catching_up is None:
            return self._shards.find(record.collection, record.shard)
        return None if partition in catching_up.missing else catching_up.shard

    def _apply_to(self, shard: Shard, records: Records) -> None:
        with self._quarantine_on_failure(shard):
            results = shard.apply(records)
            for (entry, record), result in zip(records, results, strict=True):
                if result is not None:
                    self._clock.seed(record.hlc)
                    self._operations.note_entry(entry, record, result.stamp, "repeated" if result.repeated else "applied")

    def _collection_of(self, verdict: Refused) -> str:
        """The name of the collection of a refused record; "" when it is not known."""
        collection = self._catalog.catalog.view.by_id.get(verdict.record.collection) if verdict.record else None
        return "" if collection is None else collection.name

    # Steps.

    def end_step(self) -> Positions:
        for partition, (_, needs) in list(self._waiting.items()):
            if self._is_due(needs):
                del self._waiting[partition]
        self._schedule()
        self._retry()
        self._quarantine_damaged()
        self._take_opened()
        for key in list(self._catch_ups):
            self._catch_up(key)
        self._schedule()  # for shards that have just failed again
        return {partition: where.offset for partition, where in self._waiting.items()}

    def due_s(self) -> float:
        due_s = [WAIT_CHECK_S] if self._waiting else []
        if self._catch_ups:
            due_s.append(0.0)
        elif self._retries:
            due_s.append(max(0.0, min(retry.at_s for retry in self._retries.values()) - self._monotonic_s()))
        return min(due_s, default=IDLE_POLL_S)

    def before_commit(self, applied: Positions) -> None:
        """Advances the stored positions of shards past entries of other shards, so that a restart skips them.

        A position may lag behind a little, since a write to every shard for each record of another one would cost more than
        reading some records again.
        """
        self._known.note_applied(applied)
        now_s = self._monotonic_s()
        most = PASSED_RECORDS if now_s < self._pass_at_s else 0
        if not most:
            self._pass_at_s = now_s + PASS_S
            self._shards.deleted.expire(self._now_ms())
        for shard in self._shards.all():
            lagging = {p: applied[p] for p in shard.home_partitions() if applied[p] - shard.progress(p).offset > most}
            if lagging:
                with self._quarantine_on_failure(shard):
                    shard.pass_over(lagging)

    def on_idle(self) -> None:
        for shard in self._shards.all():
            with self._quarantine_on_failure(shard):
                shard.tend(idle=True)

    # Quarantine.

    @contextmanager
    def _quarantine_on_failure(self, shard: Shard) -> Iterator[None]:
        """Catches any exception in the block and quarantines the shard."""
        try:
            yield
        except Exception as error:  # RocksDB's errors have no class of their own; a bug may raise anything
            key = (shard.collection.id, shard.number)
            if (catching_up := self._catch_ups.pop(key, None)) is not None:
                catching_up.close()
            self._shards.quarantine(shard, error)

    def _schedule(self) -> None:
        """Sets the time of the next attempt for each quarantined shard, once per failure."""
        now_s = self._monotonic_s()
        self._retries = {
            key: retry if (retry := self._retries.get(key)) and retry.failures == state.failures else _at(state, now_s)
            for key, state in self._shards.quarantined().items()
        }

    def _quarantine_damaged(self) -> None:
        """Quarantines the shards whose files a read or a background task has found damaged."""
        while not self._shards.damaged.empty():
            shard, error = self._shards.damaged.get_nowait()
            key = (shard.collection.id, shard.number)
            if shard is self._shards.find(*key):
                self._shards.quarantine(shard, error)
            elif (catching_up := self._catch_ups.get(key)) and catching_up.shard is shard:
                with self._quarantine_on_failure(shard):
                    raise error

    def _retry(self) -> None:
        """Begins to open the quarantined shards whose backoff is over."""
        now_s = self._monotonic_s()
        for key, retry in self._retries.items():
            is_busy = key in self._catch_ups or key in self._opening
            held = self._shards.quarantined()[key].remedy is Remedy.OPERATOR
            if retry.at_s <= now_s and not is_busy and not held and len(self._catch_ups) + len(self._opening) < CATCH_UPS:
                collection = self._catalog.catalog.view.by_id[key[0]]
                log.debug("trying shard %d of collection %s again", key[1], collection.name)
                self._opening.add(key)
                self._shards.later(partial(self._open_again, collection, key[1], self._life))

    def _open_again(self, collection: Collection, number: int, life: int) -> None:
        """Opens a shard, in the background."""
        self._opened.put(_Opened(collection, number, self._shards.reopen(collection, number)))
        if life == self._life:
            self.wake()
        else:
            self._discard_opened()

    def _discard_opened(self) -> None:
        while not self._opened.empty():
            with suppress(Empty):
                opened = self._opened.get_nowait().result
                if isinstance(opened, Shard):
                    opened.release()

    def _take_opened(self) -> None:
        """Lets the shards that were opened in the background catch up."""
        while not self._opened.empty():
            collection, number, result = self._opened.get_nowait()
            self._opening.discard((collection.id, number))
            latest = self._catalog.catalog.view.by_id.get(collection.id)
            if latest is None:  # dropped meanwhile
                if isinstance(result, Shard):
                    self._shards.remove(result)
            elif isinstance(result, Quarantine):
                self._shards.fail(collection.id, result)
            else:
                self._begin_catch_up(result, latest)

    def _begin_catch_up(self, shard: Shard, latest: Collection) -> None:
        homes = shard.home_partitions()
        with self._quarantine_on_failure(shard):
            bounds = bounds_of(self._journal, homes)
            self._compare(shard, bounds)
            if fault := self._fault_of(shard):
                raise LogFault(fault.reason)
            if latest is not shard.collection:
                shard.configure(latest)
            self._catch_ups[shard.collection.id, shard.number] = _CatchUp(
                shard, self._journal, bounds.starts, self._applied.get()
            )

    def _catch_up(self, key: tuple[int, int]) -> None:
        """Applies the next missing entries of a reopened shard, and serves it when none is left."""
        catching_up = self._catch_ups[key]
        try:
            entries = catching_up.read(self._applied.get())
        except Damaged as damage:
            self.skip(damage)
            with self._quarantine_on_failure(catching_up.shard):
                raise LogFault(str(damage)) from damage
            return
        except JournalError as error:
            self._reading.failed("a shard cannot read its missing entries", error)
            self._end_catch_up(key)
            retry = self._retries[key]
            self._retries[key] = retry._replace(at_s=self._monotonic_s() + FIRST_DELAY_S)
            return
        self._reading.succeeded("shards read their missing entries again")
        records = []
        for entry in entries:  # refused ones got their dead letter when they were first read
            verdict = self.judge(entry)
            if isinstance(verdict, Accepted) and (verdict.record.collection, verdict.record.shard) == key:
                records.append((entry, verdict.record))
        if records:
            self._apply_to(catching_up.shard, records)
        if key in self._catch_ups and not catching_up.missing:
            log.info("shard %d of collection %s is served again", key[1], catching_up.shard.collection.name)
            catching_up.close()
            del self._catch_ups[key]
            self._shards.serve(catching_up.shard)

    def _end_catch_up(self, key: tuple[int, int]) -> None:
        """Closes a shard that has not caught up. It stays in quarantine and is tried again."""
        catching_up = self._catch_ups.pop(key)
        catching_up.close()
        catching_up.shard.close()


def _at(quarantine: Quarantine, now_s: float) -> _Retry:
    return _Retry(quarantine.failures, now_s + quarantine.delay_s)
