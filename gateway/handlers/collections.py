"""Handlers of collections and aliases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from catalog.catalog import OutcomeKind, choose_homes
from catalog.collection import Collection, check_name
from gateway.dialect import configs
from gateway.dialect.bodies import AliasOperation, ChangeAliasesBody, ignored
from gateway.handlers import field_indexes
from gateway.http.errors import BadRequest
from gateway.request import ApiRequest, Response
from gateway.services import NodeState, Services
from journal.records import (
    AliasAction,
    ChangeAliases,
    CreateCollection,
    DeleteCollection,
    UpdateCollection,
)
from query import points

QUEUE_WAIT_S = 1.0


async def create(request: ApiRequest, response: Response, services: Services) -> bool:
    """Creates a collection."""
    response.ignored += [hint for params in configs.given_vectors(request.body).values() for hint in ignored(params)]
    config = configs.created(request.body)
    config.validate()
    check_name("collection", request.path["collection_name"])
    await services.reads.catch_up_catalog(request)
    if services.reads.catalog.find(request.path["collection_name"]) is None:
        services.node.descriptors.check(config.shard_number, len(services.node.shards.quarantined()))
    homes = choose_homes(services.reads.catalog, config.shard_number)
    await services.writes.command(
        request, response, CreateCollection(request.path["collection_name"], msgspec.json.encode(config), homes)
    )
    return True


async def update(request: ApiRequest, response: Response, services: Services) -> bool:
    """Changes settings of a collection that do not change the meaning of records in the log."""
    collection = await services.reads.find_or_retry(request, request.path["collection_name"])
    changes: dict[str, Any] = {} if collection is None else configs.changes(request.body, collection.config)
    if collection is not None:
        msgspec.structs.replace(collection.config, **changes).validate()
    await services.writes.command(
        request, response, UpdateCollection(request.path["collection_name"], msgspec.json.encode(changes))
    )
    return True


async def delete(request: ApiRequest, response: Response, services: Services) -> bool:
    """Deletes a collection with all its points; false when there is none."""
    name = request.path["collection_name"]
    if (collection := services.reads.catalog.collections.get(name)) is not None:
        await services.reads.close(collection)
    outcome = await services.writes.command(request, response, DeleteCollection(name))
    return outcome.kind is OutcomeKind.DONE


async def list_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """All collections."""
    if request.as_of:
        response.as_of = await services.reads.instant(request, request.as_of, lambda: None)
        names: Iterable[str] = services.reads.history.names(response.as_of.stamp)
    else:
        await services.reads.catch_up_catalog(request)
        names = services.reads.catalog.collections
    return {"collections": [{"name": name} for name in sorted(names)]}


async def exists(request: ApiRequest, response: Response, services: Services) -> dict[str, bool]:
    """Whether there is a collection or alias with that name."""
    name, reads = request.path["collection_name"], services.reads
    if request.as_of:
        response.as_of = await reads.instant(request, request.as_of, lambda: reads.catalog.find(name))
        return {"exists": reads.history.find(name, response.as_of.stamp) is not None}
    await reads.catch_up_catalog(request)
    return {"exists": reads.catalog.find(name) is not None}


async def info(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """A collection's configuration and counts."""
    pinned = await services.reads.pin(request, response, request.path["collection_name"])
    collection = pinned.collection
    statuses = await services.reads.statuses(collection)
    indexed = sum(status.indexed for status in statuses)
    indexing = sum(status.vectors for status in statuses) - indexed >= sum(status.seal_rows for status in statuses)
    return {
        "status": "yellow" if indexing else "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": indexed,
        "points_count": await points.count(pinned, None),
        "segments_count": sum(status.segments for status in statuses),
        "config": configs.described(collection),
        "payload_schema": {
            name: field_indexes.described(schema) | {"points": sum(status.fields.get(name, 0) for status in statuses)}
            for name, schema in collection.fields.items()
        },
        "created_at": datetime.fromtimestamp(collection.created_ms / 1000, UTC).isoformat(),
        **await _update_queue(services.node, collection),
    }


async def _update_queue(node: NodeState, collection: Collection) -> dict[str, Any]:
    """How many records of the collection's partitions are not applied here; empty when the log does not answer in time."""
    try:
        lag = await asyncio.wait_for(asyncio.to_thread(node.measured_lag), QUEUE_WAIT_S)
    except TimeoutError:
        return {}
    homes = node.homes(collection)
    waiting = [measured.lag.records for home, measured in lag.items() if home in homes]
    # Nothing is ever deferred: what is applied is found, with a graph or without.
    return {"update_queue": {"length": sum(waiting), "deferred_points": 0}} if waiting else {}


async def change_aliases(request: ApiRequest, response: Response, services: Services) -> bool:
    """Creates, deletes and renames aliases, atomically."""
    body: ChangeAliasesBody = request.body
    await services.writes.command(
        request, response, ChangeAliases([_alias_action(action, at) for at, action in enumerate(body.actions)])
    )
    return True


async def aliases(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """All aliases, or those of one collection."""
    await services.reads.catch_up_catalog(request)
    wanted = request.path.get("collection_name")
    if wanted is not None:
        wanted = (await services.reads.find(request, wanted)).name
    view = services.reads.catalog
    pairs = [(alias, name) for alias, name in sorted(view.aliases.items()) if wanted in (None, name)]
    return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs]}


def _alias_action(operation: AliasOperation, at: int) -> AliasAction:
    match operation:
        case AliasOperation(create_alias=created, delete_alias=None, rename_alias=None) if created:
            return AliasAction(created.alias_name, created.collection_name)
        case AliasOperation(create_alias=None, delete_alias=deleted, rename_alias=None) if deleted:
            return AliasAction(deleted.alias_name)
        case AliasOperation(create_alias=None, delete_alias=None, rename_alias=renamed) if renamed:
            return AliasAction(renamed.old_alias_name, rename_to=renamed.new_alias_name)
    raise BadRequest(f"actions[{at}] needs exactly one of create_alias, delete_alias, rename_alias")
