"""Where the parts of a collection are held: which of the dialect's memory placements is true of which part here.

`cold`: read from disk when it is needed. `cached`: read once at the start; the system may evict what it can read again.
`pinned`: in the memory of the process. What would not be true is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from catalog.collection import Memory
from payload.errors import BoundError


class Part(NamedTuple):
    """The placements that a part can have, and why it has no others."""

    places: tuple[Memory, ...]
    why: str


VECTORS = Part((Memory.COLD, Memory.CACHED), "vectors are in mapped files, which the system may evict")
MULTI_VECTORS = Part((Memory.CACHED, Memory.PINNED), "multi-vectors are always in memory")
GRAPH = Part((Memory.CACHED, Memory.PINNED), "a graph and its codes are read when they are opened")
ALWAYS_IN_MEMORY = Part((Memory.CACHED, Memory.PINNED), "this is always in memory")
PAYLOAD = Part((Memory.COLD,), "payload is read from disk when it is needed, through a cache of bounded size")


def placed(label: str, place: Memory | None, part: Part) -> Memory | None:
    """The placement, which may be None. Raises BoundError, with the field and what is possible."""
    if place is not None and place not in part.places:
        raise BoundError(f"{label}.memory: {place} is not possible, {part.why}; possible: {', '.join(part.places)}")
    return place
