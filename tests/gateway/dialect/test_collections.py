"""Collections through the dialect's own client: vectors by name, ids of all kinds, aliases, a new life of a name (N6, U1)."""

from __future__ import annotations

from uuid import uuid4

import pytest
from qdrant_client import QdrantClient, models


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
