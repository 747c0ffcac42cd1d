"""Searches, scrolls, facets and selectors through the dialect's own client, unchanged (N6, U1)."""

from __future__ import annotations

import numpy as np
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.numbered_points import COUNT, field, points


def test_search_is_ordered_and_exact(client: QdrantClient, filled: str) -> None:
    query = np.array([0.5, -1, 0.25, 2])
    distances = {point.id: float(np.linalg.norm(np.array(point.vector) - query)) for point in points()}
    expected = sorted(distances, key=lambda i: distances[i])
    for hits in (
        client.query_points(filled, query=query.tolist(), limit=7, offset=2, with_payload=True, with_vectors=True).points,
        client.query_points(
            filled, query=query.tolist(), limit=7, offset=2, search_params=models.SearchParams(exact=True)
        ).points,
    ):
        assert [hit.id for hit in hits] == expected[2:9]
        assert np.allclose([hit.score for hit in hits], [distances[i] for i in expected[2:9]], atol=1e-5)
    near = client.query_points(filled, query=query.tolist(), limit=COUNT, score_threshold=distances[expected[4]]).points
    assert {hit.id for hit in near} <= set(expected[:5])
    assert {hit.id for hit in near} >= set(expected[:4])


def test_query_by_id_leaves_the_point_out(client: QdrantClient, filled: str) -> None:
    hits = client.query_points(filled, query=5, limit=COUNT).points
    assert 5 not in {hit.id for hit in hits}
    assert len(hits) == COUNT - 1


def test_batches(client: QdrantClient, filled: str) -> None:
    requests = [models.QueryRequest(query=[float(i), 0, 0, 0], limit=2, with_payload=True) for i in range(3)]
    answers = client.query_batch_points(filled, requests)
    alone = [client.query_points(filled, query=request.query, limit=2).points for request in requests]
    assert [[hit.id for hit in answer.points] for answer in answers] == [[hit.id for hit in hits] for hits in alone]


def test_scroll_pages_through_everything(client: QdrantClient, filled: str) -> None:
    seen, offset = [], None
    while True:
        page, offset = client.scroll(filled, limit=7, offset=offset, with_vectors=True)
        seen += page
        if offset is None:
            break
    assert [point.id for point in seen] == list(range(COUNT))
    assert np.allclose([point.vector for point in seen], [point.vector for point in points()], atol=1e-6)


def test_facets(client: QdrantClient, filled: str) -> None:
    hits = client.facet(filled, "tag", limit=2).hits
    assert [(hit.value, hit.count) for hit in hits] == [("a", 14), ("b", 13)]
    client.create_payload_index(filled, "tag", "keyword")
    only_even = models.Filter(must=[field("even", match=models.MatchValue(value=True))])
    assert {hit.value: hit.count for hit in client.facet(filled, "tag", facet_filter=only_even).hits} == {"a": 7, "b": 6, "c": 7}


def test_payload_selectors(client: QdrantClient, filled: str) -> None:
    def get(selector: object) -> dict[str, object] | None:
        return client.retrieve(filled, [4], with_payload=selector)[0].payload

    assert get(["n", "tag"]) == {"n": 4, "tag": "b"}
    assert get(models.PayloadSelectorExclude(exclude=["text", "at", "f"])) == {"n": 4, "even": True, "tag": "b"}
    assert get(False) is None
