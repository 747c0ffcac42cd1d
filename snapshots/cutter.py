"""Cuts the log by the rule in `snapshots/cutting.py`: gathers what it looks at, says what would go, and lets it go.

The steps; a crash between any two of them leaves a log that opens, and the next cut goes on:
 1. the latest usable snapshot is read again and compared with its manifest; a damaged one is passed over;
 2. the rule says how far each partition may be cut;
 3. the journal deletes the records, of all partitions at once (embedded: in one synced write; Kafka: DeleteRecords);
 4. the first offsets are asked of the log again, and compared;
 5. the journal gives the space back to the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from catalog.catalog import CatalogView
from journal.hlc import millis_of
from journal.log import Entry, Journal, JournalError, Positions, TopicPartition
from journal.ranges import Range, stretches
from journal.topics import Topics
from shard.shards import Shards
from snapshots.create import LogState
from snapshots.cutting import Cut, Facts, Held, Saved, ShardKey, cuts
from snapshots.manifest import Manifest, all_of
from snapshots.place import Place
from snapshots.restore import TheLog, Unfit, usable
from snapshots.verify import faults

log = logging.getLogger(__name__)

SAMPLE = 100
"""Records at the begin and at the end of what goes that are read, for its times and its size."""


class CutRefused(Exception):
    """Nothing can be cut; the text says why."""


class Wanted(NamedTuple):
    """What is asked for: records that are older than `retention_s` seconds go, whether `beyond`, a set of nodes, has applied them
    or not. None keeps all."""

    retention_s: float | None
    beyond: frozenset[str] = frozenset()
    dry_run: bool = True


class Part(NamedTuple):
    """What goes of a partition. `bytes` is estimated from a sample; the times are those of the first and the last record, 0 when
    nothing goes, or when they cannot be read."""

    cut: Cut
    bytes: int = 0
    oldest_ms: int = 0
    newest_ms: int = 0


class Plan(NamedTuple):
    """What goes, by partition; the snapshot on which it rests; and the nodes that will need it, since they are behind."""

    wanted: Wanted
    snapshot: str
    parts: dict[TopicPartition, Part]
    left_behind: list[str]

    def going(self) -> Positions:
        """The new first offsets of the partitions of which something goes."""
        return {partition: part.cut.to for partition, part in self.parts.items() if part.cut.to > part.cut.start}


@dataclass(frozen=True)
class LogCutter:
    """Cuts the log of a node. `group_prefix` begins the names of the groups under which nodes commit; `node` is this one.

    `audited`: up to where the audit of this node has read each partition.
    """

    journal: Journal
    topics: Topics
    node: str
    group_prefix: str
    shards: Shards
    catalog: Callable[[], CatalogView]
    log: Callable[[], LogState]
    audited: Callable[[], Positions]
    max_drift_ms: int
    now_ms: Callable[[], int]

    def run(self, place: Place, wanted: Wanted, pause: Callable[[int], bool]) -> Plan:
        """What goes, and has gone unless it is a dry run. `pause` is as that of `snapshots.verify.faults`.

        Raises CutRefused, PlaceError, JournalError; ValueError for a node in `beyond` that is not known.
        """
        facts = self._facts(place, wanted, pause)
        plan = self._plan(facts, wanted)
        if not wanted.dry_run and plan.going():
            self._cut(plan)
        return plan

    def check_removable(self, place: Place, snapshot: Manifest) -> None:
        """Raises CutRefused when the log was cut and a state can be made of this snapshot alone; PlaceError, JournalError."""
        partitions = self.topics.data_partitions()
        starts, ends = self.journal.start_offsets(partitions), self.journal.end_offsets(partitions)
        the_log = TheLog(self.log().identity, starts, ends)
        others = [each for each in all_of(place) if each.id != snapshot.id]
        if any(starts.values()) and _is_any_usable([snapshot], the_log) and not _is_any_usable(others, the_log):
            text = "the log was cut, and this is the last one from which a state can be made: make another one first"
            raise CutRefused(f"snapshot {snapshot.id} is not removed: {text}")

    def _facts(self, place: Place, wanted: Wanted, pause: Callable[[int], bool]) -> Facts:
        partitions = self.topics.data_partitions()
        known = self.log()  # before the ends: what is applied cannot be beyond them
        nodes = self._others(partitions)
        if unknown := sorted(wanted.beyond - nodes.keys()):
            have = ", ".join(sorted(nodes)) or "none"
            raise ValueError(f"beyond names {unknown[0]!r}, and the other nodes of this log are: {have}")
        starts, ends = self.journal.start_offsets(partitions), self.journal.end_offsets(partitions)
        manifest = _sound(place, TheLog(known.identity, starts, ends), pause)
        old_ms = None if wanted.retention_s is None else self.now_ms() - int(wanted.retention_s * 1000)
        return Facts(
            starts,
            ends,
            _saved(manifest, partitions),
            self._held(),
            known.applied,
            self.audited(),
            self._below(millis_of(manifest.stamp) - self.max_drift_ms, partitions) if manifest.collections else ends,
            None if old_ms is None else self._below(old_ms, partitions),
            nodes,
            wanted.beyond,
        )

    def _others(self, partitions: Sequence[TopicPartition]) -> dict[str, Positions]:
        """What the other nodes have committed, by name."""
        groups = self.journal.groups(self.group_prefix)
        nodes = {group.removeprefix(self.group_prefix): group for group in groups}
        return {node: self.journal.committed(group, partitions) for node, group in nodes.items() if node != self.node}

    def _below(self, time_ms: int, partitions: Sequence[TopicPartition]) -> Positions:
        """Below these offsets all records were appended before a time."""
        return self.journal.offsets_at(max(0, time_ms), partitions)

    def _held(self) -> dict[ShardKey, Held]:
        held = {}
        for collection in self.catalog().by_id.values():
            for number in range(collection.config.shard_number):
                shard = self.shards.find(collection.id, number)
                homes = self.topics.home_partitions(collection.homes[number])
                positions = {partition: 0 if shard is None else shard.progress(partition).offset for partition in homes}
                name = f"shard {number} of collection {collection.name!r}"
                held[ShardKey(collection.id, number)] = Held(name, positions, shard is not None)
        return held

    def _plan(self, facts: Facts, wanted: Wanted) -> Plan:
        found = cuts(facts)
        gone = {partition: Range(cut.start, cut.to) for partition, cut in found.items() if cut.to > cut.start}
        first = self._sample({p: Range(start, min(start + SAMPLE, to)) for p, (start, to) in gone.items()})
        last = self._sample({p: Range(max(start, to - SAMPLE), to) for p, (start, to) in gone.items()})
        parts = {p: _part(cut, first.get(p, []), last.get(p, [])) for p, cut in found.items()}
        behind = [
            node
            for node in sorted(wanted.beyond)
            if any(facts.nodes[node].get(partition, 0) < to for partition, (_, to) in gone.items())
        ]
        return Plan(wanted, facts.saved.id, parts, behind)

    def _sample(self, ranges: Mapping[TopicPartition, Range]) -> dict[TopicPartition, list[Entry]]:
        found: dict[TopicPartition, list[Entry]] = {partition: [] for partition in ranges}
        reader = self.journal.reader()
        try:
            for stretch in stretches(reader, ranges, max_records=SAMPLE):
                found[stretch.partition] += stretch.entries
        finally:
            reader.close()
        return found

    def _cut(self, plan: Plan) -> None:
        going = plan.going()
        self.journal.trim(going)
        starts = self.journal.start_offsets(list(going))
        if kept := [f"{partition} begins at {starts[partition]}" for partition, to in going.items() if starts[partition] != to]:
            raise JournalError(f"the log was not cut as planned: {', '.join(kept)}")
        text = ", ".join(f"{partition} begins at {to}" for partition, to in going.items())
        log.info("the log was cut, a replay from its beginning needs snapshot %s or a later one: %s", plan.snapshot, text)
        self.journal.reclaim(list(going))


def _is_any_usable(manifests: Sequence[Manifest], the_log: TheLog) -> bool:
    try:
        return any(True for _ in usable(manifests, the_log))
    except Unfit:
        return False


def _sound(place: Place, the_log: TheLog, pause: Callable[[int], bool]) -> Manifest:
    """The latest usable snapshot whose files are all as they were written. Raises CutRefused."""
    reasons = []
    try:
        for manifest in usable(all_of(place), the_log):
            if not (wrong := next(faults(place, manifest, pause), None)):
                return manifest
            reasons.append(f"snapshot {manifest.id}: {wrong}")
    except Unfit as error:
        reasons.append(str(error))
    raise CutRefused(f"the log is cut only below a usable snapshot, and there is none: {'; '.join(reasons)}")


def _saved(manifest: Manifest, partitions: Sequence[TopicPartition]) -> Saved:
    needed = manifest.needed()
    keys = {ShardKey(part.collection.id, shard.number) for part in manifest.collections for shard in part.shards}
    return Saved(manifest.id, {p: needed.get(str(p), 0) for p in partitions}, manifest.catalog, keys)


def _part(cut: Cut, first: Sequence[Entry], last: Sequence[Entry]) -> Part:
    sampled = {entry.offset: _size(entry) for entry in (*first, *last)}
    size = sum(sampled.values()) * (cut.to - cut.start) // max(1, len(sampled))
    return Part(cut, size, first[0].time_ms if first else 0, last[-1].time_ms if last else 0)


def _size(entry: Entry) -> int:
    return len(entry.value) + len(entry.key or b"") + sum(len(name) + len(value) for name, value in entry.headers)
