"""A node as a process of its own, to be killed, paused and started again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.conftest import START_S, wait_ready

_LISTENS = re.compile(r"listens on (http://\S+),")
STOP_S = 20


class Server:
    """`vecraft serve` on a folder; started anew it finds a new port. `log` is what it says on stderr.

    `program` is what Python runs instead of the command, for a node that is to be tampered with.
    """

    def __init__(self, data_dir: Path, *flags: str, program: tuple[str, ...] = ("-m", "vecraft")) -> None:
        self.data_dir = data_dir
        self.url = ""
        self.log: list[str] = []
        self._command = [sys.executable, *program, "serve", "--port", "0", "--data-dir", str(data_dir), *flags]
        self._process: subprocess.Popen[str] | None = None
        self._listens = threading.Event()

    def start(self) -> Server:
        """Starts the process and returns once it is ready."""
        self.launch()
        try:
            wait_ready(self.url)
        except AssertionError as error:
            status = None if self._process is None else self._process.poll()
            raise AssertionError(f"{error}; exit status {status}; it said:\n{''.join(self.log[-60:])}") from error
        return self

    def launch(self) -> Server:
        """Starts the process and returns once it listens, ready or not."""
        self._listens = threading.Event()
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        self._reading = threading.Thread(target=self._read, args=(self._process, self._listens), daemon=True)
        self._reading.start()
        assert self._listens.wait(START_S), f"the server did not start: {''.join(self.log)}"
        return self

    def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is flushed."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and the exit status of the clean stop."""
        return self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: it stands still, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def heal(self) -> None:
        """Resumes it or starts it again, and returns once it is ready."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        else:
            self.resume()
            wait_ready(self.url)

    def wait(self) -> int:
        """The exit status of a process that ends by itself."""
        assert self._process is not None
        status = self._process.wait(STOP_S)
        self._reading.join(STOP_S)
        return status

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _end(self, sig: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(sig)
        return self.wait()

    def _read(self, process: subprocess.Popen[str], listens: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line)
            if match := _LISTENS.search(line):
                self.url = match[1]
                listens.set()
        process.stderr.close()


def on_kafka(bootstrap: str, prefix: str) -> list[str]:
    """The flags of a node whose journal is on Kafka."""
    return ["--journal", "kafka", "--bootstrap-servers", bootstrap, "--topic-prefix", prefix]


@contextmanager
def two_nodes_on(bootstrap: str, folder: Path) -> Iterator[list[Server]]:
    """Two started nodes on one Kafka, with topics of their own; killed in the end."""
    flags = on_kafka(bootstrap, f"t{uuid4().hex[:8]}")
    servers = [Server(folder / name, *flags, "--node", name) for name in ("left", "right")]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.kill()
