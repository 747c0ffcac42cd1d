"""The definition of a collection: vectors, settings, payload schema and the home partitions of its shards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import msgspec

from catalog.errors import InvalidConfig
from catalog.strict_mode import StrictMode
from journal.topics import TIER_PARTITIONS, TIERS
from payload.schema import FieldSchema

MAX_DIMENSIONS = 65_536
MAX_SHARDS = 64
MAX_VECTOR_NAMES = 64
MAX_REMOVED_VECTORS = 1_000
"""How many vectors can be removed from a collection: records of the log may name each of them."""

MAX_FIELDS = 256
MAX_TAGS = 100
MAX_RETENTION_S = 10 * 366 * 24 * 3600
MAX_NAME_CHARS = 255
_KEY_MARK = "\0"  # stands in no name
_NAME = re.compile(r'[^\x00-\x1f/\\<>:"|?*]+')


class Distance(StrEnum):
    """The distance metric between two vectors."""

    COSINE = "Cosine"
    DOT = "Dot"
    EUCLID = "Euclid"
    MANHATTAN = "Manhattan"

    @property
    def higher_is_closer(self) -> bool:
        return self in (Distance.COSINE, Distance.DOT)


class Datatype(StrEnum):
    """How the numbers of a dense vector are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT8 = "uint8"
    """Integers from 0 to 255; other numbers are truncated."""
    TURBO4 = "turbo4"
    """Codes of four bits per number."""


class Memory(StrEnum):
    """Where data is held: on disk until it is needed, read at the start, or in the memory of the process."""

    COLD = "cold"
    CACHED = "cached"
    PINNED = "pinned"


class Consistency(StrEnum):
    """The consistency level of a read (V10)."""

    EVENTUAL = "eventual"
    BOUNDED = "bounded"
    READ_YOUR_WRITES = "read_your_writes"
    STRONG = "strong"


class HnswConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """HNSW parameters. `m`: links per point and level (twice as many on level 0); `ef_construct`: candidates per insertion while
    the graph is built, raised for large segments.

    `m` = 0 disables the graph: every search is exact.
    """

    m: int = 24
    ef_construct: int = 100
    memory: Memory | None = None


class ScalarQuantization(msgspec.Struct, frozen=True, omit_defaults=True, tag="scalar"):
    """One byte per dimension. `quantile`: the share of values that the byte's range covers; values outside are clipped."""

    quantile: float | None = None
    always_ram: bool | None = None
    memory: Memory | None = None


class ProductQuantization(msgspec.Struct, frozen=True, omit_defaults=True, tag="product"):
    """Product quantization: each part of the vector is a code book entry. `compression` is relative to float32."""

    compression: Literal["x4", "x8", "x16", "x32", "x64"] = "x16"
    always_ram: bool | None = None
    memory: Memory | None = None


class BinaryQuantization(msgspec.Struct, frozen=True, omit_defaults=True, tag="binary"):
    """One bit per dimension, or more, depending on `encoding`."""

    encoding: Literal["one_bit", "two_bits", "one_and_half_bits"] | None = None
    query_encoding: Literal["default", "binary", "scalar4bits", "scalar8bits"] | None = None
    always_ram: bool | None = None
    memory: Memory | None = None


class TurboQuantization(msgspec.Struct, frozen=True, omit_defaults=True, tag="turbo"):
    """Codes of few bits per dimension, of rotated vectors, so that the distribution of their numbers does not matter."""

    bits: Literal["bits1", "bits1_5", "bits2", "bits4"] = "bits4"
    always_ram: bool | None = None
    memory: Memory | None = None


Quantization = ScalarQuantization | ProductQuantization | BinaryQuantization | TurboQuantization


class VectorParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dense named vector; with `multi`, a multi-vector compared by MaxSim.

    `kept` (also in the classes below) holds API settings that have no effect here and are returned unchanged.
    """

    size: int
    distance: Distance
    hnsw: HnswConfig | None = None
    multi: bool = False
    quantization: Quantization | None = None
    kept: dict[str, Any] = {}
    datatype: Datatype = Datatype.FLOAT32
    memory: Memory | None = None


class SparseParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sparse named vector. `idf`: query values are weighted by inverse document frequency."""

    idf: bool = False
    kept: dict[str, Any] = {}


class NewVector(msgspec.Struct, frozen=True, omit_defaults=True):
    """A vector that is added to a collection: a dense or a sparse one."""

    dense: VectorParams | None = None
    sparse: SparseParams | None = None


class RemovedVector(msgspec.Struct, frozen=True):
    """A vector that a collection had: writers knew it at the catalog positions from `since` to `until`, exclusive."""

    name: str
    vector: NewVector
    since: int
    until: int


class CollectionConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The configuration of a collection, as a client may set it. The default vector has the name "".

    `history_retention_s`: how long earlier states of points are kept, in seconds; None as the node's settings say. `ttl_s`: after
    how many seconds points expire whose upsert says nothing else; None for never.
    """

    vectors: dict[str, VectorParams] = {}
    shard_number: int = 1
    hnsw: HnswConfig = HnswConfig()
    consistency: Consistency = Consistency.READ_YOUR_WRITES
    sparse_vectors: dict[str, SparseParams] = {}
    quantization: Quantization | None = None
    strict_mode: StrictMode | None = None
    metadata: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    history_retention_s: int | None = None
    ttl_s: int | None = None

    def validate(self) -> None:
        """Raises InvalidConfig, which names the field and its bound."""
        _bound("shard_number", self.shard_number, 1, MAX_SHARDS)
        _bound("number of vectors", len(self.vectors) + len(self.sparse_vectors), 0, MAX_VECTOR_NAMES)
        if self.history_retention_s is not None:
            _bound("history_retention_s", self.history_retention_s, 0, MAX_RETENTION_S)
        if self.ttl_s is not None:
            _bound("ttl_s", self.ttl_s, 1, MAX_RETENTION_S)
        _check_hnsw("hnsw_config", self.hnsw)
        _check_quantization("quantization_config", self.quantization)
        if self.strict_mode is not None:
            self.strict_mode.validate()
        for name, params in self.vectors.items():
            label = f"vectors.{name}" if name else "vectors"
            _check_vector_name(name)
            _bound(f"{label}.size", params.size, 1, MAX_DIMENSIONS)
            if params.hnsw:
                _check_hnsw(f"{label}.hnsw_config", params.hnsw)
            _check_quantization(f"{label}.quantization_config", params.quantization)
        for name in self.sparse_vectors:
            _check_vector_name(name)
            if not name or name in self.vectors:
                raise InvalidConfig(f"sparse_vectors: name {name!r} is empty, or that of a dense vector")

    def has_vector(self, name: str) -> bool:
        """Whether there is a dense or sparse vector of this name."""
        return name in self.vectors or name in self.sparse_vectors

    def vector(self, name: str) -> NewVector:
        """The vector of this name, which must exist."""
        return NewVector(self.vectors.get(name), self.sparse_vectors.get(name))

    def with_vectors(self, vectors: Mapping[str, NewVector]) -> CollectionConfig:
        """The configuration with exactly these vectors."""
        dense = {name: vector.dense for name, vector in vectors.items() if vector.dense is not None}
        sparse = {name: vector.sparse for name, vector in vectors.items() if vector.sparse is not None}
        return msgspec.structs.replace(self, vectors=dense, sparse_vectors=sparse)

    def quantization_of(self, name: str) -> Quantization | None:
        """Quantization of a dense vector: its own setting, or else the collection's."""
        return self.vectors[name].quantization or self.quantization


