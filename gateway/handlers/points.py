"""Handlers of points: writes, and reads that are not searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
from msgspec import structs

from catalog.collection import Collection, Consistency
from gateway.admission.limits import check_added, check_read, check_write
from gateway.decided import POINTS_PER_STEP
from gateway.dialect.answers import part_of, point_answer, vectors_of
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
from gateway.dialect.upserts import ParsedUpsert, encode_ids, json_of, vectors_patch_of
from gateway.dialect.vectors import shown
from gateway.http.errors import BadRequest, Conflict, NotFound
from gateway.reads import QUICK_POINTS
from gateway.request import ApiRequest, Response, number_of
from gateway.services import Services
from gateway.writes import UpdateResult
from journal.ids import ExternalId, decode_id, encode_id
from journal.records import Delete, PatchPayload, PointOperation, ReplacePayload, UnsetVectors, Upsert
from journal.split import take
from journal.stamps import NEVER, Version
from journal.writer import Decided
from payload.errors import BoundError
from payload.paths import Step, merged, removed, steps_of
from query import points
from query.pinned import Pinned
from query.search import search
from query.stages import Stage
from shard.contract import MAX_DEPTH
from shard.filters.where import Where
from shard.replica import PayloadPart

DEFAULT_PAGE = 10
QUICK_BYTES = 1 << 20
"""Up to this size of payloads, an answer is built on the event loop."""

Answer = dict[str, Any]
Edit = Callable[[Any, list[Step]], Any]
"""(payload, path) -> the payload, changed at the path."""


# Reads.


async def get(request: ApiRequest, response: Response, services: Services) -> Answer:
    """One point by its id."""
    text = request.path["point_id"]
    number = number_of(text)
    pinned = await _pinned(request, response, services)
    retrieved = await points.retrieve(pinned, [encode_id(text if number is None else number)], PayloadPart(), True)
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
    limit = min(services.reads.max_answer_points, DEFAULT_PAGE if body.limit is None else body.limit)
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
    services.reads.check_answer(len(counts), "limit")
    return {"hits": [{"value": value, "count": number} for value, number in counts]}


async def _pinned(request: ApiRequest, response: Response, services: Services) -> Pinned:
    """Pins the collection of the path, and checks its limits."""
    pinned = await services.reads.pin(request, response, request.path["collection_name"])
    check_read(request, services.rates, pinned.collection)
    return pinned


async def _shown(response: Response, services: Services, pinned: Pinned, ids: Sequence[bytes], shown: Shown) -> list[Answer]:
    """The points with these ids, with the requested parts."""
    with_payload, with_vector = shown.payload_selector(True), vectors_of(shown, pinned.collection)
    fetched = await points.retrieve(pinned, ids, part_of(with_payload), with_vector)
    services.reads.check_answer(len(fetched), "ids")
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
    """Several changes, one after the other; each reads the results of the ones before it.

    They are no transaction: when one fails, those before it stay, and those after it are not tried. The error says so.
    """
    body: UpdateBatchBody = request.body
    given = [[name for name in one.__struct_fields__ if getattr(one, name) is not None] for one in body.operations]
    for at, names in enumerate(given):
        if len(names) != 1:
            raise BadRequest(f"operations[{at}] needs exactly one of {', '.join(body.operations[at].__struct_fields__)}")
    results = []
    for at, (operation, (name,)) in enumerate(zip(body.operations, given, strict=True)):
        origin = replace(request.origin, place=str(at))
        try:
            results.append(
                await _BATCHED[name](structs.replace(request, body=getattr(operation, name), origin=origin), response, services)
            )
        except Exception as error:
            left = len(given) - at - 1
            error.add_note(f"operations[{at}], {name}, failed; the {at} before it are applied, the {left} after it are not")
            raise
    return results


async def delete(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Deletes points by ids or by filter."""
    return await _change(request, response, services, Delete, missing=False)


