"""Request bodies of the dialect as typed structures. They parse and validate, and the OpenAPI document is generated from them.

A field of the dialect that this server does not support has the type None, so that a value is refused with a clear error. Fields
that are accepted without effect are listed in `hints` and returned in the answer's `X-Vecraft-Ignored` header.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from catalog.collection import MAX_RETENTION_S, Consistency, Datatype, Distance, Memory
from catalog.ingest import MAX_PARTITIONS
from gateway.admission.strict_mode import StrictModeBody
from gateway.log_level import Level
from journal.hlc import MAX_STAMP
from journal.ids import ExternalId
from payload.schema import Language, Stemmer, Stopwords
from shard.filters.conditions import Condition

MAX_WHOLE = 2**63 - 1
"""The largest whole number that is kept."""

Offset = Annotated[int, Meta(ge=0)]
Limit = Annotated[int, Meta(ge=1)]
"""What bounds an answer is its number of points (`gateway.reads.MAX_ANSWER_POINTS`), not what is asked for."""

Whole = Annotated[int, Meta(ge=0, le=MAX_WHOLE)]
Positive = Annotated[int, Meta(ge=1, le=MAX_WHOLE)]
Ttl = Annotated[int, Meta(ge=1, le=MAX_RETENTION_S)]
Retention = Annotated[int, Meta(ge=0, le=MAX_RETENTION_S)]
Share = Annotated[float, Meta(ge=0, le=1)]
TokenLength = Annotated[int, Meta(ge=0, le=65_535)]
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
RawVectors = Annotated[
    msgspec.Raw,
    Meta(
        description="a vector, base64 of float32, a multi-vector, a document {text, model, options} of which a vector is made, "
        "or vectors by name; sparse ones have indices and values",
        extra_json_schema={"anyOf": [_NUMBERS, {"type": "array", "items": _NUMBERS}, {"type": "string"}, {"type": "object"}]},
    ),
]
PartitionNumber = Annotated[int, Meta(ge=0, lt=MAX_PARTITIONS)]
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
MaybeJsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
Hints = dict[str, Any]


class Body(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The base of all bodies: unknown fields are refused."""

    hints: ClassVar[tuple[str, ...]] = ()
    """Fields that are accepted without effect."""

    is_own: ClassVar[bool] = False
    """Parameters of a route of the project's own, not of the dialect: unknown ones are refused."""


# Collections.


class HnswBody(Body):
    hints = ("full_scan_threshold", "max_indexing_threads", "on_disk", "payload_m", "inline_storage")

    m: Whole | None = None
    ef_construct: Annotated[int, Meta(ge=4, le=MAX_WHOLE)] | None = None
    full_scan_threshold: Annotated[int, Meta(ge=10, le=MAX_WHOLE)] | None = None
    max_indexing_threads: Whole | None = None
    on_disk: bool | None = None
    payload_m: Whole | None = None
    memory: Memory | None = None
    inline_storage: bool | None = None


class ScalarBody(Body):
    type: Literal["int8"] = "int8"
    quantile: Annotated[float, Meta(ge=0.5, le=1)] | None = None
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
    size: Positive
    distance: Distance
    hnsw_config: HnswBody | None = None
    quantization_config: QuantizationBody | None = None
    on_disk: bool | None = None
    memory: Memory | None = None
    datatype: Datatype | None = None
    multivector_config: MultivectorBody | None = None


class SparseIndexBody(Body):
    full_scan_threshold: Whole | None = None
    on_disk: bool | None = None
    memory: Memory | None = None
    datatype: Datatype | None = None


class SparseNameBody(Body):
    hints = ("datatype",)

    modifier: Literal["none", "idf"] | None = None
    datatype: Datatype | None = None


class SparseParamsBody(Body):
    hints = ("index",)

    index: SparseIndexBody | None = None
    modifier: Literal["none", "idf"] | None = None


class VectorNameBody(Body):
    """A new vector of a collection: exactly one of the two."""

    dense: VectorParamsBody | None = None
    sparse: SparseNameBody | None = None


class OptimizersBody(Body):
    deleted_threshold: Share | None = None
    vacuum_min_vector_number: Annotated[int, Meta(ge=100, le=MAX_WHOLE)] | None = None
    default_segment_number: Whole | None = None
    max_segment_size: Positive | None = None
    memmap_threshold: Whole | None = None
    indexing_threshold: Whole | None = None
    flush_interval_sec: Whole | None = None
    max_optimization_threads: Whole | Literal["auto"] | None = None
    prevent_unoptimized: bool | None = None


class WalBody(Body):
    wal_capacity_mb: Positive | None = None
    wal_segments_ahead: Whole | None = None
    wal_retain_closed: Positive | None = None


class PlaceBody(Body):
    memory: Memory | None = None


_COLLECTION_HINTS = ("wal_config", "optimizers_config", "on_disk_payload")


class CreateCollectionBody(Body):
    hints = _COLLECTION_HINTS

    vectors: Annotated[Hints, Meta(description="one unnamed vector {size, distance}, or an object of several by name")] = {}
    shard_number: Positive | None = None
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
    history_retention_s: Retention | None = None
    ttl_s: Retention | None = None


class CollectionParamsBody(Body):
    hints = ("on_disk_payload", "read_fan_out_factor", "read_fan_out_delay_ms")

    replication_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    write_consistency_factor: Annotated[int, Meta(ge=1, le=1)] | None = None
    on_disk_payload: bool | None = None
    read_fan_out_factor: Whole | None = None
    read_fan_out_delay_ms: Whole | None = None
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
    history_retention_s: Retention | None = None
    ttl_s: Retention | None = None


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
    ttl_s: Ttl | None = None


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
    points: Annotated[list[PointVectors], Meta(min_length=1)]
    shard_key: None = None
    update_filter: Condition | None = None


