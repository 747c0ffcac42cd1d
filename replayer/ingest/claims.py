"""Whether the source offsets that a record claims existed when it was written.

A shard drops ingested points whose source offset is not above the highest one it has seen. So a claim of an offset that the
ingest topic does not have would make the next good points vanish. The verdict follows from the two logs alone, so all replicas
decide alike: the source record was appended at most `max_lateness` after the record that names it, or it is gone by retention.

This is checked for the project's own ingest topic as it is now. It cannot be for an earlier topic of the same name, nor for
topics of others: these may be compacted, and their times are set by producers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from journal.log import Entry, Indefinite, Journal, Positions, TopicPartition
from journal.records import Ingested
from journal.topics import Topics

FAR_OFFSETS = 10**9
"""No topic gets so many records within `max_lateness`: a claim so far beyond the end is known at once to be false."""

AHEAD = 10_000
"""If the record so far behind a claimed one is old enough, the claimed one is, too, and so are the next claims."""

POLL_S = 1.0

MAX_FORMER = 1_000
"""Number of former identities of the topic that are remembered."""


_NUMBER = re.compile("0|[1-9][0-9]{0,8}")


class Claim(Enum):
    """What is known of a claim."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class IngestClaims:
    """Checks claims on the ingest topic as it is now; those on an earlier one of the same name are not checked."""

    def __init__(self, journal: Journal, topics: Topics, now_ms: Callable[[], int], max_lateness_ms: int) -> None:
        self._journal = journal
        self._topic = topics.ingest
        self._now_ms = now_ms
        self._late_ms = max_lateness_ms
        self._identity = ""
        self._former: set[str] = set()
        """Identities that the topic does not have now, and that it had before, if at all."""
        self._partitions: set[TopicPartition] = set()
        self._ends: Positions = {}
        self._old: dict[TopicPartition, tuple[int, int]] = {}
        """By partition, an offset and its append time: all below it are at least as old."""

    def check(self, entry: Entry, ingested: Ingested) -> Claim:
        """Whether the source records of an entry existed. Raises JournalError when the ingest topic cannot be asked."""
        log, _, number = ingested.log.rpartition("/")
        if "/" in log or not _NUMBER.fullmatch(number) or not self._is_current(log, entry):
            return Claim.TRUE
        claim = self._compared(entry, TopicPartition(self._topic, int(number)), ingested.offsets[-1])
        if claim is not Claim.TRUE:
            self._ask_identity()  # the topic may have been made anew while it was asked
        return claim if log == self._identity else Claim.TRUE

    def _compared(self, entry: Entry, partition: TopicPartition, last: int) -> Claim:
        """Whether the topic has the offset `last`, or had it until `max_lateness` after the entry."""
        latest_ms = entry.time_ms + self._late_ms
        now_ms = self._now_ms()  # read before the end: what is not there then was not there at this time
        if last >= self._ends.get(partition, 0):
            self._ends |= self._asked_end(partition)
        end = self._ends.get(partition, 0)
        if last < end:
            return Claim.TRUE if now_ms <= latest_ms or self._time_of(partition, last, latest_ms) <= latest_ms else Claim.FALSE
        return Claim.FALSE if last >= end + FAR_OFFSETS or now_ms > latest_ms else Claim.UNKNOWN

    def _asked_end(self, partition: TopicPartition) -> Positions:
        """The end of a partition; nothing when the topic does not have it, since partitions may be added."""
        if partition not in self._partitions:
            self._partitions = set(self._journal.partitions(self._topic))
        return self._journal.end_offsets([partition]) if partition in self._partitions else {}

    def _is_current(self, log: str, entry: Entry) -> bool:
        """Whether the topic has this identity now. Asks the log again for one that is not known, since topics are made anew."""
        if log in self._former:
            return False
        now_ms = self._now_ms()
        if log != self._identity:
            self._ask_identity()
        if log == self._identity:
            return True
        if now_ms > entry.time_ms + self._late_ms:  # until then a broker may not have heard of the new topic
            if len(self._former) >= MAX_FORMER:
                self._former.clear()
            self._former.add(log)
        return False

    def _ask_identity(self) -> None:
        """Asks the log which topic has the name now, and forgets what is known of a former one."""
        identity = self._journal.identities([self._topic]).get(self._topic, "")
        if identity != self._identity:
            self._identity, self._partitions, self._ends, self._old = identity, set(), {}, {}

    def _time_of(self, partition: TopicPartition, offset: int, latest_ms: int) -> int:
        """When the record at `offset` was appended, or a later bound that is not above `latest_ms`; 0 when it is gone."""
        known, time_ms = self._old.get(partition, (0, 0))
        if offset < known and time_ms <= latest_ms:
            return time_ms
        ahead = min(offset + AHEAD, self._ends[partition] - 1)
        time_ms = self._appended_ms(partition, ahead)
        if time_ms <= latest_ms:
            self._old[partition] = ahead + 1, time_ms
            return time_ms
        return self._appended_ms(partition, offset)

    def _appended_ms(self, partition: TopicPartition, offset: int) -> int:
        """The append time of the first record at or after `offset`; 0 when it is below the start of the topic.

        Raises Indefinite when it cannot be read now: a guess could differ from that of another replica.
        """
        if offset < self._journal.start_offsets([partition])[partition]:
            return 0
        reader = self._journal.reader()
        try:
            reader.assign({partition: offset})
            entries, positions = reader.poll(POLL_S, 1)
        finally:
            reader.close()
        if not entries and positions[partition] <= offset:
            raise Indefinite(f"{partition}/{offset} cannot be read")
        return entries[0].time_ms if entries else 0  # only the markers of transactions are left
