"""Clients in JavaScript and Go against a node, each a program of its own under its language's test runner (N6, V12).

Both come from their registries, pinned by `js/package-lock.json` and `go/go.sum`. As with Kafka, a laptop without node or Go
skips them with a line that says so, and CI fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

JS, GO = Path(__file__).parent / "js", Path(__file__).parent / "go"
OLDEST_NODE, OLDEST_GO = (20,), (1, 24, 4)  # as package.json and go.mod say
GO_STORIES = re.findall(r"^func (Test\w+)", (GO / "client_test.go").read_text(), re.M)
VERSION_TIMEOUT_S, FETCH_TIMEOUT_S, BUILD_TIMEOUT_S, RUN_TIMEOUT_S = 30, 120, 300, 60
GO_VARIABLES = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}


def skip(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str | Path, folder: Path, timeout_s: float, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def needs(program: str, *ask: str, oldest: tuple[int, ...]) -> None:
    """Skips the test where `program ask` does not tell of a version that will do."""
    wanted = ".".join(map(str, oldest))
    if shutil.which(program) is None:
        skip(f"no {program} on PATH: its client's test needs {wanted} or newer")
    said = run(program, *ask, folder=JS, timeout_s=VERSION_TIMEOUT_S, **GO_VARIABLES).stdout
    version = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", said)
    if version is None or tuple(int(part or 0) for part in version.groups()) < oldest:
        skip(f"{program} is {said.strip()!r}, and its client's test needs {wanted} or newer")


def fetch(*command: str, folder: Path, **variables: str) -> None:
    """Skips the test where the registry cannot be had and nothing is kept from an earlier time."""
    done = run(*command, folder=folder, timeout_s=FETCH_TIMEOUT_S, **variables)
    if done.returncode != 0:
        skip(f"{' '.join(command)} fails: {(done.stdout + done.stderr).strip()[-300:]}")


@pytest.fixture(scope="module")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test program, built once."""
    needs("go", "version", oldest=OLDEST_GO)
    fetch("go", "mod", "download", folder=GO, **GO_VARIABLES)
    program = tmp_path_factory.mktemp("go") / "clients.test"
    built = run("go", "test", "-c", "-o", program, folder=GO, timeout_s=BUILD_TIMEOUT_S, **GO_VARIABLES)
    assert built.returncode == 0, built.stdout + built.stderr
    return program


def test_the_javascript_client(url: str, tmp_path: Path) -> None:
    needs("node", "--version", oldest=OLDEST_NODE)
    needs("npm", "--version", oldest=(7,))
    for file in JS.iterdir():
        shutil.copy(file, tmp_path)
    fetch("npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", folder=tmp_path)
    told = run("node", "--test", "--test-reporter=tap", folder=tmp_path, timeout_s=RUN_TIMEOUT_S, VECRAFT_URL=url)
    stories = (JS / "client.test.js").read_text().count('\ntest("')
    assert (told.returncode, f"# pass {stories}\n" in told.stdout) == (0, True), told.stdout + told.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("go")  # one worker builds
@pytest.mark.parametrize("story", GO_STORIES)
def test_a_client_in_go(url: str, go_program: Path, story: str) -> None:
    told = run(go_program, f"-test.run=^{story}$", "-test.v", folder=GO, timeout_s=RUN_TIMEOUT_S, VECRAFT_URL=url)
    assert (told.returncode, f"--- PASS: {story}" in told.stdout) == (0, True), told.stdout + told.stderr
