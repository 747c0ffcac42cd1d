"""Two nodes on one broker, with a prefix of topics for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checker import create
from tests.faults.conftest import node
from tests.kafka_server import KafkaServer
from tests.server import Server


def dev_node(folder: Path, name: str, prefix: str, kafka: KafkaServer, **options: object) -> Server:
    return node(folder, name, prefix, kafka.bootstrap, "--preset", "dev", **options)  # type: ignore[arg-type]


@pytest.fixture
def pair(kafka: KafkaServer, prefix: str, tmp_path: Path) -> Iterator[list[Server]]:
    """Two nodes on one broker."""
    servers = [dev_node(tmp_path, name, prefix, kafka).start() for name in ("left", "right")]
    create(servers[0].url)
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return request.node.name.removeprefix("test_")[:40]
