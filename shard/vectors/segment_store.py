"""The files of the full segments of one vector name: one folder for each segment, written once and never changed.

A sealed segment has a graph. One that waits for its graph has one-bit codes instead, and `-waiting` in its name. The files are
caches: missing or damaged segments are rebuilt from the rows.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from journal.records import Vectors
from shard.files import sync
from shard.vectors.graph import FlatCodes, Graph
from shard.vectors.index import Rows

_FILE_ERRORS = (OSError, ValueError, RuntimeError, EOFError, msgspec.MsgspecError)
"""Raised by numpy, FAISS and msgspec for files that are missing, truncated or in another format."""


class DamagedSegment(Exception):
    """The files of a segment are incomplete or inconsistent."""


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
    """Segments in folders `<name>` below `folder`. Names sort in the order of creation. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._naming = threading.Lock()

    def names(self) -> list[str]:
        """All segments, the latest first, including unfinished ones, which cannot be opened."""
        return sorted((path.name for path in self._folder.glob("*")), reverse=True)

    def open(self, name: str) -> StoredSegment:
        """The segment of that name. Raises DamagedSegment."""
        folder = self._folder / name
        if folder.suffix:
            raise DamagedSegment(f"{folder} was never finished")
        try:
            index = (FlatCodes if name.endswith(_WAITING) else Graph).read(folder)
            segment = StoredSegment(name, _mapped(folder / "rows.npy"), _mapped(folder / "vectors.npy"), index)
        except _FILE_ERRORS as error:
            raise DamagedSegment(f"{folder}: {error}") from error
        if not len(segment.rows) == len(segment.vectors) == len(index) > 0:
            raise DamagedSegment(f"{folder}: {len(segment.rows)} rows, {len(segment.vectors)} vectors, {len(index)} in the index")
        return segment

    def write(self, rows: Rows, vectors: Vectors, index: Graph | FlatCodes) -> StoredSegment:
        """Writes a segment atomically under a new name, and opens it."""
        unfinished = self._new_folder("" if isinstance(index, Graph) else _WAITING)
        index.write(unfinished)
        np.save(unfinished / "rows.npy", rows)
        np.save(unfinished / "vectors.npy", vectors)
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


def _mapped(path: Path) -> NDArray[Any]:
    """A memory-mapped array file as a plain array, since small gathers from numpy's memmap class are slow."""
    return np.asarray(np.load(path, mmap_mode="r"))
