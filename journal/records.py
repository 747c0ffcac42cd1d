"""What stands in the journal: the record envelope and the operations it may carry. Field docs: `schemas/record.v3.avsc`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from journal.ids import decode_id

Vectors = NDArray[np.float32]
"""float32, shape (points, dimensions)."""

SPARSE = np.dtype([("index", "<u4"), ("value", "<f4")])
"""An element of a sparse vector."""

Vector = NDArray[Any]
"""What a point has under a name: float32 of shape (size,), a multi-vector of shape (n, size), or SPARSE of shape (n,)."""


class VectorColumn(msgspec.Struct, frozen=True):
    """One named vector of several points, side by side.

    Dense ones have no `lengths`. Multi-vectors have: how many vectors of `size` each point has. Sparse ones have a `size` of 0,
    and in `lengths` how many elements each point has.
    """

    name: str
    size: int
    points: list[int] | None
    data: bytes
    lengths: list[int] | None = None

    @classmethod
    def of(cls, name: str, vectors: Vectors, points: list[int] | None = None) -> VectorColumn:
        """A column of `vectors`, shape (n, size); `points` says which ids they belong to, None that they are parallel."""
        return cls(name, vectors.shape[1], points, np.ascontiguousarray(vectors, "<f4").tobytes())

    @classmethod
    def of_each(cls, name: str, vectors: Sequence[Vector], points: list[int] | None = None) -> VectorColumn:
        """A column of multi-vectors or of sparse vectors, at least one."""
        size = 0 if vectors[0].dtype == SPARSE else vectors[0].shape[1]
        return cls(name, size, points, b"".join(vector.tobytes() for vector in vectors), [len(vector) for vector in vectors])

    def array(self) -> Vectors:
        """Dense vectors, shape (n, size); of multi-vectors all in one. Read-only. Raises ValueError when bytes are over."""
        if self.size < 1:
            raise ValueError(f"vector '{self.name}' has size {self.size}, must be at least 1")
        return np.frombuffer(self.data, "<f4").reshape(-1, self.size)

    def each(self) -> Sequence[Vector]:
        """The vector of each point, read-only. Raises ValueError when the bytes do not fit the size and the lengths."""
        elements = np.frombuffer(self.data, SPARSE) if self.size == 0 and self.lengths is not None else self.array()
        if self.lengths is None:
            return list(elements)
        if sum(self.lengths) != len(elements) or any(length < 0 for length in self.lengths):
            raise ValueError(f"vector '{self.name}' has {len(elements)} elements, its lengths say {sum(self.lengths)}")
        return [elements[start:end] for start, end in pairwise(accumulate(self.lengths, initial=0))]

    def sizes_bytes(self) -> Iterable[int]:
        """How many bytes each point's vector takes."""
        if self.lengths is None:
            return [4 * self.size] * (len(self.data) // max(1, 4 * self.size))
        return [(4 * self.size or SPARSE.itemsize) * length for length in self.lengths]

    def indexes(self, count: int) -> Sequence[int]:
        """Which of `count` ids the vectors belong to, in order."""
        return range(count) if self.points is None else self.points


class Upsert(msgspec.Struct, frozen=True):
    ids: list[bytes]
    vectors: list[VectorColumn]
    payloads: list[bytes]


class Delete(msgspec.Struct, frozen=True):
    ids: list[bytes]


class PatchPayload(msgspec.Struct, frozen=True):
    ids: list[bytes]
    set: bytes = b"{}"
    unset: list[str] = []


class ReplacePayload(msgspec.Struct, frozen=True):
    ids: list[bytes]
    payload: bytes


class PatchVectors(msgspec.Struct, frozen=True):
    ids: list[bytes]
    vectors: list[VectorColumn]


class UnsetVectors(msgspec.Struct, frozen=True):
    ids: list[bytes]
    names: list[str]


class CreateCollection(msgspec.Struct, frozen=True):
    name: str
    config: bytes
    homes: list[list[int]]


class UpdateCollection(msgspec.Struct, frozen=True):
    name: str
    changes: bytes


class DeleteCollection(msgspec.Struct, frozen=True):
    name: str


class AliasAction(msgspec.Struct, frozen=True):
    alias: str
    collection: str | None = None
    rename_to: str | None = None


class ChangeAliases(msgspec.Struct, frozen=True):
    actions: list[AliasAction]


class CreatePayloadIndex(msgspec.Struct, frozen=True):
    collection: str
    field: str
    schema: bytes


class DeletePayloadIndex(msgspec.Struct, frozen=True):
    collection: str
    field: str


PointOperation = Upsert | Delete | PatchPayload | ReplacePayload | PatchVectors | UnsetVectors
CatalogOperation = (
    CreateCollection | UpdateCollection | DeleteCollection | ChangeAliases | CreatePayloadIndex | DeletePayloadIndex
)
Operation = PointOperation | CatalogOperation

POINT_OPERATIONS = (Upsert, Delete, PatchPayload, ReplacePayload, PatchVectors, UnsetVectors)
CATALOG_OPERATIONS = (
    CreateCollection,
    UpdateCollection,
    DeleteCollection,
    ChangeAliases,
    CreatePayloadIndex,
    DeletePayloadIndex,
)


class Ingested(msgspec.Struct, frozen=True):
    """Where the points of a record came from, when foreign producers wrote them.

    `log` names one partition of one topic for ever; `offsets` are parallel to the operation's ids, and ascend; `keys`, their
    idempotency keys, are parallel too, or left out.
    """

    log: str
    offsets: list[int]
    keys: list[str] = []


class Record(msgspec.Struct, frozen=True):
    """One entry of the journal. `collection` is the offset of its creation in the system topic, -1 in system records."""

    hlc: int
    operation: Operation
    collection: int = -1
    catalog_position: int = 0
    shard: int = 0
    tenant: str = ""
    request_id: str = ""
    idempotency_key: str = ""
    origin: str = ""
    ingested: Ingested | None = None


def describe(operation: Operation) -> str:
    """The operation in a few words, for people: what, how many points, the first ids."""
    name = type(operation).__name__
    if isinstance(operation, POINT_OPERATIONS):
        shown = ", ".join(repr(decode_id(i)) for i in operation.ids[:3])
        more = f", … {len(operation.ids)} points" if len(operation.ids) > 3 else ""
        return f"{name} {shown}{more}"
    if isinstance(operation, ChangeAliases):
        return f"{name} {', '.join(f'{a.alias} -> {a.collection or a.rename_to}' for a in operation.actions)}"
    collection = operation.name if hasattr(operation, "name") else operation.collection
    return f"{name} {collection!r}"
