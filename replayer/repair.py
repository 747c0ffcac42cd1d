"""Repairs a log that has lost records which this node's state still holds, while the node is stopped.

The log as it is now is replayed into a scratch state. What the kept state of a shard has more, or has otherwise, is what the log
has lost: it is written to the log again, as full upserts and as deletes. Then the kept state of that shard is removed, so that it
is replayed from the log, like everybody's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from catalog.collection import Collection
from journal.hlc import Clock
from journal.log import Journal, Positions, TopicPartition, acknowledged
from journal.records import Delete, PointOperation, Upsert, columns_of
from journal.topics import Topics
from journal.writer import Destination, Origin, Writer
from replayer.known_log import KnownLog
from replayer.loop import bounds_of
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.batch import Limits
from shard.shard import Shard
from shard.shards import Shards
from shard.store import Row
from shard.view import ShardView

POINTS_PER_WRITE = 500
WRITE_TIMEOUT_S = 30.0
GROUP = "repair"


class Loss(NamedTuple):
    """What is wrong with one partition, for one shard.

    `missing` and `extra`: ids of points that the log lacks or has otherwise, and of points that it only has because it has lost
    their deletion. They are None when the state cannot tell, since the shard needs the records itself.
    """

    collection: Collection
    number: int
    partition: TopicPartition
    reason: str
    missing: list[bytes] | None
    extra: list[bytes] | None


class Repair:
    """Compares the state in `state` with the log; `scratch` is an empty folder. Close it in the end."""

    def __init__(self, journal: Journal, topics: Topics, limits: Limits, state: Path, scratch: Path, now_ms: Callable[[], int]):
        self._journal = journal
        self._topics = topics
        self._known = KnownLog(state, topics)
        self._clock = Clock(now_ms, limits.max_drift_ms)
        partitions = [topics.system_partition, *topics.data_partitions(), topics.dead_letter_partition]
        self._bounds = bounds_of(journal, partitions)
        known = msgspec.structs.replace(self._known.known, accepted=_names(self._bounds.ends), catalog=0)
        KnownLog(scratch, topics).write(known)
        self._fresh = Shards(scratch, topics, limits, _nothing, checkpoints=_nothing)
        group = f"{topics.prefix}.{GROUP}"
        journal.commit(group, self._bounds.ends)  # so that nothing is buried again
        self._replayer = Replayer(journal, topics, self._clock, self._fresh, group, limits, DeadLetters())
        self._kept = Shards(state, topics, limits, _nothing, checkpoints=_nothing)
        self._kept.log = self._known.identity

    def replay(self, progress: Callable[[int, int], None]) -> None:
        """Replays the log into the scratch state. Calls `progress` with the records done, and their total number."""
        self._replayer.open()
        while not self._replayer.caught_up():
            self._replayer.advance(0.1)
            progress(*self._replayer.behind())

    def losses(self) -> list[Loss]:
        """What the log has lost, by shard and partition."""
        found: list[Loss] = []
        for collection in self._replayer.catalog.view.collections.values():
            self._kept.open(collection)
            for kept in self._kept.served(collection.id):
                found += self._losses_of(kept)
        return found

    def _losses_of(self, kept: Shard) -> Iterator[Loss]:
        collection, number = kept.collection, kept.number
        for partition in kept.home_partitions():
            offset, start, end = kept.progress(partition).offset, self._bounds.starts[partition], self._bounds.ends[partition]
            if offset > end:
                fresh = self._fresh.find(collection.id, number)
                assert fresh is not None, "it was replayed"
                reason = f"{offset - end} records from {end} to {offset - 1} are lost"
                missing, extra = _difference(kept.view, fresh.view)
                yield Loss(collection, number, partition, reason, missing, extra)
                return  # the difference is that of all partitions
            if offset < start:
                yield Loss(collection, number, partition, f"it begins at {start}, {offset} is needed", None, None)

    def write_back(self, losses: Sequence[Loss]) -> int:
        """Writes to the log what it has lost. Returns the number of points. Raises JournalError; it may then be repeated."""
        writer = Writer(self._journal, self._topics, self._clock)
        count = 0
        for loss in losses:
            kept = self._kept.find(loss.collection.id, loss.number)
            assert kept is not None
            tier = self._topics.tier_of(loss.partition.topic)
            position = self._replayer.catalog.view.position
            destination = Destination("", loss.collection.id, position, loss.collection.homes)
            for operation in _operations(kept.view, loss):
                origin = Origin(f"repair-{loss.collection.id}-{loss.number}", principal="vecraft journal repair")
                acknowledged(writer.write_points(destination, [operation], tier, origin), WRITE_TIMEOUT_S)
                count += len(operation.ids)
        return count

    def accept(self, losses: Sequence[Loss]) -> None:
        """Removes the state of the shards, so that they are replayed, and notes that records below the present bounds may be
        missing.
        """
        accepted = self._known.known.accepted | _names(self._bounds.starts)
        self._known.write(msgspec.structs.replace(self._known.known, accepted=accepted))
        self._kept.close()
        for loss in losses:
            shutil.rmtree(self._kept.folder / str(loss.collection.id) / str(loss.number), ignore_errors=True)

    def close(self) -> None:
        self._replayer.close()
        self._kept.close()


def _difference(kept: ShardView, fresh: ShardView) -> tuple[list[bytes], list[bytes]]:
    """The ids of points that `kept` has and `fresh` has not, or has otherwise; and of those that only `fresh` has."""
    missing = [row.id for row in _points(kept) if not (found := fresh.find([row.id])) or not _is_same(kept, row, fresh, found[0])]
    extra = [row.id for row in _points(fresh) if not kept.find([row.id])]
    return missing, extra


def _points(view: ShardView) -> Iterator[Row]:
    rows = iter(view.alive)
    while some := list(islice(rows, POINTS_PER_WRITE)):
        yield from view.points(some)


def _is_same(kept: ShardView, row: Row, fresh: ShardView, other: Row) -> bool:
    vectors, others = kept.vectors_of(row.row), fresh.vectors_of(other.row)
    same = vectors.keys() == others.keys() and all(vectors[name].tobytes() == others[name].tobytes() for name in vectors)
    return same and row.payload == other.payload


def _operations(view: ShardView, loss: Loss) -> Iterator[PointOperation]:
    missing, extra = iter(loss.missing or ()), iter(loss.extra or ())
    while ids := list(islice(missing, POINTS_PER_WRITE)):
        rows = view.find(ids)
        columns = columns_of([view.vectors_of(row.row) for row in rows])
        yield Upsert([row.id for row in rows], columns, [row.payload or b"{}" for row in rows])
    while ids := list(islice(extra, POINTS_PER_WRITE)):
        yield Delete(ids)


def _names(positions: Positions) -> dict[str, int]:
    return {str(partition): offset for partition, offset in positions.items()}


def _nothing(task: Callable[[], None]) -> None:
    """Runs no background task: this state is read once."""
