"""Handlers of points: writes, and reads that are not searches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from catalog.collection import Collection, Consistency
from gateway.admission.limits import check_added, check_read, check_write
from gateway.dialect.answers import part_of, point_answer
from gateway.dialect.bodies import (
    BulkBody,
    CountBody,
    DeletePayloadBody,
    DeleteVectorsBody,
    FacetBody,
    PointsSelector,
    RetrieveBody,
    ScrollBody,
    SetPayloadBody,
    Shown,
    UpdateBatchBody,
    UpdateVectorsBody,
    UpsertBody,
)
from gateway.dialect.queries import order_by_of
from gateway.dialect.upserts import ParsedUpsert, encode_ids, vectors_patch_of
from gateway.http.errors import BadRequest, NotFound
from gateway.reads import QUICK_POINTS
from gateway.request import ApiRequest, Response
from gateway.services import Services
from gateway.writes import UpdateResult
from journal.ids import ExternalId, decode_id, encode_id
from journal.records import Delete, PatchPayload, PointOperation, ReplacePayload, UnsetVectors
from journal.split import take
from payload.paths import Step, merged, steps_of, without
from query import points
from query.pinned import Pinned
from query.search import search
from query.stages import Stage
from shard.filters.conditions import Condition
from shard.filters.where import Where
from shard.replica import PayloadPart

DEFAULT_PAGE = 10
MAX_PAGE = 10_000
"""The largest page, even if more is requested; the next page continues after it."""

QUICK_BYTES = 1 << 20
"""Up to this size of payloads, an answer is built on the event loop."""

Answer = dict[str, Any]
Edit = Callable[[Any, list[Step]], Any]
"""(payload, path) -> the payload, changed at the path."""


# Reads.


async def get(request: ApiRequest, response: Response, services: Services) -> Answer:
    """One point by its id."""
    text = request.path["point_id"]
    pinned = await _pinned(request, response, services)
    retrieved = await points.retrieve(pinned, [encode_id(int(text) if text.isdecimal() else text)], PayloadPart(), True)
    if not retrieved:
        raise NotFound(f"Not found: Point with id {text} does not exists!")
    return point_answer(retrieved[0], True, True)


async def retrieve(request: ApiRequest, response: Response, services: Services) -> list[Answer]:
    """Points by their ids; those that do not exist are left out."""
    body: RetrieveBody = request.body
    ids = await services.reads.offload(len(body.ids) <= QUICK_POINTS, partial(_distinct_ids, body.ids, "ids[{}]"))
    pinned = await _pinned(request, response, services)
    return await _shown(response, services, pinned, ids, body)


async def scroll(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Points in the order of their ids, page by page."""
    body: ScrollBody = request.body
    wanted = await services.reads.where(request, body.filter)
    start = b"" if body.offset is None else encode_id(body.offset)
    limit = min(MAX_PAGE, DEFAULT_PAGE if body.limit is None else body.limit)
    pinned = await _pinned(request, response, services)
    if body.order_by is not None:
        if body.offset is not None:
            raise BadRequest("offset cannot be used with order_by; go on with order_by.start_from")
        return await _ordered_page(response, services, pinned, Stage(order_by_of(body.order_by), limit, wanted), body)
    ids, after = await points.scroll(pinned, wanted, start, limit)
    shown = await _shown(response, services, pinned, ids, body)
    return {"points": shown, "next_page_offset": None if after is None else decode_id(after)}


async def count(request: ApiRequest, response: Response, services: Services) -> dict[str, int]:
    """The number of points, or of those that pass a filter. Always exact."""
    body: CountBody = request.body
    wanted = await services.reads.where(request, body.filter)
    return {"count": await points.count(await _pinned(request, response, services), wanted)}


