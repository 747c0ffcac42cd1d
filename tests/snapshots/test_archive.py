"""Archives: what is written is read, and nothing else is: hostile, damaged and incomplete ones are refused with a reason."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from pyroaring import BitMap

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal import codec
from journal.ids import encode_id
from journal.records import Delete, Record
from shard.store import Row
from snapshots import archive
from snapshots.archive import Archive, BadArchive, Contained, ShardSource, Source, Sum, Sums, write

POINTS = 600
CONFIG = CollectionConfig({"": VectorParams(4, Distance.DOT)})
COLLECTION = Collection("songs", 7, CONFIG, [[0, 0, 0, 0]])

Member = tuple[tarfile.TarInfo, bytes]


def view(size: int = 4) -> Any:
    """As much of a view as an archive is made of."""
    return SimpleNamespace(
        alive=BitMap(range(POINTS)),
        points=lambda rows: [Row(encode_id(row), b'{"n":1}', 1, row=row) for row in rows],
        vectors_of=lambda row: {"": np.full(size, row, "<f4")},
    )


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound"
    write(path, [Source(Contained(COLLECTION, [], [0]), [ShardSource(0, view())])], 1, "0", lambda: None)
    return path


def read(path: Path) -> Archive:
    with path.open("rb") as file:
        return Archive(file)


def members(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        return [(member, b"" if (file := tar.extractfile(member)) is None else file.read()) for member in tar]


def pack(path: Path, content: list[Member], format_: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format_) as tar:
        for member, data in content:
            tar.addfile(member, io.BytesIO(data))
    return path


def named(name: str, data: bytes = b"x", **changes: Any) -> Member:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in changes.items():
        setattr(member, field, value)
    return member, data


def with_sums(content: list[Member], points: int = POINTS) -> list[Member]:
    """The members, with sums that fit them: made by somebody who knows the format."""
    sums = []
    for member, data in content:
        digest = archive.new_digest()
        digest.update(data)
        sums.append(Sum(member.name, len(data), digest.hexdigest()))
    return [*content, named("sums.json", msgspec.json.encode(Sums(sums, [points])))]


def test_what_is_written_is_read(sound: Path) -> None:
    with sound.open("rb") as file:
        opened = Archive(file)
        assert opened.contents.collections[0].collection == COLLECTION
        upserts = list(opened.upserts(0))
        assert [id_ for one in upserts for id_ in one.ids] == [encode_id(n) for n in range(POINTS)]
        assert np.array_equal(upserts[1].vectors[0].array()[0], np.full(4, archive.POINTS_PER_RECORD))
        assert list(opened.upserts(0, shard=1)) == []


def other(size: int) -> Member:
    return named("points/0/0/9", bytes(size))


def no_file(kind: bytes, target: str = "") -> Member:
    return named("points/0/0/9", b"", type=kind, linkname=target)


def contents(text: str) -> list[Member]:
    """An archive with another manifest."""
    return with_sums([named("manifest.json", text.encode())])


HOSTILE: dict[str, tuple[Callable[[list[Member]], list[Member]], str]] = {
    "a path that leaves": (lambda m: [*m[:-1], named("../points/0/0/9"), m[-1]], "is no member"),
    "an absolute path": (lambda m: [*m[:-1], named("/points/0/0/9"), m[-1]], "is no member"),
    "a symbolic link": (lambda m: [*m[:-1], no_file(tarfile.SYMTYPE, "/etc/passwd"), m[-1]], "plain file"),
    "a hard link": (lambda m: [*m[:-1], no_file(tarfile.LNKTYPE, "manifest.json"), m[-1]], "plain file"),
    "a device": (lambda m: [*m[:-1], no_file(tarfile.CHRTYPE), m[-1]], "plain file"),
    "a folder": (lambda m: [no_file(tarfile.DIRTYPE), *m], "plain file"),
    "a sparse file": (lambda m: [*m[:-1], no_file(tarfile.GNUTYPE_SPARSE), m[-1]], "no archive|plain file"),
    "a member that is too large": (lambda m: [*m[:-1], other(archive.MAX_RECORD_BYTES + 1), m[-1]], "bound"),
    "no sums": (lambda m: m[:-1], "sums.json is missing"),
    "a member less": (lambda m: [*m[:1], *m[2:]], "is damaged|members"),
    "members after the sums": (lambda m: [*m, m[1]], "stands after"),
    "no manifest": (lambda m: m[1:], "begins with"),
    "another shard": (lambda m: with_sums([m[0], named("points/0/1/0", m[1][1])]), "does not name"),
    "another collection": (lambda m: with_sums([m[0], named("points/1/0/0", m[1][1])]), "does not name"),
    "no record": (lambda m: with_sums([m[0], named("points/0/0/0", b"no record")]), "is no record"),
    "another operation": (
        lambda m: with_sums([m[0], named("points/0/0/0", codec.encode(Record(0, Delete([encode_id(1)]))))]),
        "no upsert",
    ),
    "other counts": (lambda m: with_sums(m[:-1], POINTS + 1), "points by collection"),
    "a manifest of another format": (lambda m: contents('{"collections":[],"created_ms":1,"vecraft":"","format":9}'), "is 9"),
    "a manifest without collections": (lambda m: contents('{"collections":[],"created_ms":1,"vecraft":""}'), "0 collections"),
    "a manifest that is none": (lambda m: contents("[[[["), "manifest.json"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(sound: Path, tmp_path: Path, kind: str) -> None:
    change, reason = HOSTILE[kind]
    with pytest.raises(BadArchive, match=reason):
        read(pack(tmp_path / "hostile", change(members(sound))))


def test_headers_are_not_read_without_a_bound(sound: Path, tmp_path: Path) -> None:
    (first, data), *_ = members(sound)
    first.pax_headers = {"comment": "x" * 10_000_000}
    with pytest.raises(BadArchive, match="has a header of"):
        read(pack(tmp_path / "hostile", [(first, data)], tarfile.PAX_FORMAT))


def test_a_chain_of_headers_ends(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XGLTYPE
    path = tmp_path / "hostile"
    path.write_bytes(header.tobuf() * 100_000)
    with pytest.raises(BadArchive):
        read(path)


def test_a_point_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong"
    write(path, [Source(Contained(COLLECTION, [], [0]), [ShardSource(0, view(size=5))])], 1, "0", lambda: None)
    with pytest.raises(BadArchive, match="points/0/0/0: Wrong input: Vector dimension error: expected dim: 4, got 5"):
        read(path)


def test_every_length_that_is_cut_and_every_byte_that_is_changed_is_found(sound: Path, tmp_path: Path) -> None:
    whole, path = sound.read_bytes(), tmp_path / "damaged"
    content = sum(512 + -(-len(data) // 512) * 512 for _, data in members(sound))  # after it stand only zeros
    step = 499
    for length in range(0, content - 512, step):
        path.write_bytes(whole[:length])
        with pytest.raises(BadArchive):
            read(path)
    for at in range(512, content - 512, step):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            opened = read(path)
        except BadArchive:
            continue
        assert opened.contents == read(sound).contents, f"byte {at}: padding"


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for data in (b"", b"\0" * 10240, b"not a tar file" * 100, b"\x1f\x8b" + bytes(600)):
        path.write_bytes(data)
        with pytest.raises(BadArchive):
            read(path)
