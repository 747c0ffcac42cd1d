"""Handlers of collections, aliases and payload indexes."""

from __future__ import annotations

from typing import Any

import msgspec

from catalog.catalog import Verdict, choose_homes
from catalog.collection import (
    Collection,
    CollectionConfig,
    Distance,
    FieldSchema,
    FieldType,
    HnswConfig,
    VectorParams,
    check_name,
)
from catalog.payload import steps_of
from gateway.bodies import (
    AliasOperation,
    ChangeAliasesBody,
    CreateCollectionBody,
    CreateIndexBody,
    FieldParams,
    HnswBody,
    UpdateCollectionBody,
    VectorParamsBody,
)
from gateway.errors import BadRequest
from gateway.service import Call
from journal.records import (
    AliasAction,
    ChangeAliases,
    CreateCollection,
    CreatePayloadIndex,
    DeleteCollection,
    DeletePayloadIndex,
    UpdateCollection,
)
from shard.segments import MAX_DEAD_SHARE, SEAL_ROWS


async def create(call: Call) -> bool:
    """Creates a collection."""
    config = _config(call.body)
    config.validate()
    check_name("collection", call.path["collection_name"])
    await call.catch_up_catalog()
    homes = choose_homes(call.service.replayer.catalog.view, config.shard_number)
    await call.command(CreateCollection(call.path["collection_name"], msgspec.json.encode(config), homes))
    return True


async def update(call: Call) -> bool:
    """Changes what can be changed without changing the meaning of records in the log."""
    body: UpdateCollectionBody = call.body
    changes: dict[str, object] = {}
    if body.hnsw_config is not None:
        collection = await call.find(call.path["collection_name"])
        changes["hnsw"] = _hnsw(body.hnsw_config, collection.config.hnsw)
    if body.consistency is not None:
        changes["consistency"] = body.consistency
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
    indexing = counts["vectors"] - counts["indexed"] >= SEAL_ROWS * len(shards)
    return {
        "status": "yellow" if indexing else "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": counts["indexed"],
        "points_count": counts["points"],
        "segments_count": counts["segments"],
        "config": _described(collection),
        "payload_schema": {
            name: _described_field(schema) | {"points": sum(shard.indexed_points(name) for shard in shards)}
            for name, schema in collection.fields.items()
        },
    }


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


async def create_index(call: Call) -> dict[str, Any]:
    """Indexes a payload field."""
    body: CreateIndexBody = call.body
    steps_of(body.field_name)
    schema = msgspec.json.encode(_field_schema(body))
    await call.command(CreatePayloadIndex(call.path["collection_name"], body.field_name, schema))
    return {"operation_id": 0, "status": "completed"}


async def delete_index(call: Call) -> dict[str, Any]:
    """Drops the index of a payload field."""
    await call.command(DeletePayloadIndex(call.path["collection_name"], call.path["field_name"]))
    return {"operation_id": 0, "status": "completed"}


def _config(body: CreateCollectionBody) -> CollectionConfig:
    given = body.vectors
    if any(name in given and not isinstance(given[name], dict) for name in ("size", "distance")):
        given = {"": given}
    default = CollectionConfig()
    return CollectionConfig(
        vectors={name: _vector_params(name, params) for name, params in given.items()},
        shard_number=default.shard_number if body.shard_number is None else body.shard_number,
        hnsw=_hnsw(body.hnsw_config, default.hnsw),
        consistency=body.consistency or default.consistency,
    )


def _vector_params(name: str, given: object) -> VectorParams:
    label = f"vectors.{name}" if name else "vectors"
    try:
        params = msgspec.convert(given, VectorParamsBody)
    except msgspec.ValidationError as error:
        choices = f"; distance is one of {', '.join(Distance)}" if "distance" in str(error) else ""
        raise BadRequest(f"{label}: {error}{choices}") from error
    return VectorParams(params.size, params.distance, _hnsw(params.hnsw_config, HnswConfig()) if params.hnsw_config else None)


