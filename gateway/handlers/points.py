"""Handlers of points: writes, and reads that are not searches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import orjson

from catalog.collection import Collection, Consistency
from gateway.admission.limits import check_added, check_read, check_write
from gateway.dialect.answers import point_answer
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
    UpdateBatchBody,
    UpdateVectorsBody,
    UpsertBody,
)
from gateway.dialect.queries import Source, Translator
from gateway.dialect.upserts import GivenUpsert, encode_ids, vectors_patch_of
from gateway.http.errors import BadRequest, NotFound
from gateway.service import Call
from journal.ids import decode_id, encode_id
from journal.records import Delete, PatchPayload, PointOperation, ReplacePayload, UnsetVectors
from journal.split import take
from payload.paths import Step, merged, steps_of, without
from query import points
from query.reading import Where, where
from query.search import search
from query.stages import Stage
from shard.filters.conditions import Candidate
from shard.shard import Shard

DEFAULT_PAGE = 10
MAX_PAGE = 10_000
"""A page has at most this many points, whatever is asked; the next page goes on from there."""
QUICK_POINTS = 100


async def upsert(call: Call) -> dict[str, Any]:
    """Inserts points, or replaces those that exist; `update_mode` and `update_filter` may leave some out."""
    given = await call.given_upsert(UpsertBody)
    return await _upsert(call, call.path["collection_name"], given)


async def bulk(call: Call) -> dict[str, Any]:
    """Inserts or replaces points of the collection named in the body, at tier 2."""
    given = await call.given_upsert(BulkBody)
    return await _upsert(call, given.collection, given)


async def batch(call: Call) -> list[dict[str, Any]]:
    """Several changes, one after the other; each sees those before it."""
    body: UpdateBatchBody = call.body
    results = []
    for at, operation in enumerate(body.operations):
        given = [name for name in operation.__struct_fields__ if getattr(operation, name) is not None]
        if len(given) != 1:
            raise BadRequest(f"operations[{at}] needs exactly one of {', '.join(operation.__struct_fields__)}")
        call.body = getattr(operation, given[0])
        results.append(await _BATCHED[given[0]](call))
    return results


async def delete(call: Call) -> dict[str, Any]:
    """Deletes points by ids or by filter."""
    collection, _, ids = await _selected(call, call.body)
    return await call.write(collection, Delete(ids))


async def set_payload(call: Call) -> dict[str, Any]:
    """Sets payload keys of points, leaving the others; a null removes a key. With `key`, those of the object at that path."""
    body: SetPayloadBody = call.body
    fields = _object(body.payload)
    if body.key is not None:
        return await _edit(call, body, [steps_of(body.key)], lambda payload, steps: merged(payload, steps, fields))
    unset = [key for key, value in fields.items() if value is None]
    changes = orjson.dumps({key: value for key, value in fields.items() if value is not None})
    return await _patch(call, body, lambda ids: PatchPayload(ids, changes, unset))


async def overwrite_payload(call: Call) -> dict[str, Any]:
    """Replaces the whole payload of points; with `key`, the object at that path."""
    body: SetPayloadBody = call.body
    fields = _object(body.payload)
    if body.key is not None:
        return await _edit(call, body, [steps_of(body.key)], lambda payload, steps: merged(payload, steps, fields, replace=True))
    return await _patch(call, body, lambda ids: ReplacePayload(ids, bytes(body.payload)))


async def delete_payload(call: Call) -> dict[str, Any]:
    """Removes payload keys, also below the top level."""
    body: DeletePayloadBody = call.body
    paths = [steps_of(key) for key in body.keys]
    if any(len(path) > 1 for path in paths):
        return await _edit(call, body, paths, lambda payload, steps: without(payload, [steps]))
    return await _patch(call, body, lambda ids: PatchPayload(ids, unset=[str(path[0]) for path in paths]))


async def clear_payload(call: Call) -> dict[str, Any]:
    """Removes all payload of points."""
    return await _patch(call, call.body, lambda ids: ReplacePayload(ids, b"{}"))


async def update_vectors(call: Call) -> dict[str, Any]:
    """Sets the given vectors of existing points, leaving their other vectors and payload."""
    body: UpdateVectorsBody = call.body
    collection, shards = await call.read(call.path["collection_name"], Consistency.STRONG)
    check_write(call, collection, body.update_filter)
    if not body.points:
        raise BadRequest("Wrong input: Empty update request: no points are given")
    patch = vectors_patch_of(body.points, call.packed)
    found = {point.row.id: point for point in points.retrieve(shards, patch.ids)}
    wanted = where(body.update_filter)
    there = [index for index, point_id in enumerate(patch.ids) if (point := found.get(point_id)) and _passes(point, wanted)]
    return _unless_missing(await _write(call, collection, take(patch, there)), patch.ids, set(found))


async def delete_vectors(call: Call) -> dict[str, Any]:
    """Removes named vectors of points."""
    body: DeleteVectorsBody = call.body
    return await _patch(call, body, lambda ids: UnsetVectors(ids, body.vector))


async def get(call: Call) -> dict[str, Any]:
    """One point by its id."""
    text = call.path["point_id"]
    _, shards = await _read(call)
    found = points.retrieve(shards, [encode_id(int(text) if text.isdecimal() else text)])
    if not found:
        raise NotFound(f"Not found: Point with id {text} does not exists!")
    return point_answer(found[0].row, found[0].view, True, True)


async def retrieve(call: Call) -> list[dict[str, Any]]:
    """Points by their ids; those that do not exist are left out."""
    body: RetrieveBody = call.body
    ids = list(dict.fromkeys(encode_ids(body.ids, "ids[{}]")))
    _, shards = await _read(call)

    def answers() -> list[dict[str, Any]]:
        return [
            point_answer(row, view, body.payload_selector(True), body.vector_selector())
            for row, view in points.retrieve(shards, ids)
        ]

    return answers() if len(ids) <= QUICK_POINTS else await call.in_pool(answers)


async def scroll(call: Call) -> dict[str, Any]:
    """Points in the order of their ids, page by page."""
    body: ScrollBody = call.body
    wanted = where(body.filter)
    start = b"" if body.offset is None else encode_id(body.offset)
    limit = min(MAX_PAGE, DEFAULT_PAGE if body.limit is None else body.limit)
    collection, shards = await _read(call)
    if body.order_by is not None:
        if body.offset is not None:
            raise BadRequest("offset cannot be used with order_by; go on with order_by.start_from")
        by = Translator(Source(collection, shards), {}).order_by(body.order_by)
        return await call.in_pool(_ordered_page, shards, Stage(by, limit, wanted), body)

    def page() -> dict[str, Any]:
        found, after = points.scroll(shards, wanted, start, limit)
        shown = [point_answer(row, view, body.payload_selector(True), body.vector_selector()) for row, view in found]
        return {"points": shown, "next_page_offset": None if after is None else decode_id(after)}

    return await call.in_pool(page)


async def count(call: Call) -> dict[str, int]:
    """How many points there are, or pass a filter. Always exact."""
    body: CountBody = call.body
    wanted = where(body.filter)
    _, shards = await _read(call)
    return {"count": await call.in_pool(points.count, shards, wanted)}


async def facet(call: Call) -> dict[str, Any]:
    """The most frequent values of a payload field. Always exact."""
    body: FacetBody = call.body
    wanted = where(body.filter)
    steps_of(body.key)
    _, shards = await _read(call)
    found = await call.in_pool(points.facet, shards, body.key, wanted, DEFAULT_PAGE if body.limit is None else body.limit)
    return {"hits": [{"value": value, "count": number} for value, number in found]}


async def _read(call: Call) -> tuple[Collection, list[Shard]]:
    """The collection of the path and its shards, when its limits allow the request."""
    collection, shards = await call.read(call.path["collection_name"])
    check_read(call, collection)
    return collection, shards


async def _write(call: Call, collection: Collection, *operations: PointOperation) -> dict[str, Any]:
    """Writes, when there is room for what is added."""
    check_added(call, collection, operations)
    return await call.write(collection, *operations)


def _ordered_page(shards: list[Shard], stage: Stage, body: ScrollBody) -> dict[str, Any]:
    """A page in the order of a payload value; the next one starts from the last value."""
    shown = [
        point_answer(hit.point, hit.view, body.payload_selector(True), body.vector_selector()) | {"order_value": hit.value}
        for hit in search(shards, stage)
    ]
    return {"points": shown, "next_page_offset": None}


async def _upsert(call: Call, name: str, given: GivenUpsert) -> dict[str, Any]:
    operation = given.operation
    wanted = where(given.update_filter)
    if wanted is None and given.update_mode in (None, "upsert"):
        collection = await call.find(name)
        check_write(call, collection, None, len(operation.ids))
        return await _write(call, collection, operation)
    # A record carries results, not questions (I8): what the condition says of each point is decided here.
    collection, shards = await call.read(name, Consistency.STRONG)
    check_write(call, collection, given.update_filter, len(operation.ids))
    found = {point.row.id: point for point in await call.in_pool(points.retrieve, shards, operation.ids)}

    def is_wanted(point_id: bytes) -> bool:
        point = found.get(point_id)
        if point is None:
            return given.update_mode != "update_only"
        return given.update_mode != "insert_only" and _passes(point, wanted)

    return await _write(call, collection, take(operation, [at for at, id_ in enumerate(operation.ids) if is_wanted(id_)]))


def _passes(point: points.Point, wanted: Where | None) -> bool:
    return wanted is None or wanted.filter.test(Candidate(point.row, point.view))


_Selected = tuple[Collection, list[Shard], list[bytes]]


async def _selected(call: Call, selector: PointsSelector) -> _Selected:
    """The collection, its shards and the ids that a selector names, of all that was acknowledged before.

    A filter is resolved here: records carry results, not questions (I8).
    """
    if (selector.points is None) == (selector.filter is None):
        raise BadRequest("body needs exactly one of points, filter")
    wanted = where(selector.filter)
    given = None if selector.points is None else list(dict.fromkeys(encode_ids(selector.points)))
    if given == []:
        raise BadRequest("Wrong input: Empty update request: no points are given")
    collection, shards = await call.read(call.path["collection_name"], Consistency.STRONG)
    check_write(call, collection, selector.filter)
    return collection, shards, await call.in_pool(points.matching_ids, shards, wanted) if given is None else given


async def _patch(call: Call, selector: PointsSelector, make: Callable[[list[bytes]], PointOperation]) -> dict[str, Any]:
    """Writes a change of the selected points that exist; then says so when one does not."""
    collection, shards, ids = await _selected(call, selector)
    found = {point.row.id for point in points.retrieve(shards, ids)}
    return _unless_missing(await _write(call, collection, make([i for i in ids if i in found])), ids, found)


async def _edit(
    call: Call, selector: PointsSelector, paths: list[list[Step]], edit: Callable[[Any, list[Step]], Any]
) -> dict[str, Any]:
    """Changes below the top level: reads each point, and writes the top-level keys that change, equal changes together.

    Of two such edits of one top-level key at the same time one may be lost; edits of different keys do not meet.
    """
    collection, shards, ids = await _selected(call, selector)
    tops = list(dict.fromkeys(str(path[0]) for path in paths))
    found = points.retrieve(shards, ids)
    groups: dict[tuple[bytes, tuple[str, ...]], list[bytes]] = {}
    for point in found:
        payload = orjson.loads(point.row.payload) if point.row.payload else {}
        for path in paths:
            payload = edit(payload, path)
        changes = orjson.dumps({top: payload[top] for top in tops if top in payload})
        groups.setdefault((changes, tuple(top for top in tops if top not in payload)), []).append(point.row.id)
    patches = [PatchPayload(members, changes, list(unset)) for (changes, unset), members in groups.items()]
    return _unless_missing(await _write(call, collection, *patches), ids, {point.row.id for point in found})


def _unless_missing(result: dict[str, Any], ids: list[bytes], found: set[bytes]) -> dict[str, Any]:
    missing = next((point_id for point_id in ids if point_id not in found), None)
    if missing is not None:
        raise NotFound(f"Not found: No point with id {decode_id(missing)} found; all others are written")
    return result


def _object(raw: msgspec.Raw) -> dict[str, Any]:
    fields = orjson.loads(bytes(raw))
    if not isinstance(fields, dict):
        raise BadRequest("payload must be an object")
    return fields


_BATCHED: dict[str, Callable[[Call], Awaitable[dict[str, Any]]]] = {
    "upsert": upsert,
    "delete": delete,
    "set_payload": set_payload,
    "overwrite_payload": overwrite_payload,
    "delete_payload": delete_payload,
    "clear_payload": clear_payload,
    "update_vectors": update_vectors,
    "delete_vectors": delete_vectors,
}
