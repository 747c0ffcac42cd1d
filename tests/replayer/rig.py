"""A replayer over a journal in memory, as the tests of this package use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from catalog.collection import CollectionConfig, Distance, VectorParams
from journal import codec
from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import Entry, Journal, TopicPartition
from journal.memory import MemoryJournal
from journal.records import CreateCollection, Operation, Record, Upsert, VectorColumn
from journal.topics import Topics
from journal.writer import Origin, Writer
from query import points
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.batch import Limits
from shard.shards import Shards
from tests.reading import now, pinned

NOW_MS = 1_700_000_000_000
TOPICS = Topics("v")
HOME = TopicPartition(TOPICS.tier(1), 2)


def replayer_on(journal: Journal, clock: Clock, shards: Shards, now_ms: Callable[[], int], group: str = "g") -> Replayer:
    """A replayer of the topics of these tests, whose times all come from `now_ms`."""
    return Replayer(journal, TOPICS, clock, shards, group, Limits(), DeadLetters(), now_ms, lambda: now_ms() / 1000)


class Rig:
    """A replayer over a memory journal, and a collection `c` at home in partition 2 of tier 1."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = NOW_MS
        self.journal = MemoryJournal(lambda: self.now_ms)
        self.clock = Clock(lambda: self.now_ms)
        self.shards = Shards(folder, TOPICS, Limits(), lambda task: None, checkpoints=lambda task: task())
        self.replayer = replayer_on(self.journal, self.clock, self.shards, lambda: self.now_ms)
        self.replayer.open()
        self.writer = Writer(self.journal, TOPICS, self.clock)
        self.create("c")
        self.replayer.step(0)

    def create(self, name: str, *homes: list[int]) -> None:
        """Writes the command, which the next step applies."""
        config = CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}, shard_number=len(homes) or 1)
        command = CreateCollection(name, msgspec.json.encode(config), list(homes) or [[0, 2, 0, 0]])
        self.writer.write_catalog(command, Origin("create")).result()

    def record(self, operation: Operation, **changes: object) -> bytes:
        good: dict[str, object] = {"hlc": self.clock.now(), "collection": 0, "catalog_position": 1, "request_id": "r"}
        return codec.encode(Record(operation=operation, **(good | changes)))  # type: ignore[arg-type]

    def append(self, value: bytes, partition: TopicPartition = HOME) -> None:
        self.journal.append(partition, value, b"key", [("from", b"test")]).result()
        self.replayer.step(0)

    def fill(self, count: int) -> None:
        """Applies so many points in one record."""
        vectors = np.random.default_rng(1).standard_normal((count, 2)).astype(np.float32)
        ids = [encode_id(number) for number in range(count)]
        self.append(self.record(Upsert(ids, [VectorColumn.of("", vectors)], [b""] * count)))

    def dead_letters(self) -> list[Entry]:
        reader = self.journal.reader()
        reader.assign({TOPICS.dead_letter_partition: 0})
        return reader.poll(0).entries

    def ids(self, collection: int = 0) -> list[bytes]:
        """The ids of the points that a read finds, in their order."""
        return sorted(now(points.matching(pinned(self.shards.of(collection)), None))[0])


def upsert(*numbers: float, size: int = 2, point_id: bytes = encode_id(1), payload: bytes = b"") -> Upsert:
    """One point with one vector."""
    return Upsert([point_id], [VectorColumn.of("", np.array([numbers], np.float32).reshape(-1, size))], [payload])
