"""A replayer over a journal in memory, as the tests of this package use it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from catalog.collection import CollectionConfig, Distance, VectorParams
from journal import codec
from journal.hlc import Clock
from journal.log import Entry, TopicPartition
from journal.memory import MemoryJournal
from journal.records import CreateCollection, Operation, Record
from journal.topics import Topics
from journal.writer import Request, Writer
from query import points
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.batch import Limits
from shard.shards import Shards

NOW_MS = 1_700_000_000_000
TOPICS = Topics("v")
HOME = TopicPartition(TOPICS.tier(1), 2)


class Rig:
    """A replayer over a memory journal, and a collection `c` at home in partition 2 of tier 1."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = NOW_MS
        self.journal = MemoryJournal(lambda: self.now_ms)
        self.clock = Clock(lambda: self.now_ms)
        self.shards = Shards(folder, TOPICS, Limits(), lambda task: None)
        self.replayer = Replayer(self.journal, TOPICS, self.clock, self.shards, "g", Limits(), DeadLetters(), lambda: self.now_ms)
        self.replayer.open()
        self.writer = Writer(self.journal, TOPICS, self.clock)
        config = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}))
        self.writer.write_catalog(CreateCollection("c", config, [[0, 2, 0, 0]]), Request("create")).result()
        self.replayer.step(0)

    def record(self, operation: Operation, **changes: object) -> bytes:
        good: dict[str, object] = {"hlc": self.clock.now(), "collection": 0, "catalog_position": 1, "request_id": "r"}
        return codec.encode(Record(operation=operation, **(good | changes)))  # type: ignore[arg-type]

    def append(self, value: bytes, partition: TopicPartition = HOME) -> None:
        self.journal.append(partition, value, b"key", [("from", b"test")]).result()
        self.replayer.step(0)

    def dead_letters(self) -> list[Entry]:
        reader = self.journal.reader()
        reader.assign({TOPICS.dead_letter_partition: 0})
        return reader.poll(0).entries

    def ids(self) -> list[bytes]:
        return points.matching_ids(self.shards.of(0), None)
