"""Models of a folder make the vectors that their files say, one batch after the other, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gateway.dialect.documents import Document
from gateway.http.errors import BadRequest, TooManyRequests, Unavailable
from gateway.inference import models, service
from gateway.inference.models import BATCH, MAX_TEXTS, MAX_WAITING, Models, NoModels, models_in
from gateway.inference.onnx_model import InvalidModel, OnnxModel
from gateway.inference.service import Inference
from shard.deadline import Deadline
from tests.conftest import result, start_node
from tests.gateway.inference.tiny_model import SIZE, mean, need_embed, rows_of, unit, write_model
from vecraft.roles import StartError
from vecraft.settings import load_settings

need_embed()
NAME = "owner/Tiny"
WAIT_S = 30


def test_a_text_is_the_mean_of_its_words(tmp_path: Path) -> None:
    """Texts of one batch have different lengths, one has an unknown word, one is cut at the network's bound."""
    texts = ["red", "red fox dog", "a fox", "hen hen hen hen red red"]
    vectors = OnnxModel(write_model(tmp_path)).embed(texts)
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(np.array([mean(text) for text in texts]), abs=1e-6)


def test_the_files_say_how_one_vector_is_made(tmp_path: Path) -> None:
    first = OnnxModel(write_model(tmp_path / "first", pooling="cls", normalises=False)).embed(["dog fox red"])
    assert first[0] == pytest.approx(rows_of("dog")[0])
    whole = OnnxModel(write_model(tmp_path / "whole", rank=2, network="onnx/model.onnx")).embed(["dog fox red"])
    assert whole[0] == pytest.approx(np.array(unit(rows_of("dog fox red").max(axis=0))), abs=1e-6)


def test_a_text_without_tokens_has_a_finite_vector(tmp_path: Path) -> None:
    assert np.isfinite(OnnxModel(write_model(tmp_path)).embed(["", "red"])).all()


@pytest.mark.parametrize("broken", ["model.onnx", "tokenizer.json", "modules.json"])
def test_a_damaged_file_is_told(tmp_path: Path, broken: str) -> None:
    write_model(tmp_path)
    (tmp_path / broken).write_text("nonsense")
    with pytest.raises(InvalidModel, match=r"cannot be loaded"):
        OnnxModel(tmp_path)


def test_a_tokenizer_of_another_network_is_told(tmp_path: Path) -> None:
    model = OnnxModel(write_model(tmp_path))
    model._tokenizer.add_tokens(["unheard"])
    with pytest.raises(InvalidModel, match="fails"):
        model.embed(["unheard"])


def test_models_are_found_by_the_names_of_their_folders(tmp_path: Path) -> None:
    write_model(tmp_path / "plain")
    write_model(tmp_path / "owner" / "Tiny")
    (tmp_path / "empty").mkdir()
    assert models_in(tmp_path) == {"plain": tmp_path / "plain", NAME: tmp_path / "owner" / "Tiny"}
    write_model(tmp_path / "Plain")
    with pytest.raises(NoModels, match="'plain', which is the name of another model"):
        models_in(tmp_path)


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "is not a folder"), ("", "has no model")])
def test_a_folder_without_models_is_refused_at_the_start(tmp_path: Path, folder: str, said: str) -> None:
    with pytest.raises(NoModels, match=said):
        models_in(tmp_path / folder)
    with pytest.raises(StartError, match=said):
        start_refused(tmp_path / "data", tmp_path / folder)


def start_refused(data_dir: Path, models_dir: Path) -> None:
    from vecraft.node import Node

    Node(load_settings({"data_dir": data_dir, "port": 0, "models_dir": models_dir})).run()


def test_a_folder_without_what_runs_models_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "is_installed", lambda: False)
    with pytest.raises(NoModels, match=r"pip install 'vecraft\[embed\]'"):
        models_in(tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Models]:
    made = Models({NAME: write_model(tmp_path / "tiny")})
    yield made
    made.stop()


