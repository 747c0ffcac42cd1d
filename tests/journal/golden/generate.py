"""Writes the golden files of a new schema version: one record of each operation as it stands in a log, and what it must read as.

    python -m tests.journal.golden.generate record.v6

Golden files are facts about logs in the field. Those of a published version are never written again, so this refuses to touch
a folder that exists: if their test fails, the code is wrong. Extend SAMPLES when an operation or a field is added, and run it
once for the new version.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from journal import codec
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.records import (
    SPARSE,
    AliasAction,
    Barrier,
    ChangeAliases,
    ControlIngest,
    CreateCollection,
    CreatePayloadIndex,
    CreateVector,
    Delete,
    DeleteCollection,
    DeleteIngestSource,
    DeletePayloadIndex,
    DeleteSubscription,
    DeleteTag,
    DeleteVector,
    Ingested,
    IngestPosition,
    MoveIngest,
    MoveSubscription,
    Operation,
    ParkedEvent,
    ParkEvents,
    PatchPayload,
    PatchVectors,
    PutIngestSource,
    PutSubscription,
    PutTag,
    Record,
    ReplacePayload,
    RequestResult,
    UnparkEvents,
    UnsetVectors,
    UpdateCollection,
    Upsert,
    VectorColumn,
)
from journal.stamps import NEVER, version_of

GOLDEN = Path(__file__).parent

IDS = [encode_id(42), encode_id("550e8400-e29b-41d4-a716-446655440000"), encode_id("straße")]
ALL = VectorColumn.of("", np.array([[0.0, -1.5], [1e-8, 3.25], [-0.0, 65504.0]], np.float32))
SOME = VectorColumn.of("image", np.array([[0.1, 0.2, 0.3]], np.float32), [2])
MULTI = VectorColumn.of_each("tokens", [np.array([[1, 2]], np.float32), np.array([[3, 4], [5, 6]], np.float32)], [0, 2])
SPARSE_ONES = VectorColumn.of_each(
    "terms", [np.array(pairs, SPARSE) for pairs in ([(7, 0.5), (4_000_000_000, -1)], [], [(0, 2)])]
)

SAMPLES: list[Operation] = [
    Upsert(IDS, [ALL, SOME, MULTI, SPARSE_ONES], [b'{"city": "Oslo"}', b"{}", b""], 60_000),
    Delete(IDS),
    PatchPayload(IDS, b'{"a": {"b": [1, null, "\xc3\xa9"]}}', ["gone", "\u4e16\u754c"]),
    ReplacePayload(IDS[:1], b'{"n": 1}'),
    PatchVectors(IDS, [SOME]),
    UnsetVectors(IDS, ["", "image"]),
    Barrier(),
    RequestResult(b'{"status": "completed"}'),
    CreateCollection("docs", b'{"vectors": {"size": 2, "distance": "Cosine"}}', [[0, 3, 5, 1], [1, 0, 2, 0]]),
    UpdateCollection("docs", b'{"hnsw_config": {"m": 24}}'),
    DeleteCollection("docs"),
    ChangeAliases([AliasAction("now", "docs"), AliasAction("old"), AliasAction("a", None, "b")]),
    CreatePayloadIndex("docs", "city", b'"keyword"'),
    DeletePayloadIndex("docs", "city"),
    CreateVector("docs", "image", b'{"dense": {"size": 3, "distance": "Dot"}}'),
    DeleteVector("docs", "image"),
    PutIngestSource("shop", b'{"topic": "shop.products", "collection": "docs", "format": "debezium"}'),
    DeleteIngestSource("shop"),
    ControlIngest("shop", "pause", [0, 5]),
    MoveIngest("shop", "shop.products:b3oMTc4vTp2Uv3EKU3dt3A", [IngestPosition(0, 17), IngestPosition(5, 1 << 40)]),
    PutSubscription("mail", b'{"collection": "docs", "of": 12, "since": 0}'),
    DeleteSubscription("mail"),
    MoveSubscription("mail", 35, version_of(stamp_at(1_767_225_600_000), 1)),
    ParkEvents("mail", 35, [ParkedEvent(version_of(stamp_at(1_767_225_600_000), 1), IDS[2], 5)]),
    UnparkEvents("mail", 35, [ParkedEvent(version_of(stamp_at(1_767_225_600_000), 1), IDS[2], 5)]),
    PutTag("docs", "release-7", stamp_at(1_767_225_600_000, 3)),
    DeleteTag("docs", "release-7"),
]


def record(operation: Operation) -> Record:
    """The operation in an envelope without defaults."""
    return Record(
        hlc=stamp_at(1_767_225_600_000, 7),
        operation=operation,
        collection=12,
        catalog_position=34,
        shard=5,
        tenant="acme",
        request_id="01JGFJJZ00",
        idempotency_key="retry-me/0",
        origin="key:ci",
        ingested=Ingested("vecraft.ingest:b3oMTc4vTp2Uv3EKU3dt3A/4", [7, 8, 1 << 40], ["", "ce/shop/order-17", ""], 33),
        expected=[version_of(stamp_at(1_767_225_600_000), 1), NEVER, 0],
        attempt=2,
    )


def plain(found: Record) -> dict[str, Any]:
    """What a record holds, for people: bytes that are text are shown as text, others in base64."""

    def shown(value: Any) -> Any:
        match value:
            case bytes():
                readable = value.isascii() and value.decode().isprintable()
                return {"text": value.decode()} if readable else {"base64": msgspec.to_builtins(value)}
            case dict():
                added = {"lengths": None, "ttl_ms": 0}  # fields that came later are shown if they are set
                return {key: shown(each) for key, each in value.items() if key not in added or each != added[key]}
            case list() | tuple():
                return [shown(each) for each in value]
        return value

    operation = shown(msgspec.to_builtins(found.operation, builtin_types=(bytes,)))
    fields = {name: getattr(found, name) for name in found.__struct_fields__ if name != "operation"}
    envelope = {
        name: msgspec.to_builtins(value)
        for name, value in fields.items()
        if value is not None and (name, value) != ("attempt", 0)
    }
    if found.ingested is not None and not found.ingested.epoch:
        del envelope["ingested"]["epoch"]
    return {**envelope, "operation": {type(found.operation).__name__: operation}}


def write(version: str) -> None:
    """Fails when the version has golden files."""
    folder = GOLDEN / version
    folder.mkdir()
    for operation in SAMPLES:
        path = folder / type(operation).__name__
        path.with_suffix(".avro").write_bytes(codec.encode(record(operation)))
        path.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(plain(record(operation)))) + b"\n")


if __name__ == "__main__":
    write(*sys.argv[1:])
