"""The Python client of the dialect over REST, blocking and asynchronous, and the songs uploaded through it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from tests.clients.qdrant.asked_songs import sparse_vector
from tests.clients.qdrant.blocking import Blocking
from tests.clients.songs import DIMENSIONS, SONGS, dense, each_word


@pytest.fixture(params=["blocking", "asynchronous"])
def client(url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client that found nothing to warn of, such as a server of another version."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        if request.param == "blocking":
            client: Any = QdrantClient(url=url, timeout=30)
        else:
            client = Blocking(AsyncQdrantClient(url=url, timeout=30))
    yield client
    client.close()


@pytest.fixture
def songs(client: Any, collection: str) -> str:
    """The songs with a vector of each kind, uploaded in batches."""
    late = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    cosine, dot = models.Distance.COSINE, models.Distance.DOT
    assert client.create_collection(
        collection,
        vectors_config={
            "meaning": models.VectorParams(size=DIMENSIONS, distance=cosine),
            "each word": models.VectorParams(size=DIMENSIONS, distance=dot, multivector_config=late),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
        shard_number=2,
    )
    points = [
        models.PointStruct(
            id=song.id,
            vector={"meaning": dense(song.text), "each word": each_word(song.text), "words": sparse_vector(song.text)},
            payload=song.metadata,
        )
        for song in SONGS
    ]
    client.upload_points(collection, points, batch_size=4, wait=True)
    return collection
