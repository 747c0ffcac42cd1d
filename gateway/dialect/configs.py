"""Converts a collection's configuration between the forms of the dialect and of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from catalog.collection import (
    BinaryQuantization,
    Collection,
    CollectionConfig,
    Datatype,
    Distance,
    HnswConfig,
    Memory,
    NewVector,
    ProductQuantization,
    Quantization,
    ScalarQuantization,
    SparseParams,
    TurboQuantization,
    VectorParams,
)
from catalog.strict_mode import StrictMode
from gateway.dialect.bodies import (
    BinaryBody,
    Body,
    CollectionParamsBody,
    CreateCollectionBody,
    HnswBody,
    ProductBody,
    QuantizationBody,
    ScalarBody,
    SparseParamsBody,
    TurboBody,
    UpdateCollectionBody,
    VectorNameBody,
    VectorParamsBody,
    VectorParamsDiff,
)
from gateway.dialect.placements import ALWAYS_IN_MEMORY, GRAPH, MULTI_VECTORS, PAYLOAD, VECTORS, placed
from gateway.http.errors import BadRequest, bound_error
from payload.errors import BoundError
from shard.contract import MAX_DEPTH, depth_of
from shard.vectors.segment_policy import DEFAULT_POLICY

_HNSW_KEPT = HnswBody.hints

DEFAULT_SHARDS = 1


def created(body: CreateCollectionBody) -> CollectionConfig:
    """The configuration of a new collection. Raises BadRequest or BoundError."""
    default = CollectionConfig()
    _check_places(body)
    return CollectionConfig(
        vectors={name: _vector_params(name, params) for name, params in given_vectors(body).items()},
        shard_number=DEFAULT_SHARDS if body.shard_number is None else body.shard_number,
        hnsw=_hnsw("hnsw_config", body.hnsw_config, default.hnsw),
        consistency=body.consistency or default.consistency,
        history_retention_s=body.history_retention_s,
        ttl_s=body.ttl_s or None,
        sparse_vectors={name: _sparse_params(name, params) for name, params in (body.sparse_vectors or {}).items()},
        quantization=_quantization("quantization_config", body.quantization_config),
        strict_mode=None if body.strict_mode_config is None else StrictMode().updated(body.strict_mode_config),
        metadata=_metadata(body),
        kept=_kept(body, (*CreateCollectionBody.hints, *_PLACED)) | _nested("hnsw_config", _kept(body.hnsw_config, _HNSW_KEPT)),
    )


def given_vectors(body: CreateCollectionBody) -> dict[str, VectorParamsBody]:
    """The dense vectors of a new collection, by name. Raises BadRequest."""
    given = body.vectors
    if any(name in given and not isinstance(given[name], dict) for name in ("size", "distance")):
        given = {"": given}
    return {name: _vector_body(_label(name), params) for name, params in given.items()}


def new_vector(name: str, body: VectorNameBody) -> NewVector:
    """The vector that a request adds to a collection. Raises BadRequest."""
    if (body.dense is None) == (body.sparse is None):
        raise BadRequest("a new vector needs exactly one of dense, sparse")
    if body.dense is not None:
        return NewVector(dense=_vector_params(name, body.dense))
    assert body.sparse is not None
    return NewVector(sparse=SparseParams(body.sparse.modifier == "idf", _nested("index", _kept(body.sparse, body.sparse.hints))))


def changes(body: UpdateCollectionBody, config: CollectionConfig) -> dict[str, object]:
    """The settings that a request changes, with their new values merged into the current ones. Raises BadRequest or
    BoundError."""
    changed: dict[str, object] = {}
    if body.hnsw_config is not None:
        changed["hnsw"] = _hnsw("hnsw_config", body.hnsw_config, config.hnsw)
    if body.consistency is not None:
        changed["consistency"] = body.consistency
    if body.history_retention_s is not None:
        changed["history_retention_s"] = body.history_retention_s
    if body.ttl_s is not None:
        changed["ttl_s"] = body.ttl_s or None
    if body.quantization_config is not None:
        changed["quantization"] = _changed_quantization("quantization_config", body.quantization_config)
    if body.strict_mode_config is not None:
        changed["strict_mode"] = (config.strict_mode or StrictMode()).updated(body.strict_mode_config)
    if body.metadata is not None:
        merged = config.metadata | _metadata(body)
        changed["metadata"] = {key: value for key, value in merged.items() if value is not None}
    if body.vectors is not None:
        changed["vectors"] = config.vectors | {name: _changed_vector(name, diff, config) for name, diff in body.vectors.items()}
    if body.sparse_vectors is not None:
        changed["sparse_vectors"] = config.sparse_vectors | {
            name: _changed_sparse(name, params, config) for name, params in body.sparse_vectors.items()
        }
    kept = _kept(body, UpdateCollectionBody.hints) | _nested("hnsw_config", _kept(body.hnsw_config, _HNSW_KEPT))
    if body.params is not None:
        _check_places(body.params)
        kept |= _kept(body.params, (*body.params.hints, *_PLACED))
    if kept:
        changed["kept"] = _merged(config.kept, kept)
    return changed


def described(collection: Collection) -> dict[str, Any]:
    """The configuration in the dialect's form; the dialect's optimizer settings are filled from this engine's segment policy."""
    config = collection.config
    kept = config.kept
    vectors = {name: _described_vector(params) for name, params in config.vectors.items()}
    params: dict[str, Any] = {
        "vectors": vectors[""] if set(vectors) == {""} else vectors,
        "shard_number": config.shard_number,
        "replication_factor": 1,
        "write_consistency_factor": 1,
        "on_disk_payload": True,
    }
    params |= {name: kept[name] for name in _PARAMS_KEPT if name in kept}
    if config.sparse_vectors:
        params["sparse_vectors"] = {name: _described_sparse(sparse) for name, sparse in config.sparse_vectors.items()}
    hnsw = _described_hnsw(config.hnsw) | {"full_scan_threshold": DEFAULT_POLICY.seal_rows}
    description: dict[str, Any] = {
        "params": params,
        "hnsw_config": hnsw | {"max_indexing_threads": 0, "on_disk": False} | _without_unused(kept.get("hnsw_config", {})),
        "optimizer_config": _described_optimizer(kept.get("optimizers_config", {})),
        "wal_config": _WAL | kept.get("wal_config", {}),
        "consistency": config.consistency.value,
    }
    if config.history_retention_s is not None:
        description["history_retention_s"] = config.history_retention_s
    if config.ttl_s is not None:
        description["ttl_s"] = config.ttl_s
    if config.quantization is not None:
        description["quantization_config"] = _described_quantization(config.quantization)
    if config.strict_mode is not None:
        description["strict_mode_config"] = msgspec.to_builtins(config.strict_mode)
    return description | ({"metadata": config.metadata} if config.metadata else {})


