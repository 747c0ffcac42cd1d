"""Records to bytes and back: Avro in single-object framing (two magic bytes, the schema's CRC-64 fingerprint, the body).

Any schema version that was ever published can be read; the latest is written.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import fastavro
import msgspec
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

import schemas
from journal.records import Ingested, Operation, Record

MAGIC = b"\xc3\x01"
HEADER_BYTES = 10
STAMP_BYTES = 9
"""Of a stamp between the years 1987 and 4199, as Avro writes it."""

CONTENT_TYPE = b"avro/single-object"


class DecodeError(Exception):
    """The bytes are not a record of any known schema."""


def by_fingerprint(names: Sequence[str]) -> dict[bytes, Any]:
    """The parsed schemas of these files by the fingerprint that single-object framing names them with, in their order."""
    parsed = [schemas.load(name) for name in names]
    prints = [bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")) for schema in parsed]
    return {print_: parse_schema(schema) for print_, schema in zip(prints, parsed, strict=True)}


def _unstamped_schema(name: str) -> Any:
    """The schema of what follows the stamp, which is a record's first field."""
    schema = schemas.load(name)
    return parse_schema(schema | {"fields": schema["fields"][1:]})


_SCHEMAS = by_fingerprint(schemas.RECORD_SCHEMAS)
_FINGERPRINT, _LATEST = list(_SCHEMAS.items())[-1]
_FRAMING = MAGIC + _FINGERPRINT
_ROOM = _FRAMING + bytes(STAMP_BYTES)
_UNSTAMPED = _unstamped_schema(schemas.RECORD_SCHEMAS[-1])
_OPERATIONS = {f"vecraft.v1.{cls.__name__}": cls for cls in Operation.__args__}


def encode(record: Record) -> bytes:
    """The journal form of a record, in the latest schema."""
    return Unstamped(record).stamped(record.hlc)


class Unstamped:
    """A record in journal form, with room for its stamp; the record's own stamp is not looked at.

    Encoding is the long part of the work, and a stamp can be given out after it: no other writer need wait meanwhile.
    """

    def __init__(self, record: Record) -> None:
        body = msgspec.structs.asdict(record)
        body["operation"] = (
            f"vecraft.v1.{type(record.operation).__name__}",
            msgspec.to_builtins(record.operation, builtin_types=(bytes,)),
        )
        body["ingested"] = None if record.ingested is None else msgspec.to_builtins(record.ingested)
        self._out = io.BytesIO()
        self._out.write(_ROOM)
        fastavro.schemaless_writer(self._out, _UNSTAMPED, body)

    def stamped(self, hlc: int) -> bytes:
        """The whole journal form, with this stamp. To be called once."""
        stamp = _long(hlc)
        if len(stamp) == STAMP_BYTES:  # as those of our times are: it fits the room, so that nothing is copied
            self._out.seek(HEADER_BYTES)
            self._out.write(stamp)
            return self._out.getvalue()
        return b"".join((_FRAMING, stamp, self._out.getbuffer()[len(_ROOM) :]))


def _long(number: int) -> bytes:
    """A long as Avro writes it: zigzag, then seven bits to a byte, the lowest first."""
    rest = number << 1 ^ number >> 63
    digits = bytearray()
    while rest > 0x7F:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


def decode(data: bytes) -> Record:
    """The record that `data` holds. Raises DecodeError, and nothing else, when it holds none."""
    schema = _SCHEMAS.get(data[2:HEADER_BYTES])
    if data[:2] != MAGIC or schema is None:
        raise DecodeError(f"no known framing: starts with {data[:HEADER_BYTES].hex()}")
    stream = io.BytesIO(data)
    stream.seek(HEADER_BYTES)
    try:
        body: Any = fastavro.schemaless_reader(stream, schema, _LATEST, return_record_name=True)
        name, operation = body.pop("operation")
        ingested = body.pop("ingested")
        if ingested is not None:  # a union's record comes with its name
            ingested = msgspec.convert(ingested[1], Ingested)
        if stream.read(1):
            raise ValueError(f"{len(data) - stream.tell() + 1} bytes follow it")
        return Record(operation=msgspec.convert(operation, _OPERATIONS[name]), ingested=ingested, **body)
    except Exception as error:  # fastavro raises whatever the bytes lead it to
        raise DecodeError(f"not a record: {type(error).__name__}: {error}") from error
