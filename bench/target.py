"""A database under test: it gives the requests for each piece of work, takes them one by one, and reads its own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bench.client import Load
from bench.data import Data

BATCH = 500
"""Vectors in one request of an ingest."""

Request = Any
Answer = Any


class Session(Protocol):
    """A connection."""

    def send(self, request: Request) -> Answer:
        """Raises when the answer is not a success."""

    def close(self) -> None: ...


class Usage(Protocol):
    """What a process costs the machine."""

    def cpu_s(self) -> float: ...

    def rss_mib(self) -> float: ...

    def pss_mib(self) -> float: ...


class Target(Protocol):
    """Entered as a context: it runs within."""

    name: str
    replaces: bool

    @property
    def settings(self) -> str:
        """What it is, its version and its index."""

    @property
    def process(self) -> Usage | None:
        """The server; None for what runs in this process."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def create(self, data: Data) -> None:
        """Creates the collection."""

    def ingest(self, data: Data) -> Sequence[Request]:
        """All vectors, `BATCH` a request; when the last is answered all are applied."""

    def upserts(self, data: Data, rows: NDArray[np.int64]) -> Sequence[Request]:
        """Each row written again, one a request, answered when it can be read."""

    def searches(self, data: Data, section: str | None = None) -> Sequence[Request]:
        """For each query the `K` nearest, of a section or of all."""

    def session(self) -> Session: ...

    def found(self, answer: Answer) -> list[int]:
        """The rows of an answer to a search."""

    def searchable(self, session: Session, count: int) -> bool:
        """Whether all `count` vectors can be found now, through an index."""

    def load(self, requests: Sequence[Request], clients: int, seconds: float) -> Load:
        """Sends the requests over and over, from several clients at once."""
