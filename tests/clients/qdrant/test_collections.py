"""Collections through the Python client of the dialect, and what it says of a mistake (N6, V12)."""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.clients.songs import DIMENSIONS, SONGS


def test_collections_have_a_life_and_other_names(client: Any, songs: str, collection: str) -> None:
    old, new = f"{collection}-old", f"{collection}-new"
    client.create_collection(new, vectors_config=models.VectorParams(size=2, distance=models.Distance.EUCLID))
    assert client.collection_exists(new)
    assert {songs, new} <= {described.name for described in client.get_collections().collections}
    config = client.get_collection(songs).config.params
    assert (config.vectors["meaning"].size, set(config.sparse_vectors), config.shard_number) == (DIMENSIONS, {"words"}, 2)
    assert client.update_collection(new, hnsw_config=models.HnswConfigDiff(m=32))
    assert client.get_collection(new).config.hnsw_config.m == 32

    alias = f"{collection}-alias"
    named = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=songs, alias_name=alias))
    client.update_collection_aliases([named])
    assert client.count(alias).count == len(SONGS)
    switched = [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=new, alias_name=alias)),
        models.RenameAliasOperation(rename_alias=models.RenameAlias(old_alias_name=alias, new_alias_name=old)),
    ]
    client.update_collection_aliases(switched)
    assert client.count(old).count == 0
    assert [known.alias_name for known in client.get_collection_aliases(new).aliases] == [old]
    assert old in {known.alias_name for known in client.get_aliases().aliases}
    assert client.delete_collection(new)
    assert not client.collection_exists(new)
    assert not client.collection_exists(old)


def test_a_mistake_is_told(client: Any, songs: str) -> None:
    with pytest.raises(UnexpectedResponse, match="404") as raised:
        client.count(f"{songs}-never")
    assert f"{songs}-never" in raised.value.content.decode()
    with pytest.raises(UnexpectedResponse, match="400"):
        client.query_points(songs, [1.0, 0.0], using="meaning")