_PARAMS_KEPT = ("on_disk_payload", "read_fan_out_factor", "read_fan_out_delay_ms", "payload", "id_tracker")
_PLACED = ("payload", "id_tracker")
_OPTIMIZER = {
    "deleted_threshold": DEFAULT_POLICY.max_dead_share,
    "vacuum_min_vector_number": DEFAULT_POLICY.seal_rows_idle,
    "default_segment_number": 1,
    "indexing_threshold": DEFAULT_POLICY.seal_rows,
    "flush_interval_sec": 1,
}
_WAL = {"wal_capacity_mb": 1, "wal_segments_ahead": 0}


def _described_optimizer(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The dialect takes "auto" as a number of threads, and shows it as null."""
    return _OPTIMIZER | {name: None if value == "auto" else value for name, value in kept.items()}


def _metadata(body: CreateCollectionBody | UpdateCollectionBody) -> dict[str, Any]:
    metadata = body.metadata or {}
    if (depth := depth_of(metadata)) > MAX_DEPTH:
        raise BoundError(f"metadata: is nested {depth} deep, the bound is {MAX_DEPTH}")
    return metadata


def _vector_body(label: str, given: object) -> VectorParamsBody:
    try:
        return msgspec.convert(given, VectorParamsBody)
    except msgspec.ValidationError as error:
        if (bound := bound_error(error)) is not None:
            raise BoundError(f"{label}.{bound}") from error
        choices = f"; distance is one of {', '.join(Distance)}" if "distance" in str(error) else ""
        raise BadRequest(f"{label}: {error}{choices}") from error


def _label(name: str) -> str:
    return f"vectors.{name}" if name else "vectors"


def _vector_params(name: str, params: VectorParamsBody) -> VectorParams:
    return VectorParams(
        params.size,
        params.distance,
        None if params.hnsw_config is None else _hnsw(f"{_label(name)}.hnsw_config", params.hnsw_config, HnswConfig()),
        params.multivector_config is not None,
        _quantization(f"{_label(name)}.quantization_config", params.quantization_config),
        _kept(params, ("on_disk",)) | _nested("hnsw_config", _kept(params.hnsw_config, _HNSW_KEPT)),
        params.datatype or Datatype.FLOAT32,
        _memory(_label(name), params, params.multivector_config is not None),
    )


def _memory(label: str, body: VectorParamsBody | VectorParamsDiff, multi: bool) -> Memory | None:
    """The placement of vectors; that of `on_disk` where `memory` is not given. Multi-vectors are in memory in any case."""
    if body.memory is None and body.on_disk is not None and not multi:
        return Memory.COLD if body.on_disk else Memory.CACHED
    return placed(label, body.memory, MULTI_VECTORS if multi else VECTORS)


def _check_places(body: CreateCollectionBody | CollectionParamsBody) -> None:
    if body.payload is not None:
        placed("payload", body.payload.memory, PAYLOAD)
    if body.id_tracker is not None:
        placed("id_tracker", body.id_tracker.memory, ALWAYS_IN_MEMORY)


def _check_sparse_place(name: str, body: SparseParamsBody) -> None:
    if body.index is not None:
        placed(f"sparse_vectors.{name}.index", body.index.memory, ALWAYS_IN_MEMORY)


def _sparse_params(name: str, body: SparseParamsBody) -> SparseParams:
    _check_sparse_place(name, body)
    return SparseParams(body.modifier == "idf", _kept(body, body.hints))


def _changed_sparse(name: str, body: SparseParamsBody, config: CollectionConfig) -> SparseParams:
    if name not in config.sparse_vectors:
        raise BadRequest(f"Wrong input: Not existing vector name error: {name}")
    _check_sparse_place(name, body)
    params = config.sparse_vectors[name]
    idf = params.idf if body.modifier is None else body.modifier == "idf"
    return SparseParams(idf, _merged(params.kept, _kept(body, body.hints)))


def _changed_vector(name: str, diff: VectorParamsDiff, config: CollectionConfig) -> VectorParams:
    if name not in config.vectors:
        raise BadRequest(f"Wrong input: Not existing vector name error: {name}")
    params = config.vectors[name]
    kept = _kept(diff, ("on_disk",)) | _nested("hnsw_config", _kept(diff.hnsw_config, _HNSW_KEPT))
    memory = _memory(_label(name), diff, params.multi) or params.memory
    params = msgspec.structs.replace(params, kept=_merged(params.kept, kept), memory=memory)
    if diff.hnsw_config is not None:
        params = msgspec.structs.replace(
            params, hnsw=_hnsw(f"{_label(name)}.hnsw_config", diff.hnsw_config, params.hnsw or config.hnsw)
        )
    if diff.quantization_config is not None:
        label = f"vectors.{name}.quantization_config"
        params = msgspec.structs.replace(params, quantization=_changed_quantization(label, diff.quantization_config))
    return params


def _hnsw(label: str, body: HnswBody | None, default: HnswConfig) -> HnswConfig:
    if body is None:
        return default
    given = {"m": body.m, "ef_construct": body.ef_construct, "memory": placed(label, body.memory, GRAPH)}
    return msgspec.structs.replace(default, **{name: value for name, value in given.items() if value is not None})


def _changed_quantization(label: str, body: QuantizationBody | str) -> Quantization | None:
    return _quantization(label, body) if isinstance(body, QuantizationBody) else None


def _quantization(label: str, body: QuantizationBody | None) -> Quantization | None:
    if body is None:
        return None
    match [kind for kind in (body.scalar, body.product, body.binary, body.turbo) if kind is not None]:
        case [ScalarBody() as scalar]:
            return ScalarQuantization(scalar.quantile, scalar.always_ram, placed(f"{label}.scalar", scalar.memory, GRAPH))
        case [ProductBody() as product]:
            memory = placed(f"{label}.product", product.memory, GRAPH)
            return ProductQuantization(product.compression, product.always_ram, memory)
        case [BinaryBody() as binary]:
            memory = placed(f"{label}.binary", binary.memory, GRAPH)
            return BinaryQuantization(binary.encoding, binary.query_encoding, binary.always_ram, memory)
        case [TurboBody() as turbo]:
            return TurboQuantization(turbo.bits or "bits4", turbo.always_ram, placed(f"{label}.turbo", turbo.memory, GRAPH))
    raise BadRequest(f"{label} needs exactly one of scalar, product, binary, turbo")


def _described_vector(params: VectorParams) -> dict[str, Any]:
    description: dict[str, Any] = {"size": params.size, "distance": params.distance.value} | _without_unused(params.kept)
    if params.datatype is not Datatype.FLOAT32:
        description["datatype"] = params.datatype.value
    if params.memory is not None:
        description["memory"] = params.memory.value
    if params.hnsw is not None:
        description["hnsw_config"] = _described_hnsw(params.hnsw) | _without_unused(params.kept.get("hnsw_config", {}))
    if params.quantization is not None:
        description["quantization_config"] = _described_quantization(params.quantization)
    return description | ({"multivector_config": {"comparator": "max_sim"}} if params.multi else {})


def _without_unused(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Without the settings that earlier releases kept and did not use, and that would have an effect now."""
    return {name: value for name, value in kept.items() if name not in ("datatype", "memory")}


def _described_hnsw(hnsw: HnswConfig) -> dict[str, Any]:
    described: dict[str, Any] = {"m": hnsw.m, "ef_construct": hnsw.ef_construct}
    return described if hnsw.memory is None else described | {"memory": hnsw.memory.value}


def _described_sparse(params: SparseParams) -> dict[str, Any]:
    return params.kept | ({"modifier": "idf"} if params.idf else {})


def _described_quantization(quantization: Quantization) -> dict[str, Any]:
    fields = msgspec.to_builtins(quantization)
    kind = fields.pop("type")
    if isinstance(quantization, TurboQuantization):
        fields["bits"] = quantization.bits  # also by default
    return {kind: fields | ({"type": "int8"} if kind == "scalar" else {})}


def _kept(body: Body | None, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields among `names` that are set, unchanged."""
    given = {} if body is None else {name: getattr(body, name) for name in names}
    kept: dict[str, Any] = msgspec.to_builtins({name: value for name, value in given.items() if value is not None})
    return kept


def _nested(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {name: fields} if fields else {}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merges two objects recursively; `new` takes precedence."""
    both = {
        name: _merged(old[name], value) if isinstance(value, dict) and isinstance(old.get(name), dict) else value
        for name, value in new.items()
    }
    return {**old, **both}
