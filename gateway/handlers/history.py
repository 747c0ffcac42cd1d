"""The history of one point: its states, and the records of the log that made them (V3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from catalog.collection import Collection
from gateway.as_of import time_of
from gateway.dialect.answers import vectors_answer
from gateway.dialect.bodies import HistoryParams
from gateway.http.errors import BadRequest, NotFound
from gateway.log_reading import ask_log
from gateway.request import ApiRequest, Response, number_of
from gateway.services import NodeState, Services
from journal import codec
from journal.ids import encode_id
from journal.log import Journal, TopicPartition
from journal.ranges import Range, stretches
from journal.records import Record
from journal.stamps import MAX_VERSION, stamp_of, tier_of, version_of
from query.pinned import Pinned
from shard.replica import Changes

Place = tuple[TopicPartition, int]
"""The partition and the offset of a record."""

RESTORED = "as_of:"
"""Begins the origin of a record that wrote back an earlier state; its stamp follows."""


async def history(request: ApiRequest, response: Response, services: Services) -> list[dict[str, Any]]:
    """The changes of a point, the latest first: when, by which record and request, and the payload as it was after each.

    They reach back as far as the history is kept. The log is asked for the record of each change, as long as it has it.
    """
    params: HistoryParams = request.params
    if request.as_of:
        raise BadRequest("as_of: a history is of all instants; `before` limits it")
    text = request.path["point_id"]
    number = number_of(text)
    point_id = encode_id(text if number is None else number)
    pinned = await services.reads.pin(request, response, request.path["collection_name"])
    before = MAX_VERSION if params.before is None else version_of(params.before, 0)
    ((lease, _),) = await pinned.by_lease([point_id])
    (changes,) = await pinned.all_of([lease.history(point_id, before, params.limit, params.with_vector)])
    if not changes.ids and params.before is None:
        raise NotFound(f"Not found: nothing is known of a point with id {text}")
    places = _places(services.node, pinned, lease.shard, changes)
    records = await ask_log(services.reads, _read, services.node.journal, [place for place in places if place is not None])
    return [_shown(changes, at, places[at], records, params.with_vector) for at in range(len(changes.ids))]


def _places(node: NodeState, pinned: Pinned, shard: int, changes: Changes) -> list[Place | None]:
    """Where the record of each change is in the log; None where that is not known any more."""
    collection: Collection = pinned.collection
    homes = node.topics.home_partitions(collection.homes[shard])
    return [
        None if offset < 0 else (homes[tier_of(version)], offset)
        for version, offset in zip(changes.versions, changes.offsets, strict=True)
    ]


def _read(journal: Journal, places: Sequence[Place]) -> dict[Place, Record]:
    """The records at some places, without those that the log does not have any more. Raises JournalError."""
    starts = journal.start_offsets(list({partition for partition, _ in places})) if places else {}
    reader = journal.reader()
    found: dict[Place, Record] = {}
    try:
        for partition, offset in dict.fromkeys(places):
            wanted = Range(max(offset, starts[partition]), offset + 1)
            for stretch in stretches(reader, {partition: wanted}, max_records=1):
                found |= {(partition, entry.offset): codec.decode(entry.value) for entry in stretch.entries}
    finally:
        reader.close()
    return found


def _shown(changes: Changes, at: int, place: Place | None, records: Mapping[Place, Record], with_vector: bool) -> dict[str, Any]:
    version, payload = changes.versions[at], changes.after.payloads[at]
    stamp = stamp_of(version)
    shown: dict[str, Any] = {
        "stamp": str(stamp),
        "time": time_of(stamp),
        "deleted": payload is None,
        "changed": {"payload": changes.keys[at], "vectors": changes.names[at]},
    }
    if payload is not None:
        shown["payload"] = orjson.loads(payload) if payload else {}
        if with_vector:
            shown["vector"] = vectors_answer(changes.after.vectors[at])
    if place is not None:
        shown["position"] = f"{place[0]}/{place[1]}"
        if (record := records.get(place)) is not None:
            shown |= _source(record)
    return shown


def _source(record: Record) -> dict[str, Any]:
    """Who wrote a record, and how."""
    source: dict[str, Any] = {"operation": type(record.operation).__name__}
    if record.request_id:
        source["request_id"] = record.request_id
    if record.origin:
        is_source = record.ingested is not None or record.origin.startswith(RESTORED)
        source["origin" if is_source else "principal"] = record.origin
    return source
