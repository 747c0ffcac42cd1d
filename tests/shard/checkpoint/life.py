"""A shard that lives through starts and ends, and all that it knows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from pyroaring import BitMap

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import PointOperation, Record, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from payload.geo import Box
from payload.schema import FieldSchema, FieldType
from shard.batch import Limits
from shard.payload_index import FieldIndex
from shard.shard import Shard
from shard.vectors.segment_policy import SegmentPolicy

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)
SMALL_SEGMENTS = SegmentPolicy(seal_rows=10)
FIELDS = {kind.value: FieldSchema(kind) for kind in FieldType}


class Life:
    """A shard that is opened, written, closed and killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks: list[Callable[[], None]] = []
        """Checkpoints that are due. Builds never run, as while an earlier one takes long."""
        self.offset = 0
        self.fields = FIELDS
        self.shard = self.open()

    def collection(self) -> Collection:
        config = CollectionConfig({"": VectorParams(2, Distance.DOT)})
        return Collection("c", 0, config, [[0 for _ in TIERS]], fields=self.fields)

    def open(self) -> Shard:
        return Shard(self.folder, self.collection(), 0, TOPICS, Limits(), lambda build: None, SMALL_SEGMENTS, self.tasks.append)

    def upsert(self, ids: list[object], payload: object = None) -> None:
        vectors = np.full((len(ids), 2), self.offset, np.float32)
        self.apply(Upsert(encoded(ids), [VectorColumn.of("", vectors)], [orjson.dumps(payload or {})] * len(ids)))

    def apply(self, operation: PointOperation) -> None:
        entry = Entry(HOME, self.offset, 1000 + self.offset, None, b"", ())
        self.shard.apply([(entry, Record(stamp_at(1000 + self.offset), operation, 0))])
        self.offset += 1

    def configure(self, fields: dict[str, FieldSchema]) -> None:
        self.fields = fields
        self.shard.configure(self.collection())

    def take_while(self, ids: list[object], payload: object) -> None:
        """A checkpoint between whose parts a batch is applied."""
        kept = self.shard.checkpoint._parts

        def parts(*arguments: object) -> Iterator[object]:
            for number, part in enumerate(kept(*arguments)):  # type: ignore[arg-type]
                yield part
                if number % 3 == 1:
                    self.upsert(ids, payload)

        self.shard.checkpoint._parts = parts  # type: ignore[assignment, method-assign]
        self.shard.checkpoint.take()
        self.shard.checkpoint._parts = kept  # type: ignore[method-assign]

    def kill(self) -> None:
        """Ends without a checkpoint. RocksDB's files stay as the last write left them."""
        self.shard.release()
        self.tasks.clear()
        self.shard = self.open()

    def reopen(self) -> None:
        self.shard.close()
        self.tasks.clear()
        self.shard = self.open()

    def reread(self) -> None:
        """Opens with nothing but the rows."""
        self.shard.release()
        (self.folder / "checkpoint").unlink(missing_ok=True)
        self.shard = self.open()


def encoded(ids: list[object]) -> list[bytes]:
    return [encode_id(id_) for id_ in ids]  # type: ignore[arg-type]


def contents(mine: Shard) -> object:
    """All that the shard knows in memory."""
    rows = list(mine.alive)
    known = mine.rows.view().known(rows)
    assert mine.view.alive == mine.alive
    counts = [count for count in mine.rows._alive if count]
    return rows, known, counts, {name: mine.payload.read(partial(indexed, index)) for name, index in mine.payload.fields.items()}


def indexed(index: FieldIndex) -> object:
    sets = [set(rows) for rows in (index.rows, index.filled, index.nulls, index._several)]
    postings = {key: set(rows) for key, rows in index.postings._rows.items()}
    ordered = places = None
    if index.ordered is not None:
        numbers = {row: sorted(values) for row, values in index.ordered._values.items()}
        at_least = set(index.ordered.between(lambda number: number >= 0, 0, None))
        ordered = (numbers, at_least, list(index.ordered.order().ascending(None, False, BitMap(), [])))
    if index._places is not None:
        held = {row: sorted(values) for row, values in index._places._values.items()}
        places = (held, set(index._places.within(Box(-10, -10, 10, 10))))
    return sets, postings, ordered, places
