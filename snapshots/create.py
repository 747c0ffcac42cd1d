"""Makes a snapshot of a node in a place.

The steps; a crash between any two of them leaves every earlier snapshot as it was, and this one PENDING:
 1. the manifest is written, PENDING;
 2. barriers close every shard up to now, so that the stamp of the snapshot is not an old one;
 3. each shard is captured into a folder beside the state (`Shard.capture`), of links: no data is copied;
 4. the digest of each file is computed, unless it is known from the snapshot before;
 5. contents that the place does not have are sent;
 6. the manifest is written again, COMMITTED, with all files.
The shards are captured one after the other, each at a moment of its own. The stamp of the snapshot is the least closed stamp of
all of them: whatever was written at or below it is in every shard.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

import schemas
from catalog.catalog import CatalogView
from catalog.collection import Collection
from journal.log import Positions
from shard.shard import Captured, Shard, ShardClosed
from shard.shards import STATE_FORMAT, Shards, ShardUnavailable
from snapshots.manifest import (
    FILES,
    CollectionPart,
    Manifest,
    ShardPart,
    SnapshotFile,
    State,
    content_path,
    new_digest,
    write,
)
from snapshots.place import Place

READ_BYTES = 256 << 10
"""What is read at a time. Larger parts would be copied in one piece while the interpreter lock is held."""

BYTES_PER_S = 100 << 20
"""The pace at which files are read: they share the disk and the caches with searches."""

CAPTURE_PAUSE_S = 0.01
"""Between two shards: opening a copy takes some milliseconds in which the interpreter lock is held."""


class SnapshotFailed(Exception):
    """The snapshot cannot be made now; the text says why."""


class Stopped(SnapshotFailed):
    """The node is stopping."""

    def __init__(self) -> None:
        super().__init__("the node is stopping")


class LogState(NamedTuple):
    """What a node knows of its log: its identity, those of its topics, below which offsets losses were accepted, and how far it
    has applied each partition."""

    identity: str
    topics: Mapping[str, str]
    accepted: Mapping[str, int]
    applied: Positions


@dataclass
class Progress:
    """How far a snapshot is. `files` and `bytes` are 0 until all shards are captured; `sent_…` counts what was new."""

    id: str
    files: int = 0
    bytes: int = 0
    done_files: int = 0
    done_bytes: int = 0
    sent_files: int = 0
    sent_bytes: int = 0


@dataclass
class KnownDigests:
    """Digests of files that never change, from the snapshot before, by what tells a file from every other."""

    digests: dict[tuple[int, int, int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Creation:
    """Makes one snapshot. `close_shards` returns when all shards are closed up to the time of the call, or raises SnapshotFailed.
    `scratch` is a folder on the file system of the state that nobody else uses."""

    place: Place
    shards: Shards
    catalog: Callable[[], CatalogView]
    log: Callable[[], LogState]
    close_shards: Callable[[], None]
    scratch: Path
    known: KnownDigests
    now_ms: Callable[[], int]
    stopping: threading.Event

    def run(self, pending: Manifest, progress: Progress) -> Manifest:
        """Returns the committed manifest. Raises SnapshotFailed, PlaceError, OSError, or what RocksDB raises."""
        write(self.place, pending)
        try:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(parents=True)
            self.close_shards()
            captured = self._captured(pending)
            found = sorted(path for path in self.scratch.rglob("*") if path.is_file())
            progress.files, progress.bytes = len(found), sum(path.stat().st_size for path in found)
            files = self._stored(found, pending.node, progress)
            committed = msgspec.structs.replace(captured, files=files, state=State.COMMITTED, committed_ms=self.now_ms())
            write(self.place, committed)
            return committed
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _captured(self, pending: Manifest) -> Manifest:
        """The manifest with what the captured shards hold, without files."""
        known = self.log()  # first: what is applied now is of collections of this view
        view = self.catalog()
        parts = [part for collection in view.by_id.values() if (part := self._collection(collection)) is not None]
        closed = [shard.closed for part in parts for shard in part.shards]
        return msgspec.structs.replace(
            pending,
            log=known.identity,
            topics=dict(known.topics),
            accepted=dict(known.accepted),
            applied={str(partition): offset for partition, offset in known.applied.items()},
            catalog=view.position,
            stamp=min(closed, default=0),
            state_format=STATE_FORMAT,
            record_schema=schemas.RECORD_SCHEMAS[-1],
            collections=parts,
        )

    def _collection(self, collection: Collection) -> CollectionPart | None:
        """Captures a collection; None when it was dropped meanwhile."""
        folder = self.scratch / str(collection.id)
        try:
            shards = self.shards.of(collection.id)
            if len(shards) < collection.config.shard_number:
                raise SnapshotFailed(f"collection {collection.name!r} is not open")
            folder.mkdir()
            for path in (self.shards.folder / str(collection.id)).iterdir():
                if path.is_file():
                    shutil.copyfile(path, folder / path.name)
            parts = [_part(shard, self._shard(shard, folder / str(shard.number))) for shard in shards]
        except ShardUnavailable as error:
            raise SnapshotFailed(str(error)) from error
        except (ShardClosed, SnapshotFailed, FileNotFoundError):
            if collection.id in self.catalog().by_id:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return CollectionPart(collection, parts)

    def _shard(self, shard: Shard, target: Path) -> Captured:
        if self.stopping.wait(CAPTURE_PAUSE_S):
            raise Stopped
        return shard.guarded(lambda: shard.capture(target))

    def _stored(self, found: list[Path], node: str, progress: Progress) -> list[SnapshotFile]:
        """Sends the contents that the place does not have. Returns all files."""
        there = {item.path.rpartition("/")[2]: item.size for item in self.place.items(f"{node}/{FILES}")}
        digests: dict[tuple[int, int, int, int], str] = {}
        files = []
        for path in found:
            state = path.stat()
            key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
            digest = digests[key] = self.known.digests.get(key) or self._digest(path)
            if there.get(digest) != state.st_size:
                self.place.send(content_path(node, digest), self._chunks(path))
                there[digest] = state.st_size
                progress.sent_files += 1
                progress.sent_bytes += state.st_size
            files.append(SnapshotFile(path.relative_to(self.scratch).as_posix(), state.st_size, digest))
            progress.done_files += 1
            progress.done_bytes += state.st_size
        self.known.digests = digests
        return files

    def _digest(self, path: Path) -> str:
        digest = new_digest()
        for chunk in self._chunks(path):
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self, path: Path) -> Iterator[bytes]:
        """The content of a file at a bounded pace. Raises Stopped."""
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(READ_BYTES):
                yield chunk
                if self.stopping.wait(len(chunk) / BYTES_PER_S):
                    raise Stopped


def _part(shard: Shard, captured: Captured) -> ShardPart:
    positions = {str(partition): offset for partition, offset in captured.positions.items()}
    return ShardPart(shard.number, positions, captured.closed, captured.points)
