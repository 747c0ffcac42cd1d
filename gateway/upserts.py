"""Points of a request body as an upsert operation. Pure, so that another process can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from gateway.bodies import DenseVector, PointBody, PointsBatch, PointVectors, UpsertBody
from journal.ids import encode_id
from journal.records import PatchVectors, Upsert, VectorColumn, Vectors

GivenVectors = DenseVector | dict[str, DenseVector]


def upsert_of(body: UpsertBody) -> Upsert:
    """The operation of an upsert body. Raises ValueError, naming the place."""
    if (body.points is None) == (body.batch is None):
        raise ValueError("body needs exactly one of points, batch")
    if body.points is not None:
        return _of_points(body.points)
    assert body.batch is not None
    return _of_batch(body.batch)


def vectors_patch_of(points: Sequence[PointVectors]) -> PatchVectors:
    """The operation that sets vectors of existing points."""
    return PatchVectors(encode_ids([point.id for point in points], "points[{}].id"), _columns([point.vector for point in points]))


def encode_ids(ids: Sequence[int | str], place: str = "points[{}]") -> list[bytes]:
    """Ids in journal form. Raises ValueError, naming the place."""
    encoded = []
    for at, point_id in enumerate(ids):
        try:
            encoded.append(encode_id(point_id))
        except ValueError as error:
            raise ValueError(f"{place.format(at)}: {error}") from error
    return encoded


def _of_points(points: Sequence[PointBody]) -> Upsert:
    ids = encode_ids([point.id for point in points], "points[{}].id")
    return Upsert(
        ids, _columns([point.vector for point in points]), [_payload(point.payload, at) for at, point in enumerate(points)]
    )


def _of_batch(batch: PointsBatch) -> Upsert:
    count = len(batch.ids)
    by_name = batch.vectors if isinstance(batch.vectors, dict) else {"": batch.vectors}
    for name, vectors in by_name.items():
        if len(vectors) != count:
            raise ValueError(f"batch.vectors{'.' + name if name else ''} has {len(vectors)} vectors, batch.ids has {count}")
    payloads: Sequence[msgspec.Raw | msgspec.UnsetType] = [msgspec.UNSET] * count if batch.payloads is None else batch.payloads
    if len(payloads) != count:
        raise ValueError(f"batch.payloads has {len(payloads)} payloads, batch.ids has {count}")
    columns = [VectorColumn.of(name, _matrix(name, vectors)) for name, vectors in by_name.items() if vectors]
    return Upsert(encode_ids(batch.ids, "batch.ids[{}]"), columns, [_payload(raw, at) for at, raw in enumerate(payloads)])


def _columns(given: Sequence[GivenVectors]) -> list[VectorColumn]:
    """Vectors of points side by side, by name; a plain list is the unnamed vector."""
    if all(isinstance(vector, list) for vector in given):
        return [VectorColumn.of("", _matrix("", given))] if given else []
    named: dict[str, dict[int, DenseVector]] = {}
    for at, vectors in enumerate(given):
        for name, vector in vectors.items() if isinstance(vectors, dict) else (("", vectors),):
            named.setdefault(name, {})[at] = vector
    return [
        VectorColumn.of(name, _matrix(name, list(found.values())), None if len(found) == len(given) else list(found))
        for name, found in named.items()
    ]


def _matrix(name: str, vectors: Sequence[Any]) -> Vectors:
    """Shape (n, size), float32."""
    sizes = {len(vector) for vector in vectors}
    label = f"vector {name!r}" if name else "vector"
    if len(sizes) > 1:
        raise ValueError(
            f"Wrong input: Vector dimension error: {label} has different dimensions in one request: {sorted(sizes)[:8]}"
        )
    if 0 in sizes:
        raise ValueError(f"Wrong input: {label} is empty")
    return float32(vectors)


def float32(numbers: Sequence[Any]) -> Vectors:
    """The numbers as an array; what does not fit becomes infinite, and is refused as such further on."""
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float32)


def _payload(raw: msgspec.Raw | msgspec.UnsetType, at: int) -> bytes:
    data = b"" if raw is msgspec.UNSET else bytes(raw)
    if data in (b"", b"null", b"{}"):
        return b""
    if data[:1] != b"{":
        raise ValueError(f"points[{at}].payload must be an object: {data[:32]!r}")
    return data
