"""`vecraft topics adopt`: an operator decides that a node goes on with a log that it does not know.

It reads this log and says what it is: a copy of the one that the node's state was made from, such as a mirror; another one; or a
copy that must not be served, since its offsets or times are not those of the original. Nothing changes until it is told to. The
node must be stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from journal.log import Journal, TopicPartition, Unfit
from journal.topics import Topics
from replayer.known_log import KnownLog
from replayer.log_check import LogCheck, ShardPartition
from shard.batch import Limits
from shard.shards import StoredCollection, move_to_log, stored_collection
from shard.store import Progress, Store
from vecraft.commands import CommandError
from vecraft.recovery import ProgressLines, opened
from vecraft.settings import Settings
from vecraft.state_folder import put_aside, refuse_in_use

ASIDE = "the state is put aside and this log is replayed: what only the state holds is lost"


class _Held(NamedTuple):
    """What the state holds of one collection. `unreadable` says why it cannot be read; else "".

    `applied`: how far each shard has read the data partitions.
    """

    folder: Path
    stored: StoredCollection
    points: int
    applied: Mapping[ShardPartition, Progress]
    unreadable: str


class _Adoption:
    """The log in `journal`, compared with the state in `state`."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self.topics = Topics(settings.topic_prefix, settings.preset)
        self.state = settings.data_dir / "state"
        self.known = KnownLog(self.state, self.topics)
        self.held = list(_held(self.state, self.topics))
        self.journal = journal
        self.present = journal.identities(list(self.topics.all()))
        self.check: LogCheck | None = None
        """None for a log that lacks a topic: it has no records, or a node refuses it."""
        if self.topics.all().keys() - {self.topics.ingest, self.topics.dead_letters} <= self.present.keys():
            limits = Limits(settings.max_drift_ms, settings.max_lateness_ms, settings.idempotency_window_s * 1000)
            applied = {key: progress for held in self.held for key, progress in held.applied.items()}
            self.check = LogCheck(journal, self.topics, limits, applied)
            self.check.read(ProgressLines("reading"))

    def about_topics(self) -> Iterator[str]:
        """What differs between the topics and those that the node knows."""
        known = self.known.known
        for topic in self.topics.all():
            if topic not in self.present:
                yield f"topic {topic} is missing: it would be created"
            elif topic in known.topics:
                yield f"topic {topic} is {'the same' if self.present[topic] == known.topics[topic] else 'another one'}"
        if self.topics.system in self.present:
            end = self.journal.end_offsets([self.topics.system_partition])[self.topics.system_partition]
            yield f"the catalog has {end} records; this node has read {known.catalog}"

    def about_records(self) -> Iterator[str]:
        """What the log would do to its own records, and what the ingest would read of it."""
        if self.check is not None and self.check.unknown:
            yield f"{self.check.unknown} records name catalog commands that this log does not have: they become dead letters"
        if self.check is not None and self.check.refused:
            yield f"{self.check.refused} records cannot be applied: they are dead letters, or become some"
        if unread := self._uningested():
            yield (
                f"topic {self.topics.ingest} has {unread} records that no node has read here, and the nodes would: if the topic "
                "was mirrored, they may be in the journal already, and would be written again"
            )

    def _uningested(self) -> int:
        """Records of the ingest topic that its group has not read."""
        if self.topics.ingest not in self.present:
            return 0
        partitions = self.journal.partitions(self.topics.ingest)
        starts, ends = self.journal.start_offsets(partitions), self.journal.end_offsets(partitions)
        committed = self.journal.committed(f"{self.topics.prefix}.ingest", partitions)
        return sum(ends[p] - max(starts[p], committed.get(p, 0)) for p in partitions)

    def unfit(self) -> Iterator[str]:
        """Why a node would refuse the topics as they are."""
        try:
            self.journal.ensure_topics({topic: spec for topic, spec in self.topics.all().items() if topic in self.present})
        except Unfit as error:
            yield f"a node would refuse this log: {error}"

    def why_not_kept(self) -> list[str]:
        """Why this log is no copy of the one that the state was made from, as far as it goes; empty when it is one."""
        if self.check is None or not self.known.known.topics or not self.held:
            return ["there is no state that could be compared with this log"]
        if unreadable := [held.unreadable for held in self.held if held.unreadable]:
            return unreadable
        end = self.check.bounds.ends[self.topics.system_partition]
        if self.known.known.catalog > end:
            return [
                f"{self.topics.system_partition} ends at {end}, and the state needs the commands below {self.known.known.catalog}"
            ]
        return [*self._strangers(self.check), *self.check.differences()]

    def _strangers(self, check: LogCheck) -> Iterator[str]:
        """Collections of the state that this log does not have at the same offset."""
        logs = {self.known.identity, self.known.identity_in(self.journal)}  # the second if this was interrupted before
        for held in self.held:
            collection_id = int(held.folder.name)
            collection = check.catalog.view.by_id.get(collection_id)
            if collection is None and check.catalog.created(collection_id):
                continue  # deleted later
            is_same = collection is not None and held.stored[1:] == (collection.name, collection.created_ms)
            if not is_same or held.stored.log not in logs:
                yield f"collection {held.stored.name} of the state, with the id {collection_id}, is not in this log"

    def ahead(self) -> Iterator[str]:
        """Which shards of the state have applied records that this log does not have."""
        if self.check is None:
            return
        for held in self.held:
            for key, progress in held.applied.items():
                if progress.offset > (end := self.check.bounds.ends[key.partition]):
                    yield (
                        f"{key.partition} ends at {end}, and shard {key.shard} of collection {held.stored.name} has applied the "
                        f"records below {progress.offset}: {progress.offset - end} records were not copied"
                    )

    def keep(self) -> None:
        """Makes the state go on with this log. If this is interrupted, it can be done again."""
        identity = self.known.identity_in(self.journal)
        for held in self.held:
            move_to_log(held.folder, identity)
        self.known.adopt(self.journal)


