"""The memory budget.

It limits anonymous memory; the pages of mapped files (sealed vectors, codes, graphs) can be evicted by the system. Above the
budget, writes that add data are refused with 507, and nothing is lost; deletes, reads and the replay continue.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.http.errors import InsufficientStorage

LOOK_EVERY_S = 0.5
"""The interval between measurements; a measurement costs as much as a small write."""

RELEASE_EVERY_S = 5.0
"""The shortest interval between two attempts to return freed memory; each takes some 20 ms."""

DEFAULT_SHARE = 0.8
MIB = 1 << 20


class Budget:
    """The bound of this process's anonymous memory. Thread-safe."""

    def __init__(
        self,
        budget_bytes: int,
        used: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """`release` returns freed memory to the system; it is called when the budget is exceeded."""
        self.bytes = budget_bytes
        self._used = used
        self._release = release
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self._released_s = float("-inf")
        self._last = 0

    def used(self) -> int:
        """The anonymous memory in bytes, measured within the last LOOK_EVERY_S."""
        with self._lock:
            now_s = self._clock()
            if now_s - self._looked_s > LOOK_EVERY_S:
                self._looked_s, self._last = now_s, self._used()
                if self._last > self.bytes and now_s - self._released_s > RELEASE_EVERY_S:
                    self._release()
                    self._released_s, self._last = now_s, self._used()
            return self._last

    def check(self) -> None:
        """Raises InsufficientStorage when no more data may be added."""
        if (used := self.used()) > self.bytes:
            raise InsufficientStorage(
                f"this node uses {used // MIB} MiB of memory, memory_budget_mb is {self.bytes // MIB}: "
                "writes that add data are refused, deletes and reads go on",
                retry_after_s=5.0,
            )


def budget_of(budget_mb: int, release: Callable[[], None]) -> Budget:
    """A budget in MiB; 0 for DEFAULT_SHARE of the memory of the machine or its control group. `release`: see Budget."""
    budget_bytes = budget_mb * MIB or int(DEFAULT_SHARE * total_bytes())
    return Budget(budget_bytes, lambda: status_bytes("RssAnon"), release=release)


def total_bytes() -> int:
    """The memory of the machine, or of the control group if that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such file, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def status_bytes(name: str) -> int:
    """A value of /proc/self/status, in bytes; 0 on systems without it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0
