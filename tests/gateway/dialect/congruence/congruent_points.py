"""The points that this server and the reference both hold: vectors of every kind, payloads of every type, some missing."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, models

COUNT = 120
SIZE = 8
DENSE = {"cos": "Cosine", "dot": "Dot", "euclid": "Euclid", "manhattan": "Manhattan"}
MULTI = {"many": "Cosine", "far": "Euclid"}
SPARSE = ["sparse", "rare"]
INDEXES = {
    "n": "integer",
    "f": "float",
    "tag": "keyword",
    "tags": "keyword",
    "flag": "bool",
    "at": "datetime",
    "place": "geo",
    "text": "text",
    "uuid": "uuid",
    "parts[].size": "integer",
}
ALL, OTHER = "congruent", "congruent-other"
WORDS = ["red", "green", "blue", "stone", "river", "cloud", "iron"]


def dense(random: np.random.Generator) -> list[float]:
    return [float(x) for x in random.normal(size=SIZE).astype(np.float32)]


def multi(random: np.random.Generator) -> list[list[float]]:
    return [[float(x) for x in row] for row in random.normal(size=(random.integers(1, 5), 4)).astype(np.float32)]


def sparse(random: np.random.Generator, most: int = 12) -> models.SparseVector:
    indices = random.choice(40, random.integers(1, most), replace=False).tolist()
    return models.SparseVector(indices=indices, values=random.uniform(0.1, 2, len(indices)).astype(np.float32).tolist())


def vectors(random: np.random.Generator) -> dict[str, Any]:
    """Some vectors of each point are missing."""
    every = {name: dense(random) for name in DENSE} | {name: multi(random) for name in MULTI}
    every |= {name: sparse(random) for name in SPARSE}
    return {name: vector for name, vector in every.items() if random.random() < 0.9}


def payload(random: np.random.Generator, number: int) -> dict[str, Any]:
    found = {
        "n": number % 50,
        "f": float(np.float32(random.normal())),
        "tag": "abcde"[random.integers(5)],
        "tags": [str(tag) for tag in random.choice(["x", "y", "z", "w"], random.integers(0, 4), replace=False)],
        "flag": bool(random.integers(2)),
        "at": f"2024-0{random.integers(1, 10)}-{random.integers(10, 29)}T{random.integers(10, 24)}:30:00Z",
        "place": {"lon": float(random.uniform(-10, 10)), "lat": float(random.uniform(40, 60))},
        "text": " ".join(random.choice(WORDS, 4)),
        "uuid": str(UUID(int=int(random.integers(6)))),
        "parts": [{"size": int(random.integers(5)), "kind": "pq"[random.integers(2)]} for _ in range(random.integers(0, 3))],
        "deep": {"er": {"value": number % 7}, "list": [[number % 3], number % 4]},
        "maybe": [None, [], [None, 1], "here"][number % 4],
        "odd": [True, number % 3, "text", 1.5][number % 4],
        "group": [number % 6, f"g{number % 3}", [number % 2, "both"], 2.5][number % 4],
    }
    return {key: value for key, value in found.items() if random.random() < 0.9}


def ids() -> list[int | str]:
    return [number if number % 3 else str(UUID(int=number * 7919)) for number in range(1, COUNT + 1)]


def points(seed: int = 0) -> list[models.PointStruct]:
    random = np.random.default_rng(seed)
    return [
        models.PointStruct(id=id_, vector=vectors(random), payload=payload(random, number)) for number, id_ in enumerate(ids())
    ]


def create(client: QdrantClient, name: str, shards: int = 2) -> None:
    max_sim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    config = {name: models.VectorParams(size=SIZE, distance=models.Distance(kind)) for name, kind in DENSE.items()}
    config |= {
        name: models.VectorParams(size=4, distance=models.Distance(kind), multivector_config=max_sim)
        for name, kind in MULTI.items()
    }
    sparse_config = {
        "sparse": models.SparseVectorParams(),
        "rare": models.SparseVectorParams(modifier=models.Modifier.IDF),
    }
    client.create_collection(name, vectors_config=config, sparse_vectors_config=sparse_config, shard_number=shards)


def fill(client: QdrantClient, name: str, seed: int = 0) -> None:
    create(client, name)
    client.upsert(name, points(seed))