async def facet(request: ApiRequest, response: Response, services: Services) -> Answer:
    """The most frequent values of a payload field. Always exact."""
    body: FacetBody = request.body
    wanted = await services.reads.where(request, body.filter)
    steps_of(body.key)
    pinned = await _pinned(request, response, services)
    counts = await points.facet(pinned, body.key, wanted, DEFAULT_PAGE if body.limit is None else body.limit)
    return {"hits": [{"value": value, "count": number} for value, number in counts]}


async def _pinned(request: ApiRequest, response: Response, services: Services) -> Pinned:
    """Pins the collection of the path, and checks its limits."""
    pinned = await services.reads.pin(request, response, request.path["collection_name"])
    check_read(request, services.rates, pinned.collection)
    return pinned


async def _shown(response: Response, services: Services, pinned: Pinned, ids: Sequence[bytes], shown: Shown) -> list[Answer]:
    """The points with these ids, with the requested parts."""
    with_payload, with_vector = shown.payload_selector(True), shown.vector_selector()
    fetched = await points.retrieve(pinned, ids, part_of(with_payload), with_vector)
    quick = len(fetched) <= QUICK_POINTS and sum(len(point.payload) for point in fetched) <= QUICK_BYTES
    response.is_large = not quick
    return await services.reads.offload(quick, lambda: [point_answer(point, with_payload, with_vector) for point in fetched])


async def _ordered_page(response: Response, services: Services, pinned: Pinned, stage: Stage, body: ScrollBody) -> Answer:
    """A page in the order of a payload value; the client requests the next one with `start_from`."""
    ranked = await search(pinned, stage)
    shown = await _shown(response, services, pinned, list(dict.fromkeys(ranked.ids)), body)
    by_id = dict(zip(dict.fromkeys(ranked.ids), shown, strict=True))
    values = ranked.values or []
    page = [by_id[id_] | {"order_value": value} for id_, value in zip(ranked.ids, values, strict=True)]
    return {"points": page, "next_page_offset": None}


# Writes.


