"""How the vectors of one name are stored: as float32, float16, uint8, or as codes of four bits per number.

A client reads what is stored, and every score is computed from what is stored, by every plan. The vectors are decoded in parts
while they are compared; in memory and in files they stay encoded. Float32 vectors are stored as they are, and never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catalog.collection import Datatype, Distance
from journal.records import Vectors
from shard.vectors import turbo
from shard.vectors.graph import LocalIds, exact_scores, scores_at
from shard.vectors.index import normalised

Encoded = NDArray[Any]
"""Stored vectors, shape (n, width), of the type and width of their encoding."""

MAX_HALF = 65_504.0
"""The largest float16."""

_CHUNK = 4_096
"""Vectors that are decoded at a time, which bounds memory."""

_FLOATS_CHUNK = 65_536
"""Vectors in one matrix product, when they need no decoding."""


class Encoding(NamedTuple):
    """The encoding of vectors of `size` numbers. Queries must be of float32."""

    datatype: Datatype
    distance: Distance
    size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored arrays."""
        match self.datatype:
            case Datatype.FLOAT32:
                return np.dtype("<f4")
            case Datatype.FLOAT16:
                return np.dtype("<f2")
        return np.dtype(np.uint8)

    @property
    def width(self) -> int:
        """The length of a stored vector, in elements of `dtype`."""
        return turbo.code_width(self.size) if self.datatype is Datatype.TURBO4 else self.size

    @property
    def normalises(self) -> bool:
        """Whether vectors are scaled to unit length before they are stored. Integers cannot be; see `compared`."""
        return normalises(self.datatype, self.distance)

    def encode(self, vectors: Vectors) -> Encoded:
        """What is stored of the vectors of a client, shape (n, size)."""
        vectors = normalised(vectors) if self.normalises else vectors
        match self.datatype:
            case Datatype.FLOAT32:
                return vectors
            case Datatype.FLOAT16:
                return vectors.astype("<f2")
            case Datatype.UINT8:
                return np.clip(vectors, 0, 255).astype(np.uint8)  # which truncates
        return turbo.encode(vectors)

    def decode(self, encoded: Encoded) -> Vectors:
        """What a client reads. Shape (…, size)."""
        match self.datatype:
            case Datatype.FLOAT32:
                return encoded
            case Datatype.TURBO4:
                flat = turbo.decode(encoded.reshape(-1, self.width), self.size)
                return flat.reshape(*encoded.shape[:-1], self.size)
        return encoded.astype(np.float32)

    def compared(self, encoded: Encoded) -> Vectors:
        """What is compared with `compared_query` of a query: the decoded vectors, shape (n, size), scaled to unit length for
        Cosine. Turbo4 codes are compared as they are, rotated; Manhattan is the only distance that a rotation would change."""
        if self.datatype is Datatype.TURBO4 and self.distance is not Distance.MANHATTAN:
            return turbo.decode_rotated(encoded, self.size)
        decoded = self.decode(encoded)
        return normalised(decoded) if self.distance is Distance.COSINE and not self.normalises else decoded

    def compared_read(self, vector: Vectors) -> Vectors:
        """A vector that was read, shape (size,) or (n, size), as it is compared."""
        if self.datatype is Datatype.FLOAT32:
            return vector
        return self.compared(self.encode(vector.reshape(-1, self.size))).reshape(vector.shape)

    def compared_query(self, query: Vectors) -> Vectors:
        """A query, shape (size,) or (n, size), as it is compared: rounded as stored vectors are, so that a query that is equal to
        a vector as it was written is equal to what is stored of it. Turbo4 queries keep their precision."""
        match self.datatype:
            case Datatype.FLOAT32:
                return query
            case Datatype.FLOAT16:
                return np.clip(query, -MAX_HALF, MAX_HALF).astype("<f2").astype(np.float32)
            case Datatype.UINT8:
                flat = np.clip(query, 0, 255).astype(np.uint8).astype(np.float32).reshape(-1, self.size)
                flat = normalised(flat) if self.distance is Distance.COSINE else flat
                return flat.reshape(query.shape)
        if self.distance is Distance.MANHATTAN:
            return query
        return turbo.Rotation.of(self.size).apply(query.reshape(-1, self.size)).reshape(query.shape)

    def scores_at(self, encoded: Encoded, query: Vectors, at: LocalIds) -> Vectors:
        """The scores of the vectors at the indexes `at` against a `compared_query`; see `graph.scores_at`."""
        if self.datatype is Datatype.FLOAT32:
            return scores_at(self.distance, encoded, query, at)
        scores = np.empty(len(at), np.float32)
        for start in range(0, len(at), _CHUNK):
            some = self.compared(encoded[at[start : start + _CHUNK]])
            scores[start : start + _CHUNK] = exact_scores(self.distance, some, query)
        return scores

    def products(self, encoded: Encoded, query: Vectors) -> Vectors:
        """The dot product of each vector with a `compared_query`, as a matrix product. Shape (n,)."""
        if self.datatype is Datatype.FLOAT32:
            with np.errstate(over="ignore", invalid="ignore"):
                return encoded @ query
        products = np.empty(len(encoded), np.float32)
        for start, some in self.parts(encoded):
            products[start : start + len(some)] = some @ query
        return products

    def parts(self, encoded: Encoded) -> Iterator[tuple[int, Vectors]]:
        """All vectors as they are compared, in parts that bound memory: the index of the first, and the vectors."""
        step = _FLOATS_CHUNK if self.datatype is Datatype.FLOAT32 else _CHUNK
        for start in range(0, len(encoded), step):
            yield start, self.compared(encoded[start : start + step])


def normalises(datatype: Datatype, distance: Distance) -> bool:
    """Whether vectors, and queries, are scaled to unit length before anything else."""
    return distance is Distance.COSINE and datatype is not Datatype.UINT8
