"""LlamaIndex's vector store on a node: nodes in and out, its filters, hybrid search, and an index on top (N6, V12)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient

from tests.clients.songs import SONGS, TITLES, by_meaning, by_words, dense, sparse

QUERY = "Slow quiet piano by moonlight"


class Meaning(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return dense(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return dense(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return dense(query)


def by_sparse_words(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
    encoded = [sparse(text) for text in texts]
    return [indices for indices, _ in encoded], [values for _, values in encoded]


def nodes() -> list[TextNode]:
    """A node for each song; those of one composer come from one document."""
    return [
        TextNode(
            id_=song.id,
            text=song.text,
            metadata=song.metadata,
            excluded_embed_metadata_keys=list(song.metadata),
            embedding=dense(song.text),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"works of {song.composer}")},
        )
        for song in SONGS
    ]


@pytest.fixture
def client(url: str) -> Iterator[QdrantClient]:
    client = QdrantClient(url=url, timeout=30)
    yield client
    client.close()


@pytest.fixture(params=[False, True], ids=["dense", "hybrid"])
def store(client: QdrantClient, collection: str, request: pytest.FixtureRequest) -> QdrantVectorStore:
    """A store with the songs, which keeps sparse vectors too or does not."""
    words = {"sparse_doc_fn": by_sparse_words, "sparse_query_fn": by_sparse_words} if request.param else {}
    store = QdrantVectorStore(collection, client=client, enable_hybrid=request.param, **words)
    assert store.add(nodes()) == [song.id for song in SONGS]
    return store


def where(*conditions: tuple[str, FilterOperator, object], condition: FilterCondition = FilterCondition.AND) -> MetadataFilters:
    filters = [MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in conditions]
    return MetadataFilters(filters=filters, condition=condition)


FILTERS = {
    "equal": (where(("composer", FilterOperator.EQ, "Debussy")), lambda song: song.composer == "Debussy"),
    "not equal": (where(("composer", FilterOperator.NE, "Debussy")), lambda song: song.composer != "Debussy"),
    "range": (
        where(("year", FilterOperator.GTE, 1888), ("year", FilterOperator.LT, 1913)),
        lambda song: 1888 <= song.year < 1913,
    ),
    "in": (where(("composer", FilterOperator.IN, ["Pärt", "Satie"])), lambda song: song.composer in ("Pärt", "Satie")),
    "not in": (where(("composer", FilterOperator.NIN, ["Pärt", "Satie"])), lambda song: song.composer not in ("Pärt", "Satie")),
    "text": (where(("title", FilterOperator.TEXT_MATCH, "Spiegel")), lambda song: "Spiegel" in song.title),
    "empty": (where(("opus", FilterOperator.IS_EMPTY, None)), lambda song: True),
    "or": (
        where(("year", FilterOperator.GT, 1950), ("composer", FilterOperator.EQ, "Satie"), condition=FilterCondition.OR),
        lambda song: song.year > 1950 or song.composer == "Satie",
    ),
    "not": (
        where(("composer", FilterOperator.EQ, "Satie"), condition=FilterCondition.NOT),
        lambda song: song.composer != "Satie",
    ),
}


def test_a_query_ranks_by_meaning_and_gives_whole_nodes(store: QdrantVectorStore) -> None:
    answer = store.query(VectorStoreQuery(query_embedding=dense(QUERY), similarity_top_k=len(SONGS)))
    expected = by_meaning(QUERY)
    assert [TITLES[id_] for id_ in answer.ids] == list(expected)
    assert answer.similarities == pytest.approx(list(expected.values()), abs=1e-5)
    texts = {song.title: song.text for song in SONGS}
    assert [(node.metadata["title"], node.text) for node in answer.nodes] == [(title, texts[title]) for title in expected]


@pytest.mark.parametrize("label", FILTERS)
def test_a_filter_means_what_it_says(store: QdrantVectorStore, label: str) -> None:
    """In queries and where nodes are fetched (V12)."""
    filters, passes = FILTERS[label]
    expected = {song.title for song in SONGS if passes(song)}
    answer = store.query(VectorStoreQuery(query_embedding=dense(QUERY), similarity_top_k=10, filters=filters))
    assert {TITLES[id_] for id_ in answer.ids} == expected
    assert {node.metadata["title"] for node in store.get_nodes(filters=filters)} == expected


def test_a_query_can_keep_to_documents_and_nodes(store: QdrantVectorStore) -> None:
    near = VectorStoreQuery(query_embedding=dense(QUERY), similarity_top_k=10, doc_ids=["works of Debussy"])
    assert {TITLES[id_] for id_ in store.query(near).ids} == {"Clair de lune", "La mer"}
    near = VectorStoreQuery(query_embedding=dense(QUERY), similarity_top_k=10, node_ids=[SONGS[5].id, SONGS[1].id])
    assert [TITLES[id_] for id_ in store.query(near).ids] == ["Gymnopédie No. 1", "Toccata"]


def test_hybrid_and_sparse_queries(client: QdrantClient, collection: str) -> None:
    """Fused by the store itself, from a batch of one dense and one sparse query."""
    store = QdrantVectorStore(
        collection, client=client, enable_hybrid=True, sparse_doc_fn=by_sparse_words, sparse_query_fn=by_sparse_words
    )
    store.add(nodes())
    words = VectorStoreQuery(query_str=QUERY, mode=VectorStoreQueryMode.SPARSE, similarity_top_k=10)
    answer = store.query(words)
    assert dict(zip((TITLES[id_] for id_ in answer.ids), answer.similarities, strict=True)) == by_words(QUERY)
    both = VectorStoreQuery(dense(QUERY), similarity_top_k=3, query_str=QUERY, mode=VectorStoreQueryMode.HYBRID, alpha=0.5)
    assert [TITLES[id_] for id_ in store.query(both).ids] == ["Clair de lune", "Spiegel im Spiegel", "Gymnopédie No. 1"]


def test_nodes_go_one_by_one_by_document_and_all(store: QdrantVectorStore, client: QdrantClient, collection: str) -> None:
    def left() -> set[str]:
        return {node.metadata["title"] for node in store.get_nodes()}

    assert [node.metadata["title"] for node in store.get_nodes([SONGS[0].id])] == ["Clair de lune"]
    store.delete("works of Debussy")
    assert left() == {"Gymnopédie No. 1", "The Rite of Spring", "Spiegel im Spiegel", "Toccata"}
    store.delete_nodes([SONGS[5].id])
    assert left() == {"Gymnopédie No. 1", "The Rite of Spring", "Spiegel im Spiegel"}
    store.delete_nodes(filters=where(("year", FilterOperator.GT, 1900)))
    assert left() == {"Gymnopédie No. 1"}
    store.clear()
    assert not client.collection_exists(collection)


def test_an_index_is_built_and_found_again(client: QdrantClient, collection: str) -> None:
    """What applications use: an index over the store, and one over the same collection in another session."""
    store = QdrantVectorStore(collection, client=client)
    store.add(nodes())
    index = VectorStoreIndex.from_vector_store(QdrantVectorStore(collection, client=client), embed_model=Meaning())
    index.insert_nodes([TextNode(text="A quiet piano", metadata={"title": "Nocturne"}, excluded_embed_metadata_keys=["title"])])
    found = index.as_retriever(similarity_top_k=2).retrieve(QUERY)
    assert [hit.node.metadata["title"] for hit in found] == ["Nocturne", "Clair de lune"]
    early = index.as_retriever(similarity_top_k=2, filters=FILTERS["range"][0]).retrieve(QUERY)
    assert [hit.node.metadata["title"] for hit in early] == ["Clair de lune", "Gymnopédie No. 1"]


def test_the_asynchronous_store(url: str, collection: str) -> None:
    async def story() -> None:
        client = AsyncQdrantClient(url=url, timeout=30)
        store = QdrantVectorStore(collection, aclient=client)
        await store.async_add(nodes())
        answer = await store.aquery(VectorStoreQuery(query_embedding=dense(QUERY), similarity_top_k=2))
        assert [TITLES[id_] for id_ in answer.ids] == ["Clair de lune", "Gymnopédie No. 1"]
        await store.adelete("works of Debussy")
        await store.adelete_nodes([SONGS[5].id])
        assert {node.metadata["composer"] for node in await store.aget_nodes(limit=10)} == {"Satie", "Stravinsky", "Pärt"}
        await client.close()

    asyncio.run(story())
