"""What a journal promises of its end (I2, I12)."""

import pytest

from journal.log import Definite, Journal, TopicPartition, TopicSpec
from tests.journal.entries import outcomes
from tests.journal.promises import PARTITIONS


class Closing:
    """What becomes of appends before the end and after it."""

    def test_close_leaves_no_append_undecided(self, closable: Journal, topic: str) -> None:
        """I2: and is idempotent."""
        partition = TopicPartition(topic, 0)
        closable.ensure_topics({topic: TopicSpec(PARTITIONS)})
        futures = [closable.append(partition, bytes(1000)) for _ in range(300)]
        closable.close()
        closable.close()
        assert all(future.done() for future in futures)
        outcomes(futures)

    def test_a_closed_journal_takes_no_appends(self, closable: Journal, topic: str) -> None:
        """I12"""
        closable.ensure_topics({topic: TopicSpec(PARTITIONS)})
        closable.close()
        with pytest.raises(Definite):
            closable.append(TopicPartition(topic, 0), b"late")
