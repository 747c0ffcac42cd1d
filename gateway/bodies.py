"""Request bodies of the dialect as typed structures: they parse, they check, and the OpenAPI document is made from them.

A field that the dialect has and this server does not is declared as None only, so that a value gets a clear refusal. Fields that
are accepted without effect are named in `HINTS` and come back in the answer's `X-Vecraft-Ignored` header.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from catalog.collection import Distance
from journal.ids import ExternalId
from query.filters import Condition
from query.search import MAX_LIMIT

Limit = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]
PositiveLimit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
DenseVector = list[float]
HINTS = ("optimizers_config", "wal_config", "on_disk_payload", "max_indexing_threads", "full_scan_threshold", "indexed_only")


class Body(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Any body: unknown fields are refused."""


# Collections.


class HnswBody(Body):
    m: int | None = None
    ef_construct: int | None = None
    full_scan_threshold: int | None = None
    max_indexing_threads: int | None = None
    on_disk: None = None
    payload_m: None = None


class VectorParamsBody(Body):
    size: int
    distance: Distance
    hnsw_config: HnswBody | None = None
    quantization_config: None = None
    on_disk: bool | None = None
    datatype: None = None
    multivector_config: None = None


class CreateCollectionBody(Body):
    vectors: Annotated[
        dict[str, Any], Meta(description="one unnamed vector {size, distance}, or an object of several by name")
    ] = {}
    shard_number: int | None = None
    sharding_method: None = None
    replication_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    write_consistency_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    on_disk_payload: bool | None = None
    hnsw_config: HnswBody | None = None
    wal_config: dict[str, Any] | None = None
    optimizers_config: dict[str, Any] | None = None
    init_from: None = None
    quantization_config: None = None
    sparse_vectors: Annotated[dict[str, Any], Meta(max_length=0)] | None = None
    strict_mode_config: None = None
    metadata: None = None
    consistency: str | None = None


class UpdateCollectionBody(Body):
    vectors: Annotated[dict[str, Any], Meta(max_length=0)] | None = None
    optimizers_config: dict[str, Any] | None = None
    params: Annotated[dict[str, Any], Meta(max_length=0)] | None = None
    hnsw_config: HnswBody | None = None
    quantization_config: None = None
    sparse_vectors: Annotated[dict[str, Any], Meta(max_length=0)] | None = None
    strict_mode_config: None = None
    metadata: None = None
    consistency: str | None = None


class CreateAlias(Body):
    collection_name: str
    alias_name: str


class DeleteAlias(Body):
    alias_name: str


class RenameAlias(Body):
    old_alias_name: str
    new_alias_name: str


class AliasOperation(Body):
    create_alias: CreateAlias | None = None
    delete_alias: DeleteAlias | None = None
    rename_alias: RenameAlias | None = None


class ChangeAliasesBody(Body):
    actions: list[AliasOperation]


class FieldParams(Body):
    type: str
    tokenizer: str | None = None
    lowercase: bool | None = None
    min_token_len: Annotated[int, Meta(ge=1, le=255)] | None = None
    max_token_len: Annotated[int, Meta(ge=1, le=255)] | None = None
    lookup: bool | None = None
    range: bool | None = None
    is_principal: None = None
    is_tenant: None = None
    on_disk: None = None


class CreateIndexBody(Body):
    field_name: str
    field_schema: str | FieldParams | None = None


# Points.


class PointBody(Body):
    id: ExternalId
    vector: DenseVector | dict[str, DenseVector] = {}
    payload: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})] | UnsetType = UNSET


class PointsBatch(Body):
    ids: list[ExternalId]
    vectors: list[DenseVector] | dict[str, list[DenseVector]]
    payloads: list[dict[str, Any] | None] | None = None


class UpsertBody(Body):
    points: list[PointBody] | None = None
    batch: PointsBatch | None = None
    shard_key: None = None


class BulkBody(UpsertBody, kw_only=True):
    collection: str


class RetrieveBody(Body):
    ids: list[ExternalId]
    with_payload: WithPayload = True
    with_vector: WithVector = False
    shard_key: None = None


class PointsSelector(Body):
    """Which points: these, or those that pass a filter."""

    points: list[ExternalId] | None = None
    filter: Condition | None = None
    shard_key: None = None


class SetPayloadBody(PointsSelector, kw_only=True):
    payload: dict[str, Any]
    key: str | None = None


class DeletePayloadBody(PointsSelector, kw_only=True):
    keys: list[str]


class PointVectors(Body):
    id: ExternalId
    vector: DenseVector | dict[str, DenseVector]


class UpdateVectorsBody(Body):
    points: list[PointVectors]
    shard_key: None = None


class DeleteVectorsBody(PointsSelector, kw_only=True):
    vector: list[str]


# Reads.


class PayloadSelector(Body):
    include: list[str] | None = None
    exclude: list[str] | None = None


WithPayload = bool | list[str] | PayloadSelector | None
WithVector = bool | list[str] | None


class ScrollBody(Body):
    filter: Condition | None = None
    limit: PositiveLimit = 10
    offset: ExternalId | None = None
    with_payload: WithPayload = True
    with_vector: WithVector = False
    order_by: None = None
    shard_key: None = None


class CountBody(Body):
    filter: Condition | None = None
    exact: bool = True
    shard_key: None = None


class FacetBody(Body):
    key: str
    limit: PositiveLimit = 10
    filter: Condition | None = None
    exact: bool = False
    shard_key: None = None


class SearchParams(Body):
    hnsw_ef: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] | None = None
    exact: bool = False
    quantization: None = None
    indexed_only: bool | None = None


class NamedVector(Body):
    name: str
    vector: DenseVector


class SearchBody(Body):
    vector: DenseVector | NamedVector
    limit: PositiveLimit
    filter: Condition | None = None
    params: SearchParams | None = None
    offset: Limit | None = None
    with_payload: WithPayload = False
    with_vector: WithVector = False
    score_threshold: float | None = None
    shard_key: None = None


class CollectionSearchBody(SearchBody, kw_only=True):
    collection: str


class SearchBatchBody(Body):
    searches: Annotated[list[SearchBody], Meta(max_length=1000)]


class Nearest(Body):
    nearest: DenseVector | ExternalId
    mmr: None = None


class QueryBody(Body):
    query: DenseVector | ExternalId | Nearest | None = None
    using: str | None = None
    filter: Condition | None = None
    params: SearchParams | None = None
    score_threshold: float | None = None
    limit: PositiveLimit | None = None
    offset: Limit | None = None
    with_vector: WithVector = False
    with_payload: WithPayload = False
    prefetch: Annotated[list[Any], Meta(max_length=0)] | None = None
    lookup_from: None = None
    shard_key: None = None


class QueryBatchBody(Body):
    searches: Annotated[list[QueryBody], Meta(max_length=1000)]


# Query strings.


class ReadParams(Body):
    consistency: str | None = None
    max_staleness_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class WriteParams(Body):
    wait: bool = False
    ordering: str | None = None
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class NoParams(Body):
    pass


def ignored(value: Any) -> list[str]:
    """The hints that a body gives and this server takes no notice of."""
    if not isinstance(value, Struct):
        return []
    found = [name for name in value.__struct_fields__ if name in HINTS and getattr(value, name) is not None]
    for name in value.__struct_fields__:
        found += ignored(getattr(value, name)) if isinstance(getattr(value, name), HnswBody | SearchParams) else []
    return found
