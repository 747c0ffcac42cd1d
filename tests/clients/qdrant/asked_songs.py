"""What is asked about the songs, in the terms of the dialect's client."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from tests.clients.songs import TITLES, sparse

QUERY = "Slow quiet piano by moonlight"
IDS = {title: id_ for id_, title in TITLES.items()}


def sparse_vector(text: str) -> models.SparseVector:
    indices, values = sparse(text)
    return models.SparseVector(indices=indices, values=values)


def titles(points: list[Any]) -> list[str]:
    return [TITLES[str(point.id)] for point in points]


def matches(key: str, value: object) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])


def payload_of(client: Any, collection: str, title: str) -> dict[str, Any] | None:
    (record,) = client.retrieve(collection, [IDS[title]])
    return record.payload
