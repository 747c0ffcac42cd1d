"""Durability of files."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Makes the content of a file durable, or the entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
