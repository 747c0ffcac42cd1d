"""The files of the full segments of one vector name: one folder for each segment, written once and never changed.

Beside them stands `sums.json`, with the size and the checksum of each file. A sealed segment has a graph. One that waits for its
graph has one-bit codes instead, and `-waiting` in its name. The files are caches: missing or damaged segments are rebuilt from
the rows.
"""

from __future__ import annotations

import shutil
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from journal.records import Vectors
from shard.descriptors import is_shortage
from shard.files import sync
from shard.vectors.graph import FlatCodes, Graph, read_ahead
from shard.vectors.index import Rows

_FILE_ERRORS = (OSError, ValueError, RuntimeError, EOFError, msgspec.MsgspecError)
"""Raised by numpy, FAISS and msgspec for files that are missing, truncated or in another format."""


class DamagedSegment(Exception):
    """The files of a segment are incomplete or inconsistent."""


SUMS = "sums.json"
CHUNK_BYTES = 1 << 20
CHECKED_AT_ONCE_BYTES = 64 << 20
"""Up to this size the checksums of a segment are compared when it is opened. Those of larger ones would delay a start by seconds,
so they are compared in the background (`shard.scrubbing`)."""

_Sums = msgspec.json.Decoder(dict[str, tuple[int, int]])
_DIGITS = 8
_WAITING = "-waiting"


class StoredSegment(NamedTuple):
    """The files of a segment: n rows, shape (n,), and their vectors, shape (n, d), in the order of the ids of its index.

    The arrays are memory-mapped, so the system may evict their pages and read them again.
    """

    name: str
    rows: Rows
    vectors: Vectors
    graph_or_codes: Graph | FlatCodes


class SegmentStore:
    """Segments in folders `<name>` below `folder`. Names sort in the order of creation. Thread-safe.

    `cached`: the vectors of a segment are read into the page cache when it is opened.
    """

    def __init__(self, folder: Path, cached: bool = False) -> None:
        self.cached = cached
        self._folder = folder
        self._naming = threading.Lock()

    def names(self) -> list[str]:
        """All segments, the latest first, including unfinished ones, which cannot be opened."""
        return sorted((path.name for path in self._folder.glob("*")), reverse=True)

    def open(self, name: str) -> StoredSegment:
        """The segment of that name. Raises DamagedSegment, or the error when no file descriptor is free."""
        folder = self._folder / name
        if folder.suffix:
            raise DamagedSegment(f"{folder} was never finished")
        try:
            sums = _sums(folder)
            if sum(size for size, _ in sums.values()) <= CHECKED_AT_ONCE_BYTES:
                self.check(name)
            index = (FlatCodes if name.endswith(_WAITING) else Graph).read(folder)
            if self.cached:
                read_ahead(folder / "vectors.npy")
            segment = StoredSegment(name, _mapped(folder / "rows.npy"), _mapped(folder / "vectors.npy"), index)
        except _FILE_ERRORS as error:
            if is_shortage(error):
                raise
            raise DamagedSegment(f"{folder}: {error}") from error
        if not len(segment.rows) == len(segment.vectors) == len(index) > 0:
            raise DamagedSegment(f"{folder}: {len(segment.rows)} rows, {len(segment.vectors)} vectors, {len(index)} in the index")
        return segment

    def check(self, name: str, pause: Callable[[int], bool] = lambda size: True) -> None:
        """Compares the files of a segment with their checksums. Raises DamagedSegment.

        After each CHUNK_BYTES it calls `pause` with the number of bytes read, and ends early when that returns False. A segment
        that was removed meanwhile is passed over.
        """
        folder = self._folder / name
        for file, (_, expected) in _sums(folder).items():
            try:
                checksum = _checksum(folder / file, pause)
            except FileNotFoundError:
                if folder.exists():
                    raise DamagedSegment(f"{folder / file} is missing") from None
                return
            if checksum is None:
                return
            if checksum != expected:
                raise DamagedSegment(f"the checksum of {folder / file} is wrong")

    def write(self, rows: Rows, vectors: Vectors, index: Graph | FlatCodes) -> StoredSegment:
        """Writes a segment atomically under a new name, and opens it."""
        unfinished = self._new_folder("" if isinstance(index, Graph) else _WAITING)
        index.write(unfinished)
        np.save(unfinished / "rows.npy", rows)
        np.save(unfinished / "vectors.npy", vectors)
        sums = {path.name: (path.stat().st_size, _checksum(path)) for path in unfinished.iterdir()}
        (unfinished / SUMS).write_bytes(msgspec.json.encode(sums))
        for path in unfinished.iterdir():
            sync(path)  # otherwise a power loss could leave files with unwritten pages in a finished folder
        folder = unfinished.with_suffix("")
        unfinished.rename(folder)
        sync(self._folder)
        return self.open(folder.name)

    def remove(self, name: str) -> None:
        """Removes a segment, finished or not. Mapped arrays that are in use stay readable."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def _new_folder(self, kind: str) -> Path:
        """A new folder for a segment that is being written.

        A segment that replaces others is written later, and has the highest number: it is the first to be opened.
        """
        with self._naming:
            self._folder.mkdir(parents=True, exist_ok=True)
            number = max((int(name[:_DIGITS]) for name in self.names()), default=0) + 1
            folder = self._folder / f"{number:0{_DIGITS}d}{kind}.tmp"
            folder.mkdir()
            return folder


def _sums(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and checksum of each file. Raises DamagedSegment when they are missing, or a file has another size."""
    try:
        sums = _Sums.decode((folder / SUMS).read_bytes())
        for file, (size, _) in sums.items():
            if (found := (folder / file).stat().st_size) != size:
                raise DamagedSegment(f"{folder / file} has {found} bytes, {size} were written")
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        if is_shortage(error):
            raise
        raise DamagedSegment(f"{folder}: {error}") from error
    return sums


def _checksum(path: Path, pause: Callable[[int], bool] = lambda size: True) -> int | None:
    """The CRC-32 of a file; None when `pause` returned False."""
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            if not pause(len(chunk)):
                return None
    return checksum


def _mapped(path: Path) -> NDArray[Any]:
    """A memory-mapped array file as a plain array, since small gathers from numpy's memmap class are slow."""
    return np.asarray(np.load(path, mmap_mode="r"))
