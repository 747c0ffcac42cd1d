"""Each kind of change, by ids and by filter (V11, I10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import Answer, compare
from tests.gateway.dialect.congruence.congruent_points import COUNT, SIZE, fill, ids
from tests.gateway.dialect.congruence.questions import AT, EVEN, must, value


def struct(id_: int | str, **payload: Any) -> models.PointStruct:
    return models.PointStruct(
        id=id_,
        vector={"cos": [float(id_) + 1] * SIZE, "sparse": models.SparseVector(indices=[1, 7], values=[1, 2])},
        payload=payload,
    )


def batched(*operations: object) -> Callable[[QdrantClient, str], Answer]:
    return lambda client, name: client.batch_update_points(name, list(operations))


NEVER = value("tag", "never")
SOME = models.FilterSelector(filter=must(value("tag", "a")))
CHANGES: dict[str, Callable[[QdrantClient, str], Answer]] = {
    "upsert": lambda client, name: client.upsert(name, [struct(1, tag="new"), struct(1000)]),
    "batch form": lambda client, name: client.upsert(
        name,
        models.Batch(
            ids=[2, 1001],
            vectors={"dot": [[1.0] * SIZE, [2.0] * SIZE], "many": [[[1, 0, 0, 0]], [[0, 1, 0, 0], [0, 0, 1, 0]]]},
            payloads=[{"a": 1}, {}],
        ),
    ),
    "upsert where": lambda client, name: client.upsert(name, [struct(i, x=i) for i in range(1, 30)], update_filter=EVEN),
    "insert only": lambda client, name: client.upsert(name, [struct(1), struct(2000)], update_mode=models.UpdateMode.INSERT_ONLY),
    "update only": lambda client, name: client.upsert(
        name, [struct(4, x=1), struct(2001)], update_mode=models.UpdateMode.UPDATE_ONLY
    ),
    "set": lambda client, name: client.set_payload(name, {"tag": "set", "new": {"a": [1, None]}}, points=[1, 2, 4]),
    "set nulls": lambda client, name: client.set_payload(name, {"tag": None, "maybe": {"x": None}}, points=[1, 2, 4]),
    "set deep": lambda client, name: client.set_payload(name, {"er": {"other": 1}}, points=[1, 2, 4], key="deep"),
    "set deeper": lambda client, name: client.set_payload(name, {"new": 1}, points=[1, 2, 4], key="deep.er"),
    "set absent": lambda client, name: client.set_payload(name, {"new": 1}, points=[1, 2], key="not.there"),
    "set in arrays": lambda client, name: client.set_payload(name, {"size": 77}, points=ids()[:20], key="parts[]"),
    "set at an index": lambda client, name: client.set_payload(name, {"size": 78}, points=ids()[:20], key="parts[0]"),
    "set where": lambda client, name: client.set_payload(name, {"seen": True}, points=SOME),
    "overwrite": lambda client, name: client.overwrite_payload(name, {"only": 1}, points=[1, 2]),
    "overwrite where": lambda client, name: client.overwrite_payload(name, {"only": 2}, points=SOME),
    "delete keys": lambda client, name: client.delete_payload(
        name, ["tag", "deep.er", "parts[].kind", "none"], points=ids()[:30]
    ),
    "delete a key of an element": lambda client, name: client.delete_payload(
        name, ["parts[0].kind", "parts[1]", "deep.list[0][0]", "tag.x", "maybe[]"], points=ids()[:30]
    ),
    "delete keys where": lambda client, name: client.delete_payload(name, ["n"], points=SOME),
    "clear": lambda client, name: client.clear_payload(name, points_selector=[1, 2]),
    "clear where": lambda client, name: client.clear_payload(name, points_selector=SOME),
    "update vectors": lambda client, name: client.update_vectors(
        name,
        [
            models.PointVectors(id=1, vector={"cos": [3.0] + [4.0] * (SIZE - 1), "rare": AT["rare"]}),
            models.PointVectors(id=2, vector={"many": [[3.0, 4, 0, 0], [0, 0, 0, 2]]}),
        ],
    ),
    "update vectors where": lambda client, name: client.update_vectors(
        name, [models.PointVectors(id=i, vector={"dot": [float(i)] * SIZE}) for i in (1, 2, 4, 7, 8, 10, 11)], update_filter=EVEN
    ),
    "upsert where nothing is": lambda client, name: client.upsert(
        name, [models.PointStruct(id=1, vector={"many": [[1, 2, 3, 4]], "sparse": AT["sparse"]})], update_filter=must(NEVER)
    ),
    "update vectors where nothing is": lambda client, name: client.update_vectors(
        name,
        [models.PointVectors(id=1, vector={"many": [[1.0, 2, 3, 4]], "cos": AT["cos"]})],
        update_filter=must(NEVER),
    ),
    "delete vectors": lambda client, name: client.delete_vectors(name, ["cos", "many", "rare"], points=[1, 2]),
    "delete vectors where": lambda client, name: client.delete_vectors(name, ["dot"], points=SOME.filter),
    "delete": lambda client, name: client.delete(name, [1, 2, 5000]),
    "delete where": lambda client, name: client.delete(name, SOME),
    "several": batched(
        models.UpsertOperation(upsert=models.PointsList(points=[struct(3000, tag="a"), struct(4, tag="b")])),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload={"s": 1}, filter=SOME.filter)),
        models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"o": 1}, points=[2])),
        models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["s"], points=[3000])),
        models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[5])),
        models.UpdateVectorsOperation(
            update_vectors=models.UpdateVectors(points=[models.PointVectors(id=4, vector={"far": [[1.0, 2, 3, 4]]})])
        ),
        models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(points=[4], vector=["cos"])),
        models.DeleteOperation(delete=models.FilterSelector(filter=must(value("tag", "c")))),
    ),
}


@pytest.mark.parametrize("label", CHANGES)
def test_changes(both: list[QdrantClient], label: str) -> None:
    """Each kind of change, by ids and by filter, leaves the same points, and searches see them (V11, I10)."""
    name = f"changed-{uuid4().hex[:8]}"
    for client in both:
        fill(client, name)
        CHANGES[label](client, name)
    compare(both, lambda client: client.scroll(name, limit=2 * COUNT, with_vectors=True))
    for vector in ("cos", "many", "rare"):
        compare(both, lambda client: client.query_points(name, query=AT[vector], using=vector, limit=2 * COUNT))  # noqa: B023
    for client in both:
        client.delete_collection(name)