class Collection(msgspec.Struct, frozen=True):
    """A collection in the catalog. `id` is the offset of its creation in the system topic, `created_ms` the append time.

    `since` has the catalog position from which on writers know a vector, for vectors that were added later; `removed` has those
    that were removed. A record means the vectors that its writer knew, at the record's catalog position. `tags` has stamps by
    name: the states of these instants are kept longer than the retention.
    """

    name: str
    id: int
    config: CollectionConfig
    homes: list[list[int]]
    fields: dict[str, FieldSchema] = {}
    created_ms: int = 0
    since: dict[str, int] = {}
    removed: list[RemovedVector] = []
    tags: dict[str, int] = {}

    @property
    def vectors_since(self) -> int:
        """The catalog position from which on writers know the vectors as they are now; 0 when they never changed."""
        if not self.since and not self.removed:  # as of most collections, and each read asks
            return 0
        return max(*self.since.values(), *(vector.until for vector in self.removed), 0)

    def known_at(self, position: int) -> Collection:
        """The collection with the vectors that a writer at an earlier catalog position knew."""
        if position >= self.vectors_since:
            return self
        names = (*self.config.vectors, *self.config.sparse_vectors)
        since = {name: self.since.get(name, 0) for name in names}
        known = {name: self.config.vector(name) for name in names if since[name] <= position}
        for vector in self.removed:
            if vector.since <= position < vector.until:
                known[vector.name], since[vector.name] = vector.vector, vector.since
        config = self.config.with_vectors(known)
        return msgspec.structs.replace(self, config=config, since={name: since[name] for name in known if since[name]})

    def readable_in(self, later: Collection) -> Collection:
        """This collection without the vectors that a later version of it does not have any more: their values are gone."""
        kept = self.vector_keys().items() & later.vector_keys().items()
        if len(kept) == len(self.vector_keys()):
            return self
        config = self.config.with_vectors({name: self.config.vector(name) for name, _ in kept})
        return msgspec.structs.replace(self, config=config)

    def vector_keys(self) -> dict[str, str]:
        """The key under which shards keep the values of each vector: another one when a name is used again."""
        names = (*self.config.vectors, *self.config.sparse_vectors)
        return {name: f"{name}{_KEY_MARK}{self.since[name]}" if name in self.since else name for name in names}


def vector_name(key: str) -> str:
    """The name of the vector with this key; see `Collection.vector_keys`."""
    return key.partition(_KEY_MARK)[0]


def check_name(kind: str, name: str) -> None:
    """Raises InvalidConfig unless `name` is valid for a collection or an alias."""
    if not 0 < len(name) <= MAX_NAME_CHARS or not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidConfig(f'{kind} name {name[:64]!r} must have 1 to {MAX_NAME_CHARS} characters, none of / \\ < > : " | ? *')


def check_homes(homes: list[list[int]], shard_number: int) -> None:
    """Raises InvalidConfig unless every shard has a home partition in every tier."""
    if len(homes) != shard_number:
        raise InvalidConfig(f"homes are given for {len(homes)} shards, shard_number is {shard_number}")
    for home in homes:
        if len(home) != len(TIERS) or not all(0 <= home[tier] < TIER_PARTITIONS[tier] for tier in TIERS):
            raise InvalidConfig(f"homes {home} do not name one partition of each tier {TIER_PARTITIONS}")


def _check_vector_name(name: str) -> None:
    if len(name) > MAX_NAME_CHARS or (name and not _NAME.fullmatch(name)):
        raise InvalidConfig(
            f'vector name {name[:64]!r} must have at most {MAX_NAME_CHARS} characters, none of / \\ < > : " | ? *'
        )


def _check_quantization(label: str, quantization: Quantization | None) -> None:
    if isinstance(quantization, ScalarQuantization) and quantization.quantile is not None:
        _bound(f"{label}.scalar.quantile", quantization.quantile, 0.5, 1)


def _check_hnsw(label: str, hnsw: HnswConfig) -> None:
    if hnsw.m != 0:
        _bound(f"{label}.m", hnsw.m, 2, 512)
    _bound(f"{label}.ef_construct", hnsw.ef_construct, 4, 10_000)


def _bound(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidConfig(f"{field}: is {value}, must be between {low} and {high}")
