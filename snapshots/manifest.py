"""The manifest of a snapshot: what it holds, of which log, and how far. JSON, in `<node>/<id>/manifest.json` of the place.

The files of all snapshots of a node lie by their content in `<node>/files/<digest>`, so what did not change is stored once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from pathlib import PurePosixPath

import msgspec

from catalog.collection import Collection
from snapshots.place import Place, PlaceError

log = logging.getLogger(__name__)

FORMAT = 1
"""The format of the manifest. A snapshot of another one is listed, and not restored."""

_DIGEST = re.compile("[0-9a-f]{64}")

MANIFEST, FILES = "manifest.json", "files"


class State(StrEnum):
    """PENDING until all files are stored; what stays PENDING was interrupted."""

    PENDING = "PENDING"
    COMMITTED = "COMMITTED"


class SnapshotFile(msgspec.Struct, frozen=True):
    """A file by its path in the state folder, with its size in bytes and the hexadecimal `new_digest` of its content."""

    path: str
    size: int
    digest: str


class ShardPart(msgspec.Struct, frozen=True):
    """A shard: next offsets by `topic/partition`, the closed stamp there, and the number of points."""

    number: int
    positions: dict[str, int]
    closed: int
    points: int


class CollectionPart(msgspec.Struct, frozen=True):
    """A collection as the catalog had it, and its shards."""

    collection: Collection
    shards: list[ShardPart]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a node.

    `log`: the identity of the log, and `topics` those of its topics. `catalog`: the next offset of the system topic. `applied`:
    how far the node had applied each partition before that: later collections have no records below. `stamp`: the
    least closed stamp of all shards; every shard has all records at or below it, and records above it as its positions say; 0
    without shards. `state_format`, `record_schema`: what reads the files, and the records that follow in the log.
    """

    id: str
    node: str
    state: State
    created_ms: int
    format: int = FORMAT
    vecraft: str = ""
    committed_ms: int = 0
    log: str = ""
    topics: dict[str, str] = {}
    catalog: int = 0
    applied: dict[str, int] = {}
    accepted: dict[str, int] = {}
    stamp: int = 0
    state_format: int = 0
    record_schema: str = ""
    collections: list[CollectionPart] = []
    files: list[SnapshotFile] = []

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def points(self) -> int:
        return sum(shard.points for part in self.collections for shard in part.shards)

    def contents(self) -> dict[str, int]:
        """The sizes of the different contents of its files, by digest."""
        return {file.digest: file.size for file in self.files}

    def positions(self) -> dict[str, int]:
        """The lowest position of each partition in any shard, by `topic/partition`: where a replay begins."""
        lowest: dict[str, int] = {}
        for part in self.collections:
            for shard in part.shards:
                for partition, offset in shard.positions.items():
                    lowest[partition] = min(offset, lowest.get(partition, offset))
        return lowest

    def needed(self) -> dict[str, int]:
        """From where on a replay that begins with this snapshot needs the records of each partition, by `topic/partition`.

        Its shards from their positions on; those of later collections from `applied` on.
        """
        lowest = dict(self.applied)
        for partition, offset in self.positions().items():
            lowest[partition] = min(offset, lowest.get(partition, offset))
        return lowest


def new_digest() -> blake2b:
    """The hash by which contents are named."""
    return blake2b(digest_size=32)


def path_of(node: str, snapshot_id: str) -> str:
    """The path of a manifest."""
    return f"{node}/{snapshot_id}/{MANIFEST}"


def content_path(node: str, digest: str) -> str:
    """The path of a content of files."""
    return f"{node}/{FILES}/{digest}"


def write(place: Place, manifest: Manifest) -> None:
    """Writes a manifest, or replaces it."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    place.write(path_of(manifest.node, manifest.id), data)


def read(place: Place, path: str) -> Manifest:
    """The manifest at a path. Raises PlaceError, also for what is none."""
    try:
        manifest = msgspec.json.decode(place.read(path), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PlaceError(f"{place.url}: {path} is no manifest of a snapshot: {error}") from error
    for file in manifest.files:
        check_path(file.path)
        if not _DIGEST.fullmatch(file.digest) or file.size < 0:
            raise PlaceError(f"{place.url}: {path} names a file with the digest {file.digest[:64]!r} and {file.size} bytes")
    return manifest


def check_path(path: str) -> None:
    """Raises PlaceError for a path of a file that does not lie within the state folder."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or "\0" in path or set(parts) & {"..", "."}:
        raise PlaceError(f"a manifest names the file {path[:64]!r}, which is not below the state folder")


def paths(place: Place, node: str) -> list[str]:
    """The paths of all manifests of a node; of all nodes if it is "". Raises PlaceError."""
    ends = [item.path for item in place.items(node) if item.path.endswith(f"/{MANIFEST}")]
    return [path for path in ends if path.count("/") == 2]


def all_of(place: Place, node: str = "") -> list[Manifest]:
    """All manifests of a node, or of all nodes, the latest first. Leaves out those that cannot be read. Raises PlaceError."""
    found = []
    for path in paths(place, node):
        try:
            found.append(read(place, path))
        except PlaceError as error:
            log.warning("a snapshot is passed over: %s", error)
    return sorted(found, key=lambda manifest: (manifest.created_ms, manifest.id), reverse=True)


def summary(manifest: Manifest) -> Mapping[str, object]:
    """What lists show of a snapshot."""
    return {
        "id": manifest.id,
        "node": manifest.node,
        "state": manifest.state.value,
        "created_ms": manifest.created_ms,
        "committed_ms": manifest.committed_ms,
        "log": manifest.log,
        "stamp": manifest.stamp,
        "catalog": manifest.catalog,
        "positions": manifest.positions(),
        "collections": [part.collection.name for part in manifest.collections],
        "points": manifest.points,
        "files": len(manifest.files),
        "bytes": manifest.size,
    }
