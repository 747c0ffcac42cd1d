"""Request bodies of the dialect as typed structures: they parse, they check, and the OpenAPI document is made from them.

A field that the dialect has and this server does not is declared as None only, so that a value gets a clear refusal. Fields that
are accepted without effect are named in `hints` and come back in the answer's `X-Vecraft-Ignored` header.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from catalog.collection import Consistency, Distance
from journal.ids import ExternalId
from query.filters import Condition
from query.search import MAX_LIMIT

Limit = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]
PositiveLimit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
PageLimit = Annotated[int, Meta(ge=1)]
TokenLength = Annotated[int, Meta(ge=1, le=255)]
DenseVector = list[float]
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
MaybeJsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
Hints = dict[str, Any]


class Body(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Any body: unknown fields are refused."""

    hints: ClassVar[tuple[str, ...]] = ()
    """Fields that are accepted without effect."""


# Collections.


class HnswBody(Body):
    hints = ("full_scan_threshold", "max_indexing_threads", "on_disk", "payload_m", "memory", "inline_storage")

    m: int | None = None
    ef_construct: int | None = None
    full_scan_threshold: int | None = None
    max_indexing_threads: int | None = None
    on_disk: bool | None = None
    payload_m: int | None = None
    memory: Any = None
    inline_storage: bool | None = None


class VectorParamsBody(Body):
    hints = ("on_disk", "memory")

    size: int
    distance: Distance
    hnsw_config: HnswBody | None = None
    quantization_config: None = None
    on_disk: bool | None = None
    memory: Any = None
    datatype: Literal["float32"] | None = None
    multivector_config: None = None


class CreateCollectionBody(Body):
    hints = ("wal_config", "optimizers_config", "on_disk_payload", "metadata", "payload", "id_tracker")

    vectors: Annotated[Hints, Meta(description="one unnamed vector {size, distance}, or an object of several by name")] = {}
    shard_number: int | None = None
    sharding_method: Literal["auto"] | None = None
    replication_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    write_consistency_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    on_disk_payload: bool | None = None
    hnsw_config: HnswBody | None = None
    wal_config: Hints | None = None
    optimizers_config: Hints | None = None
    init_from: None = None
    quantization_config: None = None
    sparse_vectors: Annotated[Hints, Meta(max_length=0)] | None = None
    strict_mode_config: None = None
    metadata: Hints | None = None
    payload: Any = None
    id_tracker: Any = None
    consistency: Consistency | None = None


class CollectionParamsBody(Body):
    hints = ("on_disk_payload", "read_fan_out_factor", "read_fan_out_delay_ms")

    replication_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    write_consistency_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    on_disk_payload: bool | None = None
    read_fan_out_factor: int | None = None
    read_fan_out_delay_ms: int | None = None


class UpdateCollectionBody(Body):
    hints = ("optimizers_config", "metadata")

    vectors: Annotated[Hints, Meta(max_length=0)] | None = None
    optimizers_config: Hints | None = None
    params: CollectionParamsBody | None = None
    hnsw_config: HnswBody | None = None
    quantization_config: None = None
    sparse_vectors: Annotated[Hints, Meta(max_length=0)] | None = None
    strict_mode_config: None = None
    metadata: Hints | None = None
    consistency: Consistency | None = None


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
    hints = ("lookup", "range", "is_principal", "is_tenant", "on_disk", "enable_hnsw", "memory")

    type: str
    tokenizer: str | None = None
    lowercase: bool | None = None
    min_token_len: TokenLength | None = None
    max_token_len: TokenLength | None = None
    phrase_matching: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None
    stopwords: None = None
    stemmer: None = None
    ascii_folding: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None
    lookup: bool | None = None
    range: bool | None = None
    is_principal: bool | None = None
    is_tenant: bool | None = None
    on_disk: bool | None = None
    enable_hnsw: bool | None = None
    memory: Any = None


class CreateIndexBody(Body):
    field_name: str
    field_schema: str | FieldParams | None = None


# Points.


class PointBody(Body):
    id: ExternalId
    vector: DenseVector | dict[str, DenseVector] = {}
    payload: MaybeJsonObject | UnsetType = UNSET


class PointsBatch(Body):
    ids: list[ExternalId]
    vectors: list[DenseVector] | dict[str, list[DenseVector]]
    payloads: list[MaybeJsonObject] | None = None


class UpsertBody(Body):
    points: list[PointBody] | None = None
    batch: PointsBatch | None = None
    shard_key: None = None
    update_filter: None = None
    update_mode: Literal["upsert"] | None = None


class BulkBody(UpsertBody, kw_only=True):
    collection: str


class PayloadSelector(Body):
    """Either some paths, or all but some."""

    include: list[str] | None = None
    exclude: list[str] | None = None


WithPayload = bool | list[str] | PayloadSelector
WithVector = bool | list[str]


