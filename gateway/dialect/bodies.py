"""Request bodies of the dialect as typed structures. They parse and validate, and the OpenAPI document is generated from them.

A field of the dialect that this server does not support has the type None, so that a value is refused with a clear error. Fields
that are accepted without effect are listed in `hints` and returned in the answer's `X-Vecraft-Ignored` header.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from catalog.collection import Consistency, Datatype, Distance, Memory
from gateway.admission.strict_mode import StrictModeBody
from gateway.log_level import Level
from journal.ids import ExternalId
from payload.schema import Language, Stemmer, Stopwords
from query.stages import MAX_LIMIT
from shard.filters.conditions import Condition

Limit = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]
PositiveLimit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
PageLimit = Annotated[int, Meta(ge=1)]
TokenLength = Annotated[int, Meta(ge=0, le=65_535)]
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
RawVectors = Annotated[
    msgspec.Raw,
    Meta(
        description="a vector, base64 of float32, a multi-vector, or vectors by name; sparse ones have indices and values",
        extra_json_schema={"anyOf": [_NUMBERS, {"type": "array", "items": _NUMBERS}, {"type": "string"}, {"type": "object"}]},
    ),
]
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
MaybeJsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
Hints = dict[str, Any]


class Body(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The base of all bodies: unknown fields are refused."""

    hints: ClassVar[tuple[str, ...]] = ()
    """Fields that are accepted without effect."""


# Collections.


class HnswBody(Body):
    hints = ("full_scan_threshold", "max_indexing_threads", "on_disk", "payload_m", "inline_storage")

    m: int | None = None
    ef_construct: int | None = None
    full_scan_threshold: int | None = None
    max_indexing_threads: int | None = None
    on_disk: bool | None = None
    payload_m: int | None = None
    memory: Memory | None = None
    inline_storage: bool | None = None


class ScalarBody(Body):
    type: Literal["int8"] = "int8"
    quantile: float | None = None
    always_ram: bool | None = None
    memory: Memory | None = None


class ProductBody(Body):
    compression: Literal["x4", "x8", "x16", "x32", "x64"]
    always_ram: bool | None = None
    memory: Memory | None = None


class BinaryBody(Body):
    hints = ("query_encoding",)

    encoding: Literal["one_bit", "two_bits", "one_and_half_bits"] | None = None
    query_encoding: Literal["default", "binary", "scalar4bits", "scalar8bits"] | None = None
    always_ram: bool | None = None
    memory: Memory | None = None


class TurboBody(Body):
    bits: Literal["bits1", "bits1_5", "bits2", "bits4"] | None = None
    always_ram: bool | None = None
    memory: Memory | None = None


class QuantizationBody(Body):
    """One of these kinds."""

    scalar: ScalarBody | None = None
    product: ProductBody | None = None
    binary: BinaryBody | None = None
    turbo: TurboBody | None = None


class MultivectorBody(Body):
    comparator: Literal["max_sim"] = "max_sim"


class VectorParamsBody(Body):
    size: int
    distance: Distance
    hnsw_config: HnswBody | None = None
    quantization_config: QuantizationBody | None = None
    on_disk: bool | None = None
    memory: Memory | None = None
    datatype: Datatype | None = None
    multivector_config: MultivectorBody | None = None


class SparseIndexBody(Body):
    full_scan_threshold: int | None = None
    on_disk: bool | None = None
    memory: Memory | None = None
    datatype: Datatype | None = None


class SparseParamsBody(Body):
    hints = ("index",)

    index: SparseIndexBody | None = None
    modifier: Literal["none", "idf"] | None = None


class OptimizersBody(Body):
    deleted_threshold: float | None = None
    vacuum_min_vector_number: int | None = None
    default_segment_number: int | None = None
    max_segment_size: int | None = None
    memmap_threshold: int | None = None
    indexing_threshold: int | None = None
    flush_interval_sec: int | None = None
    max_optimization_threads: int | Literal["auto"] | None = None
    prevent_unoptimized: bool | None = None


class WalBody(Body):
    wal_capacity_mb: int | None = None
    wal_segments_ahead: int | None = None
    wal_retain_closed: int | None = None


class PlaceBody(Body):
    memory: Memory | None = None


_COLLECTION_HINTS = ("wal_config", "optimizers_config", "on_disk_payload")


class CreateCollectionBody(Body):
    hints = _COLLECTION_HINTS

    vectors: Annotated[Hints, Meta(description="one unnamed vector {size, distance}, or an object of several by name")] = {}
    shard_number: int | None = None
    sharding_method: Literal["auto"] | None = None
    replication_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    write_consistency_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    on_disk_payload: bool | None = None
    hnsw_config: HnswBody | None = None
    wal_config: WalBody | None = None
    optimizers_config: OptimizersBody | None = None
    init_from: None = None
    quantization_config: QuantizationBody | None = None
    sparse_vectors: dict[str, SparseParamsBody] | None = None
    strict_mode_config: StrictModeBody | None = None
    metadata: Hints | None = None
    payload: PlaceBody | None = None
    id_tracker: PlaceBody | None = None
    consistency: Consistency | None = None


class CollectionParamsBody(Body):
    hints = ("on_disk_payload", "read_fan_out_factor", "read_fan_out_delay_ms")

    replication_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    write_consistency_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    on_disk_payload: bool | None = None
    read_fan_out_factor: int | None = None
    read_fan_out_delay_ms: int | None = None
    payload: PlaceBody | None = None
    id_tracker: PlaceBody | None = None


class VectorParamsDiff(Body):
    hnsw_config: HnswBody | None = None
    quantization_config: QuantizationBody | Literal["Disabled"] | None = None
    on_disk: bool | None = None
    memory: Memory | None = None


