"""The bound of the ids in one request: of points to write, read, change or delete, and of `has_id` in its filters."""

from __future__ import annotations

from typing import Any

import msgspec

from payload.errors import BoundError

MAX_IDS = 200_000
"""Ids of one request. Clients delete 100,000 at a time; the work for a larger request would take the node from others."""

_LISTS = frozenset({"ids", "points", "has_id"})


def check_ids(body: Any, content_bytes: int) -> None:
    """Raises BoundError if a parsed body of `content_bytes` has too many ids, in all its lists and filters together."""
    if content_bytes > MAX_IDS and (count := ids_in(body)) > MAX_IDS:  # an id takes a byte at least
        raise BoundError(
            f"ids: the request has {count} (in ids, points and has_id together), must be at most {MAX_IDS}; send several requests"
        )


def ids_in(part: Any) -> int:
    """The number of ids in a body or a part of it."""
    if isinstance(part, msgspec.Struct):
        return sum(_count(name, getattr(part, name)) for name in part.__struct_fields__)
    if isinstance(part, list) and part and isinstance(part[0], msgspec.Struct):
        return sum(map(ids_in, part))
    return 0


def _count(name: str, value: Any) -> int:
    return len(value) if name in _LISTS and isinstance(value, list) else ids_in(value)
