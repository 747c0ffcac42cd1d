"""Filters against the dialect's client in its local mode: where both claim the reference's meaning, they agree (V12).

What is left out: the edge of a polygon, which the reference counts in and local mode does not; texts beyond letters and digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.topics import Topics
from shard.batch import Limits
from shard.shard import Shard
from tests.shard.filters.dice import COUNT, INDEXES, RING, Dice
from tests.shard.filters.pair import Pair, found

SQUARE = [(-1.5, -1.5), (2.5, -1.5), (2.5, 2.5), (-1.5, 2.5), (-1.5, -1.5)]
"""Has no place of a payload on its edge."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shard]:
    collection = Collection("c", 0, CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}), [[0, 0, 0, 0]], dict(INDEXES))
    shard = Shard(tmp_path_factory.mktemp("shard"), collection, 0, Topics(), Limits(), lambda task: None)
    yield shard
    shard.close()


@given(st.integers(0, 2**32))
@settings(max_examples=40, phases=[Phase.generate], deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_local_mode_agrees(one: Shard, seed: int) -> None:
    dice, pair, client = Dice(seed), Pair([one]), QdrantClient(":memory:")
    client.create_collection("c", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    payloads = {number: dice.payload() for number in range(COUNT)}
    pair.upsert(payloads)
    there = [models.PointStruct(id=n, vector=[1.0, 1.0], payload=placed(payload)) for n, payload in payloads.items()]
    client.upsert("c", there)
    for _ in range(25):
        condition = comparable(dice.filter())
        scrolled, _ = client.scroll("c", models.Filter.model_validate({"must": [condition]}), limit=COUNT)
        assert {point.id for point in scrolled} == found(one.view, condition), condition
    client.close()


def placed(value: Any) -> Any:
    """A payload without a place that is none, which local mode takes for one."""
    if isinstance(value, list):
        return [placed(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {name: None if (name, inner) == ("lon", 181) else placed(inner) for name, inner in value.items()}


def comparable(condition: Any) -> Any:
    """A filter with what local mode sees otherwise replaced: polygons with edges that places lie on, and vectors."""
    if isinstance(condition, list):
        return [comparable(inner) for inner in condition]
    if not isinstance(condition, dict):
        return 2**53 if condition == 2**53 + 1 else condition  # the client's bounds are floats
    if "points" in condition and len(condition["points"]) == len(RING):
        return {"points": [{"lon": lon, "lat": lat} for lon, lat in SQUARE]}
    if "interiors" in condition:
        return {"exterior": comparable(condition["exterior"])}
    if "nested" in condition:  # whose filter may be a bare condition here, but not there
        inner = comparable(condition["nested"]["filter"])
        return {"nested": {"key": condition["nested"]["key"], "filter": {"must": [inner]}}}
    if "has_vector" in condition:
        return {"has_vector": "other"}
    return {name: comparable(inner) for name, inner in condition.items()}
