"""The vectors of documents come in the documents' order, and the work ends when there is no more time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.dialect.documents import Document
from gateway.inference import service
from gateway.inference.bm25 import Bm25Options, query_vector
from gateway.inference.models import Models
from gateway.inference.service import QUICK_CHARS, Inference
from shard.deadline import Deadline, DeadlineExceeded


@pytest.fixture
def inference() -> Iterator[Inference]:
    models = Models({})
    with ThreadPoolExecutor(1) as executor:
        yield Inference(models, executor)
    models.stop()


def asked(*texts: str) -> list[tuple[Document, str]]:
    return [(Document(text, "qdrant/bm25"), "") for text in texts]


@pytest.mark.parametrize("length", [1, QUICK_CHARS], ids=["at once", "by the pool"])
def test_vectors_come_in_the_order_of_the_documents(inference: Inference, length: int) -> None:
    texts = [word * length for word in "xyz"]
    vectors = asyncio.run(inference.vectors(asked(*texts), as_query=True))
    expected = [query_vector(text, Bm25Options()) for text in texts]
    assert [vector["index"].tolist() for vector in vectors] == [vector["index"].tolist() for vector in expected]


def test_no_text_is_begun_when_the_time_is_over(inference: Inference, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, made = 0.0, []

    def takes_a_second(document: Document, *_: Any) -> None:
        nonlocal now_s
        now_s += 1
        made.append(document.text)

    monkeypatch.setattr(service, "vector_of_text", takes_a_second)
    deadline = Deadline(2, lambda: now_s)
    with pytest.raises(DeadlineExceeded):
        asyncio.run(inference.vectors(asked("a", "b", "c"), as_query=True, check_time=deadline.check))
    assert made == ["a", "b"]
    later = deadline.later(1)
    later.check()
    now_s = 3.0
    with pytest.raises(DeadlineExceeded):
        later.check()
