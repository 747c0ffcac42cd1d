"""What is written, from a generator of random choices: by clients, by foreign producers, and by nobody who should."""

from __future__ import annotations

import random

import numpy as np
import orjson

from catalog.collection import Collection, CollectionConfig, Distance, SparseParams, VectorParams
from journal import codec
from journal.log import TopicPartition
from journal.records import (
    SPARSE,
    Delete,
    PatchPayload,
    PatchVectors,
    PointOperation,
    Record,
    ReplacePayload,
    UnsetVectors,
    Upsert,
    Vector,
    VectorColumn,
)
from journal.topics import INGEST_PARTITIONS, TIERS
from tests.simulation.setting import COLLECTIONS, EXTERNAL_IDS, IDS, INGESTED, NAMES, START_MS, TOPICS


def any_operation(choose: random.Random, collection: Collection) -> PointOperation:
    """A write to a few of the points."""
    ids = choose.sample(IDS, choose.randint(1, 4))
    kind = choose.choice((Upsert, Upsert, Upsert, Delete, PatchPayload, ReplacePayload, PatchVectors, UnsetVectors))
    if kind is Upsert:
        return Upsert(ids, _columns(choose, collection, ids), [_payload(choose) for _ in ids])
    if kind is Delete:
        return Delete(ids)
    if kind is PatchPayload:
        return PatchPayload(ids, _payload(choose) or b"{}", choose.sample(("n", "tag", "x"), choose.randint(0, 2)))
    if kind is ReplacePayload:
        return ReplacePayload(ids, _payload(choose) or b"{}")
    if kind is PatchVectors:
        return PatchVectors(ids, _columns(choose, collection, ids))
    return UnsetVectors(ids, [choose.choice([*collection.config.vectors, *collection.config.sparse_vectors])])


def _columns(choose: random.Random, collection: Collection, ids: list[bytes]) -> list[VectorColumn]:
    columns = []
    for name in [*collection.config.vectors, *collection.config.sparse_vectors]:
        some = sorted(choose.sample(range(len(ids)), choose.randint(1, len(ids))))
        whose = None if len(some) == len(ids) else some
        vectors = [any_vector(choose, collection, name) for _ in some]
        dense = vectors[0].dtype != SPARSE and vectors[0].ndim == 1
        columns.append(VectorColumn.of(name, np.stack(vectors), whose) if dense else VectorColumn.of_each(name, vectors, whose))
    return columns


def _payload(choose: random.Random) -> bytes:
    fields = {"n": choose.randint(0, 5), "tag": choose.choice("xyz"), "x": [1, {"y": None}]}
    return orjson.dumps({key: fields[key] for key in choose.sample(sorted(fields), choose.randint(0, 3))})


def any_vector(choose: random.Random, collection: Collection, name: str) -> Vector:
    """A vector of small numbers, as the name wants it."""
    if name in collection.config.sparse_vectors:
        return np.array([(at, choose.randint(1, 9)) for at in sorted(choose.sample(range(8), choose.randint(1, 4)))], SPARSE)
    params = collection.config.vectors[name]
    rows = [[choose.randint(-9, 9) for _ in range(params.size)] for _ in range(choose.randint(1, 3) if params.multi else 1)]
    return np.array(rows if params.multi else rows[0], np.float32)


def any_config(choose: random.Random) -> CollectionConfig:
    """A collection of one shard or three, with vectors of some kinds."""
    vectors = {n: VectorParams(3, choose.choice(list(Distance))) for n in choose.choice((NAMES, ("",)))}
    if choose.random() < 0.5:
        vectors["tokens"] = VectorParams(2, Distance.DOT, multi=True)
    sparse = {"terms": SparseParams()} if choose.random() < 0.5 else {}
    return CollectionConfig(vectors=vectors, shard_number=choose.choice((1, 1, 3)), sparse_vectors=sparse)


def any_foreign_record(choose: random.Random, count: int) -> tuple[TopicPartition, bytes, list[tuple[str, bytes]]]:
    """What a foreign producer writes, and where: to its own collection always in one tier, so that its order is its own."""
    number = choose.randrange(len(EXTERNAL_IDS))
    collection = choose.choice((INGESTED, INGESTED, *COLLECTIONS, "nowhere"))
    body: dict[str, object] = {"collection": collection, "id": EXTERNAL_IDS[number]}
    match choose.randrange(8):
        case 0:
            body["op"] = "delete"
        case 1 | 2:
            body |= {"op": "patch", "payload": {"n": count, "tag": choose.choice(("x", None))}}
        case 3:
            body["vector"] = [1]  # of a size that no collection has
        case _:
            names = NAMES if collection != INGESTED and choose.random() < 0.5 else ("",)
            vectors = {name: [choose.randint(-9, 9) for _ in range(3)] for name in names}
            body |= {"vector": vectors.get("", vectors), "payload": {"n": count}}
    headers = [("vecraft-tier", b"%d" % (2 if collection == INGESTED else choose.choice(TIERS)))]
    if collection != INGESTED and choose.random() < 0.3:
        headers.append(("ce_id", b"%d" % choose.randrange(3)))
    return TopicPartition(TOPICS.ingest, number % INGEST_PARTITIONS), orjson.dumps(body), headers


def poisoned_values(choose: random.Random, now_ms: int, catalog_end: int) -> list[bytes]:
    """No records, and records that claim a collection, a time or a catalog that is not there."""
    values = [b"", b"poison", _forged(collection=99), _forged(collection=0), _forged(hlc=now_ms + 5_000 << 16)]
    return values + [_forged(position=catalog_end + choose.randint(0, 3)) for _ in range(2)]


def _forged(collection: int = 0, hlc: int = START_MS << 16, position: int = 1) -> bytes:
    return codec.encode(Record(hlc=hlc, operation=Delete([IDS[0]]), collection=collection, catalog_position=position, shard=0))
