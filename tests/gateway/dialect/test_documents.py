"""A document may stand wherever a vector may: the answers are those to the vector that it means, and the scores BM25."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import log
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from qdrant_client import QdrantClient, models

from gateway.dialect.documents import MAX_TEXT_CHARS, MAX_TEXTS_CHARS
from gateway.inference.bm25 import Bm25Options, document_vector, options_of, query_vector
from journal.records import Vector
from tests.conftest import result

TEXTS = [
    "the red fox and the red hen",
    "a fox runs from the dogs",
    "dogs and hens are running, the dogs are red",
    "nothing of that kind",
    "hens",
    "a red dog",
]
LENGTHS = {"avg_len": 3.0}
MSGPACK = {"content-type": "application/msgpack"}


def document(text: str, **options: Any) -> dict[str, Any]:
    return {"text": text, "model": "Qdrant/BM25", "options": LENGTHS | options}


def sparse(vector: Vector) -> dict[str, Any]:
    return {"indices": vector["index"].tolist(), "values": vector["value"].tolist()}


def stored(text: str) -> dict[str, Any]:
    """The vector of a document as a client would send it."""
    return sparse(document_vector(text, options_of(LENGTHS, "")))


def asked(text: str) -> dict[str, Any]:
    return sparse(query_vector(text, Bm25Options()))


@pytest.fixture(scope="module")
def texts(node_url: str) -> Iterator[str]:
    """Points 0 to 5 with the vectors of the texts, by documents in both forms of an upsert."""
    name = f"texts-{uuid4().hex[:8]}"
    with httpx.Client(base_url=node_url, timeout=30) as http:
        made = {"vectors": {"size": 2, "distance": "Dot"}, "sparse_vectors": {"words": {"modifier": "idf"}}}
        result(http.put(f"/collections/{name}", json=made))
        listed = [{"id": at, "vector": {"": [at, 1], "words": document(TEXTS[at])}, "payload": {"n": at % 2}} for at in range(3)]
        result(http.put(f"/collections/{name}/points?wait=true", json={"points": listed}))
        vectors = {"": [[at, 1] for at in (3, 4, 5)], "words": [document(TEXTS[3]), stored(TEXTS[4]), document(TEXTS[5])]}
        batch = {"ids": [3, 4, 5], "vectors": vectors, "payloads": [{"n": at % 2} for at in (3, 4, 5)]}
        result(http.put(f"/collections/{name}/points?wait=true", json={"batch": batch}))
        yield name
        result(http.delete(f"/collections/{name}"))


def vectors_of(http: httpx.Client, name: str) -> dict[int, Any]:
    points: Any = result(http.post(f"/collections/{name}/points/scroll", json={"with_vector": True, "with_payload": False}))
    return {point["id"]: point["vector"] for point in points["points"]}


def test_the_stored_vectors_are_those_of_the_texts(http: httpx.Client, texts: str) -> None:
    """What is written is the vector: what is stored does not depend on how texts are cut later (I8)."""
    for at, vector in vectors_of(http, texts).items():
        expected = stored(TEXTS[at])
        assert vector["words"]["indices"] == expected["indices"]
        assert vector["words"]["values"] == pytest.approx(expected["values"])
        assert vector[""] == [at, 1]


def okapi(query: str) -> dict[int, float]:
    """BM25 by its formula, of all texts that have one of the query's words; the words' endings and the stopwords are known."""
    stems = [[re.sub("(n?ing|s)$", "", w) for w in re.findall(r"\w+", t) if w not in STOP] for t in [*TEXTS, query]]
    *texts, wanted = [Counter(terms) for terms in stems]
    scores = {}
    for at, terms in enumerate(texts):
        length = 1.2 * (1 - 0.75 + 0.75 * terms.total() / LENGTHS["avg_len"])
        scores[at] = sum(
            log(1 + (len(texts) - having + 0.5) / (having + 0.5)) * terms[term] * 2.2 / (terms[term] + length)
            for term in wanted
            if terms[term] and (having := sum(term in other for other in texts))
        )
    return {at: score for at, score in scores.items() if score}


STOP = {"the", "and", "a", "from", "are", "of", "that"}


@pytest.mark.parametrize("query", ["red dogs", "the fox runs", "hen", "kinds of nothing", "unheard"])
def test_the_score_is_bm25(http: httpx.Client, texts: str, query: str) -> None:
    body = {"query": {"text": query, "model": "qdrant/bm25"}, "using": "words"}
    points: Any = result(http.post(f"/collections/{texts}/points/query", json=body))
    assert {point["id"]: point["score"] for point in points["points"]} == pytest.approx(okapi(query))


def test_a_query_of_stopwords_finds_nothing(http: httpx.Client, texts: str) -> None:
    body = {"query": document("to be or not to be"), "using": "words"}
    assert result(http.post(f"/collections/{texts}/points/query", json=body)) == {"points": []}


X, Y, Z = "red dogs", "hens", "the fox"
QUERIES: dict[str, tuple[str, Any]] = {
    "plain": ("query", {"query": X}),
    "nearest": ("query", {"query": {"nearest": X}}),
    "mmr": ("query", {"query": {"nearest": X, "mmr": {"diversity": 0.5, "candidates_limit": 5}}}),
    "recommend": ("query", {"query": {"recommend": {"positive": [X, 3], "negative": [Y]}}}),
    "best score": ("query", {"query": {"recommend": {"positive": [X], "negative": [Y], "strategy": "best_score"}}}),
    "discover": ("query", {"query": {"discover": {"target": X, "context": [{"positive": Y, "negative": Z}]}}}),
    "context": ("query", {"query": {"context": [{"positive": Y, "negative": Z}, {"positive": X, "negative": 1}]}}),
    "feedback": (
        "query",
        {
            "query": {
                "relevance_feedback": {
                    "target": X,
                    "feedback": [{"example": Y, "score": 0.9}, {"example": 1, "score": 0.1}],
                    "strategy": {"naive": {"a": 1, "b": 1, "c": 1}},
                }
            }
        },
    ),
    "prefetch": (
        "query",
        {"prefetch": [{"query": X, "using": "words"}, {"query": Y, "using": "words"}], "query": {"fusion": "rrf"}},
    ),
    "batch": ("query/batch", {"searches": [{"query": X, "using": "words"}, {"query": {"nearest": Y}, "using": "words"}]}),
    "groups": ("query/groups", {"query": X, "group_by": "n"}),
    "search": ("search", {"vector": {"name": "words", "vector": X}, "limit": 3}),
    "search batch": ("search/batch", {"searches": [{"vector": {"name": "words", "vector": X}, "limit": 3}]}),
    "search groups": ("search/groups", {"vector": {"name": "words", "vector": X}, "group_by": "n", "limit": 3}),
    "recommend of old": ("recommend", {"positive": [X], "negative": [Y], "limit": 3}),
    "discover of old": ("discover", {"target": X, "context": [{"positive": Y, "negative": Z}], "limit": 3}),
}


def filled_in(body: Any, make: Any) -> Any:
    """The body with each text made into what stands for it."""
    if isinstance(body, dict):
        return {key: filled_in(value, make) for key, value in body.items()}
    if isinstance(body, list):
        return [filled_in(value, make) for value in body]
    return make(body) if body in (X, Y, Z) else body


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
@pytest.mark.parametrize("case", QUERIES)
def test_a_document_asks_as_its_vector_does(http: httpx.Client, texts: str, case: str, packed: bool) -> None:
    verb, body = QUERIES[case]
    if "/batch" not in verb and not verb.startswith("search") and "prefetch" not in body:
        body = body | {"using": "words"}

    def answer(make: Any) -> Any:
        path, full = f"/collections/{texts}/points/{verb}", filled_in(body, make)
        if packed:
            return result(http.post(path, content=msgspec.msgpack.encode(full), headers=MSGPACK))
        return result(http.post(path, json=full))

    by_document, by_vector = answer(document), answer(asked)
    assert by_document == by_vector
    assert "'score'" in str(by_vector), "nothing was found"


@pytest.fixture
def empty(http: httpx.Client) -> Iterator[str]:
    """A collection of sparse vectors."""
    name = f"empty-{uuid4().hex[:8]}"
    result(http.put(f"/collections/{name}", json={"sparse_vectors": {"words": {"modifier": "idf"}, "text": {}, "model": {}}}))
    yield name
    result(http.delete(f"/collections/{name}"))


@pytest.mark.parametrize("packed", [False, True], ids=["json", "msgpack"])
def test_vectors_are_updated_by_documents_also_in_a_batch_of_changes(http: httpx.Client, empty: str, packed: bool) -> None:
    def change(method: str, path: str, body: Any) -> None:
        content = msgspec.msgpack.encode(body) if packed else msgspec.json.encode(body)
        headers = MSGPACK if packed else {"content-type": "application/json"}
        result(http.request(method, f"/collections/{empty}/{path}?wait=true", content=content, headers=headers))

    change("PUT", "points", {"points": [{"id": 1, "vector": {"words": document("a hen")}}, {"id": 2}]})
    change("PUT", "points/vectors", {"points": [{"id": at, "vector": {"words": document(f"dog{at}")}} for at in (1, 2)]})
    assert vectors_of(http, empty) == {at: {"words": stored(f"dog{at}")} for at in (1, 2)}
    operations = [
        {"upsert": {"points": [{"id": 3, "vector": {"words": document("fox")}}]}},
        {"update_vectors": {"points": [{"id": 1, "vector": {"words": document("red")}}]}},
    ]
    change("POST", "points/batch", {"operations": operations})
    expected = {1: "red", 2: "dog2", 3: "fox"}
    assert vectors_of(http, empty) == {at: {"words": stored(text)} for at, text in expected.items()}


def test_a_large_body_has_documents_as_well(http: httpx.Client, empty: str) -> None:
    """Its texts are cut where it is parsed: in the process for bulk bodies, or in a thread."""
    points = [{"id": at, "vector": {"words": document(f"fox{at} " + "dogs " * 1000)}} for at in range(100)]
    result(http.put(f"/collections/{empty}/points?wait=true", json={"points": points}))
    expected = stored("fox7 " + "dogs " * 1000)
    found: Any = result(http.post(f"/collections/{empty}/points", json={"ids": [7], "with_vector": True}))
    assert found[0]["vector"]["words"]["indices"] == expected["indices"]
    assert found[0]["vector"]["words"]["values"] == pytest.approx(expected["values"])


def test_vectors_may_be_named_as_the_parts_of_a_document(http: httpx.Client, empty: str) -> None:
    vector = {"text": stored("hen"), "model": stored("dog")}
    result(http.put(f"/collections/{empty}/points?wait=true", json={"points": [{"id": 1, "vector": vector}]}))
    assert vectors_of(http, empty) == {1: vector}


def test_the_client_of_the_dialect_leaves_bm25_to_the_server(client: QdrantClient) -> None:
    name = f"client-{uuid4().hex[:8]}"
    client.create_collection(name, sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)})
    points = [
        models.PointStruct(id=at, vector={"words": models.Document(text=text, model="Qdrant/bm25")})
        for at, text in enumerate(TEXTS)
    ]
    client.upsert(name, points)
    options = models.Bm25Config(language="english", stemmer=models.DisabledStemmerParams(type=models.NoStemmer.NONE))
    stemmed, whole = (
        client.query_points(name, models.Document(text="runs", model="qdrant/bm25", options=given), using="words").points
        for given in (None, options)
    )
    assert {hit.id for hit in stemmed} == {1, 2}
    assert whole == []
    client.delete_collection(name)


LONG = "x" * (MAX_TEXT_CHARS + 1)
MANY = [document("y" * 200_000) for _ in range(1 + MAX_TEXTS_CHARS // 200_000)]


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (document("hen", k=-1), "points[0].vector.words.options: Expected `float` >= 0.0 - at `$.k`"),
        (document("hen", made_up=1), "made_up"),
        (document(LONG), f"points[0].vector.words.text has {len(LONG)} characters, the bound is {MAX_TEXT_CHARS}"),
        (
            {"text": "hen", "model": "some/model"},
            "points[0].vector.words.model 'some/model' is not offered, this server has qdrant/bm25",
        ),
        ({"text": "hen", "model": "some/model"}, "pip install 'vecraft[embed]' and set --models-dir"),
        ({"text": "hen", "model": ""}, "points[0].vector.words: not a document"),
        ({"text": "hen", "model": "qdrant/bm25", "colour": 1}, "colour"),
        ({"image": "http://a/b.png", "model": "m"}, "made of a text only, not of image"),
        ({"object": {"a": 1}, "model": "m"}, "made of a text only, not of object"),
        ({"text": 5, "model": "qdrant/bm25"}, "points[0].vector.words: not a document"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_document_is_refused_and_nothing_written(http: httpx.Client, empty: str, vector: Any, said: str) -> None:
    points = [{"id": 1, "vector": {"words": vector}}, {"id": 2, "vector": {"words": document("hen")}}]
    response = http.put(f"/collections/{empty}/points?wait=true", json={"points": points})
    assert response.status_code == 400, response.text
    assert said in response.json()["status"]["error"]
    assert result(http.post(f"/collections/{empty}/points/count", json={})) == {"count": 0}
    response = http.post(f"/collections/{empty}/points/query", json={"query": vector, "using": "words"})
    assert response.status_code == 400
    assert said.replace("points[0].vector.words", "query") in response.json()["status"]["error"]


def test_the_texts_of_a_request_have_a_bound_together(http: httpx.Client, empty: str) -> None:
    points = [{"id": at, "vector": {"words": one}} for at, one in enumerate(MANY)]
    total = sum(len(one["text"]) for one in MANY)
    for response in (
        http.put(f"/collections/{empty}/points?wait=true", json={"points": points}),
        http.post(f"/collections/{empty}/points/query", json={"query": {"recommend": {"positive": MANY}}, "using": "words"}),
    ):
        assert response.status_code == 400
        assert f"{total} characters together, the bound is {MAX_TEXTS_CHARS}" in response.json()["status"]["error"]
    assert result(http.post(f"/collections/{empty}/points/count", json={})) == {"count": 0}


def test_a_document_for_a_dense_vector_is_told_what_it_needs(http: httpx.Client, name: str) -> None:
    points = [{"id": 1, "vector": {"text": "hen", "model": "sentence-transformers/all-MiniLM-L6-v2"}}]
    response = http.put(f"/collections/{name}/points", json={"points": points})
    assert response.status_code == 400
    assert "pip install 'vecraft[embed]' and set --models-dir" in response.json()["status"]["error"]
    one, said = document("hen"), "a sparse vector, as qdrant/bm25 makes of a text, is given for a dense one"
    for method, path, body, text in (
        ("PUT", "points", {"points": [{"id": 1, "vector": one}]}, said),
        ("PUT", "points", {"points": [{"id": 1, "vector": one}, {"id": 2, "vector": [1, 2, 3, 4]}]}, "of several kinds"),
        (
            "PUT",
            "points",
            {"points": [{"id": 1, "vector": [[1, 2, 3, 4]]}, {"id": 2, "vector": [1, 2, 3, 4]}]},
            "of several kinds",
        ),
        ("POST", "points/search", {"vector": one, "limit": 1}, said),
        ("POST", "points/query", {"query": one}, said),
        ("POST", "points/query", {"query": {"recommend": {"positive": [one]}}}, said),
    ):
        response = http.request(method, f"/collections/{name}/{path}", json=body)
        assert response.status_code == 400, body
        assert text in response.json()["status"]["error"], body
