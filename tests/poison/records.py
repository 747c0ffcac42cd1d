"""Poison from a generator of random choices: random bytes, and good records of every kind that were changed."""

from __future__ import annotations

import json
import random
import time
from typing import NamedTuple

import numpy as np

from journal import codec
from journal.ids import encode_id
from journal.log import Headers, TopicPartition
from journal.records import (
    SPARSE,
    AliasAction,
    Barrier,
    ChangeAliases,
    CreateCollection,
    CreatePayloadIndex,
    Delete,
    DeleteCollection,
    DeletePayloadIndex,
    Ingested,
    Operation,
    PatchPayload,
    PatchVectors,
    Record,
    ReplacePayload,
    RequestResult,
    UnsetVectors,
    UpdateCollection,
    Upsert,
    VectorColumn,
)
from journal.topics import Topics

GOOD, TARGET = "good", "target"
"""The collection whose points are checked, and the one that most of the poison names."""

IDS = [encode_id(number) for number in range(100)]
"""Points that poison names. Good points have other ids."""

HUGE = (-1, 2**31, 2**53, 2**62, 2**63 - 1, -(2**63))


class Poison(NamedTuple):
    """What is appended to one of the partitions."""

    partition: TopicPartition
    value: bytes
    key: bytes | None
    headers: Headers
    sets_time: bool
    """Whether the topic is one where the producer sets the time."""


