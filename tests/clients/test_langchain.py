"""LangChain's vector store on a node: dense, sparse and hybrid retrieval, as `langchain-qdrant` writes its requests (N6, V12)."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector
from langchain_qdrant.qdrant import QdrantVectorStoreError
from qdrant_client import models

from tests.clients.songs import SONGS, by_meaning, by_words, dense, fused, sparse

QUERY = "Slow quiet piano by moonlight"
BY_DEBUSSY = models.Filter(must=[models.FieldCondition(key="metadata.composer", match=models.MatchValue(value="Debussy"))])
BEFORE_1900 = models.Filter(must=[models.FieldCondition(key="metadata.year", range=models.Range(lt=1900))])


class Meaning(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [dense(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return dense(text)


class Words(SparseEmbeddings):
    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> SparseVector:
        indices, values = sparse(text)
        return SparseVector(indices=indices, values=values)


EMBEDDED_BY = {
    RetrievalMode.DENSE: {"embedding": Meaning()},
    RetrievalMode.SPARSE: {"embedding": None, "sparse_embedding": Words()},
    RetrievalMode.HYBRID: {"embedding": Meaning(), "sparse_embedding": Words()},
}
FOUND_BY = {
    RetrievalMode.DENSE: by_meaning(QUERY),
    RetrievalMode.SPARSE: by_words(QUERY),
    RetrievalMode.HYBRID: fused(by_meaning(QUERY), by_words(QUERY)),
}


def filled(url: str, collection: str, mode: RetrievalMode = RetrievalMode.DENSE) -> QdrantVectorStore:
    """A store with the songs, made the way the documentation shows."""
    return QdrantVectorStore.from_documents(
        [Document(song.text, id=song.id, metadata=song.metadata) for song in SONGS],
        ids=[song.id for song in SONGS],
        url=url,
        collection_name=collection,
        retrieval_mode=mode,
        **EMBEDDED_BY[mode],
    )


def titles(documents: list[Document]) -> list[str]:
    return [document.metadata["title"] for document in documents]


@pytest.mark.parametrize("mode", RetrievalMode, ids=lambda mode: mode.value)
def test_each_mode_ranks_as_its_embeddings_do(url: str, collection: str, mode: RetrievalMode) -> None:
    """By meaning, by words, or by both fused: each song comes where and with the score that arithmetic gives it."""
    store = filled(url, collection, mode)
    found = store.similarity_search_with_score(QUERY, k=len(SONGS))
    assert titles([document for document, _ in found]) == list(FOUND_BY[mode])
    assert [score for _, score in found] == pytest.approx(list(FOUND_BY[mode].values()), abs=1e-5)
    by_composer = {song.title: song.composer for song in SONGS}
    expected = [title for title in FOUND_BY[mode] if by_composer[title] == "Debussy"]
    assert titles(store.similarity_search(QUERY, filter=BY_DEBUSSY)) == expected


@pytest.mark.parametrize("mode", RetrievalMode, ids=lambda mode: mode.value)
def test_an_existing_collection_is_opened_and_goes_on(url: str, collection: str, mode: RetrievalMode) -> None:
    """The store reads the collection's configuration before it trusts it; what it then adds and deletes the first one sees."""
    first = filled(url, collection, mode)
    second = QdrantVectorStore.from_existing_collection(collection, url=url, retrieval_mode=mode, **EMBEDDED_BY[mode])
    (added,) = second.add_texts(["A quiet piano, slow by moonlight"], [{"title": "Nocturne", "year": 1832}])
    assert titles(first.similarity_search(QUERY, k=1)) == ["Nocturne"]
    assert titles(first.get_by_ids([added])) == ["Nocturne"]
    assert second.delete([added])
    assert first.get_by_ids([added]) == []
    assert "Nocturne" not in titles(first.similarity_search(QUERY, k=10))


def test_a_collection_of_another_shape_is_refused(url: str, collection: str) -> None:
    filled(url, collection)
    with pytest.raises(QdrantVectorStoreError, match="does not contain sparse vectors"):
        QdrantVectorStore.from_existing_collection(
            collection, url=url, retrieval_mode=RetrievalMode.SPARSE, sparse_embedding=Words()
        )
    with pytest.raises(QdrantVectorStoreError, match="distance"):
        QdrantVectorStore.from_existing_collection(collection, Meaning(), url=url, distance=models.Distance.DOT)


def test_searches_take_offsets_thresholds_and_vectors(url: str, collection: str) -> None:
    store = filled(url, collection)
    expected = by_meaning(QUERY)
    assert titles(store.similarity_search(QUERY, k=2, offset=1)) == list(expected)[1:3]
    near = store.similarity_search_with_score(QUERY, k=10, score_threshold=0.5)
    assert len(near) == sum(score >= 0.5 for score in expected.values())
    assert titles(store.similarity_search_by_vector(dense(QUERY), k=3, filter=BEFORE_1900)) == ["Gymnopédie No. 1", "Toccata"]
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"k": 3, "score_threshold": 0.9})
    assert titles(retriever.invoke(QUERY)) == ["Clair de lune", "Gymnopédie No. 1"]


def test_maximal_marginal_relevance_prefers_what_differs(url: str, collection: str) -> None:
    """The two nearest are nearly the same; a search for diversity takes the first of them and something else."""
    store = filled(url, collection)
    assert titles(store.similarity_search(QUERY, k=2)) == ["Clair de lune", "Gymnopédie No. 1"]
    first, second = titles(store.max_marginal_relevance_search(QUERY, k=2, fetch_k=6, lambda_mult=0.9))
    assert first == "Clair de lune"
    assert second not in ("Clair de lune", "Gymnopédie No. 1")


def test_a_recreated_collection_starts_anew(url: str, collection: str) -> None:
    filled(url, collection)
    store = QdrantVectorStore.from_texts(
        ["A loud organ"], Meaning(), [{"title": "Toccata"}], url=url, collection_name=collection, force_recreate=True
    )
    assert titles(store.similarity_search(QUERY, k=10)) == ["Toccata"]
    assert store.client.count(collection).count == 1
