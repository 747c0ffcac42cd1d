"""CPU time and memory of a process and its descendants, from /proc; disk usage of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB = 1024
_BLOCK_BYTES = 512


class Watched:
    """A running process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu_s(self) -> float:
        return sum(map(_ticks, self._family())) / _TICKS_PER_S

    def pss_mib(self) -> float:
        """Memory as PSS (proportional set size): shared pages are divided among the processes that share them."""
        kib = 0
        for pid in self._family():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:  # it ended meanwhile
                continue
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return kib / _KIB

    def _family(self) -> Iterator[int]:
        """The ids of the process and all its descendants."""
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(folder.name)] = int(_stat(int(folder.name))[1])
            except OSError:  # it ended meanwhile
                continue
        family = [self.pid]
        for pid in family:
            yield pid
            family += [child for child, parent in parents.items() if parent == pid]


def disk_mib(folder: Path) -> float:
    """Disk space that the files below a folder use, in MiB."""
    blocks = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                blocks += os.lstat(os.path.join(parent, name)).st_blocks
            except FileNotFoundError:  # it was deleted meanwhile
                continue
    return blocks * _BLOCK_BYTES / _KIB**2


def _ticks(pid: int) -> int:
    try:
        return sum(map(int, _stat(pid)[11:13]))
    except OSError:  # it ended meanwhile
        return 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on. The second is the name, which may contain spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
