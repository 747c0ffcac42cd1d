"""What the journal's tests share: the broker, and Hypothesis without a clock of its own."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.kafka_server import KafkaServer, kafka_or_skip

for module in ("contract", "entries", "promises", "waits"):
    pytest.register_assert_rewrite(f"tests.journal.{module}")

settings.register_profile("journal", deadline=None)  # a shared machine is slow at times; that is no failure
settings.load_profile("journal")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real broker, for all tests of a session."""
    server = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()
