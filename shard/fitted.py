"""Dicts that give memory back: one from which most entries were removed keeps the memory of all of them."""

from __future__ import annotations

from sys import getsizeof
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

ENTRY_BYTES = 100
"""The most memory of an entry in a dict that has only grown, without key and value."""

MAX_ROOM = 4
"""A dict is copied when it has room for this many times its entries, so each removal costs a fraction of one insertion."""

SMALL = 1_000
"""The entries of a dict that is not worth a copy."""


def fitted(held: dict[K, V]) -> dict[K, V]:
    """The dict itself, or a copy in less memory when most of its entries were removed. Readers may keep the old one."""
    return dict(held) if getsizeof(held) > MAX_ROOM * ENTRY_BYTES * (len(held) + SMALL) else held
