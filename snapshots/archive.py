"""The archive of collections: one file that holds their configurations and points, to be downloaded, kept and recovered.

It is a tar file without compression:

| member                   | content                                                                                  |
|--------------------------|------------------------------------------------------------------------------------------|
| manifest.json            | `Contents`, first                                                                        |
| points/<c>/<shard>/<n>   | a journal record in Avro that upserts some points of a shard of the c-th collection      |
| sums.json                | `Sums`: size and digest of each member before it, last                                   |

Points are records of the journal, so an archive can be read by every later version, and recovering one needs nothing but writing
them. They are read one by one from the file, which is never unpacked: an archive takes no more memory or disk than it has bytes.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

import msgspec

from catalog.collection import MAX_FIELDS, Collection, check_name
from journal import codec
from journal.records import Record, Upsert, columns_of
from journal.split import split
from payload.paths import steps_of
from shard.contract import contract_error
from shard.view import ShardView
from snapshots.manifest import new_digest

T = TypeVar("T")

FORMAT = 1
POINTS_PER_RECORD = 250
MAX_JSON_BYTES = 64 << 20
MAX_RECORD_BYTES = 2 << 20
"""Bounds of a member: of the two JSON files, and of a record (a point has 900 KB at most)."""

MAX_HEADER_BYTES = 64 << 10
MAX_MEMBERS = 4_000_000
MAX_COLLECTIONS = 10_000

MANIFEST, SUMS = "manifest.json", "sums.json"
_POINTS = re.compile(r"points/(\d{1,6})/(\d{1,3})/(\d{1,9})")


class BadArchive(Exception):
    """The file is no archive, is incomplete or damaged, or breaks a bound; the text says where."""


class Contained(msgspec.Struct, frozen=True):
    """A collection of an archive: as the catalog had it, its aliases, and the shards of it that the archive has."""

    collection: Collection
    aliases: list[str]
    shards: list[int]


class Contents(msgspec.Struct, frozen=True):
    """The first member. `created_ms` is the time of the node that made it; `vecraft` its version."""

    collections: list[Contained]
    created_ms: int
    vecraft: str
    format: int = FORMAT


class Sum(msgspec.Struct, frozen=True, array_like=True):
    """A member: its name, size in bytes and digest."""

    name: str
    size: int
    digest: str


class Sums(msgspec.Struct, frozen=True):
    """The last member. `points`: how many points the archive has, by collection."""

    members: list[Sum]
    points: list[int]


# Writing.


class ShardSource(NamedTuple):
    """A shard to be written, at one moment. `guarded` runs what reads its files (`Shard.guarded`)."""

    number: int
    view: ShardView
    guarded: Callable[[Callable[[], Any]], Any] = lambda work: work()


class Source(NamedTuple):
    """A collection to be written, and its shards."""

    contained: Contained
    shards: Sequence[ShardSource]


class _Hashed:
    """A file that is only written to, with its SHA-256."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = sha256()
        self._file = file
        self._size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._size


def write(path: Path, sources: Sequence[Source], created_ms: int, vecraft: str, pause: Callable[[], None]) -> str:
    """Writes an archive to a new file. Returns its SHA-256, hexadecimal.

    Calls `pause` after each record; what it raises ends the work. Raises BadArchive beyond some hundred million points.
    """
    contents = Contents([source.contained for source in sources], created_ms, vecraft)
    sums: list[Sum] = []
    points = []
    with path.open("xb") as file:
        hashed = _Hashed(file)
        with tarfile.open(fileobj=cast(BinaryIO, hashed), mode="w", format=tarfile.USTAR_FORMAT) as tar:
            _add(tar, MANIFEST, msgspec.json.encode(contents), sums)
            for at, (_, shards) in enumerate(sources):
                points.append(0)
                for shard in shards:
                    for number, (count, record) in enumerate(_guarded(shard)):
                        points[at] += count
                        _add(tar, f"points/{at}/{shard.number}/{number}", record, sums)
                        pause()
            _add(tar, SUMS, msgspec.json.encode(Sums(sums, points)), [])
        file.flush()
    return hashed.digest.hexdigest()


def _add(tar: tarfile.TarFile, name: str, data: bytes, sums: list[Sum]) -> None:
    if len(data) > MAX_JSON_BYTES:  # nobody could read it
        raise BadArchive(f"there are too many collections or points for an archive: {name} has {len(data)} bytes")
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    digest = new_digest()
    digest.update(data)
    sums.append(Sum(name, len(data), digest.hexdigest()))


def _guarded(shard: ShardSource) -> Iterator[tuple[int, bytes]]:
    records = _records(shard.view)
    while (one := shard.guarded(lambda: next(records, None))) is not None:
        yield one


def _records(view: ShardView) -> Iterator[tuple[int, bytes]]:
    """All points of a view as encoded records, each with its number of points."""
    rows = view.alive.to_array()
    for start in range(0, len(rows), POINTS_PER_RECORD):
        points = list(view.points(rows[start : start + POINTS_PER_RECORD].tolist()))
        columns = columns_of([view.vectors_of(point.row) for point in points])
        whole = Upsert([point.id for point in points], columns, [point.payload for point in points])
        for part in split(whole, 1):
            yield len(part.operation.ids), codec.encode(Record(hlc=0, operation=part.operation))


# Reading.


