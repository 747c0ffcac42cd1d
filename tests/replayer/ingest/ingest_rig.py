"""A rig with a member of the ingest group, and what it produces and finds."""

from __future__ import annotations

from pathlib import Path

import orjson

from catalog.ingest import DEFAULT_SOURCE, IngestSource
from journal import codec
from journal.log import Headers, TopicPartition
from journal.records import CatalogOperation, Ingested, IngestPosition, MoveIngest
from journal.registry import SchemaRegistry
from journal.writer import Origin
from query import points
from replayer.ingest.member import Ingest
from shard.replica import PayloadPart
from tests.reading import now, pinned
from tests.replayer.rig import TOPICS, Rig

SHARDS = [[0, 2, 0, 0], [1, 3, 1, 1]]


class IngestRig(Rig):
    """A rig whose collection `d` has two shards, and a member of the ingest group."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.create("d", *SHARDS)
        self.replayer.step(0)
        self.ingest = self.member()

    def member(self, source: str = DEFAULT_SOURCE) -> Ingest:
        ingest = Ingest(
            self.journal,
            TOPICS,
            self.writer,
            SchemaRegistry(),
            lambda: self.replayer.catalog.view,
            self.replayer.applied,
            "member",
            lambda: self.now_ms,
            catalog_wait_s=0,
            source=self.source(source),
        )
        ingest.open()
        return ingest

    def produce(self, body: dict[str, object] | bytes, *, partition: int = 0, headers: Headers = ()) -> None:
        value = body if isinstance(body, bytes) else orjson.dumps(body)
        self.journal.append(TopicPartition(TOPICS.ingest, partition), value, b"key", headers).result()

    def source(self, name: str = DEFAULT_SOURCE) -> IngestSource:
        return self.replayer.catalog.view.sources[name]

    def command(self, operation: CatalogOperation) -> None:
        """Writes a catalog command and applies it."""
        self.writer.write_catalog(operation, Origin("command")).result()
        self.replayer.step(0)

    def move(self, offset: int, *partitions: int, name: str = DEFAULT_SOURCE, log: str = TOPICS.ingest) -> None:
        """Moves partitions of a source, by default partition 0."""
        positions = [IngestPosition(partition, offset) for partition in partitions or (0,)]
        self.command(MoveIngest(name, log, positions))

    def settle(self) -> None:
        while self.ingest.step(0) + self.replayer.step(0):
            pass

    def payloads(self, collection: int = 1) -> dict[bytes, object]:
        view = pinned(self.shards.of(collection))
        found = now(points.retrieve(view, now(points.scroll(view, None, b"", 100))[0], PayloadPart()))
        return {point.id: orjson.loads(point.payload or b"{}") for point in found}

    def records(self, tier: int = 2) -> list[tuple[Ingested | None, object]]:
        """What stands in a tier of the journal."""
        reader = self.journal.reader()
        reader.assign({p: 0 for p in TOPICS.data_partitions() if p.topic == TOPICS.tier(tier)})
        found = [codec.decode(entry.value) for entry in reader.poll(0).entries]
        return [(record.ingested, record.operation) for record in found]


def upsert(point_id: int, n: int, **more: object) -> dict[str, object]:
    return {"collection": "d", "id": point_id, "vector": [1, n], "payload": {"n": n}, **more}