class Shown(Body, kw_only=True):
    """What of each point an answer shows. Clients say `with_vector` or `with_vectors`."""

    with_payload: WithPayload | None = None
    with_vector: WithVector | None = None
    with_vectors: WithVector | None = None

    def payload_selector(self, default: bool) -> WithPayload:
        """What of the payload is asked for. Raises ValueError for both an include and an exclude."""
        chosen = default if self.with_payload is None else self.with_payload
        if isinstance(chosen, PayloadSelector) and (chosen.include is None) == (chosen.exclude is None):
            raise ValueError("with_payload needs exactly one of include, exclude")
        return chosen

    def vector_selector(self) -> WithVector:
        """Which vectors are asked for."""
        return self.with_vector or self.with_vectors or False


class RetrieveBody(Shown, kw_only=True):
    ids: list[ExternalId]
    shard_key: None = None


class PointsSelector(Body):
    """Which points: these, or those that pass a filter."""

    points: list[ExternalId] | None = None
    filter: Condition | None = None
    shard_key: None = None


class SetPayloadBody(PointsSelector, kw_only=True):
    payload: JsonObject
    key: str | None = None


class DeletePayloadBody(PointsSelector, kw_only=True):
    keys: list[str]


class PointVectors(Body):
    id: ExternalId
    vector: DenseVector | dict[str, DenseVector]


class UpdateVectorsBody(Body):
    points: list[PointVectors]
    shard_key: None = None
    update_filter: None = None


class DeleteVectorsBody(PointsSelector, kw_only=True):
    vector: list[str]


# Reads.


class ScrollBody(Shown, kw_only=True):
    filter: Condition | None = None
    limit: PageLimit | None = None
    offset: ExternalId | None = None
    order_by: None = None
    shard_key: None = None


class CountBody(Body):
    filter: Condition | None = None
    exact: bool | None = None
    shard_key: None = None


class FacetBody(Body):
    key: str
    limit: PageLimit | None = None
    filter: Condition | None = None
    exact: bool | None = None
    shard_key: None = None


class SearchParams(Body):
    hints = ("quantization", "indexed_only")

    hnsw_ef: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] | None = None
    exact: bool | None = None
    quantization: Hints | None = None
    indexed_only: bool | None = None
    acorn: None = None
    idf: None = None


class NamedVector(Body):
    name: str
    vector: DenseVector


class SearchBody(Shown, kw_only=True):
    vector: DenseVector | NamedVector
    limit: PositiveLimit
    filter: Condition | None = None
    params: SearchParams | None = None
    offset: Limit | None = None
    score_threshold: float | None = None
    shard_key: None = None


class CollectionSearchBody(SearchBody, kw_only=True):
    collection: str


class SearchBatchBody(Body):
    searches: Annotated[list[SearchBody], Meta(max_length=1000)]


class Nearest(Body):
    """A query as an object; so far only of one kind."""

    nearest: DenseVector | ExternalId
    mmr: None = None
    recommend: None = None
    discover: None = None
    context: None = None
    order_by: None = None
    fusion: None = None
    rrf: None = None
    formula: None = None
    sample: None = None
    relevance_feedback: None = None


class QueryBody(Shown, kw_only=True):
    query: DenseVector | ExternalId | Nearest | None = None
    using: str | None = None
    filter: Condition | None = None
    params: SearchParams | None = None
    score_threshold: float | None = None
    limit: PositiveLimit | None = None
    offset: Limit | None = None
    prefetch: Annotated[list[Any], Meta(max_length=0)] | None = None
    lookup_from: None = None
    shard_key: None = None


class QueryBatchBody(Body):
    searches: Annotated[list[QueryBody], Meta(max_length=1000)]


# Query strings.


class DeadLetterParams(Struct, forbid_unknown_fields=True):
    """Which dead letters: those of `collection`, of all when it is not given; `limit` of them are shown."""

    collection: str | None = None
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100


class ReadParams(Body):
    consistency: str | None = None
    max_staleness_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class WriteParams(Body):
    wait: bool = False
    ordering: Literal["weak", "medium", "strong"] | None = None
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


def ignored(body: Any) -> list[str]:
    """The hints that a body gives and this server takes no notice of."""
    match body:
        case SearchBatchBody() | QueryBatchBody():
            return sorted({name for search in body.searches for name in ignored(search)})
        case SearchBody() | QueryBody():
            return ignored(body.params)
        case CreateIndexBody():
            return ignored(body.field_schema)
        case CreateCollectionBody() | UpdateCollectionBody():
            inner = [getattr(body, "params", None), body.hnsw_config]
            return _given(body) + [name for part in inner for name in ignored(part)]
        case HnswBody() | SearchParams() | FieldParams() | CollectionParamsBody() | VectorParamsBody():
            return _given(body)
        case _:
            return []


def _given(body: Body) -> list[str]:
    return [name for name in body.hints if getattr(body, name) is not None]
