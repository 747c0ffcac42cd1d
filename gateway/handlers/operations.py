"""Handlers of operations: what the log holds, newest first (V3, N12), and where the operations of one request stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from catalog.catalog import CatalogView, OutcomeKind
from gateway.dialect.bodies import OperationParams
from gateway.http.errors import BadRequest, NotFound, Unavailable
from gateway.log_reading import ask_log
from gateway.request import ApiRequest, Response, number_of
from gateway.services import NodeState, Services
from journal.hlc import MAX_STAMP, millis_of, stamp_at, text_of
from journal.ids import decode_id
from journal.log import Positions, TopicPartition
from journal.records import POINT_OPERATIONS, ChangeAliases, CreateCollection, Operation, Record, describe
from journal.token import Token, parse_token
from payload.paths import as_micros
from replayer.log_pages import Listed, Page, page
from shard.batch import Limits
from shard.deadline import Deadline

SHOWN_IDS = 3
"""Ids of points that are shown of a record; `vecraft journal show` has no more either."""


async def list_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The records of the log, newest first: who wrote what, when, and what became of it."""
    node, params = services.node, request.params
    if not (log := node.replayer.log_name):
        raise Unavailable("this node is opening its state", retry_after_s=1.0)
    selected = _selected(params, services.reads.catalog, node.replayer.limits)
    before = None if params.before is None else _token(params.before, node, log)
    found = await ask_log(services.reads, _page, node, selected, before, params.limit, services.reads.deadline(request))
    answer: dict[str, Any] = {"operations": _described(node, services.reads.catalog, found.records), "looked_at": found.looked}
    if found.next is not None:
        answer["next"] = Token(0, found.next).text(node.topics, log)
    return answer