class DeleteVectorsBody(PointsSelector, kw_only=True):
    vector: Annotated[list[str], Meta(min_length=1)]


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
    limit: Limit | None = None
    offset: ExternalId | None = None
    order_by: str | OrderByBody | None = None
    shard_key: None = None


class CountBody(Body):
    filter: Condition | None = None
    exact: bool | None = None
    shard_key: None = None


class FacetBody(Body):
    key: Annotated[str, Meta(min_length=1)]
    limit: Limit | None = None
    filter: Condition | None = None
    exact: bool | None = None
    shard_key: None = None


# Snapshots.


class Priority(StrEnum):
    """What holds after a snapshot is recovered: with `snapshot` only what it has, with `replica` first what is there, with
    `no_sync` first what the snapshot has."""

    NO_SYNC = "no_sync"
    SNAPSHOT = "snapshot"
    REPLICA = "replica"


Checksum = Annotated[str, Meta(pattern="^[0-9A-Fa-f]{64}$")]


class RecoverBody(Body):
    location: Annotated[str, Meta(min_length=1, max_length=8192)]
    priority: Priority | None = None
    checksum: Checksum | None = None
    api_key: Annotated[str, Meta(max_length=4096)] | None = None


class PruneBody(Struct, forbid_unknown_fields=True):
    """The latest `keep` snapshots stay, and of each of the latest `keep_days` days the last one."""

    keep: Annotated[int, Meta(ge=1, le=10_000)]
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 0


class TrimBody(Struct, forbid_unknown_fields=True):
    """Records older than `retention_s` go, by default older than the node's setting; the nodes in `beyond` do not count."""

    dry_run: bool
    retention_s: Annotated[float, Meta(ge=0, le=MAX_RETENTION_S)] | None = None
    beyond: Annotated[list[str], Meta(max_length=1_000)] = []


# Query strings.


class LogLevelBody(Body):
    level: Level


class PartitionsBody(Body):
    """Selects partitions of a source of the ingest; all when they are not given."""

    partitions: Annotated[list[PartitionNumber], Meta(min_length=1, max_length=MAX_PARTITIONS)] | None = None


class MoveIngestBody(PartitionsBody, kw_only=True):
    """`to` is an offset, `earliest`, `latest`, or a time by RFC 3339."""

    to: Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=64)]


class DeadLetterParams(Struct, forbid_unknown_fields=True):
    """Selects the dead letters of `collection`, or all; at most `limit` are returned."""

    collection: str | None = None
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100


class OperationParams(Struct, forbid_unknown_fields=True):
    """Selects records of the log, newest first. `since` and `until` are included: RFC 3339 times, or decimal stamps (HLC).

    `before` is a position token: only records below it. `collection` is a name, an alias, or the id of a deleted collection.
    """

    collection: str | None = None
    since: str | None = None
    until: str | None = None
    principal: str | None = None
    request_id: str | None = None
    before: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class ProofParams(Struct, forbid_unknown_fields=True):
    """`position` is a position token: what `X-Vecraft-Position` of an answer said."""

    position: str
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class ReadParams(Body):
    consistency: str | None = None
    max_staleness_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 0
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None
    explain: bool = False
    as_of: str | None = None


class TelemetryParams(Body):
    details_level: Annotated[int, Meta(ge=0)] = 0
    per_collection: bool = False
    anonymize: bool = False
    timeout: Annotated[int, Meta(ge=1)] | None = None


class OptimizationsParams(ReadParams, rename={"parts": "with"}, kw_only=True):
    """`with`: of `queued`, `completed`, `idle_segments`, separated by commas."""

    parts: str = ""
    completed_limit: Annotated[int, Meta(ge=0)] = 16


class SearchReadParams(ReadParams, kw_only=True):
    """`limit` and `using` are for a body of type `application/octet-stream`, which is only a vector of little-endian float32."""

    limit: Limit | None = None
    using: str | None = None


class DiffParams(ReadParams, rename={"from_": "from"}, kw_only=True):
    """`from` and `to` are instants as `as_of`; `after` is the id of the last point of the previous page."""

    is_own = True

    from_: str
    to: str | None = None
    limit: Annotated[int, Meta(ge=0, le=10_000)] = 100
    after: str | None = None


class HistoryParams(ReadParams, kw_only=True):
    """`before` is the stamp of the last change of the previous page."""

    is_own = True

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 10
    before: Annotated[int, Meta(ge=1, le=MAX_STAMP)] | None = None
    with_vector: bool = False


class TagBody(Body):
    as_of: str | None = None


class RestoreBody(Body):
    """`to` is an instant as `as_of`; `if_position` is the position of an answer after which the collection has not changed."""

    to: str
    ids: list[ExternalId] | None = None
    filter: Condition | None = None
    dry_run: bool = False
    if_position: str | None = None


class PointRestoreBody(Body):
    as_of: str


class ForkBody(Body, rename={"from_": "from"}):
    from_: str
    as_of: str | None = None
    filter: Condition | None = None


class WriteParams(Body):
    wait: bool = False
    ordering: Literal["weak", "medium", "strong"] | None = None
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class SnapshotParams(Body):
    wait: bool = True
    timeout: Annotated[int, Meta(ge=1, le=3600)] | None = None


class UploadParams(SnapshotParams, kw_only=True):
    priority: Priority | None = None
    checksum: Checksum | None = None


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