class UpdateCollectionBody(Body):
    hints = ("optimizers_config",)

    vectors: dict[str, VectorParamsDiff] | None = None
    optimizers_config: OptimizersBody | None = None
    params: CollectionParamsBody | None = None
    hnsw_config: HnswBody | None = None
    quantization_config: QuantizationBody | Literal["Disabled"] | None = None
    sparse_vectors: dict[str, SparseParamsBody] | None = None
    strict_mode_config: StrictModeBody | None = None
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
    hints = ("is_principal", "is_tenant", "on_disk", "enable_hnsw")

    type: str
    tokenizer: str | None = None
    lowercase: bool | None = None
    min_token_len: TokenLength | None = None
    max_token_len: TokenLength | None = None
    phrase_matching: bool | None = None
    stopwords: Language | Stopwords | None = None
    stemmer: Stemmer | None = None
    ascii_folding: bool | None = None
    lookup: bool | None = None
    range: bool | None = None
    prefix: bool | None = None
    is_principal: bool | None = None
    is_tenant: bool | None = None
    on_disk: bool | None = None
    enable_hnsw: bool | None = None
    memory: Memory | None = None
    nested: None = None
    scoring: None = None


class CreateIndexBody(Body):
    field_name: str
    field_schema: str | FieldParams | None = None


# Points.


class PointBody(Body):
    id: ExternalId
    vector: RawVectors | UnsetType = UNSET
    payload: MaybeJsonObject | UnsetType = UNSET


class PointsBatch(Body):
    ids: list[ExternalId]
    vectors: list[RawVectors] | dict[str, list[RawVectors]]
    payloads: list[MaybeJsonObject] | None = None


class UpsertBody(Body):
    points: list[PointBody] | None = None
    batch: PointsBatch | None = None
    shard_key: None = None
    update_filter: Condition | None = None
    update_mode: Literal["upsert", "insert_only", "update_only"] | None = None


class BulkBody(UpsertBody, kw_only=True):
    collection: str


class PayloadSelector(Body):
    """Paths to include, or paths to exclude."""

    include: list[str] | None = None
    exclude: list[str] | None = None


WithPayload = bool | list[str] | PayloadSelector
WithVector = bool | list[str]


class Shown(Body, kw_only=True):
    """The parts of each point to return. Clients use `with_vector` or `with_vectors`."""

    with_payload: WithPayload | None = None
    with_vector: WithVector | None = None
    with_vectors: WithVector | None = None

    def payload_selector(self, default: bool) -> WithPayload:
        """The requested part of the payload. Raises ValueError unless exactly one of include and exclude is given."""
        chosen = default if self.with_payload is None else self.with_payload
        if isinstance(chosen, PayloadSelector) and (chosen.include is None) == (chosen.exclude is None):
            raise ValueError("with_payload needs exactly one of include, exclude")
        return chosen

    def vector_selector(self) -> WithVector:
        """The requested vectors."""
        return self.with_vector or self.with_vectors or False


class RetrieveBody(Shown, kw_only=True):
    ids: list[ExternalId]
    shard_key: None = None


class PointsSelector(Body):
    """Selects points by ids or by a filter."""

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
    vector: RawVectors


class UpdateVectorsBody(Body):
    points: list[PointVectors]
    shard_key: None = None
    update_filter: Condition | None = None


class DeleteVectorsBody(PointsSelector, kw_only=True):
    vector: list[str]


class UpdateOperation(Body):
    """Exactly one of these changes."""

    upsert: UpsertBody | None = None
    delete: PointsSelector | None = None
    set_payload: SetPayloadBody | None = None
    overwrite_payload: SetPayloadBody | None = None
    delete_payload: DeletePayloadBody | None = None
    clear_payload: PointsSelector | None = None
    update_vectors: UpdateVectorsBody | None = None
    delete_vectors: DeleteVectorsBody | None = None


class UpdateBatchBody(Body):
    operations: Annotated[list[UpdateOperation], Meta(max_length=1000)]


# Reads.


class OrderByBody(Body):
    key: str
    direction: Literal["asc", "desc"] | None = None
    start_from: int | float | str | None = None


class ScrollBody(Shown, kw_only=True):
    filter: Condition | None = None
    limit: PageLimit | None = None
    offset: ExternalId | None = None
    order_by: str | OrderByBody | None = None
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


# Query strings.


class LogLevelBody(Body):
    level: Level


class DeadLetterParams(Struct, forbid_unknown_fields=True):
    """Selects the dead letters of `collection`, or all; at most `limit` are returned."""

    collection: str | None = None
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100


class ReadParams(Body):
    consistency: str | None = None
    max_staleness_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None
    explain: bool = False


class SearchReadParams(ReadParams, kw_only=True):
    """`limit` and `using` are for a body of type `application/octet-stream`, which is only a vector of little-endian float32."""

    limit: PositiveLimit | None = None
    using: str | None = None


class WriteParams(Body):
    wait: bool = False
    ordering: Literal["weak", "medium", "strong"] | None = None
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


def ignored(body: Any) -> list[str]:
    """The fields of a body and its parts that are set but have no effect."""
    if not isinstance(body, Body) or isinstance(body, UpsertBody):
        return []
    names = []
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if value is None or value is UNSET:
            continue
        if name in body.hints:
            names.append(name)
        elif isinstance(value, Body):
            names += ignored(value)
        elif isinstance(value, list | dict) and name in _PARTS:
            names += [hint for part in (value.values() if isinstance(value, dict) else value) for hint in ignored(part)]
    return list(dict.fromkeys(names))


_PARTS = frozenset({"prefetch", "searches", "vectors", "sparse_vectors"})
