"""Haystack's document store on a node: policies for duplicates, its filters, and its three retrievers (N6, V12)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.qdrant import (
    QdrantEmbeddingRetriever,
    QdrantHybridRetriever,
    QdrantSparseEmbeddingRetriever,
)
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from qdrant_client import models

from tests.clients.songs import DIMENSIONS, SONGS, by_meaning, by_words, dense, fused, sparse

QUERY = "Slow quiet piano by moonlight"
Filters = dict[str, Any]


def by_sparse_words(text: str) -> SparseEmbedding:
    indices, values = sparse(text)
    return SparseEmbedding(indices, values)


def documents() -> list[Document]:
    return [
        Document(
            id=song.title,
            content=song.text,
            meta=song.metadata,
            embedding=dense(song.text),
            sparse_embedding=by_sparse_words(song.text),
        )
        for song in SONGS
    ]


def store_of(url: str, collection: str, **settings: object) -> QdrantDocumentStore:
    defaults = {"use_sparse_embeddings": True, "progress_bar": False, "return_embedding": True}
    return QdrantDocumentStore(url=url, index=collection, embedding_dim=DIMENSIONS, **defaults | settings)


@pytest.fixture
def store(url: str, collection: str) -> QdrantDocumentStore:
    """A store with the songs, in batches of four."""
    store = store_of(
        url, collection, write_batch_size=4, payload_fields_to_index=[{"field_name": "meta.year", "field_schema": "integer"}]
    )
    assert store.write_documents(documents()) == len(SONGS)
    return store


def field(key: str, operator: str, value: object) -> Filters:
    return {"field": f"meta.{key}", "operator": operator, "value": value}


def joined(operator: str, *conditions: Filters) -> Filters:
    return {"operator": operator, "conditions": list(conditions)}


FILTERS = {
    "equal": (field("composer", "==", "Debussy"), lambda song: song.composer == "Debussy"),
    "not equal": (field("composer", "!=", "Debussy"), lambda song: song.composer != "Debussy"),
    "greater": (field("year", ">", 1905), lambda song: song.year > 1905),
    "at most": (field("year", "<=", 1888), lambda song: song.year <= 1888),
    "in": (field("composer", "in", ["Pärt", "Satie"]), lambda song: song.composer in ("Pärt", "Satie")),
    "not in": (field("composer", "not in", ["Pärt", "Satie"]), lambda song: song.composer not in ("Pärt", "Satie")),
    "and": (
        joined("AND", field("year", ">=", 1888), field("year", "<", 1913)),
        lambda song: 1888 <= song.year < 1913,
    ),
    "or": (
        joined("OR", field("year", ">", 1950), joined("AND", field("year", "==", 1905), field("title", "==", "La mer"))),
        lambda song: song.year > 1950 or song.title == "La mer",
    ),
    "not": (joined("NOT", field("year", "==", 1905)), lambda song: song.year != 1905),
}


def titles(found: list[Document]) -> list[str]:
    return [document.meta["title"] for document in found]


def test_documents_come_back_as_they_were_written(store: QdrantDocumentStore) -> None:
    assert store.count_documents() == len(SONGS)
    (found,) = store.get_documents_by_id(["La mer"])
    (written,) = [document for document in documents() if document.id == "La mer"]
    assert (found.id, found.content, found.meta) == (written.id, written.content, written.meta)
    assert found.embedding == pytest.approx(written.embedding, abs=1e-6)
    assert found.sparse_embedding is not None
    assert written.sparse_embedding is not None
    assert sorted(zip(found.sparse_embedding.indices, found.sparse_embedding.values, strict=True)) == sorted(
        zip(written.sparse_embedding.indices, written.sparse_embedding.values, strict=True)
    )


@pytest.mark.parametrize("label", FILTERS)
def test_a_filter_means_what_it_says(store: QdrantDocumentStore, label: str) -> None:
    """Where documents are fetched, counted and retrieved (V12)."""
    filters, passes = FILTERS[label]
    expected = {song.title for song in SONGS if passes(song)}
    assert {*titles(store.filter_documents(filters))} == expected
    assert store.count_documents_by_filter(filters) == len(expected)
    found = QdrantEmbeddingRetriever(store, filters=filters).run(dense(QUERY))["documents"]
    assert {*titles(found)} == expected


def test_duplicates_follow_the_policy(store: QdrantDocumentStore) -> None:
    changed = Document(id="La mer", content="The sea", meta={"title": "La mer"}, embedding=[0.0, 0.0, 0.0, 1.0])
    with pytest.raises(DuplicateDocumentError):
        store.write_documents([changed], DuplicatePolicy.FAIL)
    store.write_documents([changed], DuplicatePolicy.SKIP)
    assert [found.content for found in store.get_documents_by_id(["La mer"])] == [SONGS[3].text]
    store.write_documents([changed], DuplicatePolicy.OVERWRITE)
    assert [found.content for found in store.get_documents_by_id(["La mer"])] == ["The sea"]
    assert store.count_documents() == len(SONGS)


def test_each_retriever_ranks_as_its_embeddings_do(store: QdrantDocumentStore) -> None:
    for retriever, asked, expected in [
        (QdrantEmbeddingRetriever(store, scale_score=False), {"query_embedding": dense(QUERY)}, by_meaning(QUERY)),
        (
            QdrantSparseEmbeddingRetriever(store, scale_score=False),
            {"query_sparse_embedding": by_sparse_words(QUERY)},
            by_words(QUERY),
        ),
        (
            QdrantHybridRetriever(store),
            {"query_embedding": dense(QUERY), "query_sparse_embedding": by_sparse_words(QUERY)},
            fused(by_words(QUERY), by_meaning(QUERY)),
        ),
    ]:
        found = retriever.run(**asked)["documents"]
        assert titles(found) == list(expected)
        assert [document.score for document in found] == pytest.approx(list(expected.values()), abs=1e-5)


def test_hybrid_retrieval_takes_weights_thresholds_and_groups(store: QdrantDocumentStore) -> None:
    asked = {"query_embedding": dense(QUERY), "query_sparse_embedding": by_sparse_words(QUERY)}
    words_only = QdrantHybridRetriever(store, rrf_k=2, rrf_weights=[1.0, 0.001], top_k=3).run(**asked)["documents"]
    assert titles(words_only) == list(by_words(QUERY))[:3]
    best = QdrantHybridRetriever(store, score_threshold=0.7).run(**asked)["documents"]
    assert titles(best) == ["Clair de lune", "Spiegel im Spiegel"]
    composers = QdrantHybridRetriever(store, group_by="meta.composer", group_size=1, top_k=2).run(**asked)["documents"]
    assert titles(composers) == ["Clair de lune", "Spiegel im Spiegel"]


def test_a_retriever_works_in_a_pipeline(store: QdrantDocumentStore) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", QdrantEmbeddingRetriever(store, top_k=1))
    again = Pipeline.loads(pipeline.dumps())  # with the store in it, which finds its collection anew
    assert titles(again.run({"retriever": {"query_embedding": dense(QUERY)}})["retriever"]["documents"]) == ["Clair de lune"]


def test_metadata_is_described_and_changed(store: QdrantDocumentStore) -> None:
    assert store.get_metadata_fields_info() == {"year": {"type": "integer"}}  # as it is indexed
    assert store.get_metadata_field_min_max("year") == {"min": 1879, "max": 1978}
    assert store.count_unique_metadata_by_filter({}, ["composer", "year"]) == {"composer": 5, "year": 5}
    assert store.update_by_filter(field("composer", "==", "Debussy"), {"style": "Impressionism"}) == 2
    assert {*titles(store.filter_documents(field("style", "==", "Impressionism")))} == {"Clair de lune", "La mer"}
    assert titles(QdrantEmbeddingRetriever(store, top_k=1).run(dense(QUERY))["documents"]) == ["Clair de lune"]


def test_documents_go_by_name_by_filter_and_all(store: QdrantDocumentStore) -> None:
    store.delete_documents(["Toccata", "never written"])
    assert store.count_documents() == 5
    assert store.delete_by_filter(field("year", ">", 1905)) == 2
    assert {*titles(store.filter_documents())} == {"Clair de lune", "Gymnopédie No. 1", "La mer"}
    store.delete_all_documents()
    assert store.count_documents() == 0


def test_a_collection_is_made_anew_from_its_own_description(url: str, collection: str) -> None:
    """Haystack reads size and distance from the configuration; it can do so where there is one vector only."""
    store = store_of(url, collection, use_sparse_embeddings=False)
    dense_only = [Document(content=song.text, meta=song.metadata, embedding=dense(song.text)) for song in SONGS]
    store.write_documents(dense_only)
    store.delete_all_documents(recreate_index=True)
    assert store.filter_documents() == []
    store.write_documents(dense_only)
    assert titles(QdrantEmbeddingRetriever(store, top_k=1).run(dense(QUERY))["documents"]) == ["Clair de lune"]


def test_another_store_opens_the_collection_if_its_shape_is_right(store: QdrantDocumentStore, url: str, collection: str) -> None:
    assert store_of(url, collection).count_documents() == len(SONGS)
    with pytest.raises(ValueError, match="similarity"):
        store_of(url, collection, similarity="dot_product").count_documents()
    assert store_of(url, collection, recreate_index=True, shard_number=2).count_documents() == 0


def test_native_filters_pass_through(store: QdrantDocumentStore) -> None:
    late = models.Filter(must=[models.FieldCondition(key="meta.year", range=models.Range(gt=1950))])
    assert titles(store.filter_documents(late)) == ["Spiegel im Spiegel"]


def test_the_asynchronous_store(url: str, collection: str) -> None:
    async def story() -> None:
        store = store_of(url, collection)
        assert await store.write_documents_async(documents()) == len(SONGS)
        found = await QdrantEmbeddingRetriever(store, top_k=2).run_async(dense(QUERY))
        assert titles(found["documents"]) == ["Clair de lune", "Gymnopédie No. 1"]
        await store.delete_documents_async(["Clair de lune"])
        assert await store.count_documents_async() == len(SONGS) - 1
        await store.close_async()

    asyncio.run(story())