def adopt(settings: Settings, confirmed: bool) -> None:
    """Prints how the log differs from the one that this node knows, and what its state holds. If `confirmed`, creates missing
    topics, and keeps the state if the log is a copy, else puts it aside; so the node goes on with this log.

    Raises CommandError, when it is confirmed, for a log that must not be served.
    """
    journal = opened(settings, accept_ends=confirmed)
    try:
        adoption = _Adoption(settings, journal)
        faults = [] if adoption.check is None else adoption.check.faults()
        for held in adoption.held:
            print(held.unreadable or f"the state holds {held.points} points of collection {held.stored.name}")
        _print([*adoption.about_topics(), *adoption.about_records(), *adoption.ahead(), *adoption.unfit()])
        reasons = adoption.why_not_kept()
        if faults:
            _print(f"this log must not be served: {fault}" for fault in faults)
            if confirmed:
                raise CommandError("this log must not be served, so nothing was changed")
        elif not confirmed:
            _print_choice(reasons)
        else:
            journal.ensure_topics(adoption.topics.all())
            _go_on(adoption, reasons)
    finally:
        journal.close()


def _print_choice(reasons: list[str]) -> None:
    if reasons:
        _print(["", *reasons, f"with --yes {ASIDE}"])
    else:
        print("\nthis log is a copy of the one that the state was made from: with --yes the state is kept, and goes on with it")


def _go_on(adoption: _Adoption, reasons: list[str]) -> None:
    if not reasons:
        adoption.keep()
        print("\nthe state is kept, and goes on with this log")
        if any(adoption.ahead()):
            print("it holds more than the log: `vecraft journal repair` says what, and writes it to the log if it is told to")
    elif adoption.state.is_dir():
        _print(["", *reasons, f"the state is put aside in {put_aside(adoption.state)}; remove it when it is not needed any more"])


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _held(state: Path, topics: Topics) -> Iterator[_Held]:
    """What the state holds, by collection."""
    for folder in sorted(state.glob("[0-9]*")):
        stored = stored_collection(folder)
        try:
            points = 0
            applied: dict[ShardPartition, Progress] = {}
            for shard in folder.glob("[0-9]*"):
                alive, progress = _shard_state(shard / "rows", topics)
                points += alive
                applied |= {ShardPartition(int(folder.name), int(shard.name), p): found for p, found in progress.items()}
        except Exception as error:  # RocksDB's errors have no class of their own
            refuse_in_use(state, error)
            yield _Held(folder, stored, 0, {}, f"the state of collection {stored.name} cannot be read: {error}")
        else:
            yield _Held(folder, stored, points, applied, "")


def _shard_state(folder: Path, topics: Topics) -> tuple[int, dict[TopicPartition, Progress]]:
    """The number of points of a shard, and how far it has read each partition."""
    store = Store(folder, {})
    try:
        found = {partition: store.progress(partition) for partition in topics.data_partitions()}
        return store.counts()[0], {partition: progress for partition, progress in found.items() if progress is not None}
    finally:
        store.close()
