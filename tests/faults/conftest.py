"""Three brokers, two nodes, and a report of how long recovery took."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.checker import create
from tests.kafka_server import KafkaCluster, kafka_cluster_or_skip
from tests.server import Server, on_kafka

Report = Callable[[str, str], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    cluster = kafka_cluster_or_skip(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"f{uuid4().hex[:8]}"


def node(
    folder: Path, name: str, prefix: str, bootstrap: str, *flags: str, program: tuple[str, ...] = ("-m", "vecraft")
) -> Server:
    """A node, not yet started, that wants three copies of everything."""
    settings = [*on_kafka(bootstrap, prefix), "--node", name, "--preset", "high-durability"]
    return Server(folder / name, *settings, *flags, program=program)


@pytest.fixture(scope="module")
def started(cluster: KafkaCluster, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("nodes")
    servers = [node(folder, name, prefix, cluster.bootstrap) for name in ("left", "right")]
    for server in servers:
        server.start()
    create(servers[0].url)
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def nodes(started: list[Server], cluster: KafkaCluster) -> Iterator[list[Server]]:
    """Two nodes that are up, on brokers that are in sync; healed after each test."""
    yield started
    cluster.start()
    for server in started:
        server.heal()


_ids = iter(range(0, 10**9, 10**6))


@pytest.fixture
def first() -> int:
    """The first of a million point ids of this test's own."""
    return next(_ids)


@pytest.fixture(scope="session")
def report() -> Report:
    """Notes a measured row for docs/reliability.md, in the file that VECRAFT_FAULT_REPORT names, if there is one."""

    def note(fault: str, measured: str) -> None:
        line = f"| {fault} | {measured} |"
        print(line)
        if path := os.environ.get("VECRAFT_FAULT_REPORT"):
            with Path(path).open("a") as file:
                file.write(line + "\n")

    return note
