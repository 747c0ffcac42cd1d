"""How long answers took, by route and status, of all collections and of each: what telemetry and metrics tell."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 50.0)
"""Upper bounds of a histogram's buckets."""

LATEST = 128
"""The mean is weighted so that about this many latest answers count."""

MAX_COLLECTIONS = 1000
"""Collections of which the answers are counted apart."""


class Answered(NamedTuple):
    """A kind of answer: `route` is the path of the table, with names for its parameters."""

    method: str
    route: str
    status: int


@dataclass(slots=True)
class Durations:
    """The durations of one kind of answer, in seconds. `counts[i]` are those up to BUCKETS_S[i], and above the one before."""

    count: int = 0
    total_s: float = 0.0
    mean_s: float = 0.0
    shortest_s: float = float("inf")
    longest_s: float = 0.0
    last_s: float = 0.0
    """When the latest answer was given, since 1970."""
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))

    def add(self, seconds: float, now_s: float) -> None:
        self.count += 1
        self.total_s += seconds
        self.mean_s += (seconds - self.mean_s) / min(self.count, LATEST)
        self.shortest_s, self.longest_s = min(self.shortest_s, seconds), max(self.longest_s, seconds)
        self.last_s = now_s
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1


ByAnswer = Mapping[Answered, Durations]


def _of(known: dict[Answered, Durations], answered: Answered) -> Durations:
    if (durations := known.get(answered)) is None:
        durations = known[answered] = Durations()
    return durations


class AnswerTimes:
    """The durations of all answers of the node. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._clock = clock
        self._lock = threading.Lock()
        self._all: dict[Answered, Durations] = {}
        self._of: dict[str, dict[Answered, Durations]] = {}

    def add(self, answered: Answered, seconds: float, collection: str | None) -> None:
        """Counts an answer; `collection` is the one that it is about, None for none that exists."""
        with self._lock:
            now_s = self._clock()
            _of(self._all, answered).add(seconds, now_s)
            if collection is not None and (collection in self._of or len(self._of) < MAX_COLLECTIONS):
                _of(self._of.setdefault(collection, {}), answered).add(seconds, now_s)

    def all(self) -> ByAnswer:
        """Of the whole node."""
        with self._lock:
            return dict(self._all)

    def of_collections(self, existing: Collection[str]) -> Mapping[str, ByAnswer]:
        """Of each collection that exists. Those of other ones are forgotten."""
        with self._lock:
            self._of = {name: by_answer for name, by_answer in self._of.items() if name in existing}
            return {name: dict(by_answer) for name, by_answer in self._of.items()}
