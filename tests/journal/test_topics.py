"""Topics and routing: V1 and V4, and the hash that every producer in any language must share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.log import TopicPartition
from journal.topics import PRESETS, TIER_PARTITIONS, TIERS, Topics, murmur2, shard_of


def test_there_is_one_topic_per_tier_and_one_for_the_system() -> None:
    """V1, V4"""
    topics = Topics()
    assert {topic: spec.partitions for topic, spec in topics.all().items()} == {
        "vecraft.tier0": 2,
        "vecraft.tier1": 4,
        "vecraft.tier2": 6,
        "vecraft.tier3": 2,
        "vecraft.system": 1,
        "vecraft.ingest": 6,
        "vecraft.dead-letters": 1,
    }
    assert topics.system_partition == TopicPartition("vecraft.system", 0)
    assert topics.dead_letter_partition == TopicPartition("vecraft.dead-letters", 0)


def test_data_goes_to_every_partition_of_every_tier_and_nowhere_else() -> None:
    """V1, V4"""
    topics = Topics()
    found = topics.data_partitions()
    assert len(found) == len(set(found)) == sum(TIER_PARTITIONS) == 14
    assert {topics.tier_of(partition.topic) for partition in found} == set(TIERS)
    assert all(partition.partition < topics.all()[partition.topic].partitions for partition in found)
    for other in (topics.system, topics.dead_letters, "tier0"):
        with pytest.raises(KeyError):
            topics.tier_of(other)


@pytest.mark.parametrize(
    ("preset", "tiers", "others", "amplification"),
    [
        ("dev", (1, 1, 1, 1), 1, (2, 2, 2, 2)),
        ("test", (3, 3, 2, 2), 3, (5, 5, 4, 4)),
        ("prod", (3, 3, 2, 2), 3, (6, 6, 5, 5)),
        ("high-durability", (3, 3, 3, 3), 3, (8, 8, 8, 8)),
    ],
)
def test_presets(preset: str, tiers: tuple[int, ...], others: int, amplification: tuple[int, ...]) -> None:
    """V1: copies of each topic, and how often a write is written in all."""
    topics = Topics(preset=preset)
    specs = topics.all()
    assert tuple(specs[topics.tier(tier)].replication for tier in TIERS) == tiers
    assert {specs[topic].replication for topic in (topics.system, topics.ingest, topics.dead_letters)} == {others}
    assert all(spec.min_insync == min(2, spec.replication) for spec in specs.values())
    assert tuple(PRESETS[preset].write_amplification(tier) for tier in TIERS) == amplification


def test_only_what_is_not_the_truth_may_be_forgotten() -> None:
    """I1"""
    topics = Topics()
    assert [topic for topic, spec in topics.all().items() if spec.retention_ms != -1] == [topics.ingest]
    assert [topic for topic, spec in topics.all().items() if not spec.log_times] == [topics.dead_letters]


def test_a_prefix_keeps_two_databases_apart() -> None:
    """V1"""
    assert not set(Topics("one").all()) & set(Topics("two").all())


@pytest.mark.parametrize(
    ("data", "java"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_kafkas_java_client(data: bytes, java: int) -> None:
    """U2: the values of Kafka's own UtilsTest, made positive as its partitioner does."""
    assert murmur2(data) == java & 0x7FFFFFFF


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_point_has_one_of_the_shards(point_id: bytes, shard_number: int) -> None:
    """J1"""
    assert 0 <= shard_of(point_id, shard_number) < shard_number
    assert shard_of(point_id, shard_number) == murmur2(point_id) % shard_number


def test_points_spread_over_the_shards() -> None:
    """J1"""
    counts = [0] * 6
    for number in range(6000):
        counts[shard_of(b"\x00" + number.to_bytes(8, "big"), 6)] += 1
    assert min(counts) > 850
