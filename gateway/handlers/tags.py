"""Handlers of tags: names of instants of a collection, whose states are kept longer than its retention (N8)."""

from __future__ import annotations

from typing import Any

from gateway.as_of import time_of
from gateway.dialect.bodies import TagBody
from gateway.http.errors import Conflict
from gateway.request import ApiRequest, Response
from gateway.services import Services
from journal.records import DeleteTag, PutTag
from query.points import count

NOW = "-0s"


async def list_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The tags of a collection, the earliest first, with the bytes that are kept for each beyond the retention."""
    await services.reads.catch_up_catalog(request)
    collection = await services.reads.find(request, request.path["collection_name"])
    tags = sorted(collection.tags.items(), key=lambda tag: (tag[1], tag[0]))
    held = await services.reads.held_for(collection, [stamp for _, stamp in tags])
    return {
        "tags": [
            {"name": name, "stamp": str(stamp), "time": time_of(stamp), "held_bytes": size}
            for (name, stamp), size in zip(tags, held, strict=True)
        ]
    }


async def put(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Names an instant, by default the present, and keeps its states until the tag is deleted. Replaces a tag of that name."""
    body: TagBody = request.body
    path = request.path
    pinned = await services.reads.pin_as_of(request, response, path["collection_name"], body.as_of or NOW, for_write=True)
    current = await services.reads.find(request, path["collection_name"])
    if pinned.collection.id != current.id:
        raise Conflict(f"`{path['collection_name']}` was another collection at that instant")
    assert response.as_of is not None
    stamp, response.as_of = response.as_of.stamp, None
    points = await count(pinned, None)
    await services.writes.command(request, response, PutTag(path["collection_name"], path["tag_name"], stamp))
    return {"name": path["tag_name"], "stamp": str(stamp), "time": time_of(stamp), "points": points}


async def delete(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Removes a tag. What only this tag has kept is removed."""
    path = request.path
    await services.writes.command(request, response, DeleteTag(path["collection_name"], path["tag_name"]))
    return {"operation_id": 0, "status": "completed"}
