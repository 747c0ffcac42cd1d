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
    target.mkdir(parents=True)
    complete = True
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] == without or any(part.endswith(UNFINISHED) for part in relative.parts):
            continue
        try:
            if path.is_file():
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target / relative)
        except FileNotFoundError:
            complete = False
    return complete
