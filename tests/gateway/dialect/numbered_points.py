"""Forty points whose payload follows from their number, so that a test can say which of them a filter means."""

from __future__ import annotations

import numpy as np
from qdrant_client import models

COUNT = 40


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


def field(key: str, **condition: object) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)
