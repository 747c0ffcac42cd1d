"""A real Prometheus for tests: the one on PATH, else Debian's package, unpacked into the cache without being installed."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.infra.debian import unpacked
from tests.kafka_server import WATCHED

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / "infra/prometheus"
START_TIMEOUT_S, STOP_TIMEOUT_S, CHECK_TIMEOUT_S = 30, 15, 60


@cache
def program_or_skip(name: str) -> str:
    """Path of `prometheus` or `promtool`. Where there is none and none can be fetched, the test is skipped."""
    if found := shutil.which(name):
        return found
    try:
        return str(unpacked("prometheus") / "usr/bin" / name)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        pytest.skip(f"no {name} on PATH, and Debian's package cannot be fetched: {error}")


def promtool(*arguments: str | Path) -> None:
    """Runs promtool; AssertionError with what it says if it refuses."""
    done = subprocess.run(
        [program_or_skip("promtool"), *arguments], capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """Scrapes `targets` (host:port) twice a second, under the project's own rules."""

    def __init__(self, data_dir: Path, targets: list[str]) -> None:
        self._data_dir = data_dir
        self._targets = targets
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()

    def __enter__(self) -> Self:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        config, port = self._data_dir / "prometheus.yml", _free_port()
        config.write_text(
            "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
            f"rule_files: ['{CONFIG / 'rules.yml'}']\n"
            f"scrape_configs: [{{job_name: vecraft, static_configs: [{{targets: {self._targets}}}]}}]\n"
        )
        command = [program_or_skip("prometheus"), f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
        with (self._data_dir / "log").open("wb") as log:
            data = f"--storage.tsdb.path={self._data_dir / 'data'}"
            watched = ["sh", "-c", WATCHED, "sh", *command, data]  # ends with this process, even when that is killed
            self._process = subprocess.Popen(watched, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
        self._client.base_url = httpx.URL(f"http://127.0.0.1:{port}")
        if not wait_until(self._ready, START_TIMEOUT_S):
            self.__exit__()
            raise RuntimeError(f"Prometheus did not start:\n{(self._data_dir / 'log').read_text()[-2000:]}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            self._process.kill()
            self._process.communicate(b"released\n")  # lets the watching shell go
        self._client.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query finds now: one entry for each series. AssertionError if Prometheus refuses it."""
        answer = self._client.post("/api/v1/query", data={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        return list(answer["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with its `health` and `lastError`."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ready(self) -> bool:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)  # its end is noticed at once
            raise RuntimeError(f"Prometheus ended:\n{(self._data_dir / 'log').read_text()[-2000:]}")
        with contextlib.suppress(httpx.TransportError):
            return self._client.get("/-/ready").status_code == 200
        return False


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition comes true in time. Each ask must be a round trip: there is no pause between them."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
