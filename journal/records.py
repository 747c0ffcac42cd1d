"""The record envelope and the operations of the journal. The fields are documented in `schemas/record.v6.avsc`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
"""One named vector of a point: float32 (size,), multi-vector float32 (n, size), or SPARSE (n,)."""


class VectorColumn(msgspec.Struct, frozen=True):
    """One named vector of several points, concatenated.

    Dense: `lengths` is None. Multi-vector: `lengths` has the number of vectors, each of dimension `size`, per point.
    Sparse: `size` is 0, and `lengths` has the number of elements per point.
    """

    name: str
    size: int
    points: list[int] | None
    data: bytes
    lengths: list[int] | None = None

    @classmethod
    def of(cls, name: str, vectors: Vectors, points: list[int] | None = None) -> VectorColumn:
        """A dense column of `vectors`, shape (n, size). `points` are their indexes in the operation's ids; None for all ids."""
        return cls(name, vectors.shape[1], points, np.ascontiguousarray(vectors, "<f4").tobytes())

    @classmethod
    def of_each(cls, name: str, vectors: Sequence[Vector], points: list[int] | None = None) -> VectorColumn:
        """A column of multi-vectors or sparse vectors. `vectors` must not be empty."""
        size = 0 if vectors[0].dtype == SPARSE else vectors[0].shape[1]
        return cls(name, size, points, b"".join(vector.tobytes() for vector in vectors), [len(vector) for vector in vectors])

    def array(self) -> Vectors:
        """All vectors as a read-only array, shape (n, size). Raises ValueError when `data` is no multiple of `size`."""
        if self.size < 1:
            raise ValueError(f"vector '{self.name}' has size {self.size}, must be at least 1")
        self._check_bytes(4 * self.size)
        return np.frombuffer(self.data, "<f4").reshape(-1, self.size)

    def each(self) -> Sequence[Vector]:
        """The vector of each point, read-only. Raises ValueError when `data` does not match `size` and `lengths`."""
        if self.size or self.lengths is None:
            return self.split(self.array())
        self._check_bytes(SPARSE.itemsize)
        return self.split(np.frombuffer(self.data, SPARSE))

    def _check_bytes(self, each: int) -> None:
        if len(self.data) % each:
            raise ValueError(f"vector '{self.name}' has {len(self.data)} bytes, must be a multiple of {each}")

    def split(self, elements: Vector) -> Sequence[Vector]:
        """The part of `elements`, as many as those of `array`, that belongs to each point. Raises ValueError as `each`."""
        if self.lengths is None:
            return list(elements)
        if sum(self.lengths) != len(elements) or any(length < 0 for length in self.lengths):
            raise ValueError(f"vector '{self.name}' has {len(elements)} elements, its lengths say {sum(self.lengths)}")
        return [elements[start:end] for start, end in pairwise(accumulate(self.lengths, initial=0))]

    def sizes_bytes(self) -> Iterable[int]:
        """The size of each point's vector, in bytes."""
        if self.lengths is None:
            return [4 * self.size] * (len(self.data) // max(1, 4 * self.size))
        return [(4 * self.size or SPARSE.itemsize) * length for length in self.lengths]

    def indexes(self, count: int) -> Sequence[int]:
        """The index in the operation's `count` ids of each vector."""
        return range(count) if self.points is None else self.points


def columns_of(points: Sequence[Mapping[str, Vector]]) -> list[VectorColumn]:
    """The vectors of points as columns, one for each name. Raises ValueError when those of a name differ in dimension or kind."""
    named: dict[str, dict[int, Vector]] = {}
    for at, vectors in enumerate(points):
        for name, vector in vectors.items():
            named.setdefault(name, {})[at] = vector
    return [
        _column(name, list(by_point.values()), None if len(by_point) == len(points) else list(by_point))
        for name, by_point in named.items()
    ]


def _column(name: str, vectors: Sequence[Vector], points: list[int] | None) -> VectorColumn:
    kinds = {(vector.dtype == SPARSE, vector.ndim, 0 if vector.dtype == SPARSE else vector.shape[-1]) for vector in vectors}
    label = f"vector {name!r}" if name else "vector"
    if len({kind[:2] for kind in kinds}) > 1:
        raise ValueError(
            f"Wrong input: {label} is of several kinds in one request: it must be dense, sparse or a multi-vector everywhere"
        )
    if len(kinds) > 1:
        sizes = sorted({size for _, _, size in kinds})[:8]
        raise ValueError(f"Wrong input: Vector dimension error: {label} has different dimensions in one request: {sizes}")
    if vectors[0].dtype == SPARSE or vectors[0].ndim == 2:
        return VectorColumn.of_each(name, vectors, points)
    return VectorColumn.of(name, np.stack(vectors), points)


class Upsert(msgspec.Struct, frozen=True):
    """`ttl_ms`: how long after the stamp of the record the points expire; 0 for never."""

    ids: list[bytes]
    vectors: list[VectorColumn]
    payloads: list[bytes]
    ttl_ms: int = 0


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


class Barrier(msgspec.Struct, frozen=True):
    """Changes nothing; its stamp closes the partition for a shard up to there (I7)."""


class RequestResult(msgspec.Struct, frozen=True):
    """The result, as JSON, of the request with the record's idempotency key; a retry gets the same result."""

    result: bytes


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


class CreateVector(msgspec.Struct, frozen=True):
    collection: str
    name: str
    params: bytes


class DeleteVector(msgspec.Struct, frozen=True):
    collection: str
    name: str


class PutIngestSource(msgspec.Struct, frozen=True):
    name: str
    config: bytes


class DeleteIngestSource(msgspec.Struct, frozen=True):
    name: str


class ControlIngest(msgspec.Struct, frozen=True):
    """`action` is pause, resume or restart. Without `partitions` it is for all."""

    name: str
    action: str
    partitions: list[int] = []


class IngestPosition(msgspec.Struct, frozen=True):
    partition: int
    offset: int


class MoveIngest(msgspec.Struct, frozen=True):
    """`log` is the identity of the topic that the offsets are of."""

    name: str
    log: str
    positions: list[IngestPosition]


class PutTag(msgspec.Struct, frozen=True):
    """The states of the collection at the instant `stamp` are kept longer than its retention."""

    collection: str
    name: str
    stamp: int


class DeleteTag(msgspec.Struct, frozen=True):
    collection: str
    name: str


class PutSubscription(msgspec.Struct, frozen=True):
    name: str
    config: bytes


class DeleteSubscription(msgspec.Struct, frozen=True):
    name: str


class MoveSubscription(msgspec.Struct, frozen=True):
    """All changes below `version` are settled. `subscription` is the id, as in the following."""

    name: str
    subscription: int
    version: int


class ParkedEvent(msgspec.Struct, frozen=True):
    """A change of a point that was delivered `attempts` times in vain."""

    version: int
    point: bytes
    attempts: int


class ParkEvents(msgspec.Struct, frozen=True):
    name: str
    subscription: int
    events: list[ParkedEvent]


class UnparkEvents(msgspec.Struct, frozen=True):
    name: str
    subscription: int
    events: list[ParkedEvent]


PointOperation = Upsert | Delete | PatchPayload | ReplacePayload | PatchVectors | UnsetVectors
ShardOperation = PointOperation | Barrier | RequestResult
CatalogOperation = (
    CreateCollection
    | UpdateCollection
    | DeleteCollection
    | ChangeAliases
    | CreatePayloadIndex
    | DeletePayloadIndex
    | CreateVector
    | DeleteVector
    | PutIngestSource
    | DeleteIngestSource
    | ControlIngest
    | MoveIngest
    | PutTag
    | DeleteTag
    | PutSubscription
    | DeleteSubscription
    | MoveSubscription
    | ParkEvents
    | UnparkEvents
)
Operation = ShardOperation | CatalogOperation

POINT_OPERATIONS = (Upsert, Delete, PatchPayload, ReplacePayload, PatchVectors, UnsetVectors)
SHARD_OPERATIONS = (*POINT_OPERATIONS, Barrier, RequestResult)
CATALOG_OPERATIONS = (
    CreateCollection,
    UpdateCollection,
    DeleteCollection,
    ChangeAliases,
    CreatePayloadIndex,
    DeletePayloadIndex,
    CreateVector,
    DeleteVector,
    PutIngestSource,
    DeleteIngestSource,
    ControlIngest,
    MoveIngest,
    PutTag,
    DeleteTag,
    PutSubscription,
    DeleteSubscription,
    MoveSubscription,
    ParkEvents,
    UnparkEvents,
)


class Ingested(msgspec.Struct, frozen=True):
    """The source of the points of a record from a topic of the ingest.

    `log` is the unique id of the source partition. `offsets` has the source offset of each id of the operation, ascending. `keys`
    has the idempotency key of each id, or is empty. `epoch` goes up each time that an operator moves the source partition.
    """

    log: str
    offsets: list[int]
    keys: list[str] = []
    epoch: int = 0


class Record(msgspec.Struct, frozen=True):
    """One entry of the journal. `collection` is the id of the collection (the offset of its creation command in the system
    topic), -1 in system records. `origin` is the principal, or the source partition of ingested points.

    `expected` has the condition of each point: the version that the operation was decided on, NEVER when the point did not
    exist. The operation changes only the points for which this still holds. `attempt` numbers the attempts of a request with
    conditions and an idempotency key.
    """

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
    expected: list[int] | None = None
    attempt: int = 0


def _shown(point_id: bytes) -> str:
    """An id for people, also one that a foreign producer has made up."""
    try:
        return repr(decode_id(point_id))
    except ValueError:
        return f"0x{point_id[:32].hex()}, which is no id"


def describe(operation: Operation) -> str:
    """A short description for people: kind, first ids, number of points."""
    name = type(operation).__name__
    if isinstance(operation, POINT_OPERATIONS):
        shown = ", ".join(_shown(id_) for id_ in operation.ids[:3])
        more = f", … {len(operation.ids)} points" if len(operation.ids) > 3 else ""
        return f"{name} {shown}{more}"
    if isinstance(operation, Barrier | RequestResult):
        return name
    if isinstance(operation, ChangeAliases):
        return f"{name} {', '.join(f'{a.alias} -> {a.collection or a.rename_to}' for a in operation.actions)}"
    collection = operation.name if hasattr(operation, "name") else operation.collection
    return f"{name} {collection!r}"
