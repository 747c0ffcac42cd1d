"""Durability of files, and links to them."""

from __future__ import annotations

import os
from pathlib import Path

UNFINISHED = ".tmp"
"""The end of the names of files and folders that are still being written."""


def sync(path: Path) -> None:
    """Makes the content of a file durable, or the entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_files(folder: Path, target: Path, without: str) -> bool:
    """Makes links in the new folder `target` to all finished files below `folder`, but for those below `without` in it.

    Only for files that are never changed once they have their name. Returns False when one was removed meanwhile.
    """
    gone: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=gone.append):
        here = Path(parent).relative_to(folder)
        folders[:] = [name for name in folders if not name.endswith(UNFINISHED) and here / name != Path(without)]
        (target / here).mkdir(parents=True, exist_ok=True)
        for name in names:
            if not name.endswith(UNFINISHED):
                try:
                    os.link(Path(parent) / name, target / here / name)
                except FileNotFoundError as error:
                    gone.append(error)
    return not gone
