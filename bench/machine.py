"""The machine: its description, and its load by other processes during a measurement."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("numpy", "faiss-cpu", "rocksdict", "uvicorn", "msgspec")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def description() -> str:
    """Cores, memory, and the versions of Python and relevant libraries."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = f"{os.cpu_count()} cores, {memory_bytes / (1 << 30):.0f} GiB of memory"
    return f"machine: {size}, clients included; Python {platform.python_version()}, {libraries}"


class OtherProcesses:
    """The CPU share of other processes since this object was created. Our child processes count as ours only after they end."""

    def __init__(self) -> None:
        self._begun = self._times_s()

    def share(self) -> float:
        """Share of all cores, 0 to 1."""
        busy_s, idle_s, own_s = (now - then for now, then in zip(self._times_s(), self._begun, strict=True))
        return max(0.0, busy_s - own_s) / max(busy_s + idle_s, 1e-9)

    def _times_s(self) -> tuple[float, float, float]:
        """Busy and idle time of all cores, and CPU time of this process and its ended children, in seconds."""
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / _TICKS_PER_S, idle / _TICKS_PER_S, sum(os.times()[:4])
