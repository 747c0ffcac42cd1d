"""The writer: splits, encodes and stamps operations, and appends the records to their partitions of the journal.

One per process. Thread-safe. It returns futures, which the journal's threads resolve.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import msgspec

from journal import codec
from journal.hlc import Clock, ClockDriftError
from journal.log import Appended, Definite, Headers, Indefinite, Journal, JournalError, Positions, TopicPartition
from journal.records import Barrier, CatalogOperation, Ingested, PointOperation, Record, RequestResult, ShardOperation
from journal.split import Part, split
from journal.stamps import Version, drift_error
from journal.token import Token, advance
from journal.topics import Topics


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks for a write, and the ids by which the write can be recognised: request id, idempotency key, trace.

    `place` is the place of the operation within a request that writes several times.
    """

    id: str
    idempotency_key: str = ""
    principal: str = ""
    traceparent: str = ""
    place: str = "0"


@dataclass(frozen=True, slots=True)
class Destination:
    """The target of a write: a collection and its shards. `homes[shard][tier]` is a partition of that tier's topic."""

    tenant: str
    collection: int
    catalog_position: int
    homes: Sequence[Sequence[int]]


class Decided(NamedTuple):
    """An operation and, for each of its distinct ids, the version of the point that it was decided on, or NEVER."""

    operation: PointOperation
    expected: Sequence[Version]


class Written(NamedTuple):
    """One acknowledged record."""

    appended: Appended
    hlc: int
    shard: int


@dataclass(slots=True)
class Receipt:
    """All acknowledged records of one write."""

    written: list[Written] = field(default_factory=list)

    def token(self) -> Token:
        """The token that a read must reach to see this write."""
        positions: Positions = {}
        for record in self.written:
            advance(positions, {record.appended.partition: record.appended.offset + 1})
        return Token(max((record.hlc for record in self.written), default=0), positions)


class PartlyWritten(Indefinite):
    """Some parts of a write may be in the log; those of the `receipt` are."""

    def __init__(self, text: str, receipt: Receipt) -> None:
        super().__init__(text)
        self.receipt = receipt


CONDITION_BYTES = 10
"""The size of a version in a record."""

UNSTAMPED = 0
"""Placeholder stamp of a record that is not stamped yet."""


class _Draft(NamedTuple):
    """A record, encoded except for its stamp, and its target."""

    partition: TopicPartition
    key: bytes
    shard: int
    kind: str
    unstamped: codec.Unstamped


class Writer:
    """Writes operations to the journal. Replicas refuse records beyond `max_drift_ms` (I6)."""

    def __init__(self, journal: Journal, topics: Topics, clock: Clock, max_drift_ms: int = 500) -> None:
        self._journal = journal
        self._topics = topics
        self._clock = clock
        self._max_drift_ms = max_drift_ms
        self._lock = threading.Lock()

    def write_points(
        self, destination: Destination, operations: Sequence[PointOperation], tier: int, origin: Origin
    ) -> Future[Receipt]:
        """Writes operations on points, in order, split by shard and size. The future resolves when all parts are durable.

        Raises Definite when nothing was written. The future fails with Definite when no part was written or will be applied, and
        with Indefinite in all other cases, for example when only some parts were written.
        """
        drafts = []
        parts_of: Counter[int] = Counter()
        for part in chain.from_iterable(split(operation, len(destination.homes)) for operation in operations):
            key = f"{origin.idempotency_key}/{origin.place}/{parts_of[part.shard]}" if origin.idempotency_key else ""
            parts_of[part.shard] += 1
            drafts.append(_draft(self._home(destination, part.shard, tier), _record(destination, part, origin, key)))
        return self._append(drafts, origin)

    def write_decided(
        self, destination: Destination, decisions: Sequence[Decided], tier: int, origin: Origin, attempt: int = 0
    ) -> Future[Receipt]:
        """Writes operations with conditions; otherwise as `write_points`.

        `attempt` counts the attempts under one idempotency key.
        """
        key = operation_key(origin)
        drafts = []
        for decided in decisions:
            for part in split(decided.operation, len(destination.homes), CONDITION_BYTES):
                expected = [decided.expected[index] for index in part.indexes]
                record = _record(destination, part, origin, key, expected=expected, attempt=attempt)
                drafts.append(_draft(self._home(destination, part.shard, tier), record))
        return self._append(drafts, origin)

    def write_barriers(self, destination: Destination, shard: int, tiers: Iterable[int], origin: Origin) -> Future[Receipt]:
        """Writes a barrier to the shard's home partition in each of the tiers (I7)."""
        record = _shard_record(destination, shard, Barrier(), origin, "")
        return self._append([_draft(self._home(destination, shard, tier), record) for tier in tiers], origin)

    def write_result(
        self, destination: Destination, shard: int, tier: int, result: bytes, origin: Origin, attempt: int
    ) -> Future[Receipt]:
        """Writes the result of an attempt of a request with an idempotency key and conditions, for its retries."""
        record = _shard_record(destination, shard, RequestResult(result), origin, operation_key(origin), attempt)
        return self._append([_draft(self._home(destination, shard, tier), record)], origin)

    def write_ingested(
        self, destination: Destination, part: Part, tier: int, ingested: Ingested, origin: Origin
    ) -> Future[Receipt]:
        """Writes one part with points from the ingest topic; `ingested` has the source of each point.

        Call it for the next part from the same source to the same partition only after this one is acknowledged: replicas drop
        points whose source offset is not above the last one that they saw.
        """
        record = _record(destination, part, origin, "", ingested)
        return self._append([_draft(self._home(destination, part.shard, tier), record)], origin)

    def write_catalog(self, operation: CatalogOperation, origin: Origin) -> Future[Receipt]:
        """Writes a catalog command. The future resolves when it is durable; its outcome is known after it is applied."""
        key = operation_key(origin)
        record = Record(hlc=UNSTAMPED, operation=operation, request_id=origin.id, origin=origin.principal, idempotency_key=key)
        return self._append([_draft(self._topics.system_partition, record)], origin)

    def _home(self, destination: Destination, shard: int, tier: int) -> TopicPartition:
        return TopicPartition(self._topics.tier(tier), destination.homes[shard][tier])

    def _append(self, drafts: Sequence[_Draft], origin: Origin) -> Future[Receipt]:
        """Stamps all records of a write, then appends them."""
        receipt = _PendingReceipt(len(drafts), self._max_drift_ms, self._clock)
        with self._lock:  # so that stamp order is log order; all slow work is already done
            try:
                stamps = [self._clock.now() for _ in drafts]
            except ClockDriftError as error:
                raise Definite(str(error)) from error
            for draft, hlc in zip(drafts, stamps, strict=True):
                value = draft.unstamped.stamped(hlc)
                try:
                    future = self._journal.append(draft.partition, value, draft.key, _headers(draft, hlc, origin))
                except JournalError as error:
                    receipt.failed(error)
                else:
                    future.add_done_callback(receipt.expect(hlc, draft.shard))
        return receipt.future


