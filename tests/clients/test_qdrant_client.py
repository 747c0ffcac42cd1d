"""The Python client of the dialect over REST, blocking and asynchronous, through all it is used for (N6, V12).

What each filter and edit does in every corner is tests/gateway's; here a user's day with the client is told once for both.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.clients.songs import DIMENSIONS, SONGS, TITLES, by_each_word, by_meaning, by_words, dense, each_word, fused, sparse

QUERY = "Slow quiet piano by moonlight"
IDS = {title: id_ for id_, title in TITLES.items()}
MANY = 500


class Blocking:
    """An asynchronous client called as the other one is: what it answers is awaited."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            answer = getattr(self._client, name)(*positional, **named)
            return self._loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer

        return call

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


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


def sparse_vector(text: str) -> models.SparseVector:
    indices, values = sparse(text)
    return models.SparseVector(indices=indices, values=values)


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


def titles(points: list[Any]) -> list[str]:
    return [TITLES[str(point.id)] for point in points]


def matches(key: str, value: object) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])


def payload_of(client: Any, collection: str, title: str) -> dict[str, Any] | None:
    (record,) = client.retrieve(collection, [IDS[title]])
    return record.payload


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


def test_payload_is_indexed_counted_and_ordered(client: Any, songs: str) -> None:
    assert client.create_payload_index(songs, "composer", models.PayloadSchemaType.KEYWORD, wait=True).status == "completed"
    client.create_payload_index(songs, "year", models.IntegerIndexParams(type="integer", lookup=True, range=True), wait=True)
    schema = client.get_collection(songs).payload_schema
    assert {name: (index.data_type, index.points) for name, index in schema.items()} == {
        "composer": ("keyword", 6),
        "year": ("integer", 6),
    }
    hits = client.facet(songs, "composer", limit=2).hits
    assert (hits[0].value, hits[0].count, hits[1].count) == ("Debussy", 2, 1)
    early = models.Filter(must=[models.FieldCondition(key="year", range=models.Range(lt=1900))])
    assert client.count(songs, count_filter=early, exact=True).count == 2
    page, _ = client.scroll(songs, order_by=models.OrderBy(key="year", direction=models.Direction.DESC), limit=2)
    assert titles(page) == ["Spiegel im Spiegel", "The Rite of Spring"]
    client.delete_payload_index(songs, "year", wait=True)
    assert set(client.get_collection(songs).payload_schema) == {"composer"}


def test_edits_one_by_one_and_in_a_batch(client: Any, songs: str) -> None:
    """The operations of a batch apply in their order."""
    clair, mer, toccata = IDS["Clair de lune"], IDS["La mer"], IDS["Toccata"]
    client.set_payload(songs, {"style": "Impressionism"}, points=matches("composer", "Debussy"))
    assert payload_of(client, songs, "La mer")["style"] == "Impressionism"
    client.overwrite_payload(songs, {"style": "Minimalism"}, points=[IDS["Spiegel im Spiegel"]])
    assert payload_of(client, songs, "Spiegel im Spiegel") == {"style": "Minimalism"}
    client.delete_vectors(songs, ["each word"], points=[mer])
    client.update_vectors(songs, [models.PointVectors(id=mer, vector={"meaning": dense("quiet piano")})])
    (record,) = client.retrieve(songs, [mer], with_vectors=True)
    assert set(record.vector) == {"meaning", "words"}
    assert record.vector["meaning"] == pytest.approx(dense("quiet piano"), abs=1e-6)
    results = client.batch_update_points(
        songs,
        [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"seen": 1, "heard": 1}, points=[clair, mer])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["seen"], points=[clair])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[mer])),
            models.DeleteOperation(delete=models.PointIdsList(points=[toccata])),
            models.UpsertOperation(
                upsert=models.PointsList(points=[models.PointStruct(id=toccata, vector={"meaning": dense("loud organ")})])
            ),
        ],
    )
    assert [result.status for result in results] == ["completed"] * 5
    assert {*payload_of(client, songs, "Clair de lune")} == {"title", "composer", "year", "style", "heard"}
    assert payload_of(client, songs, "La mer") == {}
    assert payload_of(client, songs, "Toccata") == {}
    client.delete(songs, models.FilterSelector(filter=matches("composer", "Satie")))
    client.delete(songs, [toccata])
    assert client.count(songs).count == 4


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


def test_collections_have_a_life_and_other_names(client: Any, songs: str, collection: str) -> None:
    old, new = f"{collection}-old", f"{collection}-new"
    client.create_collection(new, vectors_config=models.VectorParams(size=2, distance=models.Distance.EUCLID))
    assert client.collection_exists(new)
    assert {songs, new} <= {described.name for described in client.get_collections().collections}
    config = client.get_collection(songs).config.params
    assert (config.vectors["meaning"].size, set(config.sparse_vectors), config.shard_number) == (DIMENSIONS, {"words"}, 2)
    assert client.update_collection(new, hnsw_config=models.HnswConfigDiff(m=32))
    assert client.get_collection(new).config.hnsw_config.m == 32

    alias = f"{collection}-alias"
    named = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=songs, alias_name=alias))
    client.update_collection_aliases([named])
    assert client.count(alias).count == len(SONGS)
    switched = [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=new, alias_name=alias)),
        models.RenameAliasOperation(rename_alias=models.RenameAlias(old_alias_name=alias, new_alias_name=old)),
    ]
    client.update_collection_aliases(switched)
    assert client.count(old).count == 0
    assert [known.alias_name for known in client.get_collection_aliases(new).aliases] == [old]
    assert old in {known.alias_name for known in client.get_aliases().aliases}
    assert client.delete_collection(new)
    assert not client.collection_exists(new)
    assert not client.collection_exists(old)


def test_distances_among_the_points(client: Any, songs: str) -> None:
    pairs = client.search_matrix_pairs(songs, using="meaning", sample=6, limit=1).pairs
    nearest = {TITLES[str(pair.a)]: TITLES[str(pair.b)] for pair in pairs}
    assert (nearest["Clair de lune"], nearest["Gymnopédie No. 1"]) == ("Gymnopédie No. 1", "Clair de lune")
    offsets = client.search_matrix_offsets(songs, using="meaning", sample=6, limit=2)
    assert (len(offsets.ids), len(offsets.scores)) == (6, 12)


def test_a_mistake_is_told(client: Any, songs: str) -> None:
    with pytest.raises(UnexpectedResponse, match="404") as raised:
        client.count(f"{songs}-never")
    assert f"{songs}-never" in raised.value.content.decode()
    with pytest.raises(UnexpectedResponse, match="400"):
        client.query_points(songs, [1.0, 0.0], using="meaning")


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
