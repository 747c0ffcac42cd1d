"""Results of recent requests: request id -> the records it wrote, and how each was applied (V3)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from journal.log import Entry, TopicPartition
from journal.records import Record

MAX_REQUESTS = 10_000
"""Number of requests kept in memory; the oldest are dropped. `vecraft journal show` finds older ones."""

MAX_RECORDS = 1_000
MAX_ALL_RECORDS = 100_000
"""Number of records kept per request, and in total."""


class AppliedRecord(NamedTuple):
    """One record of a request. `verdict` is "applied", "repeated", "refused" (with `reason`) or "dropped"."""

    partition: TopicPartition
    offset: int
    collection: int
    shard: int
    operation: str
    hlc: int
    stamp: int
    verdict: str
    reason: str = ""


class Operations:
    """A bounded cache of applied records by request id. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: OrderedDict[str, dict[tuple[TopicPartition, int], AppliedRecord]] = OrderedDict()
        self._count = 0

    def note(self, request_id: str, record: AppliedRecord) -> None:
        """Adds a record to its request. Idempotent: a redelivery changes nothing."""
        with self._lock:
            records = self._requests.setdefault(request_id, {})
            place = (record.partition, record.offset)
            if len(records) < MAX_RECORDS and place not in records:
                records[place] = record
                self._count += 1
            while len(self._requests) > MAX_REQUESTS or self._count > MAX_ALL_RECORDS:
                _, oldest = self._requests.popitem(last=False)
                self._count -= len(oldest)

    def note_entry(self, entry: Entry, record: Record, stamp: int, verdict: str, reason: str = "") -> None:
        """As `note`, for the record in `entry`. Ignores a record without a request id."""
        if record.request_id:
            operation = type(record.operation).__name__
            self.note(
                record.request_id,
                AppliedRecord(
                    entry.partition, entry.offset, record.collection, record.shard, operation, record.hlc, stamp, verdict, reason
                ),
            )

    def of(self, request_id: str) -> list[AppliedRecord]:
        """The records of a request, in log order; empty when it is unknown or was dropped."""
        with self._lock:
            return sorted(self._requests.get(request_id, {}).values())

    def at(self, request_id: str, partition: TopicPartition, offset: int) -> AppliedRecord | None:
        """The record at this place, of this request; None when it is unknown or was dropped."""
        with self._lock:
            return self._requests.get(request_id, {}).get((partition, offset))
