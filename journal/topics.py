"""Topic names, tiers and routing: which topic and partition a record goes to (V1, V4).

Journal-1: data, one topic per QoS tier. Journal-2: transactions. Journal-3: catalog commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from journal.log import TopicPartition, TopicSpec

TIER_PARTITIONS = (2, 4, 6, 2)
"""Number of partitions of each tier's data topic."""

TIERS = range(len(TIER_PARTITIONS))

TIER_COPIES = (3, 3, 2, 2)
"""Replication factor of each tier's data topic, unless the preset needs more."""

INGEST_PARTITIONS = 6
WEEK_MS = 7 * 24 * 3600 * 1000


class Preset(NamedTuple):
    """Numbers of copies. `journal`: of records outside the tiers, on brokers. `storage`: of a point, on nodes. `tiers`: of
    records in each tier, on brokers.
    """

    journal: int
    storage: int
    tiers: tuple[int, ...]

    def write_amplification(self, tier: int) -> int:
        """Number of times that a write to this tier is stored in total."""
        return self.tiers[tier] + self.storage


PRESETS = {
    "dev": Preset(1, 1, (1, 1, 1, 1)),
    "test": Preset(3, 2, TIER_COPIES),
    "prod": Preset(3, 3, TIER_COPIES),
    "high-durability": Preset(3, 5, (3, 3, 3, 3)),
}


@dataclass(frozen=True, slots=True)
class Topics:
    """Names and specifications of all topics for a prefix and a preset."""

    prefix: str = "vecraft"
    preset: str = "dev"

    def tier(self, tier: int) -> str:
        """The data topic of a QoS tier, 0 to 3."""
        return f"{self.prefix}.tier{tier}"

    @property
    def system(self) -> str:
        """Journal-3: catalog commands."""
        return f"{self.prefix}.system"

    @property
    def dead_letters(self) -> str:
        """Dead letters: refused records with their source and the reason (I6)."""
        return f"{self.prefix}.dead-letters"

    @property
    def ingest(self) -> str:
        """The topic that foreign producers write to."""
        return f"{self.prefix}.ingest"

    @property
    def system_partition(self) -> TopicPartition:
        return TopicPartition(self.system, 0)

    @property
    def dead_letter_partition(self) -> TopicPartition:
        return TopicPartition(self.dead_letters, 0)

    def data_partitions(self) -> list[TopicPartition]:
        """All partitions of all tiers."""
        return [TopicPartition(self.tier(tier), p) for tier in TIERS for p in range(TIER_PARTITIONS[tier])]

    def home_partitions(self, home: Sequence[int]) -> list[TopicPartition]:
        """The home partitions of a shard: partition `home[tier]` of each tier."""
        return [TopicPartition(self.tier(tier), partition) for tier, partition in enumerate(home)]

    def all(self) -> dict[str, TopicSpec]:
        """The specification of every topic. An acknowledged record is on two brokers, unless the replication factor is 1."""
        preset = PRESETS[self.preset]
        copies = {self.tier(tier): preset.tiers[tier] for tier in TIERS}
        copies |= dict.fromkeys((self.system, self.ingest, self.dead_letters), preset.journal)
        partitions = {self.tier(tier): TIER_PARTITIONS[tier] for tier in TIERS} | {self.ingest: INGEST_PARTITIONS}
        specs = {topic: TopicSpec(partitions.get(topic, 1), count, min(2, count)) for topic, count in copies.items()}
        specs[self.ingest] = specs[self.ingest]._replace(retention_ms=WEEK_MS)
        specs[self.dead_letters] = specs[self.dead_letters]._replace(log_times=False)
        return specs

    def tier_of(self, topic: str) -> int:
        """The tier of a data topic. Raises KeyError for any other topic."""
        return _tiers_by_topic(self)[topic]


@lru_cache(16)
def _tiers_by_topic(topics: Topics) -> dict[str, int]:
    return {topics.tier(tier): tier for tier in TIERS}


def murmur2(data: bytes) -> int:
    """Kafka's murmur2, the hash of the Java client's default partitioner, with the sign bit cleared (31 bits)."""
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
    """The shard of a point. `point_id` is encoded (see `journal.ids`)."""
    return 0 if shard_number == 1 else murmur2(point_id) % shard_number
