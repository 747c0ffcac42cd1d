"""A node as a process of its own for the clients of the ecosystem, which are strangers to this code (N6)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.server import Server

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"  # it asks when it is imported, and would report to its makers
os.environ["LANGSMITH_TRACING"] = "false"


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a node on the embedded journal."""
    server = Server(tmp_path_factory.mktemp("clients"))
    try:
        yield server.start().url
    finally:
        status = server.terminate()
    assert status == 0


@pytest.fixture
def collection() -> str:
    """A name that nothing has yet."""
    return f"songs-{uuid4().hex[:8]}"
