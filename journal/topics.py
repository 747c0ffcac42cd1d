"""Topic names, tiers and routing: which records go to which topic and partition (V1, V4).

Journal-1 is the data, one topic per QoS tier; Journal-2 the transactions; Journal-3 the system's own facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from journal.log import TopicPartition

TIER_PARTITIONS = (2, 4, 6, 2)
"""Partitions of the data topics, by tier."""

TIERS = range(len(TIER_PARTITIONS))


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of all topics under one prefix."""

    prefix: str = "vecraft"

    def tier(self, tier: int) -> str:
        """The data topic of a QoS tier, 0 to 3."""
        return f"{self.prefix}.tier{tier}"

    @property
    def system(self) -> str:
        """Journal-3: catalog commands."""
        return f"{self.prefix}.system"

    @property
    def dead_letters(self) -> str:
        """Records that no replica can apply, with their origin and the reason (I6)."""
        return f"{self.prefix}.dead-letters"

    @property
    def system_partition(self) -> TopicPartition:
        return TopicPartition(self.system, 0)

    @property
    def dead_letter_partition(self) -> TopicPartition:
        return TopicPartition(self.dead_letters, 0)

    def data_partitions(self) -> list[TopicPartition]:
        """Every partition of every tier."""
        return [TopicPartition(self.tier(tier), p) for tier in TIERS for p in range(TIER_PARTITIONS[tier])]

    def home_partitions(self, home: Sequence[int]) -> list[TopicPartition]:
        """The partitions where a shard is at home: `home[tier]` is one of that tier's."""
        return [TopicPartition(self.tier(tier), partition) for tier, partition in enumerate(home)]

    def all(self) -> dict[str, int]:
        """Every topic that a node needs, with its number of partitions."""
        return {self.tier(tier): TIER_PARTITIONS[tier] for tier in TIERS} | {self.system: 1, self.dead_letters: 1}

    def tier_of(self, topic: str) -> int:
        """The tier of a data topic. Raises ValueError for any other topic."""
        return [self.tier(tier) for tier in TIERS].index(topic)


def murmur2(data: bytes) -> int:
    """Kafka's murmur2, the hash of the Java client's default partitioner, as an unsigned 32-bit number made positive."""
    length = len(data)
    h = 0x9747B28C ^ length
    for i in range(0, length - length % 4, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    if tail := data[length - length % 4 :]:
        h = (h ^ int.from_bytes(tail, "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return (h ^ h >> 15) & 0x7FFFFFFF


def shard_of(point_id: bytes, shard_number: int) -> int:
    """The shard of a point, by its encoded id (see `journal.ids`)."""
    return 0 if shard_number == 1 else murmur2(point_id) % shard_number
