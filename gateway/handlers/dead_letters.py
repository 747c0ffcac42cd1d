"""Handlers of the dead letters: list, show, retry, clear (A3); and of the replay lag (U4)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import orjson

from gateway.http.errors import BadRequest, Conflict, NotFound
from gateway.request import ApiRequest, Response, number_of
from gateway.services import NodeState, Services
from gateway.writes import APPLY_S
from journal import codec
from journal.log import Entry, Indefinite, JournalError, acknowledged
from journal.records import describe
from replayer.ingest.format import NotIngestible, change_of
from replayer.projections.dead_letters import BURY_TIMEOUT_S, DeadLetter, original, remove
from shard.contract import MAX_DEPTH, depth_of

READ_TIMEOUT_S = 0.5
READS = 20
"""The number of extra polls after which a letter's record is considered missing."""


async def list_letters(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Dead letters, oldest first: of a collection, or all; `collection=` without a name selects those without a collection."""
    letters = _chosen(request, services)
    return {"count": len(letters), "dead_letters": [_described(letter) for letter in letters[: request.params.limit]]}


async def show(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """One dead letter with its record: key, headers, and the decoded value, if it can be decoded."""
    letter = _one(request, services)
    return await services.reads.offload(False, partial(_shown, services.node, letter))


async def retry(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Writes the record of a dead letter to its original partition again, and removes the letter from the list."""
    return await _retry(services, [_one(request, services)])


async def retry_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Retries all dead letters, or those of a collection."""
    return await _retry(services, _chosen(request, services))


async def clear(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Removes a dead letter from the list."""
    return await _clear(services, [_one(request, services)])


async def clear_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Clears all dead letters, or those of a collection."""
    return await _clear(services, _chosen(request, services))


async def lag(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The replay lag of this node: by partition, with its state, and by shard."""
    node = services.node
    measured = await services.reads.offload(False, node.measured_lag)
    by_partition = {
        partition: {
            "topic": partition.topic,
            "partition": partition.partition,
            "applied": max(0, measure.end - measure.lag.records),
            "end": measure.end,
            "state": measure.state.name.lower(),
            **measure.lag._asdict(),
        }
        for partition, measure in sorted(measured.items())
    }
    shards = [
        {
            "collection": collection.name,
            "shard": shard.number,
            "partitions": [by_partition[p] for p in shard.home_partitions() if p in by_partition],
        }
        for collection in services.reads.catalog.collections.values()
        for shard in node.shards.served(collection.id)
    ]
    return {"partitions": list(by_partition.values()), "shards": shards}


async def _retry(services: Services, letters: Sequence[DeadLetter]) -> dict[str, Any]:
    for letter in letters:
        if letter.origin.topic not in services.node.topics.all():
            raise Conflict(
                f"dead letter {letter.number} is from topic {letter.origin.topic}, to which this database does not write: move "
                f"its source back to offset {letter.offset} of partition {letter.origin.partition}, then clear the letter"
            )

    def write_again() -> None:
        journal = services.node.journal
        entries = [_whole(services.node, letter, entry) for letter, entry in _read(services.node, letters)]
        futures = [journal.append(entry.partition, entry.value, entry.key, entry.headers) for entry in entries]
        for future in futures:
            acknowledged(future, BURY_TIMEOUT_S)

    await services.reads.offload(False, write_again)
    return {"retried": await _remove(services, letters, "retried")}


async def _clear(services: Services, letters: Sequence[DeadLetter]) -> dict[str, Any]:
    return {"cleared": await _remove(services, letters, "cleared")}


async def _remove(services: Services, letters: Sequence[DeadLetter], why: str) -> int:
    """Removes letters from the list on every node; returns when they are removed on this node."""
    if letters:
        node = services.node
        appended = await services.reads.offload(
            False, partial(remove, node.journal, node.topics, letters, why, node.clock.physical_ms())
        )
        await services.gate.reached({appended.partition: appended.offset + 1}, APPLY_S)
    return len(letters)


def _chosen(request: ApiRequest, services: Services) -> list[DeadLetter]:
    return services.node.letters().list(request.path.get("collection_name", request.params.collection))


def _one(request: ApiRequest, services: Services) -> DeadLetter:
    text = request.path["number"]
    if (number := number_of(text)) is None:
        raise BadRequest(f"number {text[:32]!r} is not a dead letter's number")
    if (letter := services.node.letters().get(number)) is None:
        raise NotFound(f"Not found: there is no dead letter {text}")
    return letter


def _described(letter: DeadLetter) -> dict[str, Any]:
    return {
        "number": letter.number,
        "collection": letter.collection,
        "reason": letter.reason,
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.offset,
        "timestamp_ms": letter.time_ms,
        "buried_ms": letter.buried_ms,
    } | ({} if letter.whole_bytes is None else {"whole_bytes": letter.whole_bytes})


def _shown(node: NodeState, letter: DeadLetter) -> dict[str, Any]:
    """A letter with its record; reads the log, and may query the schema registry."""
    ((_, entry),) = _read(node, [letter])
    decoded = _decoded(entry, node)
    return _described(letter) | {
        "key": None if entry.key is None else entry.key.decode(errors="replace"),
        "headers": {name: value.decode(errors="replace") for name, value in entry.headers},
        "bytes": len(entry.value),
        "value_base64": b64encode(entry.value).decode(),
        "decoded": decoded if depth_of(decoded) <= MAX_DEPTH else None,
    }


def _read(node: NodeState, letters: Sequence[DeadLetter]) -> list[tuple[DeadLetter, Entry]]:
    """The records of letters, in the order of the topic. Raises Indefinite when a record is missing."""
    wanted = {letter.number: letter for letter in letters}
    records = [(wanted[entry.offset], entry) for entry in _entries(node, wanted)]
    if len(records) < len(wanted):
        raise Indefinite(f"{len(wanted) - len(records)} of {len(wanted)} dead letters cannot be read")
    return records


def _entries(node: NodeState, wanted: dict[int, DeadLetter]) -> Iterator[Entry]:
    if not wanted:
        return
    partition = node.topics.dead_letter_partition
    reader = node.journal.reader()
    try:
        reader.assign({partition: min(wanted)})
        for _ in range(READS + len(wanted)):
            batch = reader.poll(READ_TIMEOUT_S)
            yield from (entry for entry in batch.entries if entry.offset in wanted)
            if batch.positions[partition] > max(wanted):
                return
    finally:
        reader.close()


def _whole(node: NodeState, letter: DeadLetter, entry: Entry) -> Entry:
    """The original record of a letter. One that is buried in part is read where it came from. Raises Conflict if it is gone."""
    if letter.whole_bytes is None:
        return original(entry, letter)
    reader = node.journal.reader()
    try:
        reader.assign({letter.origin: letter.offset})
        entries = reader.poll(READ_TIMEOUT_S, 1).entries
    except JournalError:
        entries = []
    finally:
        reader.close()
    if not entries or entries[0].offset != letter.offset:
        place = f"{letter.origin}/{letter.offset}"
        raise Conflict(f"dead letter {letter.number} holds only a part of its record, and {place} is not in the log any more")
    return entries[0]


def _decoded(entry: Entry, node: NodeState) -> Any:
    """The content of a record without its vectors; None when it cannot be decoded."""
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError:
        pass
    else:
        envelope = {name: getattr(record, name) for name in record.__struct_fields__ if name not in ("operation", "ingested")}
        return envelope | {"operation": describe(record.operation)}
    try:
        return orjson.loads(entry.value)
    except orjson.JSONDecodeError:
        pass
    try:
        change = change_of(entry, node.ingest.registry)
    except (NotIngestible, Indefinite):
        return None
    return {"collection": change.collection, "tier": change.tier, "operation": describe(change.operation)}
