"""The writes to one point: their effect, their stored form, and the fold of all of them in version order (I5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec
import orjson

from journal.records import Vector
from journal.stamps import NEVER, Version
from shard.join import PointState

Kind = Literal["upsert", "delete", "replace_payload", "patch_payload", "patch_vectors", "expire"]


class Condition(NamedTuple):
    """A write with a condition changes a point only if `expected` is the version of the point just before it, or NEVER if the
    point did not exist. `offset` is the offset of its record in the shard's home partition of the write's tier.
    """

    expected: Version
    offset: int


class Write(msgspec.Struct):
    """One write to one point.

    `vectors` are those of an upsert, or those that a patch sets, None for one that it removes. `payload` is the payload of an
    upsert or a replacement, or the keys that a patch sets, as JSON. `unset` are the payload keys that a patch removes. `expires`
    is when the points of an upsert expire. `expire` is no record of the log: it deletes a point that expires at its version.
    """

    kind: Kind
    vectors: Mapping[str, Vector | None] = {}
    payload: bytes = b""
    unset: list[str] = []
    condition: Condition | None = None
    expires: Version = NEVER

    @property
    def is_full(self) -> bool:
        """Whether the write replaces the whole point."""
        return self.kind in ("upsert", "delete")

    def join(self, point: PointState, version: Version) -> bool:
        """Joins the write, without its condition, into a point. Returns False when it changes nothing."""
        match self.kind:
            case "upsert":
                return point.upsert(version, dict(self.vectors), self.payload, self.expires)  # type: ignore[arg-type]
            case "delete":
                return point.delete(version)
            case "replace_payload":
                return point.replace_payload(version, self.payload)
            case "patch_payload":
                return point.patch_payload(version, orjson.loads(self.payload), self.unset)
            case "patch_vectors":
                return point.patch_vectors(version, self.vectors)
            case "expire":
                return point.alive and point.expires == version and point.delete(version)

    def encoded(self) -> bytes:
        """The stored form."""
        data = {name: None if vector is None else vector.tobytes() for name, vector in self.vectors.items()}
        return _encode(_Stored(self.kind, data, self.payload, self.unset, self.condition, self.expires))


class _Stored(msgspec.Struct, array_like=True, omit_defaults=True):
    kind: Kind
    vectors: dict[str, bytes | None] = {}
    payload: bytes = b""
    unset: list[str] = []
    condition: Condition | None = None
    expires: Version = NEVER


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def decode_write(data: bytes, decode_vector: Callable[[str, bytes], Vector | None]) -> Write:
    """The write whose stored form is `data`."""
    stored = _decode(data)
    vectors = {name: None if raw is None else decode_vector(name, raw) for name, raw in stored.vectors.items()}
    if stored.kind == "upsert":  # of a patch, what it does to a vector that is removed is kept: its version counts
        vectors = {key: vector for key, vector in vectors.items() if vector is not None}
    return Write(stored.kind, vectors, stored.payload, stored.unset, stored.condition, stored.expires)


def current_write(point: PointState) -> Write:
    """The full write that gives the state of an unpatched point."""
    return Write("upsert", point.vectors, point.payload, expires=point.expires) if point.alive else Write("delete")


def holds(condition: Condition, point: PointState) -> bool:
    """Whether a condition holds on the state just before its write."""
    return condition.expected == (point.version() if point.alive else NEVER)


def fold(writes: Iterable[tuple[Version, Write]]) -> tuple[PointState, dict[Version, bool]]:
    """The state of a point after all writes to it, and whether the condition of each write that has one held.

    `writes` are in ascending order of version.
    """
    point = PointState()
    outcomes: dict[Version, bool] = {}
    for version, write in writes:
        if write.condition is not None:
            outcomes[version] = holds(write.condition, point)
        if outcomes.get(version, True):
            write.join(point, version)
    point.decided = max(outcomes, default=NEVER)
    return point, outcomes
