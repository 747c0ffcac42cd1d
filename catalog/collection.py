"""What a collection is: its vectors, its settings, its payload schema and the homes of its shards."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from journal.topics import TIER_PARTITIONS, TIERS

MAX_DIMENSIONS = 65_536
MAX_SHARDS = 64
MAX_VECTOR_NAMES = 64
MAX_FIELDS = 256
MAX_NAME_CHARS = 255
_NAME = re.compile(r'[^\x00-\x1f/\\<>:"|?*]+')


class InvalidConfig(Exception):
    """A collection cannot be as asked. The text names the field and its bound."""


class Distance(StrEnum):
    """How two vectors are compared."""

    COSINE = "Cosine"
    DOT = "Dot"
    EUCLID = "Euclid"
    MANHATTAN = "Manhattan"

    @property
    def higher_is_closer(self) -> bool:
        return self in (Distance.COSINE, Distance.DOT)


class Consistency(StrEnum):
    """What a read demands of the state that answers it (V10)."""

    EVENTUAL = "eventual"
    BOUNDED = "bounded"
    READ_YOUR_WRITES = "read_your_writes"
    STRONG = "strong"


class FieldType(StrEnum):
    """The kinds of payload index."""

    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"
    UUID = "uuid"
    TEXT = "text"


class HnswConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The graph's shape: `m` links a point and level (twice that on the ground), `ef_construct` candidates while building.

    An `m` of 0 means no graph: every search compares all.
    """

    m: int = 24
    ef_construct: int = 100


class VectorParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """One vector of a collection's points."""

    size: int
    distance: Distance
    hnsw: HnswConfig | None = None


class FieldSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """An indexed payload field. The text options follow the dialect: token lengths in characters."""

    type: FieldType
    lowercase: bool = True
    min_token_len: int = 1
    max_token_len: int = 255


class CollectionConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client may say of a collection when creating it; the unnamed vector has the name ""."""

    vectors: dict[str, VectorParams] = {}
    shard_number: int = 1
    hnsw: HnswConfig = HnswConfig()
    consistency: Consistency = Consistency.READ_YOUR_WRITES

    def validate(self) -> None:
        """Raises InvalidConfig, naming the field and the bound."""
        _bound("shard_number", self.shard_number, 1, MAX_SHARDS)
        _bound("number of vectors", len(self.vectors), 0, MAX_VECTOR_NAMES)
        _check_hnsw("hnsw_config", self.hnsw)
        for name, params in self.vectors.items():
            label = f"vectors.{name}" if name else "vectors"
            if len(name) > MAX_NAME_CHARS or (name and not _NAME.fullmatch(name)):
                raise InvalidConfig(
                    f'vector name {name[:64]!r} must have at most {MAX_NAME_CHARS} characters, none of / \\ < > : " | ? *'
                )
            _bound(f"{label}.size", params.size, 1, MAX_DIMENSIONS)
            if params.hnsw:
                _check_hnsw(f"{label}.hnsw_config", params.hnsw)


class Collection(msgspec.Struct, frozen=True):
    """A collection as the catalog knows it. `id` is the offset of its creation, `created_ms` the log's time for it."""

    name: str
    id: int
    config: CollectionConfig
    homes: list[list[int]]
    fields: dict[str, FieldSchema] = {}
    created_ms: int = 0


def check_name(kind: str, name: str) -> None:
    """Raises InvalidConfig unless `name` may be the name of a collection or an alias."""
    if not 0 < len(name) <= MAX_NAME_CHARS or not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidConfig(f'{kind} name {name[:64]!r} must have 1 to {MAX_NAME_CHARS} characters, none of / \\ < > : " | ? *')


def check_homes(homes: list[list[int]], shard_number: int) -> None:
    """Raises InvalidConfig unless every shard has a home partition in every tier."""
    if len(homes) != shard_number:
        raise InvalidConfig(f"homes are given for {len(homes)} shards, shard_number is {shard_number}")
    for home in homes:
        if len(home) != len(TIERS) or not all(0 <= home[tier] < TIER_PARTITIONS[tier] for tier in TIERS):
            raise InvalidConfig(f"homes {home} do not name one partition of each tier {TIER_PARTITIONS}")


def _check_hnsw(label: str, hnsw: HnswConfig) -> None:
    if hnsw.m != 0:
        _bound(f"{label}.m", hnsw.m, 2, 512)
    _bound(f"{label}.ef_construct", hnsw.ef_construct, 4, 10_000)


def _bound(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidConfig(f"{field} is {value}, must be between {low} and {high}")
