"""The id and version of each row, in memory: every hit needs them, and a read from RocksDB can take longer than the search.

Rows are stored in chunks of bytes, copy-on-write: new rows are written to parts of a chunk that no view reads yet, and a chunk is
copied before a version in it changes. So views never change. A chunk begins small, since most shards may have few points, and is
copied into a larger one when it is full.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from journal.stamps import NEVER, Version

CHUNK_ROWS = 1 << 14
FIRST_ROWS = 1 << 6
"""The size of a new chunk; a power of two, as CHUNK_ROWS."""

FEW_ROWS = 64

SHORT_ID_BYTES = 17
"""The size of numbers and UUIDs; longer ids are read from RocksDB."""

_HEAD = Struct("<QB")  # version, length of the id
_ID_AT = _HEAD.size
_ROW = Struct(f"{_HEAD.format}{SHORT_ID_BYTES}s")
_ROW_BYTES = _ROW.size
_TABLE = np.dtype([("version", "<i8"), ("id", f"V{_ROW_BYTES - 8}")])


class RowsView:
    """The rows at one moment."""

    def __init__(self, chunks: Sequence[bytearray | None], latest: Sequence[Version]) -> None:
        self._chunks = chunks
        self._latest = latest

    def known(self, rows: Iterable[int]) -> tuple[list[bytes], list[Version]]:
        """The ids of rows, empty for long ids, and the versions of the latest writes to them."""
        chunks, read = self._chunks, _ROW.unpack_from
        ids: list[bytes] = []
        versions: list[Version] = []
        for row in rows:
            chunk = chunks[row // CHUNK_ROWS]
            assert chunk is not None, "a row that is alive is in a chunk"
            version, length, id_ = read(chunk, row % CHUNK_ROWS * _ROW_BYTES)
            ids.append(id_[:length])
            versions.append(version)
        return ids, versions

    def versions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The versions of rows (ascending), shape (n,)."""
        versions = np.empty(len(rows), np.int64)
        for number, at in _by_chunk(rows):
            chunk = self._chunks[number]
            assert chunk is not None, "a row that is alive is in a chunk"
            versions[at] = np.frombuffer(chunk, _TABLE)["version"][rows[at] % CHUNK_ROWS]
        return versions

    def between(self, among: BitMap, low: Version, high: Version) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those of the rows `among` whose versions are at least `low` and at most `high`, and their versions.

        Chunks whose latest version is lower are passed over, so it is quick for the latest changes.
        """
        parts = [np.empty((2, 0), np.int64)]
        for number, latest in enumerate(self._latest):
            if latest < low or self._chunks[number] is None:
                continue
            start = number * CHUNK_ROWS
            rows = np.array((among & BitMap(range(start, start + CHUNK_ROWS))).to_array(), np.int64)
            versions = self.versions(rows)
            within = (versions >= low) & (versions <= high)
            parts.append(np.stack([rows[within], versions[within]]))
        rows, versions = np.concatenate(parts, axis=1)
        return rows, versions

    def first_by_id(self, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Those of `rows` (ascending) that may be among the first `count` by id: not many more, and all with long ids.

        Compares the first bytes of the ids, eight at most. Up to FEW_ROWS are not compared: the caller orders them in less time.
        """
        if len(rows) <= max(count, FEW_ROWS):
            return rows
        heads = np.concatenate([self._heads(number, rows[at] % CHUNK_ROWS) for number, at in _by_chunk(rows)])
        short = heads[heads > 0]
        if len(short) <= count:
            return rows
        first: NDArray[np.int64] = rows[heads <= np.partition(short, count - 1)[count - 1]]
        return first

    def _heads(self, number: int, at: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The first bytes of ids in a chunk, as numbers in the order of the ids; zero for long ids."""
        chunk = self._chunks[number]
        assert chunk is not None, "a row that is alive is in a chunk"
        table = np.frombuffer(chunk, np.uint8).reshape(-1, _ROW_BYTES)
        heads: NDArray[np.uint64] = np.ascontiguousarray(table[at, _ID_AT : _ID_AT + 8]).view(">u8").ravel().astype(np.uint64)
        return np.where(table[at, _ID_AT - 1] > 0, heads + np.uint64(1), np.uint64(0))

    def chunks(self) -> Iterator[tuple[int, bytearray]]:
        """The chunks and their numbers, for a checkpoint; the caller must not change them."""
        return ((number, chunk) for number, chunk in enumerate(self._chunks) if chunk is not None)


def _by_chunk(rows: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """The chunks of rows (ascending), and where in `rows` theirs are."""
    if not len(rows):
        return
    numbers, starts = np.unique(rows // CHUNK_ROWS, return_index=True)
    for number, start, end in zip(numbers.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        yield number, slice(start, end)


class RowTable:
    """The rows that the shard writes. Guarded by its lock."""

    def __init__(self) -> None:
        self._chunks: list[bytearray | None] = []
        self._alive: list[int] = []
        self._latest: list[Version] = []
        """For each chunk a version that none in it exceeds."""

    def put(self, row: int, id_: bytes, version: Version) -> None:
        """Adds a row; its number must be above all others."""
        number, at = row // CHUNK_ROWS, row % CHUNK_ROWS * _ROW_BYTES
        self._make_room(number)
        chunk = self._chunks[number]
        if chunk is None or at >= len(chunk):
            chunk = self._chunks[number] = _grown(chunk or bytearray(), at + _ROW_BYTES)
        shown = id_ if len(id_) <= SHORT_ID_BYTES else b""
        chunk[at : at + _ID_AT + len(shown)] = _HEAD.pack(version, len(shown)) + shown
        self._alive[number] += 1
        self._latest[number] = max(self._latest[number], version)

    def renew(self, versions: Sequence[tuple[int, Version]]) -> None:
        """Changes the versions of rows."""
        for number in {row // CHUNK_ROWS for row, _ in versions}:
            chunk = self._chunks[number]
            assert chunk is not None
            self._chunks[number] = bytearray(chunk)
        for row, version in versions:
            chunk = self._chunks[row // CHUNK_ROWS]
            assert chunk is not None
            at = row % CHUNK_ROWS * _ROW_BYTES
            chunk[at : at + 8] = version.to_bytes(8, "little")
            self._latest[row // CHUNK_ROWS] = max(self._latest[row // CHUNK_ROWS], version)

    def remove(self, rows: Iterable[int]) -> None:
        """Marks rows as dead; a chunk without live rows is dropped."""
        for row in rows:
            number = row // CHUNK_ROWS
            self._alive[number] -= 1
            if not self._alive[number]:
                self._chunks[number] = None

    def restore(self, number: int, chunk: bytearray) -> None:
        """Adds a chunk from a checkpoint; after all chunks, call `keep`. Raises ValueError for a wrong size."""
        if not 0 < len(chunk) <= CHUNK_ROWS * _ROW_BYTES or len(chunk) % _ROW_BYTES:
            raise ValueError(f"a chunk of {len(chunk)} bytes")
        self._make_room(number)
        self._chunks[number] = chunk
        self._latest[number] = int(np.frombuffer(chunk, _TABLE)["version"].max())

    def keep(self, alive: BitMap) -> None:
        """Sets which rows are alive; a chunk without live rows is dropped."""
        for number in range(len(self._chunks)):
            self._alive[number] = alive.range_cardinality(number * CHUNK_ROWS, (number + 1) * CHUNK_ROWS)
            if not self._alive[number]:
                self._chunks[number] = None

    def size_bytes(self) -> int:
        return sum(len(chunk) for chunk in self._chunks if chunk is not None)

    def view(self) -> RowsView:
        return RowsView(list(self._chunks), list(self._latest))

    def _make_room(self, number: int) -> None:
        while number >= len(self._chunks):
            self._chunks.append(None)
            self._alive.append(0)
            self._latest.append(NEVER)


def _grown(chunk: bytearray, least_bytes: int) -> bytearray:
    """A copy of a chunk with at least that size."""
    size = FIRST_ROWS * _ROW_BYTES
    while size < least_bytes:
        size *= 2
    grown = bytearray(size)
    grown[: len(chunk)] = chunk
    return grown
