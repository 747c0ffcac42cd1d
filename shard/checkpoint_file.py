"""The file of a shard's checkpoint: a header, the parts one after the other, and a checksum over all of it.

A part is one msgpack object behind its length; arrays in it are little-endian. A new file is written under another name, synced,
and then renamed, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from payload.schema import FieldSchema

HEADER = b"vecraft checkpoint 1\n"
"""With the version of the format. Raise it when a part changes, and when an index would keep other things of the same payload."""

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


class Head(msgspec.Struct, frozen=True, tag="head"):
    """The first part. `store` names the RocksDB that the checkpoint belongs to, `batch` the last write batch that it holds.

    Of later batches it may hold some changes and miss others, since it is taken while batches are applied.
    """

    store: str
    batch: int


class RowChunk(msgspec.Struct, frozen=True, tag="chunk"):
    """One chunk of the row table."""

    number: int
    data: bytearray


class AliveRows(msgspec.Struct, frozen=True, tag="alive"):
    """The rows of live points, as a serialised bitmap."""

    rows: bytes


class FieldRows(msgspec.Struct, frozen=True, tag="field"):
    """A field index; the parts that follow, up to the next of these, are of the same field. Its sets of rows as bitmaps."""

    name: str
    schema: FieldSchema
    rows: bytes
    filled: bytes
    nulls: bytes
    several: bytes


class PostingRows(msgspec.Struct, frozen=True, tag="postings"):
    """Some keys of a field index, and the rows of each as a bitmap."""

    keys: list[str | int | bool]
    rows: list[bytes]


class NumberRows(msgspec.Struct, frozen=True, tag="numbers"):
    """Numbers and their rows, uint32. A row with several numbers comes once for each. `in_order`: sorted by number and row."""

    in_order: bool
    rows: bytes
    numbers: list[int | float]


class PlaceRows(msgspec.Struct, frozen=True, tag="places"):
    """Places, degrees as float64, and their rows, uint32. `in_order`: sorted by latitude."""

    in_order: bool
    rows: bytes
    lons: bytes
    lats: bytes


IndexPart = PostingRows | NumberRows | PlaceRows
Part = Head | RowChunk | AliveRows | FieldRows | IndexPart

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Part).decode


class Damaged(ValueError):
    """The file is not a whole checkpoint of this format."""


def write(path: Path, parts: Iterable[Part]) -> None:
    """Replaces the file. Raises OSError, and leaves the old file, when it cannot."""
    unfinished = path.with_suffix(".tmp")
    try:
        with unfinished.open("wb") as file:
            _write(file, parts)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


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
    """The parts. Raises Damaged before the first of them when the file is not whole, and OSError when it cannot be read."""
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


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
