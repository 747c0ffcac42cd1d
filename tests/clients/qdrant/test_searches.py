"""Searches through the Python client of the dialect (N6, V12).

What each filter and edit does in every corner is tests/gateway's; here a user's day with the client is told once, for the
blocking one and the asynchronous one.
"""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import models

from tests.clients.qdrant.asked_songs import IDS, QUERY, matches, sparse_vector, titles
from tests.clients.songs import TITLES, by_each_word, by_meaning, by_words, dense, each_word, fused


def test_each_kind_of_vector_ranks_as_arithmetic_does(client: Any, songs: str) -> None:
    for using, query, expected in [
        ("meaning", dense(QUERY), by_meaning(QUERY)),
        ("words", sparse_vector(QUERY), by_words(QUERY)),
        ("each word", each_word(QUERY), by_each_word(QUERY)),
    ]:
        hits = client.query_points(songs, query, using=using, with_payload=["title"]).points
        assert [hit.payload["title"] for hit in hits] == list(expected), using
        assert [hit.score for hit in hits] == pytest.approx(list(expected.values()), abs=1e-5), using
    near = client.query_points(songs, dense(QUERY), using="meaning", query_filter=matches("composer", "Debussy")).points
    assert titles(near) == ["Clair de lune", "La mer"]
    answers = client.query_batch_points(
        songs,
        [
            models.QueryRequest(query=dense(QUERY), using="meaning", limit=1),
            models.QueryRequest(query=IDS["Clair de lune"], using="meaning", limit=1),
        ],
    )
    assert [titles(answer.points) for answer in answers] == [["Clair de lune"], ["Gymnopédie No. 1"]]


def test_prefetches_are_fused_rescored_and_diversified(client: Any, songs: str) -> None:
    near = models.Prefetch(query=dense(QUERY), using="meaning", limit=6)
    alike = models.Prefetch(query=sparse_vector(QUERY), using="words", limit=6)
    expected = fused(by_meaning(QUERY), by_words(QUERY))
    hits = client.query_points(songs, models.FusionQuery(fusion=models.Fusion.RRF), prefetch=[near, alike]).points
    assert titles(hits) == list(expected)
    assert [hit.score for hit in hits] == pytest.approx(list(expected.values()), abs=1e-5)
    hits = client.query_points(songs, models.FusionQuery(fusion=models.Fusion.DBSF), prefetch=[near, alike], limit=1).points
    assert titles(hits) == ["Clair de lune"]
    few = models.Prefetch(query=sparse_vector(QUERY), using="words", limit=3)
    hits = client.query_points(songs, each_word(QUERY), using="each word", prefetch=few).points
    assert titles(hits) == [title for title in by_each_word(QUERY) if title in list(by_words(QUERY))[:3]]
    varied = models.NearestQuery(nearest=dense(QUERY), mmr=models.Mmr(diversity=0.9, candidates_limit=6))
    first, second = titles(client.query_points(songs, varied, using="meaning", limit=2).points)
    assert (first, second == "Gymnopédie No. 1") == ("Clair de lune", False)


def test_examples_recommend_and_discover(client: Any, songs: str) -> None:
    liked, disliked = IDS["Clair de lune"], IDS["The Rite of Spring"]
    for strategy in models.RecommendStrategy:
        asked = models.RecommendInput(positive=[liked], negative=[disliked], strategy=strategy)
        hits = client.query_points(songs, models.RecommendQuery(recommend=asked), using="meaning").points
        assert titles(hits)[0] == "Gymnopédie No. 1", strategy
        assert not {"Clair de lune", "The Rite of Spring"} & {*titles(hits)}, strategy
    pair = models.ContextPair(positive=liked, negative=IDS["Spiegel im Spiegel"])
    target = models.DiscoverInput(target=dense("loud"), context=[pair])
    hits = client.query_points(songs, models.DiscoverQuery(discover=target), using="meaning", limit=2).points
    assert titles(hits) == ["Toccata", "Gymnopédie No. 1"]


def test_groups_bring_what_they_are_about(client: Any, songs: str, collection: str) -> None:
    client.create_collection(f"{collection}-composers", vectors_config={})
    about = [models.PointStruct(id=n, vector={}, payload={"born": born}) for n, born in ((1905, 1862), (1888, 1866))]
    client.upsert(f"{collection}-composers", about)
    lookup = models.WithLookup(collection=f"{collection}-composers", with_payload=True)
    groups = client.query_points_groups(
        songs, group_by="year", query=dense(QUERY), using="meaning", limit=2, group_size=2, with_lookup=lookup
    ).groups
    assert [(group.id, titles(group.hits)) for group in groups] == [
        (1905, ["Clair de lune", "La mer"]),
        (1888, ["Gymnopédie No. 1"]),
    ]
    assert [group.lookup.payload for group in groups] == [{"born": 1862}, {"born": 1866}]


def test_distances_among_the_points(client: Any, songs: str) -> None:
    pairs = client.search_matrix_pairs(songs, using="meaning", sample=6, limit=1).pairs
    nearest = {TITLES[str(pair.a)]: TITLES[str(pair.b)] for pair in pairs}
    assert (nearest["Clair de lune"], nearest["Gymnopédie No. 1"]) == ("Gymnopédie No. 1", "Clair de lune")
    offsets = client.search_matrix_offsets(songs, using="meaning", sample=6, limit=2)
    assert (len(offsets.ids), len(offsets.scores)) == (6, 12)
