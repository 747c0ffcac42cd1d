"""Filters through the dialect's own client, and what they find in nested objects (N6, I10)."""

from __future__ import annotations

import httpx
import pytest
from qdrant_client import QdrantClient, models

from tests.conftest import result
from tests.gateway.dialect.numbered_points import COUNT, field

FILTERS = {
    "value": (models.Filter(must=[field("tag", match=models.MatchValue(value="a"))]), lambda i: i % 3 == 0),
    "bool": (models.Filter(must=[field("even", match=models.MatchValue(value=True))]), lambda i: i % 2 == 0),
    "any": (models.Filter(must=[field("tag", match=models.MatchAny(any=["a", "b"]))]), lambda i: i % 3 < 2),
    "except": (models.Filter(must=[field("tag", match=models.MatchExcept(**{"except": ["a"]}))]), lambda i: i % 3 != 0),
    "text": (models.Filter(must=[field("text", match=models.MatchText(text="word3"))]), lambda i: i % 5 == 3),
    "range": (models.Filter(must=[field("n", range=models.Range(gt=3, lte=20))]), lambda i: 3 < i <= 20),
    "float range": (models.Filter(must=[field("f", range=models.Range(gte=2.5))]), lambda i: i / 4 >= 2.5),
    "datetime": (models.Filter(must=[field("at", range=models.DatetimeRange(lt="2024-01-05T00:00:00Z"))]), lambda i: i % 28 < 4),
    "must not": (models.Filter(must_not=[field("tag", match=models.MatchValue(value="a"))]), lambda i: i % 3 != 0),
    "should": (
        models.Filter(should=[field("n", range=models.Range(lt=3)), field("tag", match=models.MatchValue(value="c"))]),
        lambda i: i < 3 or i % 3 == 2,
    ),
    "min should": (
        models.Filter(
            min_should=models.MinShould(
                conditions=[
                    field("n", range=models.Range(lt=10)),
                    field("tag", match=models.MatchValue(value="c")),
                    field("even", match=models.MatchValue(value=True)),
                ],
                min_count=2,
            )
        ),
        lambda i: (i < 10) + (i % 3 == 2) + (i % 2 == 0) >= 2,
    ),
    "has id": (models.Filter(must=[models.HasIdCondition(has_id=[3, 5, 999])]), lambda i: i in (3, 5)),
    "empty": (models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="none"))]), lambda i: True),
    "null": (models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="n"))]), lambda i: False),
    "count": (models.Filter(must=[field("n", values_count=models.ValuesCount(gte=1))]), lambda i: True),
    "nested filters": (
        models.Filter(
            must=[models.Filter(must_not=[field("tag", match=models.MatchValue(value="b"))])],
            must_not=[models.HasIdCondition(has_id=[0])],
        ),
        lambda i: i % 3 != 1 and i != 0,
    ),
}
INDEXES = {"tag": "keyword", "even": "bool", "n": "integer", "f": "float", "at": "datetime", "text": "text"}


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexed"])
def test_filters(client: QdrantClient, filled: str, indexed: bool) -> None:
    """Every filter gives the points it means, with and without payload indexes, in counts, scrolls and searches (I10)."""
    if indexed:
        for name, kind in INDEXES.items():
            client.create_payload_index(filled, name, kind)
        assert set(client.get_collection(filled).payload_schema) == set(INDEXES)
    for label, (filter_, passes) in FILTERS.items():
        expected = {i for i in range(COUNT) if passes(i)}
        assert client.count(filled, count_filter=filter_).count == len(expected), label
        scrolled, _ = client.scroll(filled, scroll_filter=filter_, limit=COUNT)
        assert [point.id for point in scrolled] == sorted(expected), label
        hits = client.query_points(filled, query=[1.0, 0, 0, 0], query_filter=filter_, limit=COUNT).points
        assert {hit.id for hit in hits} == expected, label


def test_nested_objects(http: httpx.Client, name: str) -> None:
    diets = [
        [{"food": "leaves", "likes": False}, {"food": "meat", "likes": True}],
        [{"food": "leaves", "likes": True}, {"food": "meat", "likes": False}],
    ]
    rows = [
        {"id": at, "vector": [at, 1, 1, 1], "payload": {"diet": diet, "none": None, "list": [1, 2, 3]}}
        for at, diet in enumerate(diets)
    ]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": rows}))

    def ids(filter_: object) -> list[int]:
        found = result(http.post(f"/collections/{name}/points/scroll", json={"filter": filter_}))
        return [point["id"] for point in found["points"]]

    likes_meat = {"must": [{"key": "food", "match": {"value": "meat"}}, {"key": "likes", "match": {"value": True}}]}
    assert ids({"must": [{"nested": {"key": "diet", "filter": likes_meat}}]}) == [0]
    assert ids({"must": [{"key": "diet[].food", "match": {"value": "meat"}}]}) == [0, 1]
    assert ids({"must": [{"key": "diet[0].likes", "match": {"value": True}}]}) == [1]
    assert ids({"must": [{"is_null": {"key": "none"}}, {"is_empty": {"key": "none"}}]}) == [0, 1]
    assert ids({"must": [{"key": "list", "values_count": {"gt": 2}}]}) == [0, 1]
    assert ids({"must": [{"key": "list", "match": {"value": 2}}]}) == [0, 1]