async def set_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Sets payload keys of points and keeps the others; null removes a key. `key`: the path of the object to change."""
    body: SetPayloadBody = request.body
    fields = _object(request)
    if body.key is not None:
        edit: Edit = lambda payload, steps: merged(payload, steps, fields)  # noqa: E731
        return await _edit(request, response, services, [steps_of(body.key)], edit)
    unset = [key for key, value in fields.items() if value is None]
    changes = orjson.dumps({key: value for key, value in fields.items() if value is not None})
    return await _change(request, response, services, lambda ids: PatchPayload(ids, changes, unset))


async def overwrite_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Replaces the whole payload of points, or the object at the path `key`."""
    body: SetPayloadBody = request.body
    fields = _object(request)
    if body.key is not None:
        edit: Edit = lambda payload, steps: merged(payload, steps, fields, replace=True)  # noqa: E731
        return await _edit(request, response, services, [steps_of(body.key)], edit)
    payload = json_of(body.payload, request.packed)
    return await _change(request, response, services, lambda ids: ReplacePayload(ids, payload))


async def delete_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Removes payload keys, at any depth."""
    body: DeletePayloadBody = request.body
    paths = [steps_of(key) for key in body.keys]
    if any(len(path) > 1 for path in paths):
        return await _edit(request, response, services, paths, removed)
    return await _change(request, response, services, lambda ids: PatchPayload(ids, unset=[str(path[0]) for path in paths]))


async def clear_payload(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Removes all payload of points."""
    return await _change(request, response, services, lambda ids: ReplacePayload(ids, b"{}"))


