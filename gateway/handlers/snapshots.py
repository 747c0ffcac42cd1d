"""Handlers of the dialect's snapshots: archives of collections, of shards, and of the whole storage."""

from __future__ import annotations

from typing import Any

from gateway.dialect.bodies import RecoverBody, UploadParams
from gateway.handlers import archives
from gateway.handlers.archives import Recovery
from gateway.http.errors import BadRequest, NotFound
from gateway.http.uploads import save_file
from gateway.request import ApiRequest, FileAnswer, Response, number_of
from gateway.services import Services
from snapshots.archive import Source
from snapshots.folder import Archives, Described

UPLOADED = "snapshot"
"""The field of the form that has the file."""


async def list_all(request: ApiRequest, response: Response, services: Services) -> list[dict[str, Any]]:
    """The snapshots of a collection, of a shard, or of the whole storage."""
    found = await _archives(request, services)
    return [_described(one) for one in await services.reads.offload(False, found.listed)]


async def create(request: ApiRequest, response: Response, services: Services) -> dict[str, Any] | None:
    """Makes a snapshot of a collection, of a shard, or of the whole storage."""
    target = await _archives(request, services)

    async def work() -> dict[str, Any]:
        sources = await _sources(request, response, services)
        return _described(await archives.made(services, target, sources))

    return await services.jobs.run("making a snapshot", work(), response, request.params.wait)


async def download(request: ApiRequest, response: Response, services: Services) -> FileAnswer:
    """A snapshot as a file."""
    name = request.path["snapshot_name"]
    found = await _archives(request, services)
    return FileAnswer(await services.reads.offload(False, lambda: found.path(name)), name)


async def stream(request: ApiRequest, response: Response, services: Services) -> FileAnswer:
    """The current state of a shard as a snapshot file, which is not kept."""
    await _archives(request, services)
    sources = await _sources(request, response, services)
    path = await services.jobs.run("a snapshot", archives.streamed(services, sources[0]), response, wait=True)
    assert path is not None
    return FileAnswer(path, f"{request.path['collection_name']}-shard-{request.path['shard_id']}.snapshot", temporary=True)


async def delete(request: ApiRequest, response: Response, services: Services) -> bool | None:
    """Removes a snapshot."""
    name = request.path["snapshot_name"]
    found = await _archives(request, services)

    async def work() -> bool:
        await services.reads.offload(False, lambda: found.remove(name))
        return True

    return await services.jobs.run("removing a snapshot", work(), response, request.params.wait)


async def recover(request: ApiRequest, response: Response, services: Services) -> bool | None:
    """Recovers a collection or a shard from a snapshot at a location: what it contains is written to the journal."""
    body: RecoverBody = request.body
    recovery = Recovery(request.path["collection_name"], _shard(request), body.priority, body.checksum or "")

    async def work() -> bool:
        async with archives.located(services, body.location, body.api_key or "") as path:
            return await archives.recover(request, response, services, path, recovery)

    return await services.jobs.run(f"recovering collection {recovery.name}", work(), response, request.params.wait)


async def upload(request: ApiRequest, response: Response, services: Services) -> bool | None:
    """Recovers a collection or a shard from a snapshot that is sent as a form."""
    params: UploadParams = request.params
    recovery = Recovery(request.path["collection_name"], _shard(request), params.priority, params.checksum or "")
    check_room = archives.checked_room(services)
    check_room(request.stream.length or 0)
    path = services.node.archives.unfinished()
    try:
        await save_file(request.stream, UPLOADED, path, services.reads, lambda: check_room(1))
    except BaseException:
        path.unlink(missing_ok=True)
        raise

    async def work() -> bool:
        try:
            return await archives.recover(request, response, services, path, recovery)
        finally:
            path.unlink(missing_ok=True)

    try:
        return await services.jobs.run(f"recovering collection {recovery.name}", work(), response, params.wait)
    finally:
        if not response.accepted:
            path.unlink(missing_ok=True)


async def _archives(request: ApiRequest, services: Services) -> Archives:
    """The archives of the path. Raises NotFound when its collection or shard does not exist."""
    if "collection_name" not in request.path:
        return services.node.archives.of_storage()
    collection = await services.reads.find(request, request.path["collection_name"])
    if (shard := _shard(request)) is None:
        return services.node.archives.of_collection(collection.name)
    if shard >= collection.config.shard_number:
        raise NotFound(f"Not found: Shard {shard} of collection `{collection.name}` doesn't exist!")
    return services.node.archives.of_shard(collection.name, shard)


async def _sources(request: ApiRequest, response: Response, services: Services) -> list[Source]:
    """What an archive of the path contains."""
    if "collection_name" in request.path:
        return [await archives.source_of(request, response, services, request.path["collection_name"], _shard(request))]
    await services.reads.catch_up_catalog(request)
    names = sorted(services.reads.catalog.collections)
    if not names:
        raise BadRequest("there is no collection, so there is nothing to make a snapshot of")
    return [await archives.source_of(request, response, services, name) for name in names]


def _shard(request: ApiRequest) -> int | None:
    text = request.path.get("shard_id")
    if text is None:
        return None
    if (number := number_of(text)) is None:
        raise BadRequest(f"shard_id {text[:16]!r} must be a whole number")
    return number


def _described(archive: Described) -> dict[str, Any]:
    return {
        "name": archive.name,
        "creation_time": archive.created.strftime("%Y-%m-%dT%H:%M:%S"),
        "size": archive.size,
        "checksum": archive.checksum,
    }
