"""Upper bounds of the ingest rate: each step alone, in one thread, with the server's code and the same bodies.

The steps up to the append are on the path of an acknowledgement; the others are the replay, which runs in parallel. One graph of
all vectors is the final result of indexing. A server is searchable earlier, with several smaller graphs and a few vectors without
one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.data import FIELDS, Data
from bench.vecraft_server import upsert_bodies
from catalog.collection import Collection, CollectionConfig, Datatype, Distance, VectorParams
from gateway.dialect.bodies import UpsertBody
from gateway.dialect.upserts import parse_upsert
from journal import codec
from journal.embedded import EmbeddedJournal
from journal.hlc import stamp_at
from journal.log import Entry
from journal.records import Record, Upsert
from journal.stamps import version_of
from journal.topics import TIERS, Topics
from payload.schema import FieldSchema, FieldType
from shard.batch import Limits
from shard.contract import contract_error
from shard.join import PointState
from shard.shard import Shard
from shard.store import Changes, Store, VectorFormat
from shard.vectors.datatypes import Encoding
from shard.vectors.graph import Graph, GraphSpec

VECTORS = 10_000
"""Enough for stable rates, except for the graph, whose cost per vector grows with its size."""

_TOPICS = Topics("bench")
_PARTITION = _TOPICS.data_partitions()[0]


def rates(data: Data) -> dict[str, float]:
    """The rate of each step, in vectors per second."""
    bodies = upsert_bodies(data, VECTORS)
    decode = msgspec.json.Decoder(UpsertBody).decode
    collection = _collection(data)
    rate_of: dict[str, float] = {}

    def step(name: str, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        begun_s = time.perf_counter()
        results = [work(item) for item in items]
        rate_of[name] = min(VECTORS, len(data.vectors)) / (time.perf_counter() - begun_s)
        return results

    operations = step("parse JSON", lambda body: parse_upsert(decode(body), packed=False).operation, bodies)
    step("check the contract", partial(contract_error, collection), operations)
    records = [Record(stamp_at(number + 1), operation, 0) for number, operation in enumerate(operations)]
    values = step("encode Avro", codec.encode, records)
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as folder:
        journal = EmbeddedJournal(Path(folder) / "journal")
        journal.ensure_topics(_TOPICS.all())
        step("append to the log, synced one by one", lambda value: journal.append(_PARTITION, value).result(), values)
        journal.close()
        step("decode Avro", codec.decode, values)
        floats = Encoding(Datatype.FLOAT32, Distance.COSINE, data.vectors.shape[1])
        store = Store(Path(folder) / "store", {"": VectorFormat(floats)})
        step("write rows to RocksDB", _row_writer(store), operations)
        store.close()
        entries = [(Entry(_PARTITION, at, at, None, b"", ()), record) for at, record in enumerate(records)]
        shard = Shard(Path(folder) / "shard", collection, 0, _TOPICS, Limits(), lambda task: None)
        step("apply to the shard (join, RocksDB, indexes)", lambda entry: shard.apply([entry]), entries)
        shard.close()
    begun_s = time.perf_counter()
    Graph.build(data.vectors, Distance.COSINE, GraphSpec())
    rate_of["build one graph of all"] = len(data.vectors) / (time.perf_counter() - begun_s)
    return rate_of


def _collection(data: Data) -> Collection:
    vectors = {"": VectorParams(data.vectors.shape[1], Distance.COSINE)}
    return Collection(
        "bench", 0, CollectionConfig(vectors), [[0 for _ in TIERS]], {field: FieldSchema(FieldType.KEYWORD) for field in FIELDS}
    )


def _row_writer(store: Store) -> Callable[[Upsert], None]:
    """A function that writes the rows of an upsert as the shard does, one write batch each, without join or indexes."""
    written = 0

    def write(operation: Upsert) -> None:
        nonlocal written
        changes = Changes(store)
        version = version_of(written, 1)
        for point_id, vector, payload in zip(operation.ids, operation.vectors[0].array(), operation.payloads, strict=True):
            point = PointState(version, True, version, payload=payload, vectors={"": vector})
            changes.put_point(point_id, point, written)
            changes.put_row(written, point_id, point)
            changes.put_vectors(written, point.vectors)
            written += 1
        store.write(changes)

    return write
