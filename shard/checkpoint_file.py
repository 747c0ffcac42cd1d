"""The file format of a shard's checkpoint: a header, a sequence of parts, and a checksum of everything before it.

A part is its length and one msgpack object; arrays in it are little-endian. A new file is written under a temporary name, synced,
and renamed, so that a crash leaves either the old file or the new one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from payload.schema import FieldSchema
from shard.files import sync

HEADER = b"vecraft checkpoint 4\n"
"""Contains the format version. Raise it when a part changes, or when an index stores something else for the same payload."""

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


class Head(msgspec.Struct, frozen=True, tag="head"):
    """The first part. `store` is the identity of the RocksDB it belongs to, `batch` the last write batch that it fully contains.

    It may also contain some of the changes of later batches, since it is taken while batches are applied.
    """

    store: str
    batch: int


class RowChunk(msgspec.Struct, frozen=True, tag="chunk"):
    """A chunk of the row table."""

    number: int
    data: bytearray


class AliveRows(msgspec.Struct, frozen=True, tag="alive"):
    """The rows of live points, as a serialised bitmap."""

    rows: bytes


class PastParts(msgspec.Struct, frozen=True, tag="past"):
    """Past rows, ascending, their versions and their ends, each int64."""

    rows: bytes
    versions: bytes
    ends: bytes


class FieldRows(msgspec.Struct, frozen=True, tag="field"):
    """Begins a field index; the parts up to the next FieldRows belong to it. Its sets of rows are serialised bitmaps."""

    name: str
    schema: FieldSchema
    rows: bytes
    filled: bytes
    nulls: bytes
    several: bytes


class PostingRows(msgspec.Struct, frozen=True, tag="postings"):
    """Some keys of a field index, and for each its rows: the number of a single row, or a serialised bitmap."""

    keys: list[str | int | bool]
    rows: list[int | bytes]


class NumberRows(msgspec.Struct, frozen=True, tag="numbers"):
    """Numbers and their rows, uint32. A row with several numbers is repeated. `in_order`: sorted by number and row."""

    in_order: bool
    rows: bytes
    numbers: list[int | float]


class PlaceRows(msgspec.Struct, frozen=True, tag="places"):
    """Coordinates in degrees, float64, and their rows, uint32. `in_order`: sorted by latitude."""

    in_order: bool
    rows: bytes
    lons: bytes
    lats: bytes


IndexPart = PostingRows | NumberRows | PlaceRows
Part = Head | RowChunk | AliveRows | PastParts | FieldRows | IndexPart

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Part).decode


class Damaged(ValueError):
    """The file is not a complete checkpoint of this format."""


def write(path: Path, parts: Iterable[Part]) -> None:
    """Replaces the file. On OSError the old file is unchanged."""
    unfinished = path.with_suffix(".tmp")
    try:
        with unfinished.open("wb") as file:
            _write(file, parts)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)


def _write(file: BinaryIO, parts: Iterable[Part]) -> None:
    checksum = zlib.crc32(HEADER)
    file.write(HEADER)
    for part in parts:
        data = _encode(part)
        for piece in (len(data).to_bytes(_LENGTH_BYTES, "little"), data):
            checksum = zlib.crc32(piece, checksum)
            file.write(piece)
    file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))


def read(path: Path) -> Iterator[Part]:
    """The parts. Raises Damaged, before the first part, when the file is incomplete, and OSError when it cannot be read."""
    data = memoryview(path.read_bytes())
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if body[: len(HEADER)] != HEADER:
        raise Damaged("it is of another format")
    if zlib.crc32(body) != int.from_bytes(checksum, "little"):
        raise Damaged("its checksum is wrong")
    at = len(HEADER)
    while at < len(body):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(body[at:start], "little")
        yield _decode(body[start:at])
