"""The dialect's core through its own client, unchanged (N6, U1)."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from tests.conftest import result

COUNT = 40


@pytest.fixture
def client(node_url: str) -> Iterator[QdrantClient]:
    client = QdrantClient(url=node_url, timeout=30)
    yield client
    client.close()


def points() -> list[models.PointStruct]:
    random = np.random.default_rng(7)
    return [
        models.PointStruct(
            id=i,
            vector=random.normal(size=4).tolist(),
            payload={
                "n": i,
                "even": i % 2 == 0,
                "tag": "abc"[i % 3],
                "f": i / 4,
                "text": f"word{i % 5} common",
                "at": f"2024-01-{i % 28 + 1:02}T00:00:00Z",
            },
        )
        for i in range(COUNT)
    ]


@pytest.fixture(params=[1, 3], ids=["one shard", "three shards"])
def filled(client: QdrantClient, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"d{uuid4().hex[:8]}"
    params = models.VectorParams(size=4, distance=models.Distance.EUCLID)
    assert client.create_collection(name, vectors_config=params, shard_number=request.param)
    assert client.upsert(name, points(), wait=True).status == models.UpdateStatus.COMPLETED
    yield name
    client.delete_collection(name)


def field(key: str, **condition: object) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)


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


def test_search_is_ordered_and_exact(client: QdrantClient, filled: str) -> None:
    query = np.array([0.5, -1, 0.25, 2])
    distances = {point.id: float(np.linalg.norm(np.array(point.vector) - query)) for point in points()}
    expected = sorted(distances, key=lambda i: distances[i])
    for hits in (
        client.query_points(filled, query=query.tolist(), limit=7, offset=2, with_payload=True, with_vectors=True).points,
        client.query_points(
            filled, query=query.tolist(), limit=7, offset=2, search_params=models.SearchParams(exact=True)
        ).points,
    ):
        assert [hit.id for hit in hits] == expected[2:9]
        assert np.allclose([hit.score for hit in hits], [distances[i] for i in expected[2:9]], atol=1e-5)
    near = client.query_points(filled, query=query.tolist(), limit=COUNT, score_threshold=distances[expected[4]]).points
    assert {hit.id for hit in near} <= set(expected[:5])
    assert {hit.id for hit in near} >= set(expected[:4])


def test_query_by_id_leaves_the_point_out(client: QdrantClient, filled: str) -> None:
    hits = client.query_points(filled, query=5, limit=COUNT).points
    assert 5 not in {hit.id for hit in hits}
    assert len(hits) == COUNT - 1


def test_batches(client: QdrantClient, filled: str) -> None:
    requests = [models.QueryRequest(query=[float(i), 0, 0, 0], limit=2, with_payload=True) for i in range(3)]
    answers = client.query_batch_points(filled, requests)
    alone = [client.query_points(filled, query=request.query, limit=2).points for request in requests]
    assert [[hit.id for hit in answer.points] for answer in answers] == [[hit.id for hit in hits] for hits in alone]


def test_scroll_pages_through_everything(client: QdrantClient, filled: str) -> None:
    seen, offset = [], None
    while True:
        page, offset = client.scroll(filled, limit=7, offset=offset, with_vectors=True)
        seen += page
        if offset is None:
            break
    assert [point.id for point in seen] == list(range(COUNT))
    assert np.allclose([point.vector for point in seen], [point.vector for point in points()], atol=1e-6)


def test_facets(client: QdrantClient, filled: str) -> None:
    hits = client.facet(filled, "tag", limit=2).hits
    assert [(hit.value, hit.count) for hit in hits] == [("a", 14), ("b", 13)]
    client.create_payload_index(filled, "tag", "keyword")
    only_even = models.Filter(must=[field("even", match=models.MatchValue(value=True))])
    assert {hit.value: hit.count for hit in client.facet(filled, "tag", facet_filter=only_even).hits} == {"a": 7, "b": 6, "c": 7}


def test_payload_edits(client: QdrantClient, filled: str) -> None:
    def payload() -> dict[str, object]:
        return client.retrieve(filled, [1])[0].payload

    client.set_payload(filled, {"n": 100, "new": {"x": 1}}, points=[1, 2])
    assert payload()["n"] == 100
    assert payload()["tag"] == "b"
    client.set_payload(filled, {"y": 2}, points=[1], key="new")
    assert payload()["new"] == {"x": 1, "y": 2}
    client.delete_payload(filled, ["tag", "new.x"], points=[1])
    assert "tag" not in payload()
    assert payload()["new"] == {"y": 2}
    client.overwrite_payload(filled, {"only": True}, points=models.Filter(must=[field("n", match=models.MatchValue(value=100))]))
    assert payload() == {"only": True}
    assert client.retrieve(filled, [2])[0].payload == {"only": True}
    client.clear_payload(filled, points_selector=[1])
    assert payload() == {}
    assert client.count(filled).count == COUNT


def test_points_that_are_not_there(http: httpx.Client, name: str) -> None:
    """Changes of absent points are said so, by the first id; those that are there are changed all the same."""
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": 1, "vector": [1, 1, 1, 1]}]}))
    for path, body in (
        ("payload", {"payload": {"a": 1}, "points": [1, 7]}),
        ("payload/delete", {"keys": ["b"], "points": [1, 7]}),
    ):
        response = http.post(f"/collections/{name}/points/{path}?wait=true", json=body)
        assert response.status_code == 404
        assert "7" in response.json()["status"]["error"]
    absent = {"points": [{"id": 8, "vector": [1, 2, 3, 4]}]}
    assert http.put(f"/collections/{name}/points/vectors?wait=true", json=absent).status_code == 404
    assert result(http.get(f"/collections/{name}/points/1"))["payload"] == {"a": 1}


def test_deletes(client: QdrantClient, filled: str) -> None:
    client.delete(filled, [0, 1, 12345])
    client.delete(filled, models.FilterSelector(filter=models.Filter(must=[field("n", range=models.Range(gte=30))])))
    assert client.count(filled).count == 28
    assert client.retrieve(filled, [0, 1, 30, 2]) == client.retrieve(filled, [2])
    assert 30 not in {hit.id for hit in client.query_points(filled, query=[1.0, 2, 3, 4], limit=COUNT).points}


def test_payload_selectors(client: QdrantClient, filled: str) -> None:
    def get(selector: object) -> dict[str, object] | None:
        return client.retrieve(filled, [4], with_payload=selector)[0].payload

    assert get(["n", "tag"]) == {"n": 4, "tag": "b"}
    assert get(models.PayloadSelectorExclude(exclude=["text", "at", "f"])) == {"n": 4, "even": True, "tag": "b"}
    assert get(False) is None


@pytest.mark.parametrize("distance", list(models.Distance))
def test_named_vectors_and_ids_of_all_kinds(client: QdrantClient, distance: models.Distance) -> None:
    name = f"n{uuid4().hex[:8]}"
    config = {"small": models.VectorParams(size=2, distance=distance), "large": models.VectorParams(size=3, distance=distance)}
    client.create_collection(name, vectors_config=config)
    ids = [7, str(uuid4()), "a free string / with ünïcode"]
    client.upsert(
        name,
        [
            models.PointStruct(id=i, vector={"small": [1, at], "large": [at, 1, 2]}, payload={"at": at})
            for at, i in enumerate(ids)
        ],
    )
    client.upsert(name, [models.PointStruct(id=8, vector={"small": [5, 5]})])
    assert {point.id for point in client.scroll(name)[0]} == {*ids, 8}
    assert client.retrieve(name, [ids[2]])[0].payload == {"at": 2}
    assert len(client.query_points(name, query=[1.0, 1, 1], using="large", limit=9).points) == 3
    has_large = models.Filter(must=[models.HasVectorCondition(has_vector="large")])
    assert client.count(name, count_filter=has_large).count == 3
    client.update_vectors(name, [models.PointVectors(id=8, vector={"large": [1, 2, 2]})])
    client.delete_vectors(name, ["small"], points=[7])
    assert client.count(name, count_filter=has_large).count == 4
    assert set(client.retrieve(name, [7], with_vectors=True)[0].vector) == {"large"}
    assert set(client.retrieve(name, [8], with_vectors=["large"])[0].vector) == {"large"}
    client.delete_collection(name)


def test_collections_and_aliases(client: QdrantClient) -> None:
    name = f"k{uuid4().hex[:8]}"
    params = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=params, hnsw_config=models.HnswConfigDiff(m=16, ef_construct=50))
    info = client.get_collection(name)
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct) == (16, 50)
    assert info.config.params.vectors.size == 4
    assert client.collection_exists(name)
    assert name in {c.name for c in client.get_collections().collections}
    alias, other = f"{name}-alias", f"{name}-other"
    create = models.CreateAlias(collection_name=name, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    client.upsert(alias, [models.PointStruct(id=1, vector=[0, 3, 4, 0])])
    rename = models.RenameAlias(old_alias_name=alias, new_alias_name=other)
    client.update_collection_aliases([models.RenameAliasOperation(rename_alias=rename)])
    assert client.retrieve(other, [1], with_vectors=True)[0].vector == pytest.approx([0, 0.6, 0.8, 0])
    assert [a.alias_name for a in client.get_collection_aliases(name).aliases] == [other]
    assert client.update_collection(name, hnsw_config=models.HnswConfigDiff(m=20))
    assert client.get_collection(name).config.hnsw_config.m == 20
    client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=other))])
    assert client.delete_collection(name)
    assert not client.collection_exists(name)
    assert not client.delete_collection(name)


def test_a_collection_made_anew_is_empty(client: QdrantClient) -> None:
    """Records of the old one do not come back: a collection's id is the offset of its creation."""
    name = f"r{uuid4().hex[:8]}"
    for size in (4, 3):
        client.create_collection(name, vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT))
        assert client.count(name).count == 0
        client.upsert(name, [models.PointStruct(id=1, vector=[1.0] * size)])
        assert client.count(name).count == 1
        client.delete_collection(name)


def test_batch_form_and_own_paths(http: httpx.Client, name: str) -> None:
    batch = {"ids": [1, 2], "vectors": [[1, 0, 0, 0], [0, 1, 0, 0]], "payloads": [{"a": 1}, None]}
    result(http.put(f"/v1/collections/{name}/points?wait=true", json={"batch": batch}))
    bulk = {"collection": name, "points": [{"id": 3, "vector": [0, 0, 1, 0]}]}
    result(http.post("/v1/vectors/bulk?wait=true", json=bulk, headers={"X-Request-Id": f"bulk-{name}"}))
    assert result(http.get(f"/v1/operations/bulk-{name}"))["records"][0]["topic"] == "vecraft.tier2"
    hits = result(
        http.post("/v1/vectors/search", json={"collection": name, "vector": [0, 1, 0, 0], "limit": 1, "with_payload": True})
    )
    assert hits[0].pop("version") > 0
    assert hits == [{"id": 2, "score": 1.0, "payload": {}}]
    assert result(http.get(f"/collections/{name}/points/1")) == {"id": 1, "payload": {"a": 1}, "vector": [1, 0, 0, 0]}
    assert http.get(f"/collections/{name}/points/77").status_code == 404


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
