"""Searches for what is near a vector or a point, by every distance (V11)."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import Ask, compare
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT, DENSE, MULTI
from tests.gateway.dialect.congruence.questions import AT, EVEN, NAMES, having, query


def nearest(name: str) -> dict[str, Ask]:
    found = {
        "vector": query(AT[name], name),
        "all": query(AT[name], name, limit=COUNT),
        "offset": query(AT[name], name, limit=5, offset=7),
        "filter": query(AT[name], name, query_filter=EVEN),
        "exact": query(AT[name], name, search_params=models.SearchParams(exact=True)),
        "ef": query(AT[name], name, search_params=models.SearchParams(hnsw_ef=200, indexed_only=True)),
        "by id": query(having(name, 1)[0], name, limit=COUNT),
        "as object": query(models.NearestQuery(nearest=AT[name]), name),
        "payload": query(AT[name], name, with_payload=["tag", "deep.er"], with_vectors=[name]),
        "vectors": query(AT[name], name, with_payload=False, with_vectors=True),
        "looked up": query(having(name, 1)[0], name, lookup_from=models.LookupLocation(collection=ALL, vector=name), limit=COUNT),
    }
    if name in DENSE or name in MULTI:
        found["numpy"] = query(np.array(AT[name], np.float32), name)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nearest(both: list[QdrantClient], name: str) -> None:
    """Every distance, dense, multi and sparse, by vector and by id (V11, I10)."""
    for label, ask in nearest(name).items():
        try:
            hits = compare(both, ask)["points"]
        except AssertionError as error:
            raise AssertionError(label) from error
        assert hits, label
