"""A database under test: it gives a request for each piece of work, sends what it gave, and reads its own answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Protocol, Self

from bench.client import WARM_UP_S, Taken
from bench.data import Filter, Points
from bench.process import Watched
from journal.records import Vectors

BATCH = 500
"""Vectors in one request of an ingest."""

Request = Any
Answer = Any


class Target(Protocol):
    """Entered as a context: it runs within. It keeps what it stores below `folder`."""

    name: str
    folder: Path
    batch: int
    """Vectors that it is given in one request of an ingest."""

    replaces: bool
    """Whether an upsert of a known id replaces the point."""

    @property
    def settings(self) -> str:
        """What it is, its version, its index, and where its clients run."""

    @property
    def process(self) -> Watched:
        """What runs it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> None:
        """Runs it over what its folder holds; returns when it takes requests."""

    def stop(self) -> None: ...

    def create(self, dimensions: int) -> None:
        """Creates the collection, with indexes of what filters name."""

    def bulk(self, points: Points, last: bool = True) -> Request:
        """Writes points, many a request; when the `last` is answered all can be found."""

    def upsert(self, points: Points) -> Request:
        """Writes one point again, answered when it can be read."""

    def search(self, query: Vectors, only: Filter | None = None) -> Request:
        """The `K` nearest, of those that a filter lets through or of all; ids only."""

    def send(self, request: Request) -> Answer:
        """The answer to one request, outside of any measurement. Raises when it is not a success."""

    def found(self, answer: Answer) -> list[int]:
        """The rows of an answer to a search."""

    def searchable(self, count: int) -> bool:
        """Whether all `count` vectors can be found now, through an index. Does first what its user would have to do for that."""

    def run(self, streams: Sequence[Sequence[Request]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Taken]:
        """One client for each stream sends its requests one after the other, until they or the seconds run out."""
