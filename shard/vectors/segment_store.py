"""The files of the sealed segments of one vector name: one folder for each segment, written once and never changed.

The files are caches: missing or damaged segments are rebuilt from the rows.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from journal.records import Vectors
from shard.files import sync
from shard.vectors.graph import Graph
from shard.vectors.index import Rows

_FILE_ERRORS = (OSError, ValueError, RuntimeError, EOFError, msgspec.MsgspecError)
"""Raised by numpy, FAISS and msgspec for files that are missing, truncated or in another format."""


class DamagedSegment(Exception):
    """The files of a segment are incomplete or inconsistent."""


class StoredSegment(NamedTuple):
    """The files of a segment: n rows, shape (n,), and their vectors, shape (n, d), in the order of the graph's ids.

    The arrays are memory-mapped, so the system may evict their pages and read them again.
    """

    name: str
    rows: Rows
    vectors: Vectors
    graph: Graph


class SegmentStore:
    """Segments in folders `<name>` below `folder`. Names sort in the order of creation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """All segments, the latest first, including unfinished ones, which cannot be opened."""
        return sorted((path.name for path in self._folder.glob("*")), reverse=True)

    def open(self, name: str) -> StoredSegment:
        """The segment of that name. Raises DamagedSegment."""
        folder = self._folder / name
        if folder.suffix:
            raise DamagedSegment(f"{folder} was never finished")
        try:
            graph = Graph.read(folder)
            segment = StoredSegment(name, _mapped(folder / "rows.npy"), _mapped(folder / "vectors.npy"), graph)
        except _FILE_ERRORS as error:
            raise DamagedSegment(f"{folder}: {error}") from error
        if not len(segment.rows) == len(segment.vectors) == len(graph) > 0:
            raise DamagedSegment(f"{folder}: {len(segment.rows)} rows, {len(segment.vectors)} vectors, {len(graph)} in the graph")
        return segment

    def write(self, rows: Rows, vectors: Vectors, graph: Graph) -> StoredSegment:
        """Writes a segment atomically under a new name, and opens it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # A later segment contains the rows of the segments that it replaces; its name makes it the first to be opened.
        numbers = [int(name.split("-")[0]) for name in self.names() if "." not in name]
        folder = self._folder / f"{max(numbers, default=0) + 1:08d}"
        unfinished = folder.with_suffix(".tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        graph.write(unfinished)
        np.save(unfinished / "rows.npy", rows)
        np.save(unfinished / "vectors.npy", vectors)
        for path in unfinished.iterdir():
            sync(path)  # otherwise a power loss could leave files with unwritten pages in a finished folder
        unfinished.rename(folder)
        sync(self._folder)
        return self.open(folder.name)

    def remove(self, name: str) -> None:
        """Removes a segment, finished or not. Mapped arrays that are in use stay readable."""
        shutil.rmtree(self._folder / name, ignore_errors=True)


def _mapped(path: Path) -> NDArray[Any]:
    """A memory-mapped array file as a plain array, since small gathers from numpy's memmap class are slow."""
    return np.asarray(np.load(path, mmap_mode="r"))