class _PendingReceipt:
    """Combines the futures of the records of one write."""

    def __init__(self, count: int, max_drift_ms: int, clock: Clock) -> None:
        self._clock = clock
        self._sent_ms = clock.physical_ms()
        self.future: Future[Receipt] = Future()
        self.future.set_running_or_notify_cancel()  # cannot be cancelled: the appends continue
        self._missing = count
        self._max_drift_ms = max_drift_ms
        self._lock = threading.Lock()
        self._receipt = Receipt()
        self._errors: list[JournalError] = []
        if not count:
            self.future.set_result(self._receipt)

    def expect(self, hlc: int, shard: int) -> Callable[[Future[Appended]], None]:
        def done(future: Future[Appended]) -> None:
            error = future.exception()
            if error is None:
                self._arrived(Written(future.result(), hlc, shard))
            else:
                self.failed(error if isinstance(error, JournalError) else Indefinite(str(error)))

        return done

    def failed(self, error: JournalError) -> None:
        with self._lock:
            self._errors.append(error)
        self._count_down()

    def _arrived(self, written: Written) -> None:
        self._clock.compare_written(self._sent_ms, written.appended.time_ms)
        # Every replica will refuse this record because of its drift, so the write fails although it is in the log.
        if reason := drift_error(written.hlc, written.appended.time_ms, self._max_drift_ms):
            self.failed(Definite(f"this node's clock is off: {reason}"))
            return
        with self._lock:
            self._receipt.written.append(written)
        self._count_down()

    def _count_down(self) -> None:
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        if not self._errors:
            self.future.set_result(self._receipt)
        elif not self._receipt.written and all(isinstance(error, Definite) for error in self._errors):
            self.future.set_exception(self._errors[0])
        else:
            texts = "; ".join(sorted({str(error) for error in self._errors}))
            text = f"{len(self._receipt.written)} parts are written, the rest is unknown: {texts}"
            self.future.set_exception(PartlyWritten(text, self._receipt))


def operation_key(origin: Origin) -> str:
    """The idempotency key of a whole operation: of all its records with conditions, of a catalog command; empty without one."""
    return f"{origin.idempotency_key}/{origin.place}" if origin.idempotency_key else ""


def _record(
    destination: Destination,
    part: Part,
    origin: Origin,
    key: str,
    ingested: Ingested | None = None,
    expected: list[Version] | None = None,
    attempt: int = 0,
) -> Record:
    record = _shard_record(destination, part.shard, part.operation, origin, key, attempt)
    return msgspec.structs.replace(record, ingested=ingested, expected=expected) if ingested or expected is not None else record


def _shard_record(
    destination: Destination, shard: int, operation: ShardOperation, origin: Origin, key: str, attempt: int = 0
) -> Record:
    return Record(
        hlc=UNSTAMPED,
        operation=operation,
        collection=destination.collection,
        catalog_position=destination.catalog_position,
        shard=shard,
        tenant=destination.tenant,
        request_id=origin.id,
        idempotency_key=key,
        origin=origin.principal,
        attempt=attempt,
    )


def _draft(partition: TopicPartition, record: Record) -> _Draft:
    key = f"{record.collection}/{record.shard}".encode()
    return _Draft(partition, key, record.shard, type(record.operation).__name__, codec.Unstamped(record))


def _headers(draft: _Draft, hlc: int, origin: Origin) -> Headers:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{origin.id}/{hlc}".encode()),
        ("ce_source", f"/{draft.partition.topic}".encode()),
        ("ce_type", f"vecraft.v1.{draft.kind}".encode()),
        ("hlc", str(hlc).encode()),
        ("content-type", codec.CONTENT_TYPE),
    ]
    return [*headers, ("traceparent", origin.traceparent.encode())] if origin.traceparent else headers
