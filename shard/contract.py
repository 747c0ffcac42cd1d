"""Checks that a write fits its collection. The gateway checks before it writes, the replayer checks each record. It is the same
check, so no replica refuses what the gateway accepted (I6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from catalog.collection import Collection, Datatype, Distance
from journal.ids import decode_id
from journal.records import PatchPayload, PatchVectors, PointOperation, ReplacePayload, UnsetVectors, Upsert, VectorColumn
from shard.vectors.datatypes import MAX_HALF

MAX_MULTI_FLOATS = 1 << 17
"""The largest number of floats in one multi-vector; a point must fit into a record of 900 KB."""

MAX_SPARSE_ELEMENTS = 100_000

MAX_DEPTH = 100
"""The bound of the nesting depth of payloads and other JSON that is kept. JSON writers support far less nesting than JSON
readers; within this bound, what can be read can also be written."""


def contract_error(collection: Collection, operation: PointOperation) -> str | None:
    """Why the operation does not fit the collection, with the field and the bound; None when it fits."""
    try:
        for point_id in operation.ids:
            decode_id(point_id)
        match operation:
            case Upsert():
                _check_count(operation)
                _check_columns(collection, operation.vectors, len(operation.ids))
                for payload in operation.payloads:
                    _check_payload(payload)
            case PatchVectors():
                _check_columns(collection, operation.vectors, len(operation.ids))
            case UnsetVectors():
                for name in operation.names:
                    _check_name(collection, name)
            case PatchPayload():
                if not operation.set:
                    raise ValueError("payload must be an object: it is empty")
                _check_payload(operation.set)
            case ReplacePayload():
                _check_payload(operation.payload)
    except ValueError as error:
        return str(error)
    return None


def name_error(collection: Collection, name: str) -> str | None:
    """Why points of the collection cannot have a vector of this name; None when they can."""
    config = collection.config
    if config.has_vector(name):
        return None
    known = ", ".join(repr(known) for known in (*config.vectors, *config.sparse_vectors)) or "none"
    return f"Wrong input: Not existing vector name error: {name or 'the unnamed vector'}, known are: {known}"


def vector_error(collection: Collection, name: str, size: int) -> str | None:
    """Why a vector of this name and size, 0 for a sparse one, does not fit the collection; None when it does."""
    if error := name_error(collection, name):
        return error
    if name in collection.config.sparse_vectors:
        return f"Wrong input: Conversion between sparse and regular vectors failed{_of(name)}"
    if not size:
        return (
            "Wrong input: Conversion between sparse and regular vectors failed: "
            f"a sparse vector, as qdrant/bm25 makes of a text, is given for a dense one{_of(name)}"
        )
    expected = collection.config.vectors[name].size
    if size != expected:
        return f"Wrong input: Vector dimension error: expected dim: {expected}, got {size}{_of(name)}"
    return None


def _check_count(operation: Upsert) -> None:
    if len(operation.payloads) != len(operation.ids):
        raise ValueError(f"payloads are given for {len(operation.payloads)} of {len(operation.ids)} points")


def _check_columns(collection: Collection, columns: Sequence[VectorColumn], count: int) -> None:
    if len({column.name for column in columns}) < len(columns):
        raise ValueError("a vector name stands twice")
    for column in columns:
        _check_name(collection, column.name)
        if column.name in collection.config.sparse_vectors:
            _check_sparse(column)
        else:
            _check_dense(collection, column)
        indexes = column.indexes(count)
        given = len(column.array() if column.lengths is None else column.lengths)
        if len(indexes) != given:
            raise ValueError(f"{given} vectors are given for {len(indexes)} points{_of(column.name)}")
        if column.points is not None and (not all(0 <= index < count for index in indexes) or len(set(indexes)) < len(indexes)):
            raise ValueError(f"points are named that are not there, or twice{_of(column.name)}")


def _check_dense(collection: Collection, column: VectorColumn) -> None:
    if error := vector_error(collection, column.name, column.size):
        raise ValueError(error)
    if collection.config.vectors[column.name].multi:
        lengths = [len(vector) for vector in column.each()] if column.lengths is not None else []
        if not lengths or min(lengths) < 1:
            raise ValueError(f"Wrong input: a multi-vector needs at least one vector{_of(column.name)}")
        if (numbers := max(lengths) * column.size) > MAX_MULTI_FLOATS:
            raise ValueError(
                f"Wrong input: a multi-vector has {numbers} numbers, the bound is {MAX_MULTI_FLOATS}{_of(column.name)}"
            )
    elif column.lengths is not None:
        raise ValueError(f"Wrong input: Conversion between multi and regular vectors failed{_of(column.name)}")
    vectors, params = column.array(), collection.config.vectors[column.name]
    if not np.isfinite(vectors).all():
        raise ValueError(f"vector has values that are not finite, or too large for float32{_of(column.name)}")
    if params.datatype is Datatype.FLOAT16 and params.distance is not Distance.COSINE and (np.abs(vectors) > MAX_HALF).any():
        raise ValueError(f"vector has values above {MAX_HALF:g}, the bound of float16{_of(column.name)}")


def _check_sparse(column: VectorColumn) -> None:
    if column.size != 0 or column.lengths is None:
        raise ValueError(f"Wrong input: Conversion between sparse and regular vectors failed{_of(column.name)}")
    for vector in column.each():
        if len(vector) > MAX_SPARSE_ELEMENTS:
            raise ValueError(f"sparse vector has {len(vector)} elements, the bound is {MAX_SPARSE_ELEMENTS}{_of(column.name)}")
        if len(vector) and not (np.diff(vector["index"].astype(np.int64)) > 0).all():
            raise ValueError(f"indices of a sparse vector must be unique{_of(column.name)}")
        if not np.isfinite(vector["value"]).all():
            raise ValueError(f"vector has values that are not finite, or too large for float32{_of(column.name)}")


def _check_name(collection: Collection, name: str) -> None:
    if error := name_error(collection, name):
        raise ValueError(error)


def _check_payload(payload: bytes) -> None:
    if not payload:
        return
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise ValueError(
            f"payload is not JSON, or nested deeper than {MAX_DEPTH}: {payload[:64].decode(errors='replace')}"
        ) from error
    if not isinstance(fields, dict):
        raise ValueError(f"payload must be an object: {payload[:64].decode(errors='replace')}")
    if payload.count(b"{") + payload.count(b"[") > MAX_DEPTH and depth_of(fields) > MAX_DEPTH:
        raise ValueError(f"payload is nested {depth_of(fields)} deep, the bound is {MAX_DEPTH}")


def depth_of(value: Any) -> int:
    """The nesting depth of objects and arrays of decoded JSON."""
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        level = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]
    return depth


def _of(name: str) -> str:
    return f" (vector {name!r})" if name else ""
