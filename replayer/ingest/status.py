"""What a source does now, by partition, with the states that users of Kafka Connect know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from catalog.ingest import IngestSource
from journal.log import Definite, Journal, TopicPartition
from journal.topics import Topics
from replayer.ingest.member import Failure, Ingest, group_of, position_of, topic_of


class State(StrEnum):
    """What becomes of the records of a partition."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FAILED = "FAILED"
    UNASSIGNED = "UNASSIGNED"


class Standing(NamedTuple):
    """The offset of the next record to write, and the end of the partition."""

    position: int
    end: int

    @property
    def lag(self) -> int:
        return max(0, self.end - self.position)


class PartitionStatus(NamedTuple):
    """One partition of a source. `node` is the one that has it, "" for none; `since_ms` is None where it is not known."""

    partition: int
    state: State
    standing: Standing
    epoch: int
    node: str
    since_ms: int | None


class SourceStatus(NamedTuple):
    """A source. `last_failure` is that of the asked node."""

    source: IngestSource
    topic: str
    group: str
    state: State
    partitions: Sequence[PartitionStatus]
    last_failure: Failure | None


def standings(journal: Journal, topics: Topics, source: IngestSource) -> dict[TopicPartition, Standing]:
    """How far each partition of a source is written; none when its topic does not exist. Raises JournalError."""
    topic = topic_of(topics, source)
    if not (partitions := journal.partitions(topic)):
        return {}
    identity = journal.identities([topic]).get(topic, "")
    starts, ends = journal.start_offsets(partitions), journal.end_offsets(partitions)
    commits = journal.commits(group_of(topics, source), partitions)
    return {
        partition: Standing(max(start, position_of(source, partition, commits.get(partition), identity)), ends[partition])
        for partition, start in starts.items()
    }


def status_of(journal: Journal, topics: Topics, source: IngestSource, member: Ingest | None, node: str) -> SourceStatus:
    """The status of a source, asked of the log; `member` is that of this node, `node`. Raises JournalError."""
    group = group_of(topics, source)
    owners = journal.members(group)
    try:
        found = standings(journal, topics, source)
    except Definite:  # this node may not see the topic: the failure of its member says so
        found = {}
    partitions = [_partition_status(source, partition, standing, owners, member, node) for partition, standing in found.items()]
    states = [each.state for each in partitions]
    is_failing = member is not None and member.failing_ms is not None
    last_failure = None if member is None else member.last_failure
    return SourceStatus(source, topic_of(topics, source), group, _overall(states, is_failing), partitions, last_failure)


def _partition_status(
    source: IngestSource,
    partition: TopicPartition,
    standing: Standing,
    owners: Mapping[TopicPartition, str],
    member: Ingest | None,
    node: str,
) -> PartitionStatus:
    owner = owners.get(partition, "")
    failing_ms = None if member is None else member.failing_ms
    running_ms = None if member is None else member.running.get(partition)
    number = partition.partition
    since_ms: int | None
    if (paused_ms := source.paused_since(number)) is not None:
        state, since_ms = State.PAUSED, paused_ms
    elif failing_ms is not None and owner in ("", node):
        state, since_ms = State.FAILED, failing_ms
    elif owner:
        state, since_ms = State.RUNNING, running_ms if owner == node else None
    else:
        state, since_ms = State.UNASSIGNED, None
    return PartitionStatus(number, state, standing, source.epoch(number), owner, since_ms)


def _overall(states: Sequence[State], is_failing: bool) -> State:
    """The state of a source: what is wrong with any partition; paused only when all are."""
    if State.FAILED in states or (is_failing and not states):
        return State.FAILED
    if State.UNASSIGNED in states or not states:
        return State.UNASSIGNED
    return State.RUNNING if State.RUNNING in states else State.PAUSED
