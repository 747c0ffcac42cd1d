"""A server as a process of its own: started in a folder, watched through /proc, and stopped."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB = 1024


class ServerError(Exception):
    """The server did not start. The text ends with the end of its log."""


class ServerProcess:
    """Runs `command` with its output in `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
            )

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Returns once `ready` says so. Raises ServerError when the process ends before, or takes too long."""
        until_s = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise ServerError(f"{self._process.args!r} did not start: {self.output()[-2000:]}")
            time.sleep(0.05)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # What it costs, helper processes included.

    def cpu_s(self) -> float:
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self._family()) / _TICKS_PER_S

    def rss_mib(self) -> float:
        return self._memory_mib("Rss:")

    def pss_mib(self) -> float:
        """Memory, with what is shared divided among those who share it."""
        return self._memory_mib("Pss:")

    def _memory_mib(self, field: str) -> float:
        kib = 0
        for pid in self._family():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith(field))
        return kib / _KIB

    def _family(self) -> Iterator[int]:
        """The process and all below it."""
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(folder.name)] = int(_stat(int(folder.name))[1])
            except OSError:  # it ended meanwhile
                continue
        family = [self._process.pid]
        for pid in family:
            yield pid
            family += [child for child, parent in parents.items() if parent == pid]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on; the second is a name that may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
