"""Pages, points, selectors, counts, facets, batches and thresholds (V11)."""

from __future__ import annotations

from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import Ask, compare
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT
from tests.gateway.dialect.congruence.questions import AT, EVEN, LISTS, RRF, having, query, scroll

PATHS = [
    ["parts[0]"],
    ["parts[0].size", "n"],
    ["parts[].size", "parts[].none"],
    ["parts[]"],
    ["parts", "parts[].size"],
    ["parts.size"],
    ["parts[].size.x", "n.x", "tag.y"],
    ["deep.er.value.x", "deep.list[0]"],
    ["deep.list[][]", "deep.er"],
    ["maybe[]", "tags[0]", "group[]"],
    ['"n"', '"deep".er', "none"],
]
READS: dict[str, Ask] = (
    {
        "page": scroll(limit=10, with_vectors=True),
        "next page": scroll(limit=10, offset=55),
        "from a uuid": scroll(limit=10, offset=str(UUID(int=60 * 7919))),
        "past all": scroll(offset="ffffffff-ffff-ffff-ffff-ffffffffffff"),
        "parts": scroll(limit=COUNT, with_payload=["deep.list[]", "parts[].size", "tags"], with_vectors=["dot", "sparse"]),
        "include": scroll(limit=COUNT, with_payload=models.PayloadSelectorInclude(include=["deep.er", "n"])),
        "exclude": scroll(limit=COUNT, with_payload=models.PayloadSelectorExclude(exclude=["deep.er", "parts[].kind", "text"])),
        "nothing": scroll(limit=COUNT, with_payload=[]),
        "retrieve": lambda client: client.retrieve(ALL, [7, 5, 999, 1, str(UUID(int=3 * 7919))], with_vectors=True),
        "retrieve parts": lambda client: client.retrieve(ALL, [1, 2], with_payload=["tag"], with_vectors=["far"]),
        "count": lambda client: client.count(ALL),
        "count roughly": lambda client: client.count(ALL, EVEN, exact=False),
        "facet keyword": lambda client: client.facet(ALL, "tag"),
        "facet array": lambda client: client.facet(ALL, "tags", limit=2),
        "facet integer": lambda client: client.facet(ALL, "n", facet_filter=EVEN, limit=100),
        "facet bool": lambda client: client.facet(ALL, "flag"),
        "facet uuid": lambda client: client.facet(ALL, "uuid", exact=True),
        "facet inner": lambda client: client.facet(ALL, "parts[].size"),
        "batch": lambda client: client.query_batch_points(
            ALL,
            [
                models.QueryRequest(query=AT["cos"], using="cos", limit=3, with_payload=True),
                models.QueryRequest(query=AT["rare"], using="rare", filter=EVEN, limit=5, with_vector=["cos"]),
                models.QueryRequest(prefetch=LISTS, query=RRF, limit=4, offset=1),
                models.QueryRequest(query=having("many", 1)[0], using="many", limit=5, score_threshold=0.5),
            ],
        ),
    }
    | {
        f"{kind.__name__} {' '.join(paths)}": scroll(limit=COUNT, with_payload=kind(**{key: paths}))
        for key, kind in (("include", models.PayloadSelectorInclude), ("exclude", models.PayloadSelectorExclude))
        for paths in PATHS
    }
    | {
        f"threshold {name}": query(AT[name], name, score_threshold=least, limit=COUNT)
        for name, least in {
            "cos": 0.2,
            "dot": 1.0,
            "euclid": 4.0,
            "manhattan": 8.0,
            "many": 1.0,
            "far": 5.0,
            "sparse": 3.0,
        }.items()
    }
)


@pytest.mark.parametrize("label", READS)
def test_reads(both: list[QdrantClient], label: str) -> None:
    """Pages, points, selectors, counts, facets, batches, thresholds (V11)."""
    compare(both, READS[label])