async def update_vectors(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Sets the given vectors of existing points; keeps their other vectors and payload."""
    body: UpdateVectorsBody = request.body
    collection = await services.reads.find(request, request.path["collection_name"])
    check_write(request, services.rates, collection, body.update_filter)
    quick = len(body.points) <= QUICK_POINTS
    given, documents = await services.reads.offload(quick, partial(vectors_patch_of, body.points, request.packed))
    patch = await services.inference.completed(given, documents)
    await check_added(services.reads, collection, [patch])
    wanted = await services.reads.where(request, body.update_filter)
    if wanted is None and not request.origin.idempotency_key:
        existing = set(await _existing(request, response, services, collection, patch.ids))
        there = [at for at, id_ in enumerate(patch.ids) if id_ in existing]
        written = await services.reads.offload(len(there) <= QUICK_POINTS, partial(take, patch, there))
        return _unless_missing(await services.writes.write(request, response, collection, written), patch.ids, existing)
    found: set[bytes] = set()
    return await _decided_parts(
        request,
        response,
        services,
        collection,
        patch,
        partial(_decide_patch, wanted, found),
        partial(_unless_missing, ids=patch.ids, existing=found),
    )


async def _decide_patch(
    wanted: Where | None, existing: set[bytes], operation: PointOperation, pinned: Pinned, among: Sequence[bytes] | None
) -> list[Decided]:
    """The points of a patch that exist and pass the filter, with their versions. Adds those that exist to `existing`."""
    ids = operation.ids if among is None else among
    versions = await _passing(pinned, None, ids)
    existing.update(versions)
    expected = versions if wanted is None else await _passing(pinned, wanted, list(versions))
    return await pinned.run(len(operation.ids), partial(_decided, operation, expected))


async def delete_vectors(request: ApiRequest, response: Response, services: Services) -> UpdateResult:
    """Removes named vectors of points."""
    body: DeleteVectorsBody = request.body
    return await _change(request, response, services, lambda ids: UnsetVectors(ids, body.vector))


async def _upsert(request: ApiRequest, response: Response, services: Services, name: str, given: ParsedUpsert) -> UpdateResult:
    wanted = await services.reads.where(request, given.update_filter)
    collection = await services.reads.find(request, name)
    check_write(request, services.rates, collection, given.update_filter, len(given.operation.ids))
    operation = await services.inference.completed(given.operation, given.documents)
    if not operation.ttl_ms and collection.config.ttl_s:
        operation = structs.replace(operation, ttl_ms=1000 * collection.config.ttl_s)
    await check_added(services.reads, collection, [operation])
    if wanted is None and given.update_mode in (None, "upsert"):
        return await services.writes.write(request, response, collection, operation)
    decide = partial(_decide_upsert, given.update_mode, wanted)
    return await _decided_parts(request, response, services, collection, operation, decide)


async def _decided_parts(
    request: ApiRequest,
    response: Response,
    services: Services,
    collection: Collection,
    operation: PointOperation,
    decide: Callable[[PointOperation, Pinned, Sequence[bytes] | None], Awaitable[list[Decided]]],
    conclude: Callable[[UpdateResult], UpdateResult] = lambda answer: answer,
) -> UpdateResult:
    """Decides about the points of an operation. Those that it names more than once are decided about one after the other."""
    result: UpdateResult = {}
    parts = _distinct_parts(operation.ids)
    for number, at in enumerate(parts):
        part = operation if len(at) == len(operation.ids) else take(operation, at)
        one = structs.replace(request, origin=replace(request.origin, place=f"{request.origin.place}.{number}"))
        last = conclude if number == len(parts) - 1 else lambda answer: answer
        try:
            result = await services.decided.write(one, response, collection, partial(decide, part), part.ids, last)
        except Exception as error:
            if 0 < number < len(parts) - 1:
                error.add_note(f"of points that are named several times, the first {number} values are written")
            raise
    return result


async def _decide_upsert(
    mode: str | None, wanted: Where | None, operation: PointOperation, pinned: Pinned, among: Sequence[bytes] | None
) -> list[Decided]:
    """The points of an upsert that its mode and filter want: each with the version it has, or as one that does not exist."""
    ids = operation.ids if among is None else among
    versions = await _passing(pinned, None, ids)
    expected = {} if mode == "insert_only" else dict(versions if wanted is None else await _passing(pinned, wanted, ids))
    if mode != "update_only":
        expected |= {id_: NEVER for id_ in ids if id_ not in versions}
    return await pinned.run(len(ids), partial(_decided, operation, expected))


async def insert_missing(
    request: ApiRequest, response: Response, services: Services, collection: Collection, operation: Upsert
) -> UpdateResult:
    """Writes those points of an upsert that do not exist."""
    decide = partial(_decide_upsert, "insert_only", None)
    return await _decided_parts(request, response, services, collection, operation, decide)


def _decided(operation: PointOperation, expected: Mapping[bytes, Version]) -> list[Decided]:
    """The operation on the points that have an expected version."""
    at = [index for index, id_ in enumerate(operation.ids) if id_ in expected]
    return [Decided(take(operation, at), [expected[operation.ids[index]] for index in at])] if at else []


def _distinct_parts(ids: Sequence[bytes]) -> list[list[int]]:
    """Indexes of ids in parts without repetitions: the n-th part has the n-th occurrence of each id."""
    parts: list[list[int]] = []
    seen: Counter[bytes] = Counter()
    for at, id_ in enumerate(ids):
        if seen[id_] == len(parts):
            parts.append([])
        parts[seen[id_]].append(at)
        seen[id_] += 1
    return parts


async def _passing(pinned: Pinned, wanted: Where | None, ids: Sequence[bytes]) -> dict[bytes, Version]:
    """The points among these ids that exist and pass the filter, with their versions."""
    return dict(zip(*await points.matching(pinned, wanted, ids), strict=True))


async def _target(request: ApiRequest, services: Services) -> tuple[Collection, Where | None, list[bytes] | None]:
    """The collection of a change, and the filter or the ids that select its points."""
    selector: PointsSelector = request.body
    if (selector.points is None) == (selector.filter is None):
        raise BadRequest("body needs exactly one of points, filter")
    wanted = await services.reads.where(request, selector.filter)
    given = selector.points
    ids = None
    if given is not None:
        ids = await services.reads.offload(len(given) <= QUICK_POINTS, partial(_distinct_ids, given, "points[{}]"))
        if not ids:
            raise BoundError("points: must name at least one point")
    collection = await services.reads.find(request, request.path["collection_name"])
    check_write(request, services.rates, collection, selector.filter)
    return collection, wanted, ids


async def _change(
    request: ApiRequest,
    response: Response,
    services: Services,
    make: Callable[[list[bytes]], PointOperation],
    missing: bool = True,
) -> UpdateResult:
    """Writes a change that is the same for all selected points, as far as they exist.

    `missing`: raises NotFound, after the write, if some of the given ids do not exist.
    """
    collection, wanted, ids = await _target(request, services)
    if ids is not None:
        await check_added(services.reads, collection, [make(ids)])
        if not (missing and request.origin.idempotency_key):  # else other points may exist on a retry
            return await _change_given(request, response, services, collection, ids, make, missing)
    existing: set[bytes] = set()

    async def decide(pinned: Pinned, among: Sequence[bytes] | None) -> list[Decided]:
        found, versions = await points.matching(pinned, wanted, ids if among is None else among)
        existing.update(found)
        operation = make(found)
        await check_added(services.reads, collection, [operation])
        return [Decided(operation, versions)] if found else []

    conclude = partial(_unless_missing, ids=ids or (), existing=existing)
    return await services.decided.write(request, response, collection, decide, ids, conclude)


async def _change_given(
    request: ApiRequest,
    response: Response,
    services: Services,
    collection: Collection,
    ids: list[bytes],
    make: Callable[[list[bytes]], PointOperation],
    missing: bool,
) -> UpdateResult:
    """Writes a change of the given points, without conditions: it holds for whatever state they have.

    Many are written in steps, each when the one before is applied, so that other writes get in between.
    """
    existing = set(await _existing(request, response, services, collection, ids)) if missing else set()
    result: UpdateResult = {}
    waiting = (
        structs.replace(request, params=structs.replace(request.params, wait=True)) if len(ids) > POINTS_PER_STEP else request
    )
    for start in range(0, len(ids), POINTS_PER_STEP):
        step = [id_ for id_ in ids[start : start + POINTS_PER_STEP] if not missing or id_ in existing]
        origin = replace(request.origin, place=f"{request.origin.place}.{start}")
        try:
            result = await services.writes.write(structs.replace(waiting, origin=origin), response, collection, make(step))
        except Exception as error:
            if start:
                error.add_note(f"the first {start} of {len(ids)} points are changed")
            raise
    if not request.params.wait:
        result["status"] = "acknowledged"
    return _unless_missing(result, ids, existing) if missing else result


async def _existing(
    request: ApiRequest, response: Response, services: Services, collection: Collection, ids: Sequence[bytes]
) -> list[bytes]:
    """The points among these that exist, by a strong read."""
    pinned = await services.reads.pin(request, response, collection.name, Consistency.STRONG, for_write=True)
    if pinned.collection.id != collection.id:
        raise Conflict("the collection was replaced meanwhile by another of the same name")
    return (await points.matching(pinned, None, ids))[0]


async def _edit(request: ApiRequest, response: Response, services: Services, paths: list[list[Step]], edit: Edit) -> UpdateResult:
    """Changes payloads below the top level: reads each point, and writes its changed top-level keys; groups equal changes."""
    collection, wanted, ids = await _target(request, services)
    existing: set[bytes] = set()

    async def decide(pinned: Pinned, among: Sequence[bytes] | None) -> list[Decided]:
        if ids is None:
            selected, _ = await points.matching(pinned, wanted, among)
        else:
            selected = list(ids if among is None else among)
        found = await points.retrieve(pinned, selected, PayloadPart())
        existing.update(point.id for point in found)
        patches = await services.reads.offload(len(found) <= QUICK_POINTS, partial(_patches, found, paths, edit))
        await check_added(services.reads, collection, [patch.operation for patch in patches])
        return patches

    conclude = partial(_unless_missing, ids=ids or (), existing=existing)
    return await services.decided.write(request, response, collection, decide, ids, conclude)


def _patches(existing: Sequence[points.Point], paths: list[list[Step]], edit: Edit) -> list[Decided]:
    """The writes of top-level keys that result from an edit of points."""
    tops = list(dict.fromkeys(str(path[0]) for path in paths))
    groups: dict[tuple[bytes, tuple[str, ...]], list[points.Point]] = {}
    for point in existing:
        payload = orjson.loads(point.payload) if point.payload else {}
        for path in paths:
            payload = edit(payload, path)
        changes = orjson.dumps({top: payload[top] for top in tops if top in payload})
        groups.setdefault((changes, tuple(top for top in tops if top not in payload)), []).append(point)
    return [
        Decided(PatchPayload([point.id for point in members], changes, list(unset)), [point.version for point in members])
        for (changes, unset), members in groups.items()
    ]


def _distinct_ids(ids: Sequence[ExternalId], place: str) -> list[bytes]:
    """Ids in journal form, each once, in their order. Raises ValueError, naming the place."""
    return list(dict.fromkeys(encode_ids(ids, place)))


def _unless_missing(result: UpdateResult, ids: Sequence[bytes], existing: set[bytes]) -> UpdateResult:
    missing = next((point_id for point_id in ids if point_id not in existing), None)
    if missing is not None:
        raise NotFound(f"Not found: No point with id {decode_id(missing)} found; all others are written")
    return result


def _object(request: ApiRequest) -> dict[str, Any]:
    """The payload of a body."""
    data = json_of(request.body.payload, request.packed)
    try:
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"payload has a number that is too large, or is nested deeper than {MAX_DEPTH}: {shown(data)}"
        ) from error
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
