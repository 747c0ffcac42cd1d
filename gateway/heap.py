"""What the C library's allocator says about its memory. Only glibc tells."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import NamedTuple


class Heap(NamedTuple):
    """Bytes: in use by the program, taken from the system for it, and free but kept for later."""

    allocated: int
    active: int
    retained: int


_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    """See mallinfo2(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


def heap() -> Heap | None:
    """The memory of the heap now; None where the C library does not tell."""
    if (mallinfo2 := _mallinfo2()) is None:
        return None
    info = mallinfo2()
    return Heap(info.uordblks + info.hblkhd, info.arena + info.hblkhd, info.fordblks)


@cache
def _mallinfo2() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Mallinfo2
    return libc.mallinfo2
