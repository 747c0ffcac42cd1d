"""Encoding of point ids: bytes whose order is the order in which the API lists points: numbers, UUIDs, other strings."""

from __future__ import annotations

import re
from uuid import UUID

from journal.error_texts import MAX_SHOWN_CHARS, in_json

ExternalId = int | str
MAX_NUMBER = 2**64 - 1
MAX_TEXT_BYTES = 512

_UUID_TEXT = re.compile(
    r"(?:urn:uuid:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}", re.ASCII | re.IGNORECASE
)
_NUMBER, _UUID, _TEXT = b"\x00", b"\x01", b"\x02"


def encode_id(value: ExternalId) -> bytes:
    """Encodes an id. All spellings of a UUID (with or without hyphens, URN) give the same bytes.

    Raises ValueError for a number outside u64, an empty string, or a string above 512 bytes.
    """
    if type(value) is int:  # not `isinstance`: a bool is no number here
        if not 0 <= value <= MAX_NUMBER:
            raise ValueError(f"id {str(value)[:MAX_SHOWN_CHARS]} is out of bounds, must be between 0 and {MAX_NUMBER}")
        return _NUMBER + value.to_bytes(8, "big")
    if not isinstance(value, str):
        raise ValueError(f"id must be an unsigned integer, a UUID or a string, not {in_json(value)}")
    if _UUID_TEXT.fullmatch(value):
        return _UUID + UUID(value.lower()).bytes
    data = value.encode()
    if not 0 < len(data) <= MAX_TEXT_BYTES:
        raise ValueError(f"id of {len(data)} bytes is out of bounds, a string must have 1 to {MAX_TEXT_BYTES}")
    return _TEXT + data


def decode_id(data: bytes) -> ExternalId:
    """Decodes an id. Raises ValueError when `encode_id` cannot have produced `data`."""
    if len(data) == 9 and data[0] == 0:
        return int.from_bytes(data, "big")
    kind, rest = data[:1], data[1:]
    if kind == _UUID and len(rest) == 16:
        return str(UUID(bytes=rest))
    if kind == _TEXT and 0 < len(rest) <= MAX_TEXT_BYTES and not _UUID_TEXT.fullmatch(text := _utf8(rest)):
        return text
    raise ValueError(f"not a point id: {data[:32].hex()}")


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not a point id: {data[:32].hex()} is not UTF-8") from error
