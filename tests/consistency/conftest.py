"""Two nodes on one Kafka, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.kafka_server import KafkaServer, kafka_or_skip
from tests.server import Server

TwoNodes = list[Server]


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    kafka = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield kafka
    kafka.stop()


@pytest.fixture(scope="package")
def two_nodes(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    shared = ("--journal", "kafka", "--bootstrap-servers", kafka.bootstrap, "--topic-prefix", f"t{uuid4().hex[:8]}")
    servers = [Server(tmp_path_factory.mktemp(name), *shared, "--node", name) for name in ("left", "right")]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.kill()
