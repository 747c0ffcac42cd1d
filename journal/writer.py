"""The writer: operations in, encoded and stamped records out, each at its partition of the journal.

One per process. Thread-safe; what it returns are futures, resolved by the journal's threads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from journal import codec
from journal.hlc import Clock, ClockDriftError
from journal.log import Appended, Definite, Headers, Indefinite, Journal, JournalError, Positions, TopicPartition
from journal.records import CatalogOperation, Ingested, PointOperation, Record
from journal.split import Part, split
from journal.stamps import drift_error
from journal.token import Token, advance
from journal.topics import Topics


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a write, and how it can be recognised again."""

    id: str
    idempotency_key: str = ""
    principal: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a collection's points go: `homes[shard][tier]` is a partition of that tier's topic."""

    tenant: str
    collection: int
    catalog_position: int
    homes: Sequence[Sequence[int]]


class Written(NamedTuple):
    """One record that the journal acknowledged."""

    appended: Appended
    hlc: int
    shard: int


@dataclass(slots=True)
class Receipt:
    """All records of one request."""

    written: list[Written] = field(default_factory=list)

    def token(self) -> Token:
        """The position to wait for in order to see this write."""
        positions: Positions = {}
        for record in self.written:
            advance(positions, {record.appended.partition: record.appended.offset + 1})
        return Token(max((record.hlc for record in self.written), default=0), positions)


UNSTAMPED = 0
"""The stamp of a record that has none yet."""


class _Draft(NamedTuple):
    """A record that is encoded but for its stamp, and where it goes."""

    partition: TopicPartition
    key: bytes
    shard: int
    kind: str
    unstamped: codec.Unstamped


class Writer:
    """Writes operations to the journal. `max_drift_ms` is the bound that replicas will hold the records to (I6)."""

    def __init__(self, journal: Journal, topics: Topics, clock: Clock, max_drift_ms: int = 500) -> None:
        self._journal = journal
        self._topics = topics
        self._clock = clock
        self._max_drift_ms = max_drift_ms
        self._lock = threading.Lock()

    def write_points(
        self, destination: Destination, operations: Sequence[PointOperation], tier: int, request: Request
    ) -> Future[Receipt]:
        """Writes operations on points, in order, cut by shard and size; resolves when all parts are durable.

        Raises Definite when nothing was written. The future fails with Definite when nothing was written or nothing will be
        applied, and with Indefinite otherwise, also when only some of several parts were.
        """
        topic = self._topics.tier(tier)
        seen: Counter[str] = Counter()
        drafts = []
        for operation in operations:
            for part in split(operation, len(destination.homes)):
                partition = TopicPartition(topic, destination.homes[part.shard][tier])
                key = _part_key(request, part.operation, seen)
                drafts.append(_draft(partition, _record(destination, part, request, key)))
        return self._append(drafts, request)

    def write_ingested(
        self, destination: Destination, part: Part, tier: int, ingested: Ingested, request: Request
    ) -> Future[Receipt]:
        """Writes what foreign producers wrote: one part, which says of each of its points where it came from.

        Of parts from the same log to the same partition the next may be written only once this one is acknowledged: replicas
        drop what is not above the last offset they saw.
        """
        partition = TopicPartition(self._topics.tier(tier), destination.homes[part.shard][tier])
        return self._append([_draft(partition, _record(destination, part, request, "", ingested))], request)

    def write_catalog(self, operation: CatalogOperation, request: Request) -> Future[Receipt]:
        """Writes a catalog command; resolves when it is durable. Its outcome is known once it is applied."""
        record = Record(hlc=UNSTAMPED, operation=operation, request_id=request.id, origin=request.principal)
        return self._append([_draft(self._topics.system_partition, record)], request)

    def _append(self, drafts: Sequence[_Draft], request: Request) -> Future[Receipt]:
        """Stamps the records of a request, all before any is written, and appends them."""
        gathering = _Gathering(len(drafts), self._max_drift_ms)
        with self._lock:  # so that the order of stamps is the order of the log; whatever takes long was done before
            try:
                stamps = [self._clock.now() for _ in drafts]
            except ClockDriftError as error:
                raise Definite(str(error)) from error
            for draft, hlc in zip(drafts, stamps, strict=True):
                value = draft.unstamped.stamped(hlc)
                try:
                    future = self._journal.append(draft.partition, value, draft.key, _headers(draft, hlc, request))
                except JournalError as error:
                    gathering.failed(error)
                else:
                    future.add_done_callback(gathering.expect(hlc, draft.shard))
        return gathering.future


class _Gathering:
    """Joins the futures of a request's records into one."""

    def __init__(self, count: int, max_drift_ms: int) -> None:
        self.future: Future[Receipt] = Future()
        self.future.set_running_or_notify_cancel()  # whoever gives up on it does not stop the writing
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
        self._one_less()

    def _arrived(self, written: Written) -> None:
        # Every replica will come to the same verdict, so this write is refused although the log holds it.
        if reason := drift_error(written.hlc, written.appended.time_ms, self._max_drift_ms):
            self.failed(Definite(f"this node's clock is off: {reason}"))
            return
        with self._lock:
            self._receipt.written.append(written)
        self._one_less()

    def _one_less(self) -> None:
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
            self.future.set_exception(Indefinite(f"{len(self._receipt.written)} parts are written, the rest is unknown: {texts}"))


def _record(destination: Destination, part: Part, request: Request, key: str, ingested: Ingested | None = None) -> Record:
    return Record(
        hlc=UNSTAMPED,
        operation=part.operation,
        collection=destination.collection,
        catalog_position=destination.catalog_position,
        shard=part.shard,
        tenant=destination.tenant,
        request_id=request.id,
        idempotency_key=key,
        origin=request.principal,
        ingested=ingested,
    )


def _draft(partition: TopicPartition, record: Record) -> _Draft:
    key = f"{record.collection}/{record.shard}".encode()
    return _Draft(partition, key, record.shard, type(record.operation).__name__, codec.Unstamped(record))


def _part_key(request: Request, part: PointOperation, seen: Counter[str]) -> str:
    """The client's key, the content, and which of several equal parts it is: only the same write again is taken for a retry.

    `seen` counts the parts of the request so far by their content.
    """
    if not request.idempotency_key:
        return ""
    digest = blake2b(msgspec.msgpack.encode((type(part).__name__, part)), digest_size=8).hexdigest()
    seen[digest] += 1
    return f"{request.idempotency_key}/{digest}/{seen[digest] - 1}"


def _headers(draft: _Draft, hlc: int, request: Request) -> Headers:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{request.id}/{hlc}".encode()),
        ("ce_source", f"/{draft.partition.topic}".encode()),
        ("ce_type", f"vecraft.v1.{draft.kind}".encode()),
        ("hlc", str(hlc).encode()),
        ("content-type", codec.CONTENT_TYPE),
    ]
    return [*headers, ("traceparent", request.traceparent.encode())] if request.traceparent else headers
