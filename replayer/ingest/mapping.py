"""Makes changes of points from records in the form of others: JSON or Avro of any shape, and the change events of Debezium.

What is where in a record is said by the paths of a `FieldMapping`, in the syntax of payload paths. docs/ingest.md documents it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from decimal import Decimal
from typing import Any

import orjson

from catalog.ingest import FieldMapping, SourceConfig
from journal.error_texts import in_json, reason_of
from journal.ids import encode_id
from journal.log import Entry
from journal.records import Delete, PointOperation, ReplacePayload, Upsert, VectorColumn
from journal.registry import SchemaRegistry, UnknownSchema
from payload.paths import nodes_at, steps_of, without
from replayer.ingest.format import (
    NO_JSON,
    SCHEMA_HEADER,
    Change,
    GivenVector,
    NotIngestible,
    avro_fields,
    column,
    id_of_key,
    unframed,
)

KEY_SCHEMA_HEADER = "__key_schema_id"

_PLACEHOLDER = "__debezium_unavailable_value"
_UNAVAILABLE = (
    _PLACEHOLDER,
    b64encode(_PLACEHOLDER.encode()).decode(),
    _PLACEHOLDER.encode(),
    list(_PLACEHOLDER.encode()),
)
"""What Debezium sends in the place of a large column that an update has not changed: in a text, in binary data, in an array."""


class _Unavailable(Exception):
    """The record has not the value of a field, which is unchanged."""


def mapped_change(entry: Entry, config: SourceConfig, registry: SchemaRegistry) -> Change:
    """Parses a record of a source with a mapping.

    Raises NotIngestible, or Indefinite when the schema registry is needed and does not answer.
    """
    headers = dict(entry.headers)
    try:
        value = _decoded(entry.value, headers.get(SCHEMA_HEADER), registry) if entry.value else None
        if config.format == "debezium":
            key = _decoded(entry.key, headers.get(KEY_SCHEMA_HEADER), registry) if entry.key else None
            operation = _debezium(_unwrapped(value), _unwrapped(key), config.mapping)
        else:
            operation = _of_json(value, entry.key, config.mapping)
        return Change(config.collection, operation, config.tier, "")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise NotIngestible(reason_of(error), config.collection) from error
    except UnknownSchema as error:
        raise NotIngestible(str(error), config.collection) from error


def _decoded(data: bytes, schema_id: bytes | None, registry: SchemaRegistry) -> Any:
    """A key or a value as plain Python, as JSON would have it."""
    schema, body = unframed(data, schema_id, registry)
    if schema is not None:
        return avro_fields(schema, body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"neither Avro with a known schema nor JSON: {reason_of(error)}") from error


def _of_json(value: Any, key: bytes | None, mapping: FieldMapping) -> PointOperation:
    if value is None:
        return Delete([id_of_key(key)])
    if not isinstance(value, dict):
        raise ValueError("the value is not an object")
    return _upsert(value, encode_id(_node(value, "id", mapping.id)) if mapping.id else id_of_key(key), mapping)


# Debezium.


def _unwrapped(message: Any) -> Any:
    """The message itself, of one that comes with its schema (`schemas.enable`)."""
    is_wrapped = isinstance(message, dict) and message.keys() == {"schema", "payload"}
    return message["payload"] if is_wrapped else message


def _debezium(envelope: Any, key: Any, mapping: FieldMapping) -> PointOperation:
    """The change that an envelope says; None is a tombstone."""
    point_id = encode_id(_id_of_fields(key))
    if envelope is None:
        return Delete([point_id])
    if not isinstance(envelope, dict) or "op" not in envelope:
        raise ValueError("no change event of Debezium: op is missing; rows without the envelope need a source of format json")
    match envelope["op"]:
        case "d":
            return Delete([point_id])
        case "c" | "r" | "u":
            if not isinstance(envelope.get("after"), dict):
                raise ValueError(f"op {envelope['op']!r} needs the row in after")
            return _upsert(envelope["after"], point_id, mapping)
        case "t":
            raise ValueError("op 't' (truncate) is not supported: delete the points by a filter, or the collection")
    raise ValueError(f"op {in_json(envelope['op'])} must be one of c, r, u, d")


def _id_of_fields(key: Any) -> Any:
    """The id of a row: the one field of its key, or a JSON array of several, so that no two keys have the same."""
    if not isinstance(key, dict) or not key:
        raise ValueError("the record has no key with fields: the table needs a primary key, or the connector message.key.columns")
    fields = [str(field) if type(field).__name__ == "UUID" else field for field in key.values()]
    if any(field is None or isinstance(field, float | bool | bytes | dict | list) for field in fields):
        raise ValueError(f"the key {in_json(key)} has a field that is neither a whole number nor a text")
    return fields[0] if len(fields) == 1 else orjson.dumps(fields).decode()


# Mapping.


def _upsert(row: dict[str, Any], point_id: bytes, mapping: FieldMapping) -> PointOperation:
    """The row as a point. Vectors that Debezium has left out, since they are unchanged, stay as they are."""
    columns, missing = [], []
    for name, path in mapping.vectors.items():
        try:
            columns += _columns(name, path, row)
        except _Unavailable:
            missing.append(path)
    payload = _payload(row, mapping)
    if not missing:
        return Upsert([point_id], columns, [payload])
    if columns or len(missing) < len(mapping.vectors):
        raise ValueError(f"{missing[0]} is not in the event, and another vector is: set REPLICA IDENTITY FULL for the table")
    return ReplacePayload([point_id], payload or b"{}")


def _columns(name: str, path: str, row: dict[str, Any]) -> list[VectorColumn]:
    """The vector at a path; none when it is null. Raises _Unavailable, and ValueError for what is no vector."""
    label = f"vector {name!r}" if name else "vector"
    value = _node(row, label, path)
    if value in _UNAVAILABLE:
        raise _Unavailable
    return [] if value is None else [column(name, _numbers(label, value))]


def _numbers(label: str, value: Any) -> GivenVector:
    """An array of numbers, also as a JSON text, or little-endian float32, in JSON as base64."""
    found = value
    if isinstance(value, str):
        try:
            found = orjson.loads(value) if value.lstrip().startswith("[") else b64decode(value, validate=True)
        except ValueError as error:
            raise ValueError(f"{label} is a text, and neither an array in JSON nor base64: {value[:32]!r}") from error
    if isinstance(found, bytes):
        return found
    if not isinstance(found, list) or not all(type(number) in (int, float) for number in found):
        raise ValueError(f"{label} is not an array of numbers")
    return found


def _payload(row: dict[str, Any], mapping: FieldMapping) -> bytes:
    """The payload as JSON: the mapped fields that are there, or all but the vectors."""
    if mapping.payload is None:
        fields = without(row, [steps_of(path) for path in mapping.vectors.values()])
    else:
        fields = {name: _value(row, path) for name, path in mapping.payload.items() if nodes_at(row, path)}
    for name, field in fields.items():
        if field in _UNAVAILABLE:
            raise ValueError(f"{name} is unchanged and not in the event: set REPLICA IDENTITY FULL for the table")
    try:
        data = orjson.dumps(fields, default=_plain)
    except orjson.JSONEncodeError as error:
        raise ValueError(NO_JSON) from error
    return b"" if data == b"{}" else data


def _node(row: dict[str, Any], label: str, path: str) -> Any:
    """The value at a path. Raises ValueError when there is none."""
    if not nodes_at(row, path):
        raise ValueError(f"{label}: the record has nothing at {path[:64]!r}, only {', '.join(map(str, row))[:200]}")
    return _value(row, path)


def _value(row: dict[str, Any], path: str) -> Any:
    """The value at a path that exists; the array of all, if the path has `[]`."""
    nodes = nodes_at(row, path)
    return nodes if None in steps_of(path) else nodes[0]


def _plain(value: Any) -> Any:
    """What Avro has and JSON has not."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError
