"""The best hits by a payload value (V12)."""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import Ask, compare
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT, OTHER
from tests.gateway.dialect.congruence.questions import AT, EVEN, RRF, prefetch


def groups(group_by: str, **kwargs: Any) -> Ask:
    return lambda client: client.query_points_groups(ALL, group_by, **kwargs)


GROUPS = {
    "keyword": groups("tag", query=AT["cos"], using="cos", limit=3, group_size=4),
    "array": groups("tags", query=AT["dot"], using="dot", group_size=5, query_filter=EVEN),
    "mixed": groups("group", query=AT["euclid"], using="euclid", limit=20, group_size=2, with_payload=["group"]),
    "inner": groups("parts[].size", query=AT["many"], using="many", limit=9, with_vectors=["cos"]),
    "sparse": groups("n", query=AT["rare"], using="rare", limit=50, group_size=1),
    "fusion": groups("tag", prefetch=[prefetch("cos", COUNT), prefetch("dot", COUNT)], query=RRF, group_size=20),
    "by id": groups("tag", group_size=2),
    "lookup": groups("n", query=AT["cos"], using="cos", limit=9, with_lookup=OTHER),
    "lookup in parts": groups(
        "n",
        query=AT["cos"],
        using="cos",
        limit=9,
        with_lookup=models.WithLookup(collection=OTHER, with_payload=["tag"], with_vectors=["dot"]),
    ),
    "no payload": groups("tag", query=AT["cos"], using="cos", with_payload=False, score_threshold=0.1),
}


@pytest.mark.parametrize("label", GROUPS)
def test_groups(both: list[QdrantClient], label: str) -> None:
    """The best hits by a payload value, with the points of that id elsewhere (V12)."""
    assert compare(both, GROUPS[label])["groups"]
