"""Does a write keep its collection's contract? The one check, for requests before they are written and for records when they
are replayed, so that what the gateway accepts no replica can refuse (I6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from catalog.collection import Collection
from journal.ids import decode_id
from journal.records import PatchPayload, PatchVectors, PointOperation, ReplacePayload, UnsetVectors, Upsert, VectorColumn

MAX_PAYLOAD_DEPTH = 100
"""What can be read can also be written again: JSON writers give up far earlier than readers."""


def contract_error(collection: Collection, operation: PointOperation) -> str | None:
    """Why the collection cannot take the operation, naming the field and the bound; None when it can."""
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


def vector_error(collection: Collection, name: str, size: int) -> str | None:
    """Why a vector of this name and size does not fit the collection; None when it does."""
    try:
        _check_name(collection, name)
    except ValueError as error:
        return str(error)
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
        if error := vector_error(collection, column.name, column.size):
            raise ValueError(error)
        vectors = column.array()
        indexes = column.indexes(count)
        if len(indexes) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors are given for {len(indexes)} points{_of(column.name)}")
        if column.points is not None and (not all(0 <= index < count for index in indexes) or len(set(indexes)) < len(indexes)):
            raise ValueError(f"points are named that are not there, or twice{_of(column.name)}")
        # The sum of squares must fit float32 too, or scores would not be finite.
        if not np.isfinite(np.einsum("ij,ij->i", vectors, vectors)).all():
            raise ValueError(f"vector has values that are not finite, or too large for float32{_of(column.name)}")


def _check_name(collection: Collection, name: str) -> None:
    if name not in collection.config.vectors:
        known = ", ".join(repr(known) for known in collection.config.vectors) or "none"
        raise ValueError(f"Wrong input: Not existing vector name error: {name or 'the unnamed vector'}, known are: {known}")


def _check_payload(payload: bytes) -> None:
    if not payload:
        return
    fields = orjson.loads(payload)
    if not isinstance(fields, dict):
        raise ValueError(f"payload must be an object: {payload[:64]!r}")
    if payload.count(b"{") + payload.count(b"[") > MAX_PAYLOAD_DEPTH and _depth(fields) > MAX_PAYLOAD_DEPTH:
        raise ValueError(f"payload is nested {_depth(fields)} deep, the bound is {MAX_PAYLOAD_DEPTH}")


def _depth(value: Any) -> int:
    """How deep objects and arrays are nested."""
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        level = [inner for node in level for inner in (node.values() if isinstance(node, dict) else node)]
    return depth


def _of(name: str) -> str:
    return f" (vector {name!r})" if name else ""
