"""Parses records of the ingest topic into operations. The formats are documented in docs/ingest.md.

A record is one change of one point. Its body is JSON, or Avro: with single-object framing, with Confluent framing, or with the
schema id in a header. The format is detected from the record.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import fastavro
import msgspec
import numpy as np
import orjson

import schemas
from journal.codec import HEADER_BYTES, MAGIC, by_fingerprint
from journal.error_texts import reason_of
from journal.ids import MAX_NUMBER, encode_id
from journal.log import Entry
from journal.records import Delete, PatchPayload, PointOperation, Upsert, VectorColumn
from journal.registry import SchemaRegistry, UnknownSchema, WriterSchema
from journal.topics import TIERS

DEFAULT_TIER = 2
MAX_KEY_CHARS = 512
MAX_DIGITS = len(str(MAX_NUMBER))
NO_JSON = "payload: a number is beyond 64 bits, or a value is of a kind that JSON does not have"
TIER_HEADER, COLLECTION_HEADER = "vecraft-tier", "vecraft-collection"
SCHEMA_HEADER = "__value_schema_id"
"""The header in which Confluent's serializers put the schema id when it is not a prefix of the body."""

_BY_NUMBER, _BY_GUID = 0, 1
_UNSET = msgspec.UNSET
_TIERS = [str(tier) for tier in TIERS]

GivenVector = bytes | list[float]


class NotIngestible(Exception):
    """The record is invalid; the text gives the reason. `collection` is the name in the record, "" when it is not known."""

    def __init__(self, text: str, collection: str = "") -> None:
        super().__init__(text)
        self.collection = collection