class _Bounded:
    """A file for reading headers: it refuses to read much at once, as tarfile would for the headers of a hostile archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise BadArchive(f"it has a header of {size} bytes, the bound is {MAX_HEADER_BYTES}")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class Archive:
    """The archive in an open file, whose members are all checked, each point against its collection too. Raises BadArchive.

    Calls `pause` after each record; what it raises ends the work.
    """

    def __init__(self, file: BinaryIO, pause: Callable[[], None] = lambda: None) -> None:
        self._file = file
        self.contents = Contents([], 0, "")
        sums: list[Sum] = []
        points: list[int] = []
        told: Sums | None = None
        for name, data in self._members():
            if told is not None:
                raise BadArchive(f"{name[:64]!r} stands after {SUMS}")
            if not sums:
                self.contents = _contents(name, data)
                points = [0] * len(self.contents.collections)
            elif name == SUMS:
                told = _decoded(name, data, Sums)
                continue
            else:
                at, _, operation = self._operation(name, data)
                if error := contract_error(self.contents.collections[at].collection, operation):
                    raise BadArchive(f"{name}: {error}")
                points[at] += len(operation.ids)
                pause()
            digest = new_digest()
            digest.update(data)
            sums.append(Sum(name, len(data), digest.hexdigest()))
        if told is None:
            raise BadArchive(f"{SUMS} is missing: the archive is incomplete")
        if told.members != sums:
            raise BadArchive(_difference(told.members, sums))
        if told.points != points:
            raise BadArchive(f"it has {points} points by collection, {SUMS} says {told.points}"[:500])

    def upserts(self, at: int, shard: int | None = None) -> Iterator[Upsert]:
        """The points of the collection with the index `at`; only those of one shard if it is given."""
        for name, data in self._members():
            if name in (MANIFEST, SUMS):
                continue
            collection, number, operation = self._operation(name, data)
            if collection == at and shard in (None, number):
                yield operation

    def index_of(self, name: str) -> int:
        """The index of the collection to recover into `name`: the only one, or the one of that name."""
        names = [contained.collection.name for contained in self.contents.collections]
        if len(names) == 1:
            return 0
        if name not in names:
            raise BadArchive(f"it has {len(names)} collections, and none is named {name!r}")
        return names.index(name)

    def _members(self) -> Iterator[tuple[str, bytes]]:
        """All members in their order. Each is bounded, and a plain file of a known name."""
        self._file.seek(0)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, _Bounded(self._file)), mode="r:") as tar:
                for _ in range(MAX_MEMBERS):
                    if (member := tar.next()) is None:
                        return
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all
                    yield member.name, self._data(member)
                raise BadArchive(f"it has more than {MAX_MEMBERS} members")
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
            raise BadArchive(f"it is no archive of collections: {error}") from error

    def _data(self, member: tarfile.TarInfo) -> bytes:
        name = member.name[:64]
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
            raise BadArchive(f"{name!r} is no plain file")
        if member.name in (MANIFEST, SUMS):
            bound = MAX_JSON_BYTES
        elif _POINTS.fullmatch(member.name):
            bound = MAX_RECORD_BYTES
        else:
            raise BadArchive(f"{name!r} is no member of an archive of collections")
        if not 0 <= member.size <= bound:
            raise BadArchive(f"{name!r} has {member.size} bytes, the bound is {bound}")
        here = self._file.tell()
        self._file.seek(member.offset_data)
        data = self._file.read(member.size)
        self._file.seek(here)
        if len(data) != member.size:
            raise BadArchive(f"the file ends within {name!r}: the archive is incomplete")
        return data

    def _operation(self, name: str, data: bytes) -> tuple[int, int, Upsert]:
        match = _POINTS.fullmatch(name)
        if match is None:
            raise BadArchive(f"{name[:64]!r} stands where points must")
        at, shard = int(match[1]), int(match[2])
        if at >= len(self.contents.collections) or shard not in self.contents.collections[at].shards:
            raise BadArchive(f"{name} is of a collection or shard that {MANIFEST} does not name")
        try:
            record = codec.decode(data)
        except codec.DecodeError as error:
            raise BadArchive(f"{name} is no record: {error}") from error
        if not isinstance(record.operation, Upsert):
            raise BadArchive(f"{name} is no upsert of points")
        return at, shard, record.operation


def _contents(name: str, data: bytes) -> Contents:
    if name != MANIFEST:
        raise BadArchive(f"it begins with {name[:64]!r}, and must with {MANIFEST}")
    contents = _decoded(name, data, Contents)
    if contents.format != FORMAT:
        raise BadArchive(f"{MANIFEST}: format is {contents.format}, this version reads {FORMAT}")
    if not 0 < len(contents.collections) <= MAX_COLLECTIONS:
        raise BadArchive(f"{MANIFEST}: {len(contents.collections)} collections, must be between 1 and {MAX_COLLECTIONS}")
    for contained in contents.collections:
        collection = contained.collection
        try:
            check_name("collection", collection.name)
            collection.config.validate()
            for field in collection.fields:
                steps_of(field)
        except ValueError as error:
            raise BadArchive(f"{MANIFEST}: collection {collection.name[:64]!r}: {error}") from error
        if len(collection.fields) > MAX_FIELDS or not set(contained.shards) <= set(range(collection.config.shard_number)):
            raise BadArchive(f"{MANIFEST}: collection {collection.name[:64]!r} has shards or fields beyond the bounds")
    return contents


def _difference(told: Sequence[Sum], found: Sequence[Sum]) -> str:
    for one, other in zip(told, found, strict=False):
        if one != other:
            return f"{other.name} is damaged: it is not what {SUMS} says"
    return f"it has {len(found)} members, {SUMS} says {len(told)}"


def _decoded(name: str, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadArchive(f"{name}: {error}") from error
