"""What a topic is like on the brokers, and which of the system's promises that would break."""

from __future__ import annotations

from typing import NamedTuple

from journal.log import KEEP_FOREVER, TopicSpec

MAX_RECORD_SET_BYTES = 1_048_588
"""What a broker has to take at once: a record of ours and its envelope."""


class TopicFacts(NamedTuple):
    """A topic as the brokers describe it."""

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
    """The configuration of a topic that is created to a specification."""
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
    """Each promise that the topic would break, in words; none when it is fit."""
    found = []
    if facts.partitions < spec.partitions:
        found.append(f"it has {facts.partitions} partitions, {spec.partitions} are needed")
    if facts.replication < spec.replication:
        found.append(
            f"replication factor is {facts.replication}, the preset needs {spec.replication}: "
            "acknowledged writes would not survive the loss of a broker as promised"
        )
    if facts.min_insync < spec.min_insync:
        found.append(
            f"min.insync.replicas is {facts.min_insync}, the preset needs {spec.min_insync}: "
            "a write could be acknowledged by one broker alone, and be lost with it"
        )
    if facts.min_insync > facts.replication:
        found.append(f"min.insync.replicas {facts.min_insync} is above its {facts.replication} replicas: it takes no writes")
    if spec.log_times and not facts.log_times:
        found.append("message.timestamp.type is not LogAppendTime: replicas could not agree on the order of writes (I4, I6)")
    if spec.retention_ms == KEEP_FOREVER and (facts.retention_ms >= 0 or facts.retention_bytes >= 0):
        found.append("its retention is bounded: the journal is the only truth, and must not forget (I1)")
    if facts.cleanup != "delete":
        found.append(f"cleanup.policy is {facts.cleanup}: compaction would take records away (I1)")
    if facts.unclean_election and facts.replication > 1:
        found.append("unclean.leader.election.enable is true: acknowledged writes could be lost (I2)")
    if facts.max_message_bytes < MAX_RECORD_SET_BYTES:
        found.append(f"max.message.bytes is {facts.max_message_bytes}, records need {MAX_RECORD_SET_BYTES}")
    return found
