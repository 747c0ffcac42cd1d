"""Control of the C heap (glibc): memory of freed large arrays returns to the system instead of staying in the heap."""

from __future__ import annotations

import ctypes
import sys

LARGE_BYTES = 8 << 20
"""Size of a segment's vectors. Request bodies and records are smaller; for them the heap is faster."""

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h


def keep_heap_small() -> None:
    """From now on, arrays above LARGE_BYTES are allocated by mmap. Also stops glibc from raising this threshold by itself."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)


def trim_heap() -> None:
    """Returns free heap memory to the system. Takes milliseconds, so call it only after large tasks."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None
