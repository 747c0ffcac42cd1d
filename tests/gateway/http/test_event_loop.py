"""What takes long is done beside the event loop, so that other requests go on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import gateway.dialect.answers
import gateway.handlers.points
import gateway.handlers.searches
import gateway.inference.service
import gateway.reads
from gateway.http.endpoint import Endpoint

MANY = 1_000
LONG = 300_000
"""Characters: more than a body may have that is parsed by the event loop."""


class Threads:
    """Which threads call a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.names: list[str] = []
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.names.append(threading.current_thread().name.split("_")[0])
        return self._function(*args, **kwargs)


@pytest.fixture
def filled(http: httpx.Client, name: str) -> str:
    points = [{"id": n, "vector": [n, 1, 1, 1], "payload": {"deep": {"n": n}}} for n in range(MANY)]
    http.put(f"/collections/{name}/points?wait=true", json={"points": points}).raise_for_status()
    return name


CASES: dict[str, tuple[Any, str, str, dict[str, Any]]] = {
    "ids are encoded": (gateway.handlers.points, "_distinct_ids", "points", {"ids": list(range(MANY))}),
    "points are shown": (gateway.handlers.points, "point_answer", "points", {"ids": list(range(MANY))}),
    "a page is shown": (gateway.handlers.points, "point_answer", "points/scroll", {"limit": MANY}),
    "hits are shown": (gateway.handlers.searches, "hit_answers", "points/search", {"vector": [1, 1, 1, 1], "limit": MANY}),
    "payloads are edited": (
        gateway.handlers.points,
        "_patches",
        "points/payload",
        {"payload": {"x": 1}, "key": "deep", "filter": {"must_not": [{"has_id": []}]}},
    ),
    "ids to delete are encoded": (gateway.handlers.points, "_distinct_ids", "points/delete", {"points": list(range(MANY))}),
    "a long filter is compiled": (
        gateway.reads,
        "where",
        "points/count",
        {"filter": {"must": [{"has_id": list(range(LONG // 4))}]}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_long_work_is_done_by_the_pool(http: httpx.Client, filled: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function, path, body = CASES[case]
    threads = Threads(getattr(module, function))
    monkeypatch.setattr(module, function, threads)
    http.post(f"/collections/{filled}/{path}", json=body).raise_for_status()
    assert set(threads.names) == {"pool"}


LONG_TEXT = "many words " * 100
WITH_TEXTS: dict[str, tuple[str, str, Any]] = {
    "of points": ("PUT", "points", {"points": [{"id": 1, "vector": {"words": {"text": LONG_TEXT, "model": "qdrant/bm25"}}}]}),
    "with a list of its own": (
        "POST",
        "points/query",
        {"query": {"text": "a", "model": "qdrant/bm25", "options": {"stopwords": {"custom": ["a"]}}}, "using": "words"},
    ),
    "of a query": ("POST", "points/query", {"query": {"text": LONG_TEXT, "model": "qdrant/bm25"}, "using": "words"}),
}


@pytest.mark.parametrize("case", WITH_TEXTS)
def test_a_long_text_is_cut_by_the_pool(http: httpx.Client, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, path, body = WITH_TEXTS[case]
    http.put("/collections/long-texts", json={"sparse_vectors": {"words": {}}}).raise_for_status()
    threads = Threads(gateway.inference.service.vector_of_text)
    monkeypatch.setattr(gateway.inference.service, "vector_of_text", threads)
    http.request(method, f"/collections/long-texts/{path}", json=body).raise_for_status()
    http.delete("/collections/long-texts").raise_for_status()
    assert threads.names == ["pool"]


def test_a_large_body_is_parsed_by_the_pool(http: httpx.Client, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, names = Endpoint._body, []

    def parsed(self: Endpoint, content: bytes, packed: bool) -> Any:
        names.append(threading.current_thread().name.split("_")[0])
        return body(self, content, packed)

    monkeypatch.setattr(Endpoint, "_body", parsed)
    http.post(f"/collections/{filled}/points/payload", json={"payload": {"t": "x" * LONG}, "points": [1]}).raise_for_status()
    http.post(f"/collections/{filled}/points/count", json={}).raise_for_status()
    assert names[0] == "pool"
    assert names[1] != "pool", "a thread hop costs more than a small body"
