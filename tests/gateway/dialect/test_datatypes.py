"""Datatypes through the dialect: what is read is what is stored, and scores are those of what is read (N6)."""

from __future__ import annotations

from uuid import uuid4

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

SIZE, COUNT = 6, 30


def made(client: QdrantClient, distance: models.Distance, datatype: str, multi: bool = False) -> str:
    name = f"t{uuid4().hex[:8]}"
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM) if multi else None
    params = models.VectorParams(size=SIZE, distance=distance, datatype=models.Datatype(datatype), multivector_config=several)
    client.create_collection(name, vectors_config=params)
    return name


def vectors() -> list[list[float]]:
    return [[float(x) for x in row] for row in np.random.default_rng(3).uniform(0, 255, (COUNT, SIZE)).astype(np.float32)]


@pytest.mark.parametrize("multi", [False, True], ids=["dense", "multi"])
@pytest.mark.parametrize("datatype", ["float16", "uint8", "turbo4"])
@pytest.mark.parametrize(
    "distance",
    [
        models.Distance.COSINE,
        models.Distance.EUCLID,
        pytest.param(models.Distance.DOT, marks=pytest.mark.slow),
        pytest.param(models.Distance.MANHATTAN, marks=pytest.mark.slow),
    ],
)
def test_every_datatype_answers_by_what_it_stores(
    client: QdrantClient, distance: models.Distance, datatype: str, multi: bool
) -> None:
    name = made(client, distance, datatype, multi)
    points = [models.PointStruct(id=at, vector=[vector] if multi else vector) for at, vector in enumerate(vectors())]
    client.upsert(name, points)
    assert client.get_collection(name).config.params.vectors.datatype == datatype
    read = {point.id: point.vector for point in client.retrieve(name, list(range(COUNT)), with_vectors=True)}
    stored = np.array([read[at] for at in range(COUNT)]).reshape(COUNT, SIZE)
    written = np.array(vectors(), np.float32)
    match datatype:
        case "uint8":
            assert (stored == np.trunc(written)).all(), "also for Cosine: only the scores are of unit vectors"
        case "float16" if distance is not models.Distance.COSINE:
            assert (stored.astype(np.float32) == written.astype(np.float16)).all()
    by_vector = client.query_points(name, query=points[4].vector, limit=COUNT).points
    by_id = client.query_points(name, query=4, limit=COUNT).points
    if datatype != "turbo4":  # its queries keep the precision that the stored vectors lose
        assert [(hit.id, hit.score) for hit in by_vector if hit.id != 4] == [
            (hit.id, pytest.approx(hit.score, rel=1e-3)) for hit in by_id
        ]
    unit = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    match distance:
        case models.Distance.COSINE:
            expected = unit @ unit[4]
        case models.Distance.DOT:
            expected = stored @ stored[4]
        case models.Distance.EUCLID:
            expected = np.linalg.norm(stored - stored[4], axis=1)
        case _:
            expected = np.abs(stored - stored[4]).sum(axis=1)
    assert {hit.id: hit.score for hit in by_id} == {
        at: pytest.approx(score, rel=2e-3) for at, score in enumerate(expected.tolist()) if at != 4
    }
    diverse = models.NearestQuery(nearest=points[4].vector, mmr=models.Mmr(diversity=0.5, candidates_limit=COUNT))
    assert len(client.query_points(name, query=diverse, limit=5).points) == 5
    client.delete_collection(name)


def test_diversity_of_bytes_is_that_of_their_directions(client: QdrantClient) -> None:
    """By the lengths of the vectors the longest would come first."""
    name = made(client, models.Distance.COSINE, "uint8")
    directions = {1: [9, 1, 0, 0, 0, 0], 2: [200, 200, 0, 0, 0, 0], 3: [8, 0, 1, 0, 0, 0]}
    client.upsert(name, [models.PointStruct(id=at, vector=vector) for at, vector in directions.items()])
    diverse = models.NearestQuery(nearest=[9.9, 1.9, 0, 0, 0, 0], mmr=models.Mmr(diversity=0.0, candidates_limit=3))
    assert [hit.id for hit in client.query_points(name, query=diverse, limit=3).points] == [1, 3, 2]
    client.delete_collection(name)


def test_a_datatype_is_no_longer_named_as_ignored(node_url: str) -> None:
    with httpx.Client(base_url=node_url) as http:
        body = {"vectors": {"size": 4, "distance": "Dot", "datatype": "float16"}}
        answer = http.put(f"/collections/t{uuid4().hex[:8]}", json=body)
        assert answer.status_code == 200
        assert "datatype" not in answer.headers.get("X-Vecraft-Ignored", "")
        body["vectors"]["datatype"] = "float8"  # type: ignore[index]
        answer = http.put("/collections/wrong", json=body)
        assert answer.status_code == 400
        assert "datatype" in answer.json()["status"]["error"] or "float8" in answer.json()["status"]["error"]