class Change(NamedTuple):
    """One change of one point, requested by a producer."""

    collection: str
    operation: PointOperation
    tier: int
    key: str


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a record. In JSON, a vector may be a base64 string of little-endian float32."""

    collection: str = ""
    id: int | str | None = None
    op: Literal["upsert", "delete", "patch"] = "upsert"
    vector: GivenVector | dict[str, GivenVector] | None = None
    payload: msgspec.Raw | msgspec.UnsetType = _UNSET


_decode_json = msgspec.json.Decoder(_Body).decode


_SCHEMAS = by_fingerprint(schemas.INGEST_SCHEMAS)


def change_of(entry: Entry, registry: SchemaRegistry) -> Change:
    """Parses a record of the ingest topic.

    Raises NotIngestible, or Indefinite when the schema registry is needed and does not answer.
    """
    headers = dict(entry.headers)
    collection = _text(headers, COLLECTION_HEADER)
    try:
        body = _body(entry.value, headers, registry) if entry.value else _Body(op="delete")
        collection = body.collection or collection
        if not collection:
            raise ValueError(f"collection is named neither in the body nor in the header {COLLECTION_HEADER}")
        return Change(collection, _operation(body, _id(body, entry.key)), _tier(headers), _key(headers))
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise NotIngestible(reason_of(error), collection) from error
    except UnknownSchema as error:
        raise NotIngestible(str(error), collection) from error


def _body(value: bytes, headers: Mapping[str, bytes], registry: SchemaRegistry) -> _Body:
    schema, data = unframed(value, headers.get(SCHEMA_HEADER), registry)
    return _decode_json(data) if schema is None else _of_avro(schema, data)


def unframed(value: bytes, schema_id: bytes | None, registry: SchemaRegistry) -> tuple[Any, bytes]:
    """The Avro schema of a value that is not empty, None for JSON, and the value without its framing.

    `schema_id` is the schema id from a header. Raises ValueError, UnknownSchema, or Indefinite when the registry does not answer.
    """
    if schema_id is not None:
        return _looked_up(schema_id, registry).avro, value
    if value[:2] == MAGIC:
        if (schema := _SCHEMAS.get(value[2:HEADER_BYTES])) is None:
            raise ValueError(f"no known schema has the fingerprint {value[2:HEADER_BYTES].hex()}")
        return schema, value[HEADER_BYTES:]
    if value[0] == _BY_NUMBER:
        return _looked_up(value[:5], registry).avro, value[5:]
    if value[0] == _BY_GUID:
        return _looked_up(value[:17], registry).avro, value[17:]
    return None, value


def _looked_up(schema_id: bytes, registry: SchemaRegistry) -> WriterSchema:
    """Looks up the schema of a Confluent schema id: a magic byte, then a 4-byte number or a 16-byte GUID."""
    if len(schema_id) == 5 and schema_id[0] == _BY_NUMBER:
        return registry.by_id(int.from_bytes(schema_id[1:], "big"))
    if len(schema_id) == 17 and schema_id[0] == _BY_GUID:
        return registry.by_guid(str(uuid.UUID(bytes=schema_id[1:])))
    raise ValueError(f"no schema id: {schema_id[:17].hex()}")


def avro_fields(schema: Any, data: bytes) -> dict[str, Any]:
    """The fields of an Avro record. Raises ValueError."""
    stream = io.BytesIO(data)
    try:
        fields = fastavro.schemaless_reader(stream, schema, None)
    except Exception as error:  # invalid bytes can make fastavro raise any exception
        raise ValueError("not Avro of its schema") from error
    if stream.read(1):
        raise ValueError("bytes follow the Avro record")
    if not isinstance(fields, dict):
        raise ValueError("the schema is not that of a record")
    return fields


def _of_avro(schema: Any, data: bytes) -> _Body:
    """Accepts an Avro record of any schema that has fields with the names of `_Body`."""
    fields = avro_fields(schema, data)
    payload = fields.pop("payload", None)
    body = msgspec.convert(fields, _Body, builtin_types=(bytes,))
    if isinstance(payload, str | bytes):
        body.payload = msgspec.Raw(payload)
    elif payload is not None:
        try:
            body.payload = msgspec.Raw(orjson.dumps(payload))
        except orjson.JSONEncodeError as error:
            raise ValueError(NO_JSON) from error
    return body


def _operation(body: _Body, point_id: bytes) -> PointOperation:
    payload = _payload(body)
    if body.op != "upsert" and body.vector is not None:
        raise ValueError(f"a {body.op} takes no vector")
    if body.op == "delete":
        if payload:
            raise ValueError("a delete takes no payload")
        return Delete([point_id])
    if body.op == "patch":
        return _patch(point_id, payload)
    given = {} if body.vector is None else body.vector if isinstance(body.vector, dict) else {"": body.vector}
    return Upsert([point_id], [column(name, vector) for name, vector in given.items()], [payload])


def _patch(point_id: bytes, payload: bytes) -> PatchPayload:
    fields = orjson.loads(payload) if payload else None
    if not isinstance(fields, dict):
        raise ValueError("a patch needs a payload, an object of the keys to set; null removes a key")
    changes = {key: value for key, value in fields.items() if value is not None}
    return PatchPayload([point_id], orjson.dumps(changes), [key for key, value in fields.items() if value is None])


def _payload(body: _Body) -> bytes:
    data = b"" if body.payload is _UNSET else bytes(body.payload)
    return b"" if data in (b"null", b"{}") else data


def column(name: str, vector: GivenVector) -> VectorColumn:
    """One dense vector as a column. Raises ValueError when there is no number in it."""
    if isinstance(vector, bytes):
        data = vector
    else:
        with np.errstate(over="ignore"):  # overflow gives infinity, which the contract check refuses
            data = np.array(vector, "<f4").tobytes()
    if not data or len(data) % 4:
        raise ValueError(f"vector{f' {name!r}' if name else ''} has {len(data)} bytes, float32 needs 4 for each dimension")
    return VectorColumn(name, len(data) // 4, None, data)


def _id(body: _Body, key: bytes | None) -> bytes:
    """The point's id, from the body, or else from the record's key. A key of only digits is a number."""
    return id_of_key(key) if body.id is None else encode_id(body.id)


def id_of_key(key: bytes | None) -> bytes:
    """The id that the key of a record says as text; only digits are a number. Raises ValueError."""
    if not key:
        raise ValueError("id is missing, and the record has no key")
    try:
        text = key.decode()
    except UnicodeDecodeError as error:
        raise ValueError("id: the key of the record is not UTF-8") from error
    if not (text.isascii() and text.isdecimal()):
        return encode_id(text)
    digits = text.lstrip("0")
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"id of {len(digits)} digits is out of bounds, must be between 0 and {MAX_NUMBER}")
    return encode_id(int(digits or "0"))


def _tier(headers: Mapping[str, bytes]) -> int:
    text = _text(headers, TIER_HEADER) or str(DEFAULT_TIER)
    if text not in _TIERS:
        raise ValueError(f"header {TIER_HEADER} {text[:16]!r} must be between {TIERS[0]} and {TIERS[-1]}")
    return int(text)


def _key(headers: Mapping[str, bytes]) -> str:
    """The idempotency key: source and id of the CloudEvent; "" for other records."""
    if not (event := _text(headers, "ce_id")):
        return ""
    key = f"{_text(headers, 'ce_source')}/{event}"
    if len(key) > MAX_KEY_CHARS:
        raise ValueError(f"ce_source and ce_id have {len(key)} characters together, the bound is {MAX_KEY_CHARS}")
    return key


def _text(headers: Mapping[str, bytes], name: str) -> str:
    try:
        return headers.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise NotIngestible(f"header {name} is not UTF-8") from error
