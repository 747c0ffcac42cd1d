"""A node as a process of its own, to be killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import wait_ready

_LISTENS = re.compile(r"listens on (http://\S+),")


class Server:
    """`vecraft serve` on a folder; started anew it finds a new port."""

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self.data_dir = data_dir
        self._flags = flags
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> Server:
        """Starts the process and returns once it is ready."""
        command = [sys.executable, "-m", "vecraft.cli", "serve", "--port", "0", "--data-dir", str(self.data_dir), *self._flags]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        seen = []
        for line in self._process.stderr:
            seen.append(line)
            if match := _LISTENS.search(line):
                self.url = match[1]
                wait_ready(self.url)
                return self
        raise AssertionError(f"the server did not start: {''.join(seen)}")

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is flushed."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and the exit status of the clean stop."""
        return self._end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _end(self, sig: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(sig)
        self._process.communicate(timeout=20)
        return self._process.returncode
