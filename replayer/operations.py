"""What became of recent requests: request id -> the records it wrote and how each was applied (V3)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from journal.log import TopicPartition

MAX_REQUESTS = 10_000
"""Requests remembered by a node; the oldest leave. Older ones are found with `vecraft journal show`."""

MAX_RECORDS = 1_000
MAX_ALL_RECORDS = 100_000
"""Records remembered of one request, and of all of them."""


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
    """A bounded memory of applied records by request. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: OrderedDict[str, dict[tuple[TopicPartition, int], AppliedRecord]] = OrderedDict()
        self._count = 0

    def note(self, request_id: str, record: AppliedRecord) -> None:
        """Remembers what became of a record; a redelivery changes nothing."""
        with self._lock:
            records = self._requests.setdefault(request_id, {})
            place = (record.partition, record.offset)
            if len(records) < MAX_RECORDS and place not in records:
                records[place] = record
                self._count += 1
            while len(self._requests) > MAX_REQUESTS or self._count > MAX_ALL_RECORDS:
                _, oldest = self._requests.popitem(last=False)
                self._count -= len(oldest)

    def of(self, request_id: str) -> list[AppliedRecord]:
        """The applied records of a request, in log order; none when it is unknown or forgotten."""
        with self._lock:
            return sorted(self._requests.get(request_id, {}).values())
