"""The interface of a database under test: it prepares requests, sends them, and parses the answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol, Self

from bench.client import WARM_UP_S, Timings
from bench.data import Filter, Points
from bench.process import Watched
from journal.records import Vectors

BATCH = 500
"""Default number of vectors per request of an ingest."""

Request = Any
Answer = Any


class Target(Protocol):
    """A database under test. A context manager: it runs inside the context. Its data is below `folder`."""

    name: str
    folder: Path
    batch: int
    """Number of vectors per request of an ingest."""

    replaces: bool
    """Whether an upsert of an existing id replaces the point."""

    @property
    def settings(self) -> str:
        """A description for the report: product, version, index settings, kind of clients."""

    @property
    def process(self) -> Watched:
        """The process of the database."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> None:
        """Starts it with the data in its folder. Returns when it accepts requests."""

    def stop(self) -> None: ...

    def create(self, dimensions: int) -> None:
        """Creates the collection, with indexes on the fields of filters."""

    def bulk(self, points: Points, last: bool = True) -> Request:
        """A request that writes many points. After the answer to the `last` one, all are readable."""

    def upsert(self, points: Points) -> Request:
        """A request that rewrites one point; answered when the change is readable."""

    def search(self, query: Vectors, only: Filter | None = None) -> Request:
        """A request for the ids of the `K` nearest points, optionally with a filter."""

    def send(self, request: Request) -> Answer:
        """Sends one request without timing. Raises when it fails."""

    def rows_of(self, answer: Answer) -> list[int]:
        """The rows (ids) in the answer to a search."""

    def searchable(self, count: int) -> bool:
        """Whether all `count` vectors are indexed. First triggers the indexing, if the product needs an explicit call."""

    def run(self, streams: Sequence[Sequence[Request]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Timings]:
        """Runs one client per stream; each sends its requests in order, until their end or for `seconds`."""
