"""Functions that remember their latest results, bounded in bytes, not in number: words, paths and schemas may be long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

Argument = TypeVar("Argument", bound=Hashable)
Result = TypeVar("Result")

ENTRY_BYTES = 120
"""What an entry takes beside its argument and its result."""


def remembered(
    function: Callable[[Argument], Result], size_bytes: Callable[[Argument, Result], int], max_bytes: int
) -> Callable[[Argument], Result]:
    """`function`, with its latest results kept in at most `max_bytes`. It must not return None. Thread-safe.

    Entries are in two generations of half the size each. A result that is asked for again moves to the young one; when that is
    full, it takes the place of the old one, which is forgotten. So a hit costs one look-up in a dict, and needs no lock.
    """
    lock = threading.Lock()
    young: dict[Argument, Result] = {}
    old: dict[Argument, Result] = {}
    young_bytes = 0

    def kept(argument: Argument) -> Result:
        """From the old generation or the function; put into the young one unless it is too large for it."""
        nonlocal young, old, young_bytes
        found = old.get(argument)
        if found is None:
            found = function(argument)
        size = ENTRY_BYTES + size_bytes(argument, found)
        if size > max_bytes // 2:
            return found
        with lock:
            if argument in young:  # another thread was faster
                return found
            if young_bytes + size > max_bytes // 2:
                old, young, young_bytes = young, {}, 0
            young[argument] = found
            young_bytes += size
        return found

    def recall(argument: Argument) -> Result:
        found = young.get(argument)
        return kept(argument) if found is None else found

    return recall
