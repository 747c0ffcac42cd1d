"""The machine: what it is, and how much of it others took while something was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("numpy", "faiss-cpu", "rocksdict", "uvicorn", "msgspec")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def description() -> str:
    """Cores, memory, and the versions of what matters."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = f"{os.cpu_count()} cores, {memory_bytes / (1 << 30):.0f} GiB of memory"
    return f"machine: {size}, clients included; Python {platform.python_version()}, {libraries}"


class Others:
    """The share of all cores that processes took which are not ours, from the creation on. Ours count once they have ended."""

    def __init__(self) -> None:
        self._begun = self._times_s()

    def share(self) -> float:
        """Between 0 and 1."""
        busy_s, idle_s, own_s = (now - then for now, then in zip(self._times_s(), self._begun, strict=True))
        return max(0.0, busy_s - own_s) / max(busy_s + idle_s, 1e-9)

    def _times_s(self) -> tuple[float, float, float]:
        """Busy and idle time of all cores together, and the time of this process with its ended children."""
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / _TICKS_PER_S, idle / _TICKS_PER_S, sum(os.times()[:4])
