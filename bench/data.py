"""What is stored, what is searched for, and what an exact search would find.

Real embeddings when they are there, else generated clusters, since uniform vectors have no neighbours worth the name.
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
FIELD = "section"
"""The payload field that filters name."""

K = 10
TIE = 1e-5
"""A hit counts when its cosine is at most this far below the K-th best: copies of a text are equally good."""

_DIMENSIONS, _QUERIES, _SEED, _CHUNK = 384, 200, 7, 128


@dataclass(frozen=True, slots=True)
class Data:
    """Vectors of unit length, shape (n, d); queries, shape (q, d); one payload per vector."""

    source: str
    vectors: Vectors
    queries: Vectors
    payloads: Sequence[dict[str, Any]]

    def rows_with(self, section: str) -> NDArray[np.int64]:
        """The rows of a section, ascending."""
        return np.flatnonzero([payload[FIELD] == section for payload in self.payloads])

    def section_of_share(self, share: float) -> str:
        """The section that holds most nearly this share of the vectors."""
        counts: Counter[str] = Counter(payload[FIELD] for payload in self.payloads)
        return min(counts, key=lambda section: abs(counts[section] / len(self.payloads) - share))


class Truth(NamedTuple):
    """What exact search says of each query: the rows allowed, how many hits there are, and the cosine that a hit must reach."""

    allowed: NDArray[np.bool_]
    size: int
    least: Vectors


def load(folder: Path, limit: int | None) -> Data:
    """The data of a folder as described in ../shared/data/README.md, at most `limit` vectors."""
    vectors = np.load(folder / "vectors.f16.npy")[:limit].astype(np.float32)
    queries = np.load(folder / "queries.f16.npy").astype(np.float32)
    with gzip.open(folder / "payload.jsonl.gz") as lines:
        payloads = [orjson.loads(line) for line in islice(lines, len(vectors))]
    return Data(f"{folder.name}, {_shape(vectors)}", _unit(vectors), _unit(queries), payloads)


def generate(count: int) -> Data:
    """Seeded clusters of vectors with a section each, of which 'wide' holds about 10 % and 'narrow' about 1 %."""
    random = np.random.default_rng(_SEED)
    centres = random.standard_normal((max(8, count // 100), _DIMENSIONS), np.float32)
    chosen = random.integers(len(centres), size=count + _QUERIES)
    points = _unit(centres[chosen] + 0.7 * random.standard_normal((len(chosen), _DIMENSIONS), np.float32))
    sections = random.choice(["wide", "narrow", "other"], count, p=[0.10, 0.01, 0.89]).tolist()
    payloads = [{"name": f"point-{row}", FIELD: section, "size": row} for row, section in enumerate(sections)]
    return Data(f"generated, {_shape(points[:count])}", points[:count], points[count:], payloads)


def truth_of(data: Data, rows: NDArray[np.int64] | None = None) -> Truth:
    """The truth among `rows`, or among all."""
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


def recall(data: Data, truth: Truth, found: Sequence[Sequence[int]]) -> float:
    """The share of true neighbours among the rows found for the first `len(found)` queries; ties count, doubles do not."""
    good = 0
    for query, least, rows in zip(data.queries, truth.least, found, strict=False):
        hits = [row for row in set(rows) if truth.allowed[row]]
        good += min(truth.size, int(np.count_nonzero(data.vectors[hits] @ query >= least - TIE)))
    return good / (truth.size * len(found))


def complete(truth: Truth, found: Sequence[Sequence[int]]) -> float:
    """The share of answers that hold as many allowed rows as there are to be had."""
    return sum(len([row for row in set(rows) if truth.allowed[row]]) == truth.size for rows in found) / len(found)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _shape(vectors: Vectors) -> str:
    return f"{len(vectors):,} x {vectors.shape[1]}"
