"""Handlers of points: writes, and reads that are not searches."""

from __future__ import annotations

from typing import Any

import orjson

from catalog.collection import Collection
from gateway.answers import external_id, point_answer
from gateway.bodies import (
    BulkBody,
    CountBody,
    DeletePayloadBody,
    DeleteVectorsBody,
    FacetBody,
    PointsSelector,
    RetrieveBody,
    ScrollBody,
    SetPayloadBody,
    UpdateVectorsBody,
    UpsertBody,
)
from gateway.errors import BadRequest, NotFound
from gateway.service import Call
from gateway.upserts import encode_ids, upsert_of, vectors_patch_of
from journal.ids import encode_id
from journal.records import Delete, PatchPayload, ReplacePayload, UnsetVectors
from query import points
from query.filters import parse_filter
from shard.payload import steps_of


async def upsert(call: Call) -> dict[str, Any]:
    """Inserts points, or replaces those that exist."""
    body: UpsertBody = call.body
    return await call.write(await call.find(call.path["collection_name"]), upsert_of(body))


async def bulk(call: Call) -> dict[str, Any]:
    """Inserts or replaces points of the collection named in the body, at tier 2."""
    body: BulkBody = call.body
    return await call.write(await call.find(body.collection), upsert_of(body))


async def delete(call: Call) -> dict[str, Any]:
    """Deletes points by ids or by filter."""
    collection, ids = await _selected(call)
    return await call.write(collection, Delete(ids))


async def set_payload(call: Call) -> dict[str, Any]:
    """Sets payload keys of points, leaving the others; with `key`, those of the object at that path."""
    body: SetPayloadBody = call.body
    collection, ids = await _selected(call)
    if body.key is None:
        return await call.write(collection, PatchPayload(ids, orjson.dumps(body.payload)))
    return await _edit(call, collection, ids, [(body.key, body.payload)])


async def overwrite_payload(call: Call) -> dict[str, Any]:
    """Replaces the whole payload of points; with `key`, the object at that path."""
    body: SetPayloadBody = call.body
    collection, ids = await _selected(call)
    if body.key is None:
        return await call.write(collection, ReplacePayload(ids, orjson.dumps(body.payload)))
    return await _edit(call, collection, ids, [(body.key, None), (body.key, body.payload)])


async def delete_payload(call: Call) -> dict[str, Any]:
    """Removes payload keys, also below the top level."""
    body: DeletePayloadBody = call.body
    collection, ids = await _selected(call)
    if all(len(steps_of(key)) == 1 for key in body.keys):
        return await call.write(collection, PatchPayload(ids, unset=[steps_of(key)[0] for key in body.keys]))
    return await _edit(call, collection, ids, [(key, None) for key in body.keys])


async def clear_payload(call: Call) -> dict[str, Any]:
    """Removes all payload of points."""
    collection, ids = await _selected(call)
    return await call.write(collection, ReplacePayload(ids, b"{}"))


async def update_vectors(call: Call) -> dict[str, Any]:
    """Sets the given vectors of existing points, leaving their other vectors and payload."""
    body: UpdateVectorsBody = call.body
    collection, _ = await call.read(call.path["collection_name"])
    patch = vectors_patch_of(body.points)
    _, shards = collection, call.shards(collection)
    found = {point.row.id for point in points.retrieve(shards, patch.ids)}
    if missing := [point_id for point_id in patch.ids if point_id not in found]:
        raise NotFound(f"Not found: No point with id {external_id(missing[0])} found")
    return await call.write(collection, patch)


async def delete_vectors(call: Call) -> dict[str, Any]:
    """Removes named vectors of points."""
    body: DeleteVectorsBody = call.body
    collection, ids = await _selected(call)
    return await call.write(collection, UnsetVectors(ids, body.vector))


async def get(call: Call) -> dict[str, Any]:
    """One point by its id."""
    text = call.path["point_id"]
    _, shards = await call.read(call.path["collection_name"])
    found = points.retrieve(shards, [encode_id(int(text) if text.isdigit() else text)])
    if not found:
        raise NotFound(f"Not found: Point with id {text} does not exists!")
    return point_answer(found[0].row, found[0].shard, True, True)


