"""Handlers of collections and aliases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec

from catalog.catalog import Verdict, choose_homes
from catalog.collection import Collection, check_name
from gateway.dialect import configs
from gateway.dialect.bodies import AliasOperation, ChangeAliasesBody, ignored
from gateway.handlers import field_indexes
from gateway.http.errors import BadRequest
from gateway.service import Call, Service
from journal.records import (
    AliasAction,
    ChangeAliases,
    CreateCollection,
    DeleteCollection,
    UpdateCollection,
)

QUEUE_WAIT_S = 1.0


async def create(call: Call) -> bool:
    """Creates a collection."""
    call.hints += [hint for params in configs.given_vectors(call.body).values() for hint in ignored(params)]
    config = configs.created(call.body)
    config.validate()
    check_name("collection", call.path["collection_name"])
    await call.catch_up_catalog()
    homes = choose_homes(call.service.replayer.catalog.view, config.shard_number)
    await call.command(CreateCollection(call.path["collection_name"], msgspec.json.encode(config), homes))
    return True


async def update(call: Call) -> bool:
    """Changes what can be changed without changing the meaning of records in the log."""
    collection = await call.find(call.path["collection_name"])
    changes = configs.changes(call.body, collection.config)
    await call.command(UpdateCollection(call.path["collection_name"], msgspec.json.encode(changes)))
    return True


async def delete(call: Call) -> bool:
    """Deletes a collection with all its points; false when there is none."""
    outcome = await call.command(DeleteCollection(call.path["collection_name"]))
    return outcome.verdict is Verdict.DONE


async def list_all(call: Call) -> dict[str, Any]:
    """All collections."""
    await call.catch_up_catalog()
    return {"collections": [{"name": name} for name in sorted(call.service.replayer.catalog.view.collections)]}


async def exists(call: Call) -> dict[str, bool]:
    """Whether there is a collection or alias of that name."""
    await call.catch_up_catalog()
    return {"exists": call.service.replayer.catalog.view.find(call.path["collection_name"]) is not None}


async def info(call: Call) -> dict[str, Any]:
    """A collection's configuration and counts."""
    collection, shards = await call.read(call.path["collection_name"])
    counts = {"points": 0, "vectors": 0, "indexed": 0, "segments": 0}
    for shard in shards:
        for name, count in shard.status().items():
            counts[name] += count
    indexing = counts["vectors"] - counts["indexed"] >= sum(shard.policy.seal_rows for shard in shards)
    return {
        "status": "yellow" if indexing else "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": counts["indexed"],
        "points_count": counts["points"],
        "segments_count": counts["segments"],
        "config": configs.described(collection),
        "payload_schema": {
            name: field_indexes.described(schema) | {"points": sum(shard.indexed_points(name) for shard in shards)}
            for name, schema in collection.fields.items()
        },
        "created_at": datetime.fromtimestamp(collection.created_ms / 1000, UTC).isoformat(),
        **await _update_queue(call.service, collection),
    }


async def _update_queue(service: Service, collection: Collection) -> dict[str, Any]:
    """How many records of the collection's partitions are not applied here; nothing when the log does not say in time."""
    try:
        lag = await asyncio.wait_for(asyncio.to_thread(service.measured_lag), QUEUE_WAIT_S)
    except TimeoutError:
        return {}
    homes = service.homes(collection)
    waiting = [measured.lag.records for home, measured in lag.items() if home in homes]
    return {"update_queue": {"length": sum(waiting)}} if waiting else {}


async def change_aliases(call: Call) -> bool:
    """Creates, deletes and renames aliases: all of it or nothing."""
    body: ChangeAliasesBody = call.body
    await call.command(ChangeAliases([_alias_action(action, at) for at, action in enumerate(body.actions)]))
    return True


async def aliases(call: Call) -> dict[str, Any]:
    """All aliases, or those of one collection."""
    await call.catch_up_catalog()
    wanted = call.path.get("collection_name")
    if wanted is not None:
        wanted = (await call.find(wanted)).name
    view = call.service.replayer.catalog.view
    found = [(alias, name) for alias, name in sorted(view.aliases.items()) if wanted in (None, name)]
    return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in found]}


def _alias_action(operation: AliasOperation, at: int) -> AliasAction:
    match operation:
        case AliasOperation(create_alias=created, delete_alias=None, rename_alias=None) if created:
            return AliasAction(created.alias_name, created.collection_name)
        case AliasOperation(create_alias=None, delete_alias=deleted, rename_alias=None) if deleted:
            return AliasAction(deleted.alias_name)
        case AliasOperation(create_alias=None, delete_alias=None, rename_alias=renamed) if renamed:
            return AliasAction(renamed.old_alias_name, rename_to=renamed.new_alias_name)
    raise BadRequest(f"actions[{at}] needs exactly one of create_alias, delete_alias, rename_alias")
