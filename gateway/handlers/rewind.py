"""Handlers that compare a collection with its past, and take it or a part of it back there (N1, N3, N8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from msgspec import structs

from catalog.catalog import choose_homes
from catalog.collection import Collection, check_name
from gateway.as_of import Instant, time_of
from gateway.dialect.answers import point_answer
from gateway.dialect.bodies import DiffParams, ForkBody, PointRestoreBody, RestoreBody, WriteParams
from gateway.dialect.upserts import encode_ids
from gateway.handlers.tags import NOW
from gateway.http.errors import BadRequest, Conflict
from gateway.request import ApiRequest, Response, number_of
from gateway.services import Services
from gateway.writes import UpdateResult
from journal.ids import decode_id, encode_id
from journal.records import CreateCollection, CreatePayloadIndex, Delete, DeleteCollection, PointOperation, Upsert, columns_of
from journal.stamps import NEVER
from journal.writer import Decided
from query.difference import Difference, differences
from query.pinned import Pinned
from query.points import Point, retrieve, scroll
from shard.filters.where import Where
from shard.replica import PayloadPart

Answer = dict[str, Any]

COPIED_POINTS = 500
"""Points that a fork copies at a time."""

UNDO_IDS = 10_000
"""Up to so many points are named in what takes a restore back."""

FORK_TIER = 2


async def diff(request: ApiRequest, response: Response, services: Services) -> Answer:
    """What differs between two instants: counts, and the first points in the order of their ids, with what changed in each."""
    params: DiffParams = request.params
    if request.as_of:
        raise BadRequest("as_of: a diff is of the instants `from` and `to`")
    name, reads = request.path["collection_name"], services.reads
    before = await reads.pin_as_of(request, response, name, params.from_, for_write=True, field="from")
    earlier = response.as_of
    after = await reads.pin_as_of(request, response, name, params.to or NOW, for_write=True, field="to")
    if before.collection.id != after.collection.id:
        raise Conflict(f"`{name}` is another collection at the two instants")
    counts, shown = {"created": 0, "changed": 0, "deleted": 0}, list[Answer]()
    start = None if params.after is None else encode_id(_external(params.after))
    more = False
    async for found in differences(before, after):
        for one in found:
            counts[_kind(one)] += 1
            if start is not None and one.id <= start:
                continue
            if len(shown) < params.limit:
                shown.append(_shown(one))
            else:
                more = True
    assert earlier is not None
    assert response.as_of is not None
    return {
        "from": str(earlier.stamp),
        "to": str(response.as_of.stamp),
        **counts,
        "points": shown,
        "next": shown[-1]["id"] if more and shown else None,
    }


def _kind(one: Difference) -> str:
    return "created" if one.before is None else "deleted" if one.after is None else "changed"


def _shown(one: Difference) -> Answer:
    return {
        "id": decode_id(one.id),
        "change": _kind(one),
        "payload_keys": one.payload_keys(),
        "vectors": one.vector_names(),
        "before": None if one.before is None else point_answer(one.before, True, False).get("payload"),
        "after": None if one.after is None else point_answer(one.after, True, False).get("payload"),
    }


def _external(text: str) -> int | str:
    number = number_of(text)
    return text if number is None else number


async def restore(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Takes points of a collection back to an instant: writes what they were, and deletes those that did not exist.

    Each point is written with a condition on its present version, so no write beside it is lost. `dry_run` only counts.
    """
    body: RestoreBody = request.body
    if body.ids is not None and body.filter is not None:
        raise BadRequest("body needs at most one of ids, filter")
    wanted = await services.reads.where(request, body.filter)
    ids = None if body.ids is None else list(dict.fromkeys(encode_ids(body.ids, "ids[{}]")))
    return await _restore(request, response, services, body.to, "to", wanted, ids, body.dry_run, body.if_position)


