"""The join: merges the writes to one point into one state that does not depend on their order or repetition (I5).

A point is a last-writer-wins map with floors, after the delta-state maps of Almeida, Shoker and Baquero (2018). A full write
(upsert, delete) replaces everything with a lower version; a payload replacement replaces all payload with a lower version; a
patch changes one payload key or one vector. A patch with a higher version than a full write survives it, even if it arrives
first. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from journal.records import Vector
from journal.stamps import NEVER, Version


class PointState(msgspec.Struct):
    """The state of one point, joined from all writes seen so far.

    `keys` and `names` hold the versions of patches above their floor, including patches that removed something. Patches of a
    point that does not exist are kept in `payload` and `vectors` until a full write with a lower version arrives.
    `decided` is the highest version of a write with a condition: below it, writes cannot be joined in any order, and the state
    is folded anew from all writes (`shard.history`). `expires` is when the point expires, NEVER for never.
    """

    full: Version = NEVER
    alive: bool = False
    floor: Version = NEVER
    keys: dict[str, Version] = {}
    names: dict[str, Version] = {}
    payload: bytes = b""
    vectors: dict[str, Vector] = {}
    decided: Version = NEVER
    expires: Version = NEVER

    def is_patched(self) -> bool:
        """Whether the state differs from its last full write."""
        return bool(self.keys or self.names) or self.floor != self.full

    def version(self) -> Version:
        """The version of the latest write in the state."""
        if not self.keys and not self.names:
            return max(self.full, self.floor)
        return max(self.full, self.floor, *self.keys.values(), *self.names.values())

    def upsert(self, version: Version, vectors: dict[str, Vector], payload: bytes, expires: Version = NEVER) -> bool:
        """Joins a full write. Returns False when a later full write is known, so that nothing changed."""
        if version < self.full:
            return False
        self.full, self.alive, self.expires = version, True, expires
        self._replace_vectors(version, vectors)
        self.replace_payload(version, payload)
        return True

    def delete(self, version: Version) -> bool:
        """Joins a delete."""
        if version < self.full:
            return False
        self.full, self.alive, self.expires = version, False, NEVER
        self._replace_vectors(version, {})
        self.replace_payload(version, b"")
        return True

    def replace_payload(self, version: Version, payload: bytes) -> bool:
        """Joins a write of the whole payload."""
        if version < self.floor:
            return False
        self.floor = version
        if self.keys:
            self.keys = {key: v for key, v in self.keys.items() if v > version}
            patched = _fields(self.payload)
            kept = {key: patched[key] for key in self.keys if key in patched}
            fields = {key: value for key, value in _fields(payload).items() if key not in self.keys}
            payload = _dump(fields | kept)
        self.payload = payload
        return True

    def patch_payload(self, version: Version, changes: Mapping[str, Any], unset: list[str]) -> bool:
        """Joins a write of single payload keys."""
        touched = [key for key in dict.fromkeys([*changes, *unset]) if version >= self.keys.get(key, self.floor)]
        if not touched:
            return False
        fields = _fields(self.payload)
        for key in touched:
            if key in changes:
                fields[key] = changes[key]
            else:
                fields.pop(key, None)
        self.keys = self.keys | dict.fromkeys(touched, version)
        self.payload = _dump(fields)
        return True

    def patch_vectors(self, version: Version, vectors: Mapping[str, Vector | None]) -> bool:
        """Joins a write of single vectors; None removes one."""
        touched = [name for name in vectors if version >= self.names.get(name, self.full)]
        for name in touched:
            self.vectors = {other: vector for other, vector in self.vectors.items() if other != name}
            if (vector := vectors[name]) is not None:
                self.vectors[name] = vector
        self.names = self.names | dict.fromkeys(touched, version)
        return bool(touched)

    def _replace_vectors(self, version: Version, vectors: dict[str, Vector]) -> None:
        if self.names:
            self.names = {name: v for name, v in self.names.items() if v > version}
            kept = {name: self.vectors[name] for name in self.names if name in self.vectors}
            vectors = {name: vector for name, vector in vectors.items() if name not in self.names} | kept
        self.vectors = vectors


def _fields(payload: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(payload) if payload else {}
    return fields


def _dump(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields) if fields else b""
