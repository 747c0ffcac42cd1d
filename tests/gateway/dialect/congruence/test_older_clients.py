"""Older versions of the client ask the same questions, and get the answers that the reference of the newest one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from tests.gateway.dialect.congruence.asking import answers
from tests.gateway.dialect.congruence.comparison import same

REPO = Path(__file__).parents[4]
FETCHED = REPO / ".cache" / "clients"
VERSIONS = ["1.14.3", "1.15.1", "1.16.2", "1.17.1", "1.18.0", "1.19.1"]
LEAST = 250
"""Questions that the oldest of them can ask."""

FETCH_S, ASK_S = 300, 300


def fetched(version: str) -> Path:
    """The folder of a version of the client, without what it needs, which the newest one has brought. Skips without a network."""
    folder = FETCHED / version
    if not folder.exists():
        unfinished = folder.with_suffix(f".{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unfinished)]
        done = subprocess.run([*command, f"qdrant-client=={version}"], capture_output=True, text=True, timeout=FETCH_S)
        if done.returncode:
            pytest.skip(f"qdrant-client {version} cannot be fetched: {done.stderr[-300:]}")
        unfinished.rename(folder)
    return folder


@pytest.fixture(scope="module")
def expected(both: list[QdrantClient]) -> dict[str, Any]:
    """What the reference of the newest version answers."""
    return answers(both[1])


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_this_version_gets_the_same_answers(
    both: list[QdrantClient], expected: dict[str, Any], node_url: str, version: str
) -> None:
    path = os.pathsep.join([str(fetched(version)), str(REPO)])
    command = [sys.executable, "-m", "tests.gateway.dialect.congruence.asking", node_url]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=ASK_S)
    assert done.returncode == 0, done.stderr[-2000:]
    asked_by, told = json.loads(done.stdout)
    assert asked_by == version
    assert len(told) > LEAST
    for label, answer in told.items():
        same(answer, expected[label], f"{version}, {label}")