def _hnsw(body: HnswBody | None, default: HnswConfig) -> HnswConfig:
    given = {} if body is None else {"m": body.m, "ef_construct": body.ef_construct}
    return msgspec.structs.replace(default, **{name: value for name, value in given.items() if value is not None})


def _field_schema(body: CreateIndexBody) -> FieldSchema:
    given = body.field_schema
    if given is None:
        raise BadRequest("field_schema is missing: name a type")
    params = given if isinstance(given, FieldParams) else FieldParams(given)
    if params.tokenizer not in (None, "word", "multilingual"):
        raise BadRequest(
            f"field_schema.tokenizer {params.tokenizer!r} is not supported, only 'word' (and 'multilingual', as word)"
        )
    if params.phrase_matching or params.ascii_folding:
        raise BadRequest("field_schema.phrase_matching and ascii_folding are not supported (see docs/dialect.md)")
    try:
        kind = FieldType(params.type)
    except ValueError:
        known = ", ".join(FieldType)
        raise BadRequest(f"field_schema {params.type[:32]!r} is not supported, must be one of {known}") from None
    low = 1 if params.min_token_len is None else params.min_token_len
    high = 255 if params.max_token_len is None else params.max_token_len
    if low > high:
        raise BadRequest(f"field_schema.min_token_len is {low}, must be at most max_token_len, {high}")
    return FieldSchema(kind, True if params.lowercase is None else params.lowercase, low, high)


def _alias_action(operation: AliasOperation, at: int) -> AliasAction:
    match operation:
        case AliasOperation(create_alias=created, delete_alias=None, rename_alias=None) if created:
            return AliasAction(created.alias_name, created.collection_name)
        case AliasOperation(create_alias=None, delete_alias=deleted, rename_alias=None) if deleted:
            return AliasAction(deleted.alias_name)
        case AliasOperation(create_alias=None, delete_alias=None, rename_alias=renamed) if renamed:
            return AliasAction(renamed.old_alias_name, rename_to=renamed.new_alias_name)
    raise BadRequest(f"actions[{at}] needs exactly one of create_alias, delete_alias, rename_alias")


def _described(collection: Collection) -> dict[str, Any]:
    """The configuration in the dialect's form; what the dialect calls an optimizer is described by what this engine does."""
    config = collection.config
    vectors = {name: _described_vector(params) for name, params in config.vectors.items()}
    return {
        "params": {
            "vectors": vectors[""] if set(vectors) == {""} else vectors,
            "shard_number": config.shard_number,
            "replication_factor": 1,
            "write_consistency_factor": 1,
            "on_disk_payload": True,
        },
        "hnsw_config": {"m": config.hnsw.m, "ef_construct": config.hnsw.ef_construct, "full_scan_threshold": SEAL_ROWS},
        "optimizer_config": {
            "deleted_threshold": MAX_DEAD_SHARE,
            "vacuum_min_vector_number": 1,
            "default_segment_number": 1,
            "indexing_threshold": SEAL_ROWS,
            "flush_interval_sec": 1,
        },
        "wal_config": {"wal_capacity_mb": 1, "wal_segments_ahead": 0},
        "consistency": config.consistency.value,
    }


def _described_vector(params: VectorParams) -> dict[str, Any]:
    described: dict[str, Any] = {"size": params.size, "distance": params.distance.value}
    if params.hnsw is not None:
        described["hnsw_config"] = {"m": params.hnsw.m, "ef_construct": params.hnsw.ef_construct}
    return described


def _described_field(schema: FieldSchema) -> dict[str, Any]:
    if schema.type is not FieldType.TEXT:
        return {"data_type": schema.type.value}
    params = msgspec.to_builtins(schema) | {"type": "text", "tokenizer": "word"}
    return {"data_type": "text", "params": params}
