"""Encodes and decodes records: Avro with single-object framing (2 magic bytes, 8-byte CRC-64 fingerprint of the schema, body).

Reads every schema version that was ever published; writes the latest.
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
"""Size of the Avro encoding of a stamp, for times between the years 1987 and 4199."""

CONTENT_TYPE = b"avro/single-object"


class DecodeError(Exception):
    """The bytes are not a record in any known schema."""


def by_fingerprint(names: Sequence[str]) -> dict[bytes, Any]:
    """Parsed schemas of the files `names`, keyed by CRC-64-AVRO fingerprint, in the order of `names`."""
    parsed = [schemas.load(name) for name in names]
    prints = [bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")) for schema in parsed]
    return {print_: parse_schema(schema) for print_, schema in zip(prints, parsed, strict=True)}


def _unstamped_schema(name: str) -> Any:
    """The record schema without its first field, the stamp."""
    schema = schemas.load(name)
    return parse_schema(schema | {"fields": schema["fields"][1:]})


_SCHEMAS = by_fingerprint(schemas.RECORD_SCHEMAS)
_FINGERPRINT, _LATEST = list(_SCHEMAS.items())[-1]
_FRAMING = MAGIC + _FINGERPRINT
_GAP = _FRAMING + bytes(STAMP_BYTES)
_UNSTAMPED = _unstamped_schema(schemas.RECORD_SCHEMAS[-1])
_OPERATIONS = {f"vecraft.v1.{cls.__name__}": cls for cls in Operation.__args__}


def encode(record: Record) -> bytes:
    """Encodes a record with the latest schema."""
    return Unstamped(record).stamped(record.hlc)


class Unstamped:
    """An encoded record with a gap for its stamp. Ignores the stamp that the record has.

    Encoding is slow and needs no lock. The writer holds its lock only to take stamps and to append.
    """

    def __init__(self, record: Record) -> None:
        body = msgspec.structs.asdict(record)
        body["operation"] = (
            f"vecraft.v1.{type(record.operation).__name__}",
            msgspec.to_builtins(record.operation, builtin_types=(bytes,)),
        )
        body["ingested"] = None if record.ingested is None else msgspec.to_builtins(record.ingested)
        self._out = io.BytesIO()
        self._out.write(_GAP)
        fastavro.schemaless_writer(self._out, _UNSTAMPED, body)

    def stamped(self, hlc: int) -> bytes:
        """The complete encoded record with the stamp `hlc`. Call it once."""
        stamp = _long(hlc)
        if len(stamp) == STAMP_BYTES:  # true for present-day stamps: write into the gap, without a copy
            self._out.seek(HEADER_BYTES)
            self._out.write(stamp)
            return self._out.getvalue()
        return b"".join((_FRAMING, stamp, self._out.getbuffer()[len(_GAP) :]))


def _long(number: int) -> bytes:
    """Avro encoding of a long: zigzag, then 7 bits per byte, least significant first."""
    rest = number << 1 ^ number >> 63
    digits = bytearray()
    while rest > 0x7F:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    digits.append(rest)
    return bytes(digits)


def decode(data: bytes) -> Record:
    """Decodes one record. Raises only DecodeError."""
    schema = _SCHEMAS.get(data[2:HEADER_BYTES])
    if data[:2] != MAGIC or schema is None:
        raise DecodeError(f"no known framing: starts with {data[:HEADER_BYTES].hex()}")
    stream = io.BytesIO(data)
    stream.seek(HEADER_BYTES)
    try:
        body: Any = fastavro.schemaless_reader(stream, schema, _LATEST, return_record_name=True)
        name, operation = body.pop("operation")
        ingested = body.pop("ingested")
        if ingested is not None:  # fastavro returns a (name, record) pair for a union branch
            ingested = msgspec.convert(ingested[1], Ingested)
        if stream.read(1):
            raise DecodeError(f"not a record: {len(data) - stream.tell() + 1} bytes follow it")
        return Record(operation=msgspec.convert(operation, _OPERATIONS[name]), ingested=ingested, **body)
    except DecodeError:
        raise
    except Exception as error:  # invalid bytes can make fastavro raise any exception
        raise DecodeError("not a record: the bytes are not Avro of the schema that they name") from error