async def retrieve(call: Call) -> list[dict[str, Any]]:
    """Points by their ids; those that do not exist are left out."""
    body: RetrieveBody = call.body
    _, shards = await call.read(call.path["collection_name"])
    found = points.retrieve(shards, list(dict.fromkeys(encode_ids(body.ids))))
    return [point_answer(point.row, point.shard, body.with_payload, body.with_vector) for point in found]


async def scroll(call: Call) -> dict[str, Any]:
    """Points in the order of their ids, page by page."""
    body: ScrollBody = call.body
    filter_ = parse_filter(body.filter)
    start = b"" if body.offset is None else encode_id(body.offset)
    _, shards = await call.read(call.path["collection_name"])
    found, after = await call.in_pool(points.scroll, shards, filter_, start, body.limit)
    answer: dict[str, Any] = {
        "points": [point_answer(point.row, point.shard, body.with_payload, body.with_vector) for point in found]
    }
    if after is not None:
        answer["next_page_offset"] = external_id(after)
    return answer


async def count(call: Call) -> dict[str, int]:
    """How many points there are, or pass a filter. Always exact."""
    body: CountBody = call.body
    filter_ = parse_filter(body.filter)
    _, shards = await call.read(call.path["collection_name"])
    return {"count": await call.in_pool(points.count, shards, filter_)}


async def facet(call: Call) -> dict[str, Any]:
    """The most frequent values of a payload field. Always exact."""
    body: FacetBody = call.body
    filter_ = parse_filter(body.filter)
    steps_of(body.key)
    _, shards = await call.read(call.path["collection_name"])
    found = await call.in_pool(points.facet, shards, body.key, filter_, body.limit)
    return {"hits": [{"value": value, "count": number} for value, number in found]}


async def _selected(call: Call) -> tuple[Collection, list[bytes]]:
    """The collection and the ids that a selector names. A filter is resolved here: records carry results, not questions (I8)."""
    body: PointsSelector = call.body
    if (body.points is None) == (body.filter is None):
        raise BadRequest("body needs exactly one of points, filter")
    if body.points is not None:
        return await call.find(call.path["collection_name"]), list(dict.fromkeys(encode_ids(body.points)))
    filter_ = parse_filter(body.filter)
    collection, shards = await call.read(call.path["collection_name"])
    return collection, await call.in_pool(points.matching_ids, shards, filter_)


async def _edit(call: Call, collection: Collection, ids: list[bytes], edits: list[tuple[str, Any]]) -> dict[str, Any]:
    """Writes below the top level: reads each point, and writes the top-level keys that change.

    An edit is a path and an object to merge there, or None to remove what is there. Of two such edits of one top-level key at
    the same time one may be lost; edits of different keys do not meet.
    """
    _, shards = await call.read(collection.name)
    result: dict[str, Any] = {"operation_id": 0, "status": "completed"}
    for point in points.retrieve(shards, ids):
        payload = orjson.loads(point.row.payload) if point.row.payload else {}
        for path, value in edits:
            _apply_edit(payload, steps_of(path), value)
        tops = list(dict.fromkeys(steps_of(path)[0] for path, _ in edits))
        changes = {top: payload[top] for top in tops if top in payload}
        unset = [top for top in tops if top not in payload]
        result = await call.write(collection, PatchPayload([point.row.id], orjson.dumps(changes), unset))
    return result


def _apply_edit(node: Any, steps: list[str], value: dict[str, Any] | None) -> None:
    step, rest = steps[0], steps[1:]
    if step.startswith("[") and isinstance(node, list):
        wanted = range(len(node)) if step == "[]" else [index for index in (int(step[1:-1]),) if index < len(node)]
        for index in wanted:
            if rest:
                _apply_edit(node[index], rest, value)
            elif value is None:
                node[index] = None
            elif isinstance(node[index], dict):
                node[index] |= value
    elif isinstance(node, dict) and not step.startswith("["):
        if rest:
            if step not in node and value is not None and not rest[0].startswith("["):
                node[step] = {}
            if step in node:
                _apply_edit(node[step], rest, value)
        elif value is None:
            node.pop(step, None)
        else:
            node[step] = (node[step] if isinstance(node.get(step), dict) else {}) | value
