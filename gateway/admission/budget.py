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

DEFAULT_SHARE = 0.8
MIB = 1 << 20


class Budget:
    """The bound of this process's anonymous memory. Thread-safe."""

    def __init__(self, budget_bytes: int, used: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes = budget_bytes
        self._used = used
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self._last = 0

    def used(self) -> int:
        """The anonymous memory in bytes, measured within the last LOOK_EVERY_S."""
        with self._lock:
            now_s = self._clock()
            if now_s - self._looked_s > LOOK_EVERY_S:
                self._looked_s, self._last = now_s, self._used()
            return self._last

    def check(self) -> None:
        """Raises InsufficientStorage when no more data may be added."""
        if (used := self.used()) > self.bytes:
            raise InsufficientStorage(
                f"this node uses {used // MIB} MiB of memory, memory_budget_mb is {self.bytes // MIB}: "
                "writes that add data are refused, deletes and reads go on",
                retry_after_s=5.0,
            )


def budget_of(budget_mb: int) -> Budget:
    """A budget in MiB; 0 for DEFAULT_SHARE of the memory of the machine or its control group."""
    return Budget(budget_mb * MIB or int(DEFAULT_SHARE * total_bytes()), lambda: status_bytes("RssAnon"))


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
