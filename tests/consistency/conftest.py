"""Two nodes on one Kafka, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kafka_server import KafkaServer, kafka_or_skip
from tests.server import Server, two_nodes_on

TwoNodes = list[Server]


@pytest.fixture(scope="package")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    kafka = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield kafka
    kafka.stop()


@pytest.fixture(scope="package")
def two_nodes(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes_on(kafka.bootstrap, tmp_path_factory.mktemp("nodes")) as servers:
        yield servers
