"""Whether the source offsets that a record claims existed when it was written.

A shard drops ingested points whose source offset is not above the highest one it has seen. So a claim of an offset that the
ingest topic does not have would make the next good points vanish. The verdict follows from the two logs alone, so all replicas
decide alike: the source record was appended at most `max_lateness` after the record that names it, or it is gone by retention.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from journal.log import Entry, Indefinite, Journal, Positions, TopicPartition
from journal.records import Ingested
from journal.topics import INGEST_PARTITIONS, Topics

FAR_OFFSETS = 10**9
"""No topic gets so many records within `max_lateness`: a claim so far beyond the end is known at once to be false."""

AHEAD = 10_000
"""If the record so far behind a claimed one is old enough, the claimed one is, too, and so are the next claims."""

POLL_S = 1.0


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
        self._ends: Positions = {}
        self._old: dict[TopicPartition, tuple[int, int]] = {}
        """By partition, an offset and its append time: all below it are at least as old."""

    def check(self, entry: Entry, ingested: Ingested) -> Claim:
        """Whether the source records of an entry existed. Raises JournalError when the ingest topic cannot be asked."""
        log, _, number = ingested.log.rpartition("/")
        if not self._identity:
            self._identity = self._journal.identities([self._topic])[self._topic]
        if log != self._identity or number not in _PARTITIONS:
            return Claim.TRUE
        partition, last, latest_ms = TopicPartition(self._topic, int(number)), ingested.offsets[-1], entry.time_ms + self._late_ms
        now_ms = self._now_ms()  # read before the end: what is not there then was not there at this time
        if last >= self._ends.get(partition, 0):
            self._ends |= self._journal.end_offsets([partition])
        if last < self._ends[partition]:
            return Claim.TRUE if now_ms <= latest_ms or self._time_of(partition, last, latest_ms) <= latest_ms else Claim.FALSE
        return Claim.FALSE if last >= self._ends[partition] + FAR_OFFSETS or now_ms > latest_ms else Claim.UNKNOWN

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


_PARTITIONS = {str(partition) for partition in range(INGEST_PARTITIONS)}