async def show(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The records of a request: their positions, shards, stamps, and verdicts on this node."""
    request_id = request.path["request_id"]
    records = services.node.operation(request_id)
    if not records:
        raise NotFound(
            f"Not found: operation {request_id!r} is not among the latest on this node; "
            "see `GET /operations?request_id=` or `vecraft journal show`"
        )
    return {
        "request_id": request_id,
        "records": [
            {
                "topic": record.partition.topic,
                "partition": record.partition.partition,
                "offset": record.offset,
                "operation": record.operation,
                "collection": record.collection,
                "shard": record.shard,
                "hlc": record.hlc,
                "stamp": record.stamp,
                "verdict": record.verdict,
                **({"reason": record.reason} if record.reason else {}),
            }
            for record in records
        ],
    }


class _Bound(NamedTuple):
    """A time from a request: as a stamp, if it was given so, and the first and the last append time that it can mean, in ms."""

    stamp: int | None
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class _Selected:
    """What a request selects."""

    since: _Bound | None
    until: _Bound | None
    principal: str | None
    request_id: str | None
    collection: int | None
    name: str | None
    max_lateness_ms: int

    def __call__(self, listed: Listed) -> bool:
        record = listed.record
        if record is None:  # nothing is known of it, so it is shown wherever nothing but a time is asked for
            return self.principal is None and self.request_id is None and self.name is None and self._is_in_time(listed, 0)
        return (
            self.request_id in (None, record.request_id)
            and self.principal in (None, record.origin)
            and (self.name is None or self._is_of_collection(listed, record))
            and self._is_in_time(listed, record.hlc)
        )

    def _is_in_time(self, listed: Listed, hlc: int) -> bool:
        stamp = max(hlc, stamp_at(listed.time_ms - self.max_lateness_ms))  # the lowest stamp that it can have (I4)
        since, until = self.since, self.until
        return (since is None or (listed.time_ms >= since.first_ms if since.stamp is None else stamp >= since.stamp)) and (
            until is None or (listed.time_ms <= until.last_ms if until.stamp is None else stamp <= until.stamp)
        )

    def _is_of_collection(self, listed: Listed, record: Record) -> bool:
        if record.collection >= 0:
            return record.collection == self.collection
        if isinstance(record.operation, CreateCollection) and listed.offset == self.collection:
            return True
        return self.name in _named(record.operation)


def _selected(params: OperationParams, catalog: CatalogView, limits: Limits) -> _Selected:
    since, until = _bound("since", params.since, limits), _bound("until", params.until, limits)
    if since is not None and until is not None and since.first_ms > until.last_ms:
        raise BadRequest(f"since {params.since!r} is after until {params.until!r}")
    name = params.collection
    known = None if name is None else catalog.find(name)
    number = None if name is None else number_of(name)
    return _Selected(
        since,
        until,
        params.principal,
        params.request_id,
        known.id if known is not None else number,
        known.name if known is not None else name,
        limits.max_lateness_ms,
    )


def _bound(field: str, text: str | None, limits: Limits) -> _Bound | None:
    """A record with a stamp at the bound was appended between `first_ms` and `last_ms`, unless it was refused for its drift."""
    if text is None:
        return None
    if (stamp := number_of(text)) is not None:
        if stamp > MAX_STAMP:
            raise BadRequest(f"{field} {text} must be a stamp of at most {MAX_STAMP}, or an RFC 3339 time")
        ms = millis_of(stamp)
        return _Bound(stamp, max(0, ms - limits.max_drift_ms), ms + limits.max_lateness_ms)
    if (micros := as_micros(text)) is None:
        raise BadRequest(f"{field} {text[:32]!r} must be an RFC 3339 time such as 2026-01-31T12:00:00Z, or a decimal stamp (HLC)")
    return _Bound(None, max(0, -(-micros // 1000)), max(0, micros // 1000))


def _token(text: str, node: NodeState, log: str) -> Positions:
    try:
        return dict(parse_token(text, node.topics, log).positions)
    except ValueError as error:
        raise BadRequest(f"before: {error}") from error


def _page(node: NodeState, selected: _Selected, before: Positions | None, limit: int, deadline: Deadline) -> Page:
    """Reads the page. Records that `before` says nothing of are not below it."""
    journal = node.journal
    partitions = [node.topics.system_partition, *node.topics.data_partitions()]
    starts, ends = journal.start_offsets(partitions), journal.end_offsets(partitions)
    if before is not None:
        if beyond := [partition for partition, offset in before.items() if offset > ends[partition]]:
            raise BadRequest(f"before: the token is beyond the end of {beyond[0]}")
        ends = {partition: before.get(partition, 0) for partition in partitions}
    if selected.until is not None:
        after = journal.offsets_at(selected.until.last_ms + 1, partitions)
        ends = {partition: min(end, after[partition]) for partition, end in ends.items()}
    if selected.since is not None:
        since = journal.offsets_at(selected.since.first_ms, partitions)
        starts = {partition: max(start, since[partition]) for partition, start in starts.items()}
    return page(journal, starts, ends, selected, limit, deadline)


def _named(operation: Operation) -> set[str]:
    """The collections that a catalog command names; an alias counts as one."""
    if isinstance(operation, ChangeAliases):
        return {name for action in operation.actions for name in (action.collection, action.alias, action.rename_to) if name}
    name = getattr(operation, "collection", None) or getattr(operation, "name", None)
    return {name} if isinstance(name, str) else set()


def _described(node: NodeState, catalog: CatalogView, records: Sequence[Listed]) -> list[dict[str, Any]]:
    applied = node.replayer.applied.get()
    letters = {(letter.origin, letter.offset): letter for letter in node.letters().list()}
    described = []
    for listed in records:
        row: dict[str, Any] = {"position": f"{listed.partition}/{listed.offset}"}
        if listed.entry is not None:
            row |= {"time": text_of(listed.entry.time_ms), "bytes": len(listed.entry.value)}
        row |= {"fault": listed.fault} if listed.record is None else _shown(node, catalog, listed.partition, listed.record)
        row |= _outcome(node, listed, applied)
        if (letter := letters.get((listed.partition, listed.offset))) is not None:
            row |= {"outcome": "refused", "reason": letter.reason, "dead_letter": letter.number}
        described.append(row)
    return described


def _shown(node: NodeState, catalog: CatalogView, partition: TopicPartition, record: Record) -> dict[str, Any]:
    operation = record.operation
    row: dict[str, Any] = {"hlc": record.hlc, "operation": type(operation).__name__, "summary": describe(operation)}
    if partition.topic != node.topics.system:
        row |= {"tier": node.topics.tier_of(partition.topic), "collection": record.collection, "shard": record.shard}
        if (collection := catalog.by_id.get(record.collection)) is not None:
            row["collection_name"] = collection.name
    if isinstance(operation, POINT_OPERATIONS):
        row |= {"points": len(operation.ids), "ids": [_shown_id(each) for each in operation.ids[:SHOWN_IDS]]}
    if record.ingested is not None and record.ingested.offsets:
        offsets = record.ingested.offsets
        row["origin"] = f"{record.origin}/{offsets[0]}-{offsets[-1]}"
    elif record.origin:
        row["principal"] = record.origin
    return row | ({"request_id": record.request_id} if record.request_id else {})


def _shown_id(point_id: bytes) -> int | str:
    try:
        return decode_id(point_id)
    except ValueError:  # a foreign producer has made it up
        return f"0x{point_id[:32].hex()}"


def _outcome(node: NodeState, listed: Listed, applied: Mapping[TopicPartition, int]) -> dict[str, Any]:
    """What became of a record, as far as this node still knows it."""
    if listed.offset >= applied.get(listed.partition, 0):
        return {"outcome": "waiting"}
    if listed.partition == node.topics.system_partition:
        if (result := node.replayer.catalog.outcome(listed.offset)) is None or listed.record is None:
            return {}
        if result.kind is OutcomeKind.DONE:
            return {"outcome": "applied"}
        return {"outcome": "unchanged", "reason": result.text or result.kind.value}
    if listed.record is None:
        return {}
    if (known := node.replayer.operations.at(listed.record.request_id, listed.partition, listed.offset)) is None:
        return {}
    stamp = {} if known.verdict == "refused" else {"stamp": known.stamp}
    return {"outcome": known.verdict, **stamp, **({"reason": known.reason} if known.reason else {})}