async def upsert(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Inserts points, or replaces those that exist; `update_mode` and `update_filter` may leave some out."""
    given = await services.writes.parse_upsert(request, UpsertBody)
    return await _upsert(request, response, services, request.path["collection_name"], given)


async def bulk(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Inserts or replaces points of the collection named in the body, at tier 2."""
    given = await services.writes.parse_upsert(request, BulkBody)
    return await _upsert(request, response, services, given.collection, given)


async def batch(request: ApiRequest, response: Response, services: Services) -> list[UpdateResult]:
    """Several changes, one after the other; each reads the results of the ones before it."""
    body: UpdateBatchBody = request.body
    results = []
    for at, operation in enumerate(body.operations):
        given = [name for name in operation.__struct_fields__ if getattr(operation, name) is not None]
        if len(given) != 1:
            raise BadRequest(f"operations[{at}] needs exactly one of {', '.join(operation.__struct_fields__)}")
        one = msgspec.structs.replace(request, body=getattr(operation, given[0]))
        results.append(await _BATCHED[given[0]](one, response, services))
    return results


async def delete(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Deletes points by ids or by filter."""
    pinned, ids = await _selected(request, response, services)
    return await services.writes.write(request, response, pinned.collection, Delete(ids))


async def set_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Sets payload keys of points and keeps the others; null removes a key. `key`: the path of the object to change."""
    body: SetPayloadBody = request.body
    fields = _object(body.payload)
    if body.key is not None:
        edit: Edit = lambda payload, steps: merged(payload, steps, fields)  # noqa: E731
        return await _edit(request, response, services, [steps_of(body.key)], edit)
    unset = [key for key, value in fields.items() if value is None]
    changes = orjson.dumps({key: value for key, value in fields.items() if value is not None})
    return await _patch(request, response, services, lambda ids: PatchPayload(ids, changes, unset))


async def overwrite_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Replaces the whole payload of points, or the object at the path `key`."""
    body: SetPayloadBody = request.body
    fields = _object(body.payload)
    if body.key is not None:
        edit: Edit = lambda payload, steps: merged(payload, steps, fields, replace=True)  # noqa: E731
        return await _edit(request, response, services, [steps_of(body.key)], edit)
    return await _patch(request, response, services, lambda ids: ReplacePayload(ids, bytes(body.payload)))


async def delete_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Removes payload keys, at any depth."""
    body: DeletePayloadBody = request.body
    paths = [steps_of(key) for key in body.keys]
    if any(len(path) > 1 for path in paths):
        return await _edit(request, response, services, paths, lambda payload, steps: without(payload, [steps]))
    return await _patch(request, response, services, lambda ids: PatchPayload(ids, unset=[str(path[0]) for path in paths]))


async def clear_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Removes all payload of points."""
    return await _patch(request, response, services, lambda ids: ReplacePayload(ids, b"{}"))


async def update_vectors(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Sets the given vectors of existing points; keeps their other vectors and payload."""
    body: UpdateVectorsBody = request.body
    name = request.path["collection_name"]
    pinned = await _pinned_for_write(request, response, services, name, body.update_filter)
    if not body.points:
        raise BadRequest("Wrong input: Empty update request: no points are given")
    quick = len(body.points) <= QUICK_POINTS
    patch = await services.reads.offload(quick, partial(vectors_patch_of, body.points, request.packed))
    wanted = await services.reads.where(request, body.update_filter)
    existing, passing = await _existing(pinned, patch.ids, wanted)
    there = [index for index, point_id in enumerate(patch.ids) if point_id in passing]
    written = await pinned.run(len(there), partial(take, patch, there))
    result = await _write(request, response, services, pinned.collection, written)
    return _unless_missing(result, patch.ids, existing)


async def delete_vectors(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Removes named vectors of points."""
    body: DeleteVectorsBody = request.body
    return await _patch(request, response, services, lambda ids: UnsetVectors(ids, body.vector))


async def _write(
    request: ApiRequest, response: Response, services: Services, collection: Collection, *operations: PointOperation
) -> UpdateResult:
    """Checks the size limits of the collection, and writes."""
    await check_added(services.reads, collection, operations)
    return await services.writes.write(request, response, collection, *operations)


async def _upsert(request: ApiRequest, response: Response, services: Services, name: str, given: ParsedUpsert) -> UpdateResult:
    operation = given.operation
    wanted = await services.reads.where(request, given.update_filter)
    if wanted is None and given.update_mode in (None, "upsert"):
        collection = await services.reads.find(request, name)
        check_write(request, services.rates, collection, None, len(operation.ids))
        return await _write(request, response, services, collection, operation)
    # A record contains results, not conditions (I8): the condition is evaluated for each point here.
    pinned = await _pinned_for_write(request, response, services, name, given.update_filter, len(operation.ids))
    existing, passing = await _existing(pinned, operation.ids, wanted)

    def is_wanted(point_id: bytes) -> bool:
        if point_id not in existing:
            return given.update_mode != "update_only"
        return given.update_mode != "insert_only" and point_id in passing

    wanted_at = [at for at, id_ in enumerate(operation.ids) if is_wanted(id_)]
    written = await pinned.run(len(wanted_at), partial(take, operation, wanted_at))
    return await _write(request, response, services, pinned.collection, written)


async def _pinned_for_write(
    request: ApiRequest, response: Response, services: Services, name: str, condition: Condition | None, points_given: int = 0
) -> Pinned:
    """Pins the collection for a write that depends on a read, and checks its limits; `condition` selects the points.

    A strong read: it sees all writes acknowledged before.
    """
    pinned = await services.reads.pin(request, response, name, Consistency.STRONG, for_write=True)
    check_write(request, services.rates, pinned.collection, condition, points_given)
    return pinned


async def _existing(pinned: Pinned, ids: Sequence[bytes], where: Where | None) -> tuple[set[bytes], set[bytes]]:
    """The ids of the points among these that exist, and of those that also pass the filter."""
    existing = await points.passing(pinned, ids, None)
    return existing, existing if where is None else await points.passing(pinned, sorted(existing), where)


async def _selected(request: ApiRequest, response: Response, services: Services) -> tuple[Pinned, list[bytes]]:
    """The collection, and the ids that the body selects.

    A filter is evaluated here: records contain results, not conditions (I8).
    """
    selector: PointsSelector = request.body
    if (selector.points is None) == (selector.filter is None):
        raise BadRequest("body needs exactly one of points, filter")
    wanted = await services.reads.where(request, selector.filter)
    given = selector.points
    ids = (
        []
        if given is None
        else await services.reads.offload(len(given) <= QUICK_POINTS, partial(_distinct_ids, given, "points[{}]"))
    )
    if given is not None and not ids:
        raise BadRequest("Wrong input: Empty update request: no points are given")
    pinned = await _pinned_for_write(request, response, services, request.path["collection_name"], selector.filter)
    return pinned, await points.matching_ids(pinned, wanted) if given is None else ids


async def _patch(
    request: ApiRequest, response: Response, services: Services, make: Callable[[list[bytes]], PointOperation]
) -> UpdateResult:
    """Writes a change of the selected points that exist. After that, raises NotFound if some do not exist."""
    pinned, ids = await _selected(request, response, services)
    there = await points.passing(pinned, ids, None)
    operation = await pinned.run(len(ids), lambda: make([id_ for id_ in ids if id_ in there]))
    result = await _write(request, response, services, pinned.collection, operation)
    return await pinned.run(len(ids), partial(_unless_missing, result, ids, there))


async def _edit(request: ApiRequest, response: Response, services: Services, paths: list[list[Step]], edit: Edit) -> UpdateResult:
    """Changes payloads below the top level: reads each point, and writes its changed top-level keys; groups equal changes.

    Of two concurrent edits of the same top-level key one may be lost; edits of different keys do not conflict.
    """
    pinned, ids = await _selected(request, response, services)
    existing = await points.retrieve(pinned, ids, PayloadPart())
    patches = await services.reads.offload(len(existing) <= QUICK_POINTS, partial(_patches, existing, paths, edit))
    result = await _write(request, response, services, pinned.collection, *patches)
    return await pinned.run(len(ids), lambda: _unless_missing(result, ids, {point.id for point in existing}))


def _patches(existing: Sequence[points.Point], paths: list[list[Step]], edit: Edit) -> list[PatchPayload]:
    """The writes of top-level keys that result from an edit of points."""
    tops = list(dict.fromkeys(str(path[0]) for path in paths))
    groups: dict[tuple[bytes, tuple[str, ...]], list[bytes]] = {}
    for point in existing:
        payload = orjson.loads(point.payload) if point.payload else {}
        for path in paths:
            payload = edit(payload, path)
        changes = orjson.dumps({top: payload[top] for top in tops if top in payload})
        groups.setdefault((changes, tuple(top for top in tops if top not in payload)), []).append(point.id)
    return [PatchPayload(members, changes, list(unset)) for (changes, unset), members in groups.items()]


def _distinct_ids(ids: Sequence[ExternalId], place: str) -> list[bytes]:
    """Ids in journal form, each once, in their order. Raises ValueError, naming the place."""
    return list(dict.fromkeys(encode_ids(ids, place)))


def _unless_missing(result: UpdateResult, ids: Sequence[bytes], existing: set[bytes]) -> UpdateResult:
    missing = next((point_id for point_id in ids if point_id not in existing), None)
    if missing is not None:
        raise NotFound(f"Not found: No point with id {decode_id(missing)} found; all others are written")
    return result


def _object(raw: msgspec.Raw) -> dict[str, Any]:
    fields = orjson.loads(bytes(raw))
    if not isinstance(fields, dict):
        raise BadRequest("payload must be an object")
    return fields


_BATCHED: dict[str, Callable[[ApiRequest, Response, Services], Awaitable[UpdateResult]]] = {
    "upsert": upsert,
    "delete": delete,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
    "update_vectors": update_vectors,
    "delete_vectors": delete_vectors,
}
