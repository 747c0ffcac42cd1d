"""The compose files: read as compose reads them, and brought up by whichever compose command there is."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.infra.prometheus_server import wait_until

REPO = Path(__file__).resolve().parents[2]
UP_TIMEOUT_S, HEALTHY_TIMEOUT_S, DOWN_TIMEOUT_S, COMMAND_TIMEOUT_S = 900, 120, 180, 120
_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)}")


def services(file: str) -> dict[str, dict[str, Any]]:
    """The services of a compose file, with what they extend put in, and each variable at its default."""
    text = (REPO / file).read_text()
    return {name: _extended(service, REPO) for name, service in yaml.safe_load(_DEFAULT.sub(r"\2", text))["services"].items()}


def variables(file: str) -> dict[str, str]:
    """The variables that a compose file and what it extends ask for, with their defaults."""
    texts = [(REPO / path).read_text() for path in (file, "infra/docker/services.yml")]
    return {name: default for text in texts for name, default in _DEFAULT.findall(text)}


def _extended(service: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Maps are merged, lists joined, paths made absolute, as compose does it."""
    if "extends" not in service:
        return service
    file = folder / service["extends"]["file"]
    shared = yaml.safe_load(_DEFAULT.sub(r"\2", file.read_text()))["services"][service["extends"]["service"]]
    merged = deepcopy(_extended(shared, file.parent))
    merged["volumes"] = [_absolute(volume, file.parent) for volume in merged.get("volumes", [])]
    for key, value in service.items():
        if isinstance(value, dict):
            merged[key] = merged.get(key, {}) | value
        elif isinstance(value, list):
            merged[key] = merged.get(key, []) + value
        else:
            merged[key] = value
    return merged


def _absolute(volume: str, folder: Path) -> str:
    source, _, rest = volume.partition(":")
    return f"{(folder / source).resolve()}:{rest}" if source.startswith(".") else volume


@cache
def command_or_skip() -> list[str]:
    """`docker compose` or `docker-compose`. Without one, or without a daemon that answers, the test is skipped."""
    if shutil.which("docker") is None or not _succeeds("docker", "info"):
        pytest.skip("no Docker daemon answers")
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and _succeeds(*command, "version"):
            return command
    pytest.skip("there is neither docker compose nor docker-compose")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False).returncode == 0


class Compose:
    """The core of one compose file as a project of its own, on ports of its own; gone with its volumes at the end."""

    def __init__(self, file: str, project: str) -> None:
        self._command = [*command_or_skip(), "-f", str(REPO / file), "-p", project]
        self._ports = {name: str(port) for name, port in zip(variables(file), _free_ports(), strict=False)}
        self._environment = os.environ | self._ports | {"COMPOSE_PROFILES": "default"}
        if not _succeeds("docker", "buildx", "version"):
            self._environment["DOCKER_BUILDKIT"] = "0"

    def __enter__(self) -> Self:
        try:
            self.run("up", "-d", "--build", timeout_s=UP_TIMEOUT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run("down", "-v", "--remove-orphans", "--timeout", "5", timeout_s=DOWN_TIMEOUT_S)

    def run(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """What a compose command prints. RuntimeError with all it said if it fails."""
        done = subprocess.run(
            [*self._command, *arguments], env=self._environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"compose {' '.join(arguments)}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def kill(self, service: str) -> None:
        """SIGKILL to the service's container, as `docker kill` sends it: nothing restarts it."""
        self._docker("kill", self._container(service))

    def start(self, service: str) -> None:
        self.run("start", service)

    def wait_healthy(self, service: str) -> None:
        """Returns once the service's health check has found it well."""
        container = self._container(service)
        asked = ("inspect", "--format", "{{.State.Health.Status}}", container)
        assert wait_until(lambda: self._docker(*asked) == "healthy", HEALTHY_TIMEOUT_S), f"{service} is not healthy"

    def url(self, service: str) -> str:
        """Where a node is reached from here."""
        return f"http://127.0.0.1:{self._ports[f'VECRAFT_{service.upper()}_PORT']}"

    def log(self, service: str) -> str:
        """The end of what a service said."""
        return self.run("logs", "--tail", "30", service)

    @property
    def kafka(self) -> str:
        """Where the first broker is reached from here."""
        return f"127.0.0.1:{self._ports['VECRAFT_KAFKA_PORT']}"

    def _container(self, service: str) -> str:
        return self.run("ps", "-q", service).strip()

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
        return done.stdout.strip()


def _free_ports() -> list[int]:
    """Ten ports that were all free at the same time."""
    probes = [socket.socket() for _ in range(10)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
