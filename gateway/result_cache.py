"""A cache of answers to repeated searches: W-TinyLFU (Einziger, Friedman and Manes, 2017).

A new entry enters a small window. When it leaves the window, it is admitted to the main part only if its key is requested more
often than the entry that it would evict; so requests that come only once evict nothing from the main part. A key contains the
versions of the shards' views, so an entry is never stale: after a write the key is different. Keys count towards the capacity;
`digest_of` makes short ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from hashlib import sha256
from sys import getsizeof

WINDOW_SHARE = 0.01
PROTECTED_SHARE = 0.8
"""The share of the main part for entries that were hit in it; the others are on probation."""

ENTRY_BYTES = 90
"""The memory of an entry beside its key and its value, averaged over the growth of a dict."""

MAX_BODY_BYTES = 128 << 10
"""Requests with larger bodies are not cached: they are rarely repeated, and their digest takes too long."""


def digest_of(route: str, body: bytes, collection: int, versions: Iterable[Hashable]) -> bytes | None:
    """The cache key of a request: a digest of 16 bytes of the route, the raw body and the shards' views. None: do not cache.

    Equal bodies have different meanings on different routes, and as JSON and msgpack: `route` must distinguish these. `versions`
    are of the shards' leases, in the order of the shards.
    """
    if len(body) > MAX_BODY_BYTES:
        return None
    digest = sha256(f"{route} {collection} {','.join(map(str, versions))}\n".encode())
    digest.update(body)
    return digest.digest()[:16]


_ROWS = 4
_MAX_COUNT = 15
_SEEDS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)


class Frequencies:
    """Approximate request frequencies of keys: a count-min sketch whose counts are halved periodically."""

    def __init__(self, width: int) -> None:
        self._mask = (1 << max(8, width.bit_length())) - 1
        self._rows = [bytearray(self._mask + 1) for _ in range(_ROWS)]
        self._added = 0

    def add(self, key: bytes) -> None:
        for row, at in self._cells(key):
            if row[at] < _MAX_COUNT:
                row[at] += 1
        self._added += 1
        if self._added > 10 * self._mask:
            self._rows = [bytearray(count >> 1 for count in row) for row in self._rows]
            self._added //= 2

    def of(self, key: bytes) -> int:
        return min(row[at] for row, at in self._cells(key))

    def _cells(self, key: bytes) -> list[tuple[bytearray, int]]:
        digest = hash(key) & 0xFFFFFFFFFFFFFFFF
        return [(row, (digest * seed >> 40) & self._mask) for row, seed in zip(self._rows, _SEEDS, strict=True)]


class ResultCache:
    """Byte strings by key, in at most `capacity_bytes`. Thread-safe."""

    def __init__(self, capacity_bytes: int, expected_entries: int = 4096) -> None:
        self.hits = self.misses = 0
        self._lock = threading.Lock()
        self._frequencies = Frequencies(expected_entries)
        self._window = _Part(int(WINDOW_SHARE * capacity_bytes))
        main_bytes = capacity_bytes - self._window.bound
        self._protected = _Part(int(PROTECTED_SHARE * main_bytes))
        self._probation = _Part(main_bytes - self._protected.bound)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, and None on a miss; counts the request in any case."""
        with self._lock:
            return self._get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Adds a value, unless it is larger than the probation part."""
        if _size(key, value) > self._probation.bound:
            return
        with self._lock:
            self._window.put(key, value)
            while self._window.is_full():
                self._admit(*self._window.oldest())

    def _get(self, key: bytes) -> bytes | None:
        self._frequencies.add(key)
        for part in (self._window, self._protected):
            if (value := part.get(key)) is not None:
                self.hits += 1
                return value
        if (value := self._probation.pop(key)) is None:
            self.misses += 1
            return None
        self.hits += 1
        self._protected.put(key, value)
        while self._protected.is_full():
            self._probation.put(*self._protected.oldest())
        self._trim()
        return value

    def size_bytes(self) -> int:
        """The memory of all entries."""
        return self._window.size + self._probation.size + self._protected.size

    def _admit(self, key: bytes, value: bytes) -> None:
        """Moves an entry to the main part, if its key is requested more often than those that must be evicted for it."""
        need = _size(key, value)
        while self._probation.entries and self._probation.size + need > self._probation.bound:
            victim, kept = self._probation.oldest()
            if self._frequencies.of(victim) >= self._frequencies.of(key):
                self._probation.put(victim, kept)
                return
        self._probation.put(key, value)

    def _trim(self) -> None:
        while self._probation.is_full():
            self._probation.oldest()


def _size(key: bytes, value: bytes) -> int:
    """The memory of an entry."""
    return ENTRY_BYTES + getsizeof(key) + getsizeof(value)


class _Part:
    """A least-recently-used list bounded in bytes."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.size = 0
        self.entries: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        value = self.entries.get(key)
        if value is not None:
            self.entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        self.pop(key)
        self.entries[key] = value
        self.size += _size(key, value)

    def pop(self, key: bytes) -> bytes | None:
        value = self.entries.pop(key, None)
        if value is not None:
            self.size -= _size(key, value)
        return value

    def oldest(self) -> tuple[bytes, bytes]:
        """Removes and returns the least recently used entry."""
        key, value = self.entries.popitem(last=False)
        self.size -= _size(key, value)
        return key, value

    def is_full(self) -> bool:
        return self.size > self.bound
