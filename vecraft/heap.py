"""The C heap: what large arrays give back goes back to the system, instead of waiting in the heap for arrays that never come."""

from __future__ import annotations

import ctypes
import sys

LARGE_BYTES = 8 << 20
"""Vectors of a segment; bodies and records are smaller, and better off in the heap."""

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h


def keep_heap_small() -> None:
    """Arrays above LARGE_BYTES get memory of their own from now on; glibc would raise that bound when such memory is freed."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)


def trim_heap() -> None:
    """Gives back what is free. Takes milliseconds; for after large tasks."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None
