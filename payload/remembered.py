"""Memoized functions. Their cache is bounded in bytes, not in entries, because words, paths and schemas may be long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TypeVar

Argument = TypeVar("Argument", bound=Hashable)
Result = TypeVar("Result")

ENTRY_BYTES = 120
"""Memory overhead of a cache entry, in addition to its argument and result."""


def remembered(
    function: Callable[[Argument], Result], size_bytes: Callable[[Argument, Result], int], max_bytes: int
) -> Callable[[Argument], Result]:
    """`function` with a cache of recent results, at most `max_bytes`. It must not return None. Thread-safe.

    Approximates LRU with two generations of `max_bytes` / 2 each. A result used from the old generation moves to the young one.
    When the young generation is full it becomes the old one, and the previous old one is dropped. So a hit needs one dict lookup
    and no lock.
    """
    lock = threading.Lock()
    young: dict[Argument, Result] = {}
    old: dict[Argument, Result] = {}
    young_bytes = 0

    def miss(argument: Argument) -> Result:
        """The result from the old generation or from `function`; adds it to the young one if it fits."""
        nonlocal young, old, young_bytes
        result = old.get(argument)
        if result is None:
            result = function(argument)
        size = ENTRY_BYTES + size_bytes(argument, result)
        if size > max_bytes // 2:
            return result
        with lock:
            if argument in young:  # another thread was faster
                return result
            if young_bytes + size > max_bytes // 2:
                old, young, young_bytes = young, {}, 0
            young[argument] = result
            young_bytes += size
        return result

    def lookup(argument: Argument) -> Result:
        result = young.get(argument)
        return miss(argument) if result is None else result

    return lookup
