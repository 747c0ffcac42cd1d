"""The folder of archives: names and locations do not lead out of it, and what is not finished is not there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from snapshots.folder import CHECKSUM, MIN_FREE_BYTES, ArchiveFolder, NoArchive, NoRoom

NOW = datetime(2026, 11, 26, 12, 0, 1, tzinfo=UTC)
SUM = "ab" * 32


@pytest.fixture
def folder(tmp_path: Path) -> ArchiveFolder:
    (tmp_path / "secret.snapshot").write_text("secret")
    (tmp_path / f"secret.snapshot{CHECKSUM}").write_text(SUM)
    return ArchiveFolder(tmp_path / "snapshots")


def added(folder: ArchiveFolder, name: str = "songs") -> str:
    path = folder.unfinished()
    path.write_bytes(b"archive")
    return folder.of_collection(name).add(path, SUM, NOW).name


def test_an_archive_has_a_name_of_the_usual_form(folder: ArchiveFolder) -> None:
    name = added(folder)
    assert name.startswith("songs-")
    assert name.endswith("-2026-11-26-12-00-01.snapshot")
    assert added(folder) != name
    listed = folder.of_collection("songs").listed()
    assert [(one.size, one.checksum) for one in listed] == [(7, SUM)] * 2
    folder.of_collection("songs").remove(name)
    assert name not in {one.name for one in folder.of_collection("songs").listed()}
    assert folder.of_collection("others").listed() == folder.of_storage().listed() == []


@pytest.mark.parametrize(
    "name", ["../secret.snapshot", "/etc/passwd", "..", ".", "", "x\0.snapshot", "secret.snapshot", "../../x", "a" * 5000]
)
def test_no_name_leads_out(folder: ArchiveFolder, name: str) -> None:
    added(folder)
    for archives in (folder.of_storage(), folder.of_collection("songs"), folder.of_shard("songs", 0)):
        with pytest.raises(NoArchive):
            archives.path(name)
        with pytest.raises(NoArchive):
            archives.remove(name)


def test_locations_are_below_the_folder(folder: ArchiveFolder, tmp_path: Path) -> None:
    name = added(folder)
    inside = folder.folder / "songs" / name
    assert folder.at(inside.as_uri()) == inside
    (folder.folder / "link.snapshot").symlink_to(tmp_path / "secret.snapshot")
    for location in (
        (tmp_path / "secret.snapshot").as_uri(),
        f"{folder.folder.as_uri()}/../secret.snapshot",
        f"{folder.folder.as_uri()}/%2e%2e/secret.snapshot",
        f"{folder.folder.as_uri()}/link.snapshot",
        f"{folder.folder.as_uri()}/songs",
        f"{folder.folder.as_uri()}/none.snapshot",
        f"file://other{inside}",
        f"{inside.as_uri()}%00",
        "file:relative",
    ):
        with pytest.raises(NoArchive):
            folder.at(location)


def test_what_is_not_finished_is_not_there(folder: ArchiveFolder) -> None:
    name = added(folder)
    (folder.folder / "songs" / (name + CHECKSUM)).unlink()
    assert folder.of_collection("songs").listed() == []
    unfinished = folder.unfinished()
    unfinished.write_bytes(b"half")
    (folder.folder / "x.unfinished").mkdir()  # the folder of a collection with that name
    folder.tidy()
    assert not unfinished.exists()
    assert (folder.folder / "x.unfinished").exists()


def test_long_names_of_collections_get_folders_of_their_own(folder: ArchiveFolder) -> None:
    one, other = "€" * 254 + "a", "€" * 254 + "b"
    assert added(folder, one) in {found.name for found in folder.of_collection(one).listed()}
    assert folder.of_collection(other).listed() == []


def test_an_archive_leaves_room_on_the_disk(folder: ArchiveFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, MIN_FREE_BYTES + 1000))  # type: ignore[attr-defined]
    folder.check_room(1000)
    with pytest.raises(NoRoom, match="has room for 1000"):
        folder.check_room(1001)
