"""The data set: vectors, payloads, queries, and the exact neighbours of the queries (ground truth).

Uses real embeddings if they are available, or else generated clusters. Uniformly distributed vectors would not do: all their
distances are nearly equal.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from journal.records import Vectors

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "debian-packages"
FIELDS = ("section", "architecture")
"""Payload fields used in filters: `section` has many small groups, `architecture` two halves."""

K = 10
TIE = 1e-5
"""A hit is correct if its cosine is at most this much below the K-th best, because duplicates of a text are equally good."""

NOISE = 1e-3
"""Length of the noise that is added to a real query to make a fresh one, relative to the query."""

DIMENSIONS = 384
_QUERIES, _SEED, _CHUNK = 200, 7, 128
_SPREAD = np.float32(2.5)
_GROUPS = {"wide": 0.1, "narrow": 0.01, "rare": 0.001, "other": 0.889}


class Filter(NamedTuple):
    """Selects the points whose payload field has this value."""

    field: str
    value: str


class Points(NamedTuple):
    """n points: ids (row numbers of the data); vectors, shape (n, d); payloads."""

    ids: Sequence[int]
    vectors: Vectors
    payloads: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Data:
    """Vectors, shape (n, d), and queries, shape (q, d), of unit length; one payload per vector."""

    source: str
    vectors: Vectors
    queries: Vectors
    payloads: Sequence[dict[str, Any]]

    def points(self, rows: Sequence[int]) -> Points:
        """The points in these rows."""
        return Points(rows, self.vectors[np.asarray(rows)], [self.payloads[row] for row in rows])

    def batches(self, size: int) -> list[Points]:
        """All points in batches of `size`."""
        count = len(self.vectors)
        return [self.points(range(start, min(count, start + size))) for start in range(0, count, size)]

    def rows_with(self, only: Filter) -> NDArray[np.int64]:
        """The rows that a filter selects, ascending."""
        return np.flatnonzero([payload[only.field] == only.value for payload in self.payloads])

    def filter_of_share(self, share: float) -> Filter:
        """The filter that selects the share of vectors closest to `share`."""
        counts = Counter(Filter(field, payload[field]) for payload in self.payloads for field in FIELDS)
        return min(counts, key=lambda only: abs(counts[only] / len(self.payloads) - share))


class Fresh:
    """Queries that were never sent before, so that no cache can answer them: real queries with a little seeded noise."""

    def __init__(self, queries: Vectors) -> None:
        self._queries = queries
        self._random = np.random.default_rng(_SEED)

    def take(self, count: int) -> Vectors:
        """New queries, shape (count, d), of unit length. Never returns a query twice, nor a real one."""
        chosen = self._queries[np.arange(count) % len(self._queries)]
        noise = _unit(self._random.standard_normal(chosen.shape, np.float32))
        return _unit(chosen + np.float32(NOISE) * noise)


class Truth(NamedTuple):
    """Ground truth of all queries: a mask of the rows that the filter allows, shape (n,); the number of true neighbours per query
    (at most K); the lowest cosine of a true neighbour of each query, shape (q,).
    """

    allowed: NDArray[np.bool_]
    size: int
    least: Vectors


def load(folder: Path, limit: int | None) -> Data:
    """Loads a folder in the format of ../shared/data/README.md, at most `limit` vectors."""
    vectors = np.load(folder / "vectors.f16.npy")[:limit].astype(np.float32)
    queries = np.load(folder / "queries.f16.npy").astype(np.float32)
    with gzip.open(folder / "payload.jsonl.gz") as lines:
        payloads = [orjson.loads(line) for line in islice(lines, len(vectors))]
    return Data(f"{folder.name}, {_shape(vectors)}", _unit(vectors), _unit(queries), payloads)


def generate(count: int) -> Data:
    """Generates seeded clusters. The sections have about 10 %, 1 % and 0.1 % of the points, each architecture half."""
    clusters = Clusters(count)
    points = clusters.points(0, count)
    return Data(f"generated, {_shape(points.vectors)}", points.vectors, clusters.queries(_QUERIES), points.payloads)


class Clusters:
    """Seeded clusters of about 100 vectors each, generated in chunks, so that a million vectors need not be in memory.

    As in real embeddings, few directions have most of the variance, and clusters overlap: an HNSW graph does not find all
    neighbours.
    """

    def __init__(self, count: int) -> None:
        scales = np.arange(1, DIMENSIONS + 1, dtype=np.float32) ** -0.5
        self._spread = _SPREAD * scales / np.sqrt(np.mean(scales**2))
        self._centres = np.random.default_rng(_SEED).standard_normal((max(8, count // 100), DIMENSIONS), np.float32)

    def points(self, start: int, count: int) -> Points:
        """The points with ids from `start` on. Deterministic for the same `start` and `count`."""
        random = np.random.default_rng((_SEED, start))
        vectors = self._vectors(random, count)
        sections = random.choice(list(_GROUPS), count, p=list(_GROUPS.values())).tolist()
        halves = random.choice(["all", "amd64"], count).tolist()
        ids = range(start, start + count)
        payloads = [
            {"name": f"point-{row}", "section": section, "architecture": half, "size": row}
            for row, section, half in zip(ids, sections, halves, strict=True)
        ]
        return Points(ids, vectors, payloads)

    def queries(self, count: int) -> Vectors:
        """Vectors of the same clusters that are not among the points."""
        return self._vectors(np.random.default_rng(_SEED + 1), count)

    def _vectors(self, random: np.random.Generator, count: int) -> Vectors:
        chosen = random.integers(len(self._centres), size=count)
        return _unit(self._centres[chosen] + self._spread * random.standard_normal((count, DIMENSIONS), np.float32))


def truth_of(data: Data, rows: NDArray[np.int64] | None = None) -> Truth:
    """The ground truth among `rows`, or among all points."""
    allowed = np.ones(len(data.vectors), np.bool_)
    if rows is not None:
        allowed[:] = False
        allowed[rows] = True
    among = data.vectors[allowed]
    count = min(K, len(among))
    least = [
        np.partition(data.queries[start : start + _CHUNK] @ among.T, len(among) - count, axis=1)[:, len(among) - count]
        for start in range(0, len(data.queries), _CHUNK)
    ]
    return Truth(allowed, count, np.concatenate(least))


def recall(data: Data, truth: Truth, answers: Sequence[Sequence[int]]) -> float:
    """Recall of the first `len(answers)` queries; `answers` are rows. A tie counts as correct, a repeated row counts once."""
    good = 0
    for query, least, rows in zip(data.queries, truth.least, answers, strict=False):
        hits = [row for row in set(rows) if truth.allowed[row]]
        good += min(truth.size, int(np.count_nonzero(data.vectors[hits] @ query >= least - TIE)))
    return good / (truth.size * len(answers))


def complete(truth: Truth, answers: Sequence[Sequence[int]]) -> float:
    """The share of answers with as many allowed rows as possible (`truth.size`)."""
    return sum(len([row for row in set(rows) if truth.allowed[row]]) == truth.size for rows in answers) / len(answers)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _shape(vectors: Vectors) -> str:
    return f"{len(vectors):,} x {vectors.shape[1]}"
