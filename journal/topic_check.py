"""Compares the configuration of topics on the brokers with what the system's promises need."""

from __future__ import annotations

from typing import NamedTuple

from journal.log import KEEP_FOREVER, TopicSpec

MAX_RECORD_SET_BYTES = 1_048_588
"""Required `max.message.bytes`: our largest record and its envelope."""


class TopicFacts(NamedTuple):
    """The configuration of a topic on the brokers."""

    partitions: int
    replication: int
    min_insync: int
    retention_ms: int
    retention_bytes: int
    log_times: bool
    cleanup: str
    compression: str
    unclean_election: bool
    max_message_bytes: int


def config_of(spec: TopicSpec) -> dict[str, str]:
    """The Kafka configuration for a new topic with this specification."""
    return {
        "message.timestamp.type": "LogAppendTime" if spec.log_times else "CreateTime",
        "retention.ms": str(spec.retention_ms),
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "min.insync.replicas": str(spec.min_insync),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_RECORD_SET_BYTES),
    }


def breaches(spec: TopicSpec, facts: TopicFacts) -> list[str]:
    """A text for each promise that the topic would break; empty when it meets the specification."""
    texts = []
    if facts.partitions < spec.partitions:
        texts.append(f"it has {facts.partitions} partitions, {spec.partitions} are needed")
    if facts.replication < spec.replication:
        texts.append(
            f"replication factor is {facts.replication}, the preset needs {spec.replication}: "
            "acknowledged writes would not survive the loss of a broker as promised"
        )
    if facts.min_insync < spec.min_insync:
        texts.append(
            f"min.insync.replicas is {facts.min_insync}, the preset needs {spec.min_insync}: "
            "a write could be acknowledged by one broker alone, and be lost with it"
        )
    if facts.min_insync > facts.replication:
        texts.append(f"min.insync.replicas {facts.min_insync} is above its {facts.replication} replicas: it takes no writes")
    if spec.log_times and not facts.log_times:
        texts.append("message.timestamp.type is not LogAppendTime: replicas could not agree on the order of writes (I4, I6)")
    if spec.retention_ms == KEEP_FOREVER and (facts.retention_ms >= 0 or facts.retention_bytes >= 0):
        texts.append("its retention is bounded: the journal is the only truth, and must not forget (I1)")
    if facts.cleanup != "delete":
        texts.append(f"cleanup.policy is {facts.cleanup}: compaction would take records away (I1)")
    if facts.unclean_election and facts.replication > 1:
        texts.append("unclean.leader.election.enable is true: acknowledged writes could be lost (I2)")
    if facts.max_message_bytes < MAX_RECORD_SET_BYTES:
        texts.append(f"max.message.bytes is {facts.max_message_bytes}, records need {MAX_RECORD_SET_BYTES}")
    return texts
