"""Converts points of a request body to an upsert operation. Pure, so that it can run in another process."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson

from gateway.dialect.bodies import BulkBody, PointBody, PointsBatch, PointVectors, UpsertBody
from gateway.dialect.vectors import object_of, raw_of, shown, vector_of
from journal.ids import encode_id
from journal.records import PatchVectors, Upsert, Vector, columns_of
from payload.errors import BoundError
from shard.filters.conditions import Condition


class ParsedUpsert(msgspec.Struct):
    """A parsed upsert body: the operation and its conditions."""

    operation: Upsert
    update_filter: Condition | None
    update_mode: str | None
    collection: str = ""


def parse_upsert(body: UpsertBody, packed: bool) -> ParsedUpsert:
    """Converts an upsert body. Raises ValueError, naming the place."""
    collection = body.collection if isinstance(body, BulkBody) else ""
    return ParsedUpsert(upsert_of(body, packed), body.update_filter, body.update_mode, collection)


def upsert_of(body: UpsertBody, packed: bool) -> Upsert:
    """The operation of an upsert body, `packed` as msgpack. Raises ValueError, naming the place."""
    if (body.points is None) == (body.batch is None):
        raise ValueError("body needs exactly one of points, batch")
    operation = _of_points(body.points, packed) if body.points is not None else _of_batch(_given(body.batch), packed)
    if not operation.ids:
        raise ValueError("Wrong input: Empty update request: no points are given")
    return operation


def vectors_patch_of(points: Sequence[PointVectors], packed: bool) -> PatchVectors:
    """The operation that sets vectors of existing points. Raises ValueError, naming the place."""
    ids = encode_ids([point.id for point in points], "points[{}].id")
    vectors = [_by_name(point.vector, f"points[{at}].vector", packed) for at, point in enumerate(points)]
    if {} in vectors:
        raise BoundError(f"points[{vectors.index({})}].vector: must name at least one vector")
    return PatchVectors(ids, columns_of(vectors))


def encode_ids(ids: Sequence[int | str], place: str = "points[{}]") -> list[bytes]:
    """Ids in journal form. Raises ValueError, naming the place."""
    encoded = []
    for at, point_id in enumerate(ids):
        try:
            encoded.append(encode_id(point_id))
        except ValueError as error:
            raise ValueError(f"{place.format(at)}: {error}") from error
    return encoded


def _of_points(points: Sequence[PointBody], packed: bool) -> Upsert:
    ids = encode_ids([point.id for point in points], "points[{}].id")
    vectors = [_by_name(point.vector, f"points[{at}].vector", packed) for at, point in enumerate(points)]
    return Upsert(ids, columns_of(vectors), [_payload(point.payload, at, packed) for at, point in enumerate(points)])


def _of_batch(batch: PointsBatch, packed: bool) -> Upsert:
    count = len(batch.ids)
    by_name = batch.vectors if isinstance(batch.vectors, dict) else {"": batch.vectors}
    vectors: list[dict[str, Vector]] = [{} for _ in range(count)]
    for name, given in by_name.items():
        label = f"batch.vectors{'.' + name if name else ''}"
        if len(given) != count:
            raise BoundError(f"{label}: has {len(given)} vectors, batch.ids has {count}")
        for at, raw in enumerate(given):
            vectors[at][name] = vector_of(raw_of(raw, packed), f"{label}[{at}]")
    payloads: Sequence[msgspec.Raw | msgspec.UnsetType] = [msgspec.UNSET] * count if batch.payloads is None else batch.payloads
    if len(payloads) != count:
        raise BoundError(f"batch.payloads: has {len(payloads)} payloads, batch.ids has {count}")
    ids = encode_ids(batch.ids, "batch.ids[{}]")
    return Upsert(ids, columns_of(vectors), [_payload(raw, at, packed) for at, raw in enumerate(payloads)])


def _by_name(raw: msgspec.Raw | msgspec.UnsetType, place: str, packed: bool) -> dict[str, Vector]:
    """The vectors of one point by name; a vector that is not in an object has the name ""."""
    if isinstance(raw, msgspec.UnsetType):
        return {}
    data = raw_of(raw, packed)
    if (named := object_of(data, dict[str, msgspec.Raw])) is None:
        return {"": vector_of(data, place)}
    return {name: vector_of(raw_of(inner, packed), f"{place}.{name}") for name, inner in named.items()}


def json_of(raw: msgspec.Raw, packed: bool) -> bytes:
    """A raw part of a body as JSON; `packed`: the body is msgpack. Raises orjson.JSONEncodeError."""
    data = bytes(raw)
    return orjson.dumps(msgspec.msgpack.decode(data)) if packed and data else data


def _payload(raw: msgspec.Raw | msgspec.UnsetType, at: int, packed: bool) -> bytes:
    data = b"" if isinstance(raw, msgspec.UnsetType) else json_of(raw, packed)
    if data in (b"", b"null", b"{}"):
        return b""
    if data[:1] != b"{":
        raise ValueError(f"points[{at}].payload must be an object: {shown(data)}")
    return data


def _given(batch: PointsBatch | None) -> PointsBatch:
    assert batch is not None
    return batch
