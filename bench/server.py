"""A server in its own process: start, resource usage, stop."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.process import Watched

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
_POLL_S = 0.005


class ServerError(Exception):
    """The server did not start. The text has the last part of its output."""


class ServerProcess(Watched):
    """Runs `command`, with its output in the file `log`, optionally as another user."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], user: str | None = None) -> None:
        self._log = log
        self._name = Path(command[0]).name
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}, user=user
            )
        super().__init__(self._process.pid)

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Waits until `ready` returns true. After an exit or a timeout, stops the process and raises ServerError."""
        until_s = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > until_s:
                self.stop()
                raise ServerError(f"{self._name} did not start: {self.output()[-2000:]}")
            time.sleep(_POLL_S)

    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
