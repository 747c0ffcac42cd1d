"""Converts points of a request body to an upsert operation. Pure, so that it can run in another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

import msgspec
import orjson
from msgspec import structs

from gateway.dialect.bodies import BulkBody, PointBody, PointsBatch, PointVectors, UpsertBody
from gateway.dialect.documents import Document, PlacedDocument, document_of, given_vector_of
from gateway.dialect.vectors import decoded, is_object, raw_of, shown, vector_of
from journal.ids import encode_id
from journal.records import PatchVectors, Upsert, Vector, columns_of
from payload.errors import BoundError
from shard.filters.conditions import Condition

Given = Mapping[str, Vector | Document]
"""What a body gives as the vectors of a point, by name."""

Written = TypeVar("Written", Upsert, PatchVectors)


class ParsedUpsert(msgspec.Struct):
    """A parsed upsert body: the operation, without the vectors of `documents`, and its conditions."""

    operation: Upsert
    documents: list[PlacedDocument]
    update_filter: Condition | None
    update_mode: str | None
    collection: str = ""


def parse_upsert(body: UpsertBody, packed: bool) -> ParsedUpsert:
    """Converts an upsert body. Raises ValueError, naming the place."""
    collection = body.collection if isinstance(body, BulkBody) else ""
    operation, documents = _upsert_of(body, packed)
    if body.ttl_s is not None:
        operation = structs.replace(operation, ttl_ms=1000 * body.ttl_s)
    return ParsedUpsert(operation, documents, body.update_filter, body.update_mode, collection)


def vectors_patch_of(points: Sequence[PointVectors], packed: bool) -> tuple[PatchVectors, list[PlacedDocument]]:
    """The operation that sets vectors of existing points, and the documents whose vectors it lacks."""
    ids = encode_ids([point.id for point in points], "points[{}].id")
    given = [_by_name(point.vector, f"points[{at}].vector", packed) for at, point in enumerate(points)]
    if {} in given:
        raise BoundError(f"points[{given.index({})}].vector: must name at least one vector")
    vectors, documents = _apart(given, "points[{}].vector{}")
    return PatchVectors(ids, columns_of(vectors)), documents


def with_vectors(operation: Written, documents: Sequence[PlacedDocument], vectors: Sequence[Vector]) -> Written:
    """The operation with the vectors that were made of its documents. Raises ValueError when those of a name differ in kind."""
    made = {placed.name for placed in documents}
    by_point: list[dict[str, Vector]] = [{} for _ in operation.ids]
    for column in operation.vectors:
        if column.name in made:  # some points have a vector of this name already
            for at, vector in zip(column.indexes(len(operation.ids)), column.each(), strict=True):
                by_point[at][column.name] = vector
    for placed, vector in zip(documents, vectors, strict=True):
        by_point[placed.point][placed.name] = vector
    others = [column for column in operation.vectors if column.name not in made]
    return structs.replace(operation, vectors=others + columns_of(by_point))


def encode_ids(ids: Sequence[int | str], place: str = "points[{}]") -> list[bytes]:
    """Ids in journal form. Raises ValueError, naming the place."""
    encoded = []
    for at, point_id in enumerate(ids):
        try:
            encoded.append(encode_id(point_id))
        except ValueError as error:
            raise ValueError(f"{place.format(at)}: {error}") from error
    return encoded


def _upsert_of(body: UpsertBody, packed: bool) -> tuple[Upsert, list[PlacedDocument]]:
    if (body.points is None) == (body.batch is None):
        raise ValueError("body needs exactly one of points, batch")
    parsed = _of_points(body.points, packed) if body.points is not None else _of_batch(_given(body.batch), packed)
    if not parsed[0].ids:
        raise ValueError("Wrong input: Empty update request: no points are given")
    return parsed


def _of_points(points: Sequence[PointBody], packed: bool) -> tuple[Upsert, list[PlacedDocument]]:
    ids = encode_ids([point.id for point in points], "points[{}].id")
    given = [_by_name(point.vector, f"points[{at}].vector", packed) for at, point in enumerate(points)]
    vectors, documents = _apart(given, "points[{}].vector{}")
    payloads = [_payload(point.payload, at, packed) for at, point in enumerate(points)]
    return Upsert(ids, columns_of(vectors), payloads), documents


def _of_batch(batch: PointsBatch, packed: bool) -> tuple[Upsert, list[PlacedDocument]]:
    count = len(batch.ids)
    by_name = batch.vectors if isinstance(batch.vectors, dict) else {"": batch.vectors}
    given: list[dict[str, Vector | Document]] = [{} for _ in range(count)]
    for name, raws in by_name.items():
        label = f"batch.vectors{'.' + name if name else ''}"
        if len(raws) != count:
            raise BoundError(f"{label}: has {len(raws)} vectors, batch.ids has {count}")
        for at, raw in enumerate(raws):
            given[at][name] = given_vector_of(raw_of(raw, packed), f"{label}[{at}]")
    vectors, documents = _apart(given, "batch.vectors{1}[{0}]")
    payloads: Sequence[msgspec.Raw | msgspec.UnsetType] = [msgspec.UNSET] * count if batch.payloads is None else batch.payloads
    if len(payloads) != count:
        raise BoundError(f"batch.payloads: has {len(payloads)} payloads, batch.ids has {count}")
    ids = encode_ids(batch.ids, "batch.ids[{}]")
    return Upsert(ids, columns_of(vectors), [_payload(raw, at, packed) for at, raw in enumerate(payloads)]), documents


def _by_name(raw: msgspec.Raw | msgspec.UnsetType, place: str, packed: bool) -> Given:
    """The vectors of one point by name; a vector that is not in an object has the name ""."""
    if isinstance(raw, msgspec.UnsetType):
        return {}
    data = raw_of(raw, packed)
    if not is_object(data):
        return {"": vector_of(data, place)}
    if (document := document_of(data, place)) is not None:
        return {"": document}
    named = decoded(data, dict[str, msgspec.Raw])
    return {name: given_vector_of(raw_of(inner, packed), f"{place}.{name}") for name, inner in named.items()}


def _apart(given: Sequence[Given], place: str) -> tuple[Sequence[Mapping[str, Vector]], list[PlacedDocument]]:
    """The vectors of points, and their documents. `place` is formatted with the index of the point and the name after a dot."""
    documents = [
        PlacedDocument(at, name, place.format(at, f".{name}" if name else ""), one)
        for at, by_name in enumerate(given)
        for name, one in by_name.items()
        if isinstance(one, Document)
    ]
    if not documents:
        return cast(Sequence[Mapping[str, Vector]], given), documents
    return [{name: one for name, one in by_name.items() if not isinstance(one, Document)} for by_name in given], documents


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
