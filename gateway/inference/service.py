"""The inference service: makes the vectors of a request's documents, off the event loop where that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from gateway.dialect.documents import Document, PlacedDocument, check_texts
from gateway.dialect.upserts import with_vectors
from gateway.http.errors import BadRequest, Unavailable
from gateway.inference.bm25 import is_bm25, vector_of_text
from gateway.inference.models import Models
from journal.records import PatchVectors, Upsert, Vector

QUICK_CHARS = 400
"""Texts up to this length are cut into terms on the event loop, which takes about a millisecond if all their words are new."""

QUICK_VECTORS = 100
"""Up to this many points get their vectors on the event loop."""

NOTHING = np.empty(0, np.float32)

EMBED_S = 30.0
"""How long a request waits for the vectors of a model."""

Asked = tuple[Document, str]
"""A document, and its place in the request, for errors."""

T = TypeVar("T")
Written = TypeVar("Written", Upsert, PatchVectors)


@dataclass(frozen=True, slots=True)
class Inference:
    """Shared by all event loops."""

    models: Models
    executor: Executor

    async def completed(self, operation: Written, documents: Sequence[PlacedDocument]) -> Written:
        """The operation with the vectors of its documents. Raises an ApiError; nothing was written then."""
        if not documents:
            return operation
        vectors = await self.vectors([(placed.document, placed.place) for placed in documents], as_query=False)
        quick = len(operation.ids) <= QUICK_VECTORS
        return await self._offload(quick, partial(with_vectors, operation, documents, vectors))

    async def vectors(
        self, asked: Sequence[Asked], as_query: bool, check_time: Callable[[], None] = lambda: None
    ) -> list[Vector]:
        """The vector of each document. `check_time` is called between texts, and raises when there is no more time.

        Raises BadRequest for a document that cannot be computed, TooManyRequests, or Unavailable.
        """
        check_texts(document for document, _ in asked)
        dense = [one for one in asked if not is_bm25(one[0])]
        for document, place in dense:
            self._check_dense(document, place)
        terms = await self._by_terms([one for one in asked if is_bm25(one[0])], as_query, check_time)
        embedded = await self._embedded([document for document, _ in dense]) if dense else iter(())
        return [next(terms) if is_bm25(document) else next(embedded) for document, _ in asked]

    async def _by_terms(self, asked: Sequence[Asked], as_query: bool, check_time: Callable[[], None]) -> Iterator[Vector]:
        """The vectors of documents for BM25, in their order."""

        def compute() -> list[Vector]:
            vectors = []
            for document, place in asked:
                check_time()
                vectors.append(vector_of_text(document, place, as_query))
            return vectors

        has_list = any("stopwords" in (document.options or {}) for document, _ in asked)  # which may be long
        quick = not has_list and sum(len(document.text) for document, _ in asked) <= QUICK_CHARS
        return iter(await self._offload(quick, compute))

    async def _embedded(self, documents: Sequence[Document]) -> Iterator[Vector]:
        """The vectors of documents for models, in their order; the texts of a model together."""
        places: dict[str, list[int]] = {}
        for at, document in enumerate(documents):
            places.setdefault(document.model.lower(), []).append(at)
        vectors: list[Vector] = [NOTHING] * len(documents)
        for name, mine in places.items():
            embedding = asyncio.wrap_future(self.models.embed(name, [documents[at].text for at in mine]))
            try:
                made = await asyncio.wait_for(embedding, EMBED_S)
            except TimeoutError:
                text = f"the model {documents[mine[0]].model[:64]!r} has made no vectors within {EMBED_S:g} s"
                raise Unavailable(text, retry_after_s=1.0) from None
            for at, vector in zip(mine, made, strict=True):
                vectors[at] = vector
        return iter(vectors)

    def _check_dense(self, document: Document, place: str) -> None:
        """Raises BadRequest when there is no such model, or when options are given, of which models have none."""
        self.models.check(document.model, place)
        if document.options:
            raise BadRequest(f"{place}.options.{next(iter(document.options))[:64]} is unknown: this model has no options")

    async def _offload(self, quick: bool, work: Callable[[], T]) -> T:
        return work() if quick else await asyncio.get_running_loop().run_in_executor(self.executor, work)
