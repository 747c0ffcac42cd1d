"""Consumer groups within one process, for the memory and embedded journals: members share the partitions of a topic.

As in Kafka, a member starts where its `begin` says, from what its group committed. After a rebalance it reads its new share from
the next poll.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from journal.log import Batch, Begin, Committed, Indefinite, Journal, Positions, TopicPartition

Commit = Callable[[str, Mapping[TopicPartition, Committed]], None]
"""Stores what a group commits."""


def committed_of(
    positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None
) -> dict[TopicPartition, Committed]:
    """What is committed with these offsets and epochs."""
    return {partition: Committed(offset, (epochs or {}).get(partition, 0)) for partition, offset in positions.items()}


class LocalGroups:
    """All consumer groups of a journal. `commit` stores what their members commit."""

    def __init__(self, journal: Journal, commit: Commit) -> None:
        self._journal = journal
        self.commit = commit
        self._lock = threading.Lock()
        self._members: dict[str, list[LocalMember]] = {}

    def join(self, group: str, partitions: Sequence[TopicPartition], name: str, begin: Begin) -> LocalMember:
        """Adds a member to the group of these partitions and rebalances."""
        member = LocalMember(self, self._journal, group, name, begin)
        with self._lock:
            self._members.setdefault(group, []).append(member)
            self._share(group, partitions)
        return member

    def leave(self, member: LocalMember) -> None:
        """Removes the member and rebalances its partitions to the others."""
        with self._lock:
            members = self._members[member.group]
            if member in members:
                members.remove(member)
                partitions = sorted(p for m in (*members, member) for p in m.share)
                member.share = ()
                self._share(member.group, partitions)

    def members(self, group: str) -> dict[TopicPartition, str]:
        """The name of the member that has each partition."""
        with self._lock:
            return {partition: member.name for member in self._members.get(group, ()) for partition in member.share}

    def _share(self, group: str, partitions: Sequence[TopicPartition]) -> None:
        members = self._members[group]
        for number, member in enumerate(members):
            member.share = tuple(partitions[number :: len(members)])
            member.wake()


class LocalMember:
    """A member of a group. `share` are the partitions that it reads from its next poll on."""

    def __init__(self, groups: LocalGroups, journal: Journal, group: str, name: str, begin: Begin) -> None:
        self.group = group
        self.name = name
        self.share: tuple[TopicPartition, ...] = ()
        self._groups = groups
        self._journal = journal
        self._begin = begin
        self._reader = journal.reader()
        self._reading: tuple[TopicPartition, ...] = ()

    def poll(self, timeout_s: float, max_records: int = 1000, max_bytes: int = 8 << 20) -> Batch:
        if self._reading != (share := self.share):
            self._reader.assign(self._starts(share))
            self._reading = share
        entries = self._reader.poll(timeout_s, max_records, max_bytes).entries
        positions: Positions = {entry.partition: entry.offset + 1 for entry in entries}
        return Batch(entries, positions)

    def commit(self, positions: Mapping[TopicPartition, int], epochs: Mapping[TopicPartition, int] | None = None) -> None:
        if not positions.keys() <= set(self.share):
            raise Indefinite(f"not this member's partitions any more: {sorted(positions.keys() - set(self.share))}")
        self._groups.commit(self.group, committed_of(positions, epochs))

    def wake(self) -> None:
        self._reader.wake()

    def close(self) -> None:
        self._groups.leave(self)
        self._reader.close()

    def _starts(self, share: Sequence[TopicPartition]) -> Positions:
        committed = self._journal.commits(self.group, share)
        begins = self._begin({partition: committed.get(partition) for partition in share})
        starts = self._journal.start_offsets(list(begins))
        return {partition: max(starts[partition], offset) for partition, offset in begins.items()}
