"""The folder of archives of a node: their names, their checksums, and files that are not finished yet.

| path below the folder                    | archives                  |
|------------------------------------------|---------------------------|
| `<name>.snapshot`                        | of the whole storage      |
| `<collection>/<name>.snapshot`           | of a collection           |
| `<collection>/shards/<n>/<name>.snapshot`| of a shard                |

Beside each stands `<name>.snapshot.checksum`, with its SHA-256. A file without one is not finished, and not listed. Names that
clients give are looked up among the files that are there, so no name leads out of the folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from secrets import randbelow, token_hex
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from shard.files import sync

ENDING, CHECKSUM, UNFINISHED = ".snapshot", ".checksum", ".unfinished"
MAX_NAME_BYTES = 150
"""Of a collection's name in the name of a file or folder; what is longer is cut, and told apart by a digest."""

MIN_FREE_BYTES = 512 << 20
"""Free space of the disk that archives never take."""

NUMBERS = 10**16
_SHA256 = re.compile("[0-9a-f]{64}")


class NoArchive(Exception):
    """There is no archive of this name, or at this location."""


class NoRoom(Exception):
    """An archive would take space that the disk needs."""


class Described(NamedTuple):
    """An archive: its name, when it was made (UTC), its size in bytes, and its SHA-256, hexadecimal."""

    name: str
    created: datetime
    size: int
    checksum: str


class ArchiveFolder:
    """The archives below `folder`, which is created when it is needed first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of_storage(self) -> Archives:
        return Archives(self.folder, "full-snapshot")

    def of_collection(self, name: str) -> Archives:
        return Archives(self.folder / _file_name(name), _file_name(name))

    def of_shard(self, name: str, number: int) -> Archives:
        folder = self.folder / _file_name(name) / "shards" / str(number)
        return Archives(folder, f"{_file_name(name)}-shard-{number}")

    def unfinished(self) -> Path:
        """A name for a file that is being written; `tidy` removes what a crash leaves of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{token_hex(8)}{UNFINISHED}"

    def tidy(self) -> None:
        """Removes files that were never finished, when the node starts."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            if path.is_file():
                path.unlink(missing_ok=True)

    def at(self, location: str) -> Path:
        """The archive at a `file:///path` URL, which must lie in the folder. Raises NoArchive."""
        scheme, host, path, query, fragment = urlsplit(location)
        if scheme != "file" or host not in ("", "localhost") or query or fragment or "\0" in unquote(path):
            raise NoArchive(f"{location[:200]!r} is no file:///path")
        found = Path(os.path.realpath(unquote(path)))
        if not found.is_relative_to(os.path.realpath(self.folder)):
            raise NoArchive(f"{location[:200]!r} is not in this node's folder of snapshots, {self.folder}")
        if not found.is_file():
            raise NoArchive(f"there is no file {location[:200]!r}")
        return found

    def room(self) -> int:
        """How many bytes an archive may take now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return max(0, shutil.disk_usage(self.folder).free - MIN_FREE_BYTES)

    def check_room(self, size: int) -> None:
        """Raises NoRoom when an archive of `size` bytes has no room."""
        if size > (room := self.room()):
            raise NoRoom(f"the archive needs {size} bytes or more, and the disk has room for {room}; {MIN_FREE_BYTES} stay free")


class Archives:
    """The archives in one folder; `kind` is the beginning of their names."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind

    def listed(self) -> list[Described]:
        """All finished archives, the oldest first."""
        return sorted(self._all(), key=lambda one: (one.created, one.name))

    def path(self, name: str) -> Path:
        """The path of an archive. Raises NoArchive."""
        if any(one.name == name for one in self._all()):
            return self._folder / name
        raise NoArchive(f"Snapshot {name[:255]!r} is not found")

    def add(self, finished: Path, checksum: str, now: datetime) -> Described:
        """Takes a finished file of the same file system into the folder, under a new name; `now` is of UTC."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._kind}-{randbelow(NUMBERS):016d}-{now:%Y-%m-%d-%H-%M-%S}{ENDING}"
        path = self._folder / name
        sync(finished)
        path.with_name(name + CHECKSUM).write_text(checksum)
        finished.rename(path)
        sync(self._folder)
        described = _described(path)
        assert described is not None
        return described

    def remove(self, name: str) -> None:
        """Removes an archive. Raises NoArchive."""
        path = self.path(name)
        path.unlink(missing_ok=True)
        path.with_name(name + CHECKSUM).unlink(missing_ok=True)

    def _all(self) -> Iterator[Described]:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.endswith(ENDING) and (described := _described(path)) is not None:
                    yield described


def _described(path: Path) -> Described | None:
    """An archive; None when it is not finished, or is no file."""
    try:
        checksum = path.with_name(path.name + CHECKSUM).read_text(errors="replace").strip()
        if not path.is_file() or not _SHA256.fullmatch(checksum):
            return None
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Described(path.name, datetime.fromtimestamp(state.st_mtime, UTC), state.st_size, checksum)


def _file_name(name: str) -> str:
    """The name of a collection as one of a file, at most MAX_NAME_BYTES and a digest long."""
    raw = name.encode()
    if len(raw) <= MAX_NAME_BYTES:
        return name
    digest = blake2b(raw, digest_size=8).hexdigest()
    return f"{raw[:MAX_NAME_BYTES].decode(errors='ignore')}-{digest}"
