"""All shards of this process, and how far their partitions are applied."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from catalog.collection import Collection
from journal.log import Positions, TopicPartition
from journal.topics import Topics
from shard.batch import Limits
from shard.shard import Background, Shard
from shard.vectors.segment_policy import DEFAULT_POLICY, SegmentPolicy

log = logging.getLogger(__name__)

_IDENTITY = "identity"
"""A file that says whose state this is: after a log is restored or replaced, an id may mean another collection."""


class Shards:
    """The open shards, in folders `<collection id>/<number>` below `folder`. One thread opens and drops, any thread looks up."""

    def __init__(
        self, folder: Path, topics: Topics, limits: Limits, background: Background, policy: SegmentPolicy = DEFAULT_POLICY
    ) -> None:
        self._folder = folder
        self._topics = topics
        self._limits = limits
        self._background = background
        self._policy = policy
        self._open: dict[int, list[Shard]] = {}

    def open(self, collection: Collection) -> list[Shard]:
        """Opens all shards of a collection, loading what state there is; that of another one with the same id is removed."""
        folder = self._folder / str(collection.id)
        identity = f"{collection.name} {collection.created_ms}"
        if not (folder / _IDENTITY).is_file() or (folder / _IDENTITY).read_text() != identity:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _IDENTITY).write_text(identity)
        shards = [
            Shard(folder / str(number), collection, number, self._topics, self._limits, self._background, self._policy)
            for number in range(collection.config.shard_number)
        ]
        self._open = {**self._open, collection.id: shards}
        return shards

    def of(self, collection_id: int) -> list[Shard]:
        """The shards of a collection, by number; none when it is not open here."""
        return self._open.get(collection_id, [])

    def all(self) -> list[Shard]:
        return [shard for shards in self._open.values() for shard in shards]

    def drop(self, collection_id: int) -> None:
        """Closes a collection's shards and removes their state."""
        dropped = self.of(collection_id)
        self._open = {id_: shards for id_, shards in self._open.items() if id_ != collection_id}
        for shard in dropped:
            shard.drop()
        shutil.rmtree(self._folder / str(collection_id), ignore_errors=True)

    def drop_strangers(self, known: Mapping[int, Collection]) -> None:
        """Removes the state of collections that are no longer in the catalog."""
        for folder in self._folder.glob("*"):
            if folder.name.isdigit() and int(folder.name) not in known:
                log.info("removing the state of the deleted collection %s", folder.name)
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Closes all shards; their state stays."""
        closing, self._open = self.all(), {}
        for shard in closing:
            shard.close()


class AppliedPositions:
    """How far this process has applied each partition. Whoever must see a write waits for its position here."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._positions: Positions = {}
        self._listeners: list[Callable[[], None]] = []

    def get(self) -> Positions:
        """Next offsets by partition, as of now."""
        return self._positions

    def advance(self, to: Mapping[TopicPartition, int]) -> None:
        """Moves on, and tells the listeners when anything moved."""
        with self._moved:
            moved = {p: offset for p, offset in to.items() if offset > self._positions.get(p, -1)}
            if not moved:
                return
            self._positions = {**self._positions, **moved}
            self._moved.notify_all()
        self._tell()

    def restart(self, positions: Positions) -> None:
        """Begins anew at these positions, which may lie below what was announced."""
        with self._moved:
            self._positions = dict(positions)
            self._moved.notify_all()
        self._tell()

    def covers(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Whether everything below `positions` is applied."""
        return all(self._positions.get(partition, 0) >= offset for partition, offset in positions.items())

    def wait(self, positions: Mapping[TopicPartition, int], timeout_s: float) -> bool:
        """Waits until everything below `positions` is applied; whether it is."""
        with self._moved:
            return self._moved.wait_for(lambda: self.covers(positions), timeout_s)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener`, on the applying thread, after each advance."""
        self._listeners.append(listener)
