"""A record that any shard takes, and partitions of the first tier and the last."""

from __future__ import annotations

from journal.log import TopicPartition
from tests.replayer.rig import TOPICS, upsert

GOOD = upsert(1, 2)
TIER0 = TopicPartition(TOPICS.tier(0), 0)
TIER3 = TopicPartition(TOPICS.tier(3), 0)
