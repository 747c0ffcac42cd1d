"""Uploads through the Python client of the dialect, and its migration (N6, V12)."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from tests.clients.qdrant.asked_songs import QUERY, titles
from tests.clients.songs import DIMENSIONS, SONGS, by_meaning, dense

MANY = 500


def test_an_upload_of_arrays_is_scrolled_back(client: Any, collection: str) -> None:
    """Vectors from an array, payload from a generator, ids of the client's own making where none are given."""
    vectors = np.random.default_rng(5).normal(size=(MANY, DIMENSIONS)).astype(np.float32)
    client.create_collection(collection, vectors_config=models.VectorParams(size=DIMENSIONS, distance=models.Distance.DOT))
    payload = ({"n": n} for n in range(MANY))
    client.upload_collection(collection, vectors, payload, ids=range(MANY), batch_size=128, wait=True)
    seen, offset = [], None
    while True:
        page, offset = client.scroll(collection, limit=150, offset=offset, with_vectors=True)
        seen += page
        if offset is None:
            break
    assert [(record.id, record.payload) for record in seen] == [(n, {"n": n}) for n in range(MANY)]
    assert np.allclose([record.vector for record in seen], vectors)
    client.upload_collection(collection, vectors[:3], wait=True)
    assert client.count(collection).count == MANY + 3


def test_an_upload_by_several_processes(url: str, collection: str) -> None:
    client = QdrantClient(url=url, timeout=30)
    client.create_collection(collection, vectors_config=models.VectorParams(size=DIMENSIONS, distance=models.Distance.DOT))
    points = (models.PointStruct(id=n, vector=[float(n)] * DIMENSIONS, payload={"n": n}) for n in range(MANY))
    client.upload_points(collection, points, batch_size=50, parallel=2, wait=True)
    assert client.count(collection).count == MANY
    client.close()


def test_everything_moves_to_another_server(url: str, collection: str) -> None:
    """The client's own migration, here out to its in-memory twin and back under another name."""
    client, elsewhere = QdrantClient(url=url, timeout=30), QdrantClient(":memory:")
    client.create_collection(collection, vectors_config=models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE))
    client.upsert(collection, [models.PointStruct(id=song.id, vector=dense(song.text), payload=song.metadata) for song in SONGS])
    client.migrate(elsewhere, [collection])
    client.delete_collection(collection)
    elsewhere.migrate(client, [collection])
    found, _ = client.scroll(collection, limit=10)
    assert {record.id: record.payload for record in found} == {song.id: song.metadata for song in SONGS}
    assert titles(client.query_points(collection, dense(QUERY)).points) == list(by_meaning(QUERY))
    client.close()