class Gate:
    """Stands for a model's work, which goes on when it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened, self.batches = threading.Event(), threading.Event(), 0
        monkeypatch.setattr(OnnxModel, "embed", self._embed)

    def _embed(self, texts: list[str]) -> Any:
        self.batches += 1
        self.entered.set()
        assert self.opened.wait(WAIT_S)
        return np.zeros((len(texts), SIZE), np.float32)


def test_more_texts_than_a_batch(made: Models) -> None:
    texts = ["red fox", "dog"] * BATCH
    assert made.embed(NAME.upper(), texts).result(WAIT_S) == pytest.approx(np.array([mean(text) for text in texts]), abs=1e-6)


def test_too_many_texts_and_too_many_requests_are_refused(made: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequest, match=f"{MAX_TEXTS + 1} documents .* at most {MAX_TEXTS}"):
        made.embed(NAME, ["red"] * (MAX_TEXTS + 1))
    gate = Gate(monkeypatch)
    waiting = [made.embed(NAME, ["red"]) for _ in range(MAX_WAITING)]
    with pytest.raises(TooManyRequests, match=f"{MAX_WAITING} requests wait"):
        made.embed(NAME, ["red"])
    gate.opened.set()
    assert all(one.result(WAIT_S).shape == (1, SIZE) for one in waiting)
    assert made.embed(NAME, ["red"]).result(WAIT_S).shape == (1, SIZE)


def test_a_stop_ends_the_work_after_a_batch(made: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    long, waiting = made.embed(NAME, ["red"] * BATCH * 3), made.embed(NAME, ["red"])
    assert gate.entered.wait(WAIT_S)
    made.stop()
    gate.opened.set()
    with pytest.raises(Unavailable, match="stopping"):
        long.result(WAIT_S)
    assert waiting.cancelled()
    assert gate.batches == 1


def test_a_request_does_not_wait_for_ever(made: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(service, "EMBED_S", 0.01)
    with ThreadPoolExecutor(1) as executor, pytest.raises(Unavailable, match=r"'owner/Tiny' has made no vectors within 0\.01 s"):
        asyncio.run(Inference(made, executor).vectors([(Document("red", NAME), "")], as_query=True))
    gate.opened.set()


def test_a_model_that_cannot_be_loaded_is_not_available(made: Models, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "model.onnx").write_bytes(b"")
    with pytest.raises(Unavailable, match="'owner/Tiny' cannot be used"):
        made.embed(NAME, ["red"]).result(WAIT_S)


@pytest.fixture(scope="module")
def with_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a node that has models, with a collection of one dense vector and one sparse one."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / NAME)
    node, thread = start_node(tmp_path_factory.mktemp("node"), models_dir=folder)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        made = {"vectors": {"size": SIZE, "distance": "Dot"}, "sparse_vectors": {"words": {"modifier": "idf"}}}
        result(http.put("/collections/texts", json=made))
        yield http
    node.stop()
    thread.join(15)
    assert not thread.is_alive()


def dense(text: str, model: str = NAME.lower()) -> dict[str, str]:
    return {"text": text, "model": model}


def test_documents_become_dense_vectors_beside_sparse_ones(with_models: httpx.Client) -> None:
    texts = {1: "red fox", 2: "dog", 3: "hen dog"}
    points: list[Any] = [
        {"id": at, "vector": {"": dense(text), "words": dense(text, "qdrant/bm25")}} for at, text in texts.items()
    ]
    points.append({"id": 4, "vector": [1, 0, 0]})
    result(with_models.put("/collections/texts/points?wait=true", json={"points": points}))
    result(with_models.put("/collections/texts/points/vectors?wait=true", json={"points": [{"id": 2, "vector": dense("hen")}]}))
    stored: Any = result(with_models.post("/collections/texts/points", json={"ids": [1, 2, 3, 4], "with_vector": [""]}))
    vectors = {point["id"]: point["vector"] for point in stored}
    expected = {1: mean("red fox"), 2: mean("hen"), 3: mean("hen dog"), 4: [1, 0, 0]}
    assert vectors == {at: pytest.approx(vector, abs=1e-6) for at, vector in expected.items()}
    both = [{"query": dense("fox")}, {"query": dense("fox", "qdrant/bm25"), "using": "words"}]
    near, fitting = result(with_models.post("/collections/texts/points/query/batch", json={"searches": both}))  # type: ignore[misc]
    scores = {at: float(np.dot(mean("fox"), vector)) for at, vector in expected.items()}
    assert {point["id"]: point["score"] for point in near["points"]} == pytest.approx(scores, abs=1e-6)
    assert [point["id"] for point in fitting["points"]] == [1]
    mixed = {"recommend": {"positive": [dense("fox"), dense("red")], "negative": [dense("dog")]}}
    found: Any = result(with_models.post("/collections/texts/points/query", json={"query": mixed}))
    vector = np.mean([mean("fox"), mean("red")], axis=0) * 2 - np.array(mean("dog"))
    scores = {at: float(np.dot(vector, other)) for at, other in expected.items()}
    assert {point["id"]: point["score"] for point in found["points"]} == pytest.approx(scores, abs=1e-5)


def test_what_a_model_takes_is_no_work_of_the_search(with_models: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, later = [], Deadline.later

    def noted(deadline: Deadline, seconds: float) -> Deadline:
        moved.append(seconds)
        return later(deadline, seconds)

    monkeypatch.setattr(Deadline, "later", noted)
    result(with_models.post("/collections/texts/points/query", json={"query": dense("a", "qdrant/bm25"), "using": "words"}))
    assert not moved
    result(with_models.post("/collections/texts/points/query", json={"query": dense("a fox")}))
    assert len(moved) == 1


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (dense("red", "other"), f"'other' is not offered, this server has qdrant/bm25, {NAME}"),
        (dense("red") | {"options": {"size": 3}}, "points[0].vector.options.size is unknown: this model has no options"),
        ({"words": dense("red")}, "Conversion between sparse and regular vectors failed"),
        ({"": dense("red", "qdrant/bm25")}, "a sparse vector, as qdrant/bm25 makes of a text, is given for a dense one"),
    ],
)
def test_what_does_not_fit_is_refused(with_models: httpx.Client, vector: Any, said: str) -> None:
    response = with_models.put("/collections/texts/points", json={"points": [{"id": 9, "vector": vector}]})
    assert response.status_code == 400, response.text
    assert said in response.json()["status"]["error"]


def test_the_dimension_is_that_of_the_collection(with_models: httpx.Client) -> None:
    result(with_models.put("/collections/wide", json={"vectors": {"size": SIZE + 1, "distance": "Dot"}}))
    for method, path, body in [
        ("PUT", "points", {"points": [{"id": 1, "vector": dense("red")}]}),
        ("POST", "points/query", {"query": dense("red")}),
    ]:
        response = with_models.request(method, f"/collections/wide/{path}", json=body)
        assert response.status_code == 400
        assert f"expected dim: {SIZE + 1}, got {SIZE}" in response.json()["status"]["error"]