class PoisonCabinet:
    """Makes poison for all topics, for a catalog that ends at `catalog_end` and has TARGET as collection `target`."""

    def __init__(self, choose: random.Random, topics: Topics, target: int, catalog_end: int) -> None:
        self._choose = choose
        self._topics = topics
        self._target = target
        self._end = catalog_end
        self._bases = [codec.encode(self._record(operation)) for operation in self._operations()]
        self._partitions = [
            topics.system_partition,
            *topics.data_partitions(),
            *(TopicPartition(topics.ingest, partition) for partition in range(topics.all()[topics.ingest].partitions)),
            topics.dead_letter_partition,
        ]

    def any(self) -> Poison:
        choose = self._choose
        while True:
            partition = choose.choice(self._partitions)
            value = self._value(partition)
            if partition != self._topics.system_partition or not _makes_a_collection(value):
                key = choose.choice((None, b"", b"0/0", choose.randbytes(20)))
                return Poison(partition, value, key, self._headers(), not self._topics.all()[partition.topic].log_times)

    def _value(self, partition: TopicPartition) -> bytes:
        choose = self._choose
        match choose.randrange(10):
            case 0:
                return choose.randbytes(choose.choice((0, 1, 9, 10, 11, 100, 3000)))
            case 1 | 2:
                return codec.encode(self._forged())
            case 3 | 4:
                return self._json()
            case _:
                return self._changed(choose.choice(self._bases))

    def _changed(self, value: bytes) -> bytes:
        choose, data = self._choose, bytearray(value)
        match choose.randrange(7):
            case 0:
                for _ in range(choose.randint(1, 4)):
                    data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
            case 1:
                del data[choose.randrange(len(data)) :]
            case 2:
                other = choose.choice(self._bases)
                data[choose.randrange(len(data)) :] = other[choose.randrange(len(other)) :]
            case 3:
                data[choose.randrange(2, 10)] ^= 255  # a schema that nobody has
            case 4:
                at = choose.randrange(10, len(data))
                data[at:at] = choose.randbytes(choose.randint(1, 30))
            case 5:
                data[10 : choose.randrange(10, len(data))] = b""
            case 6:
                at = choose.randrange(10, len(data))
                data[at : at + 9] = b"\xff" * 9  # a length or a number beyond everything
        return bytes(data)

    def _forged(self) -> Record:
        """A record that can be decoded and claims what is not so."""
        choose = self._choose
        claims: dict[str, object] = {
            "collection": choose.choice((self._target, *HUGE)),
            "catalog_position": choose.choice((self._end, *HUGE)),
            "shard": choose.choice((0, 1, 7, *HUGE)),
            "hlc": choose.choice((0, *HUGE, _hlc_at(600), _hlc_at(3_600_000))),
            "ingested": choose.choice(
                (None, Ingested("x/" + "9" * 50, list(HUGE)), Ingested(f"{choose.getrandbits(64):x}/0", [5, 9]))
            ),
            "expected": choose.choice((None, [], [HUGE[1]] * 3)),
            "attempt": choose.choice((0, *HUGE)),
            "idempotency_key": choose.choice(("", "k" * 5000)),
        }
        some = dict(choose.sample(sorted(claims.items(), key=lambda item: item[0]), choose.randint(1, 3)))
        return self._record(choose.choice(self._operations()), **some)

    def _record(self, operation: Operation, **claims: object) -> Record:
        good: dict[str, object] = {"hlc": _hlc_at(-1), "collection": self._target, "catalog_position": self._end, "shard": 0}
        return Record(operation=operation, **(good | claims))  # type: ignore[arg-type]

    def _operations(self) -> list[Operation]:
        choose = self._choose
        ids = choose.sample(IDS, 2)
        dense = VectorColumn.of("", np.array([[1, 2, 3, choose.random()]] * 2, np.float32))
        wrong = VectorColumn.of("", np.array([[1, np.nan]] * 2, np.float32))
        sparse = VectorColumn.of_each("terms", [np.array([(4_000_000_000, 1), (4, 2)], SPARSE)] * 2)
        deep = b"[" * 5000 + b"]" * 5000
        return [
            Upsert(ids, [dense], [b'{"a":1}', b""]),
            Upsert(ids, [wrong, sparse], [deep, b"{"]),
            Upsert([b"", b"\xff" * 600], [dense], [b"", b""]),
            Delete(ids),
            PatchPayload(ids, b'{"a":{"b":[1,2]}}', ["c"]),
            PatchPayload(ids, deep, ["c" * 10_000]),
            ReplacePayload(ids, b'{"n":1e999}'),
            PatchVectors(ids, [dense]),
            UnsetVectors(ids, ["", "none"]),
            Barrier(),
            RequestResult(b"\xff"),
            CreateCollection(TARGET, b"{}", [[0, 0, 0, 0]]),
            CreateCollection("", b"\xff", [[HUGE[3]], []]),
            UpdateCollection(TARGET, b'{"hnsw":{"m":-5}}'),
            UpdateCollection("none", b"null"),
            DeleteCollection("none"),
            ChangeAliases([AliasAction("a", "none"), AliasAction("", None, "b")]),
            CreatePayloadIndex(TARGET, "a" * 5000, b'{"type":"none"}'),
            DeletePayloadIndex("none", ""),
        ]

    def _json(self) -> bytes:
        """For the ingest topic; elsewhere it is not even a record."""
        choose = self._choose
        body = {
            "collection": choose.choice((TARGET, GOOD, "none", "", "x" * 5000, 7)),
            "id": choose.choice((1, -1, 2**64, "", "y" * 600, None, 1.5)),
            "op": choose.choice(("upsert", "delete", "patch", "drop", None)),
            "vector": choose.choice(([1, 2, 3, 4], [1], [], "AAAA", {"": [1, 2, 3, 4]}, {"none": "!"}, None, 7)),
            "payload": choose.choice(({"a": 1}, [], None, "text", {"a": {"b": [None] * 50}})),
        }
        if body["collection"] == GOOD:
            body["vector"] = [1]  # of a size that it does not have
            body["op"] = "upsert"
        text = bytearray(json.dumps({key: value for key, value in body.items() if choose.random() < 0.9}).encode())
        if choose.random() < 0.3:
            text[choose.randrange(len(text))] = choose.randrange(256)
        return bytes(text)

    def _headers(self) -> Headers:
        choose = self._choose
        names = ("vecraft-tier", "vecraft-collection", "ce_id", "ce_type", "hlc", "content-type", "__value_schema_id", "x" * 300)
        own = ("vecraft-dead-letter-mark", "vecraft-dead-letter-bytes", "__connect.errors.offset", "__connect.errors.topic")
        values = (b"", b"9", b"-1", b"9" * 30, b"\xff\xfe", GOOD.encode(), b"z" * 2000)
        return [(choose.choice(names + own), choose.choice(values)) for _ in range(choose.choice((0, 0, 1, 3)))]


def _hlc_at(ahead_ms: int) -> int:
    return time.time_ns() // 1_000_000 + ahead_ms << 16


def _makes_a_collection(value: bytes) -> bool:
    """Whether a changed record is still a good command for another name: then the catalog would only become large."""
    try:
        operation = codec.decode(value).operation
    except codec.DecodeError:
        return False
    if isinstance(operation, CreateCollection):
        return operation.name != TARGET and bool(operation.name)
    return isinstance(operation, DeleteCollection) and operation.name in (GOOD, TARGET)