async def restore_point(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Takes one point back to an instant."""
    body: PointRestoreBody = request.body
    point_id = encode_id(_external(request.path["point_id"]))
    return await _restore(request, response, services, body.as_of, "as_of", None, [point_id], False, None)


async def _restore(
    request: ApiRequest,
    response: Response,
    services: Services,
    to: str,
    field: str,
    wanted: Where | None,
    ids: list[bytes] | None,
    dry_run: bool,
    if_position: str | None,
) -> Answer:
    reads, name = services.reads, request.path["collection_name"]
    then = await reads.pin_as_of(request, response, name, to, for_write=True, field=field)
    instant = response.as_of
    assert instant is not None
    current = await reads.find(request, name)
    if current.id != then.collection.id:
        raise Conflict(f"`{name}` is another collection now than it was at {time_of(instant.stamp)}; fork it to get it back")
    present = await reads.pin_as_of(request, response, name, NOW, for_write=True)
    undo, response.as_of = response.as_of, None
    assert undo is not None
    if if_position is not None:
        await _check_unmoved(request, response, services, name, if_position, present)
    counts = {"upserted": 0, "deleted": 0}
    if dry_run:
        async for found in differences(present, then, wanted, ids):
            _count(counts, found)
        response.as_of = undo
        return {**counts, "to": str(instant.stamp), "as_of": str(undo.stamp)}

    changed: list[bytes] = []

    async def decide(pinned: Pinned, among: Sequence[bytes] | None) -> list[Decided]:
        found = [one async for step in differences(pinned, then, wanted, ids if among is None else among) for one in step]
        if among is None:
            _count(counts, found)
            changed.extend(one.id for one in found)
        return await pinned.run(len(found), partial(_decisions, found))

    def conclude(answer: UpdateResult) -> UpdateResult:
        return {**answer, **counts, "to": str(instant.stamp), "undo": _undo(undo, changed)}

    origin = replace(request.origin, principal=request.origin.principal or f"as_of:{instant.stamp}")
    return await services.decided.write(structs.replace(request, origin=origin), response, current, decide, ids, conclude)


def _undo(instant: Instant, changed: Sequence[bytes]) -> Answer:
    """The body of the restore that takes back a restore: of the points that it changed, if these can be named."""
    body: Answer = {"to": str(instant.stamp)}
    return body | {"ids": [decode_id(id_) for id_ in changed]} if len(changed) <= UNDO_IDS else body


def _count(counts: dict[str, int], found: Sequence[Difference]) -> None:
    deleted = sum(one.after is None for one in found)
    counts["deleted"] += deleted
    counts["upserted"] += len(found) - deleted


def _decisions(found: Sequence[Difference]) -> list[Decided]:
    """The writes that make points what they are `after`, on condition that they still are what they are `before`."""
    put = [one for one in found if one.after is not None]
    gone = [one for one in found if one.after is None]
    decisions = []
    if put:
        decisions.append(Decided(_upsert([one.after for one in put if one.after is not None]), [_version(one) for one in put]))
    if gone:
        decisions.append(Decided(Delete([one.id for one in gone]), [_version(one) for one in gone]))
    return decisions


def _version(one: Difference) -> int:
    return NEVER if one.before is None else one.before.version


def _upsert(points: Sequence[Point]) -> Upsert:
    """The upsert that writes points as they were read."""
    return Upsert(
        [point.id for point in points],
        columns_of([point.vectors for point in points]),
        [point.payload or b"{}" for point in points],
    )


async def _check_unmoved(
    request: ApiRequest, response: Response, services: Services, name: str, position: str, present: Pinned
) -> None:
    """Raises Conflict when a point of the collection has changed since a position."""
    earlier = await services.reads.pin_as_of(request, response, name, position, for_write=True, field="if_position")
    response.as_of = None
    async for found in differences(earlier, present):
        if found:
            raise Conflict(f"`{name}` has changed since if_position: point {decode_id(found[0].id)!r} and maybe others")


async def fork(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Creates a collection as another one was at an instant. It has its own future, and is deleted alone."""
    body: ForkBody = request.body
    name, reads = request.path["collection_name"], services.reads
    check_name("collection", name)
    wanted = await reads.where(request, body.filter)
    source = await reads.pin_as_of(request, response, body.from_, body.as_of or NOW, for_write=True)
    instant, response.as_of = response.as_of, None
    assert instant is not None
    collection = await _created(request, response, services, name, source.collection)
    try:
        copied = await _copy(request, response, services, source, collection, wanted)
    except Exception as error:
        error.add_note(f"the incomplete collection `{name}` is deleted")
        await services.writes.command(request, response, DeleteCollection(name))
        raise
    return {"from": body.from_, "as_of": str(instant.stamp), "time": time_of(instant.stamp), "points": copied}


async def _created(request: ApiRequest, response: Response, services: Services, name: str, source: Collection) -> Collection:
    """Creates an empty collection with the configuration and the payload indexes of another one."""
    services.node.descriptors.check(source.config.shard_number, len(services.node.shards.quarantined()))
    homes = choose_homes(services.reads.catalog, source.config.shard_number)
    command = CreateCollection(name, msgspec.json.encode(source.config), homes)
    await services.writes.command(request, response, command)
    for at, (field, schema) in enumerate(source.fields.items()):
        one = structs.replace(request, origin=replace(request.origin, place=f"index.{at}"))
        await services.writes.command(one, response, CreatePayloadIndex(name, field, msgspec.json.encode(schema)))
    return await services.reads.find(request, name)


async def _copy(
    request: ApiRequest, response: Response, services: Services, source: Pinned, target: Collection, wanted: Where | None
) -> int:
    """Writes the points of a pinned collection to another one. Returns their number."""
    copied, start = 0, b""
    while True:
        ids, after = await scroll(source, wanted, start, COPIED_POINTS)
        points = await retrieve(source, ids, PayloadPart(), True)
        if points:
            upsert: PointOperation = await source.run(len(points), partial(_upsert, points))
            origin = replace(request.origin, place=f"copy.{copied}")
            one = structs.replace(request, origin=origin, tier=FORK_TIER, params=WriteParams(wait=after is None))
            await services.writes.write(one, response, target, upsert)
            copied += len(points)
        if after is None:
            return copied
        start = after
