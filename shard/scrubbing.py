"""Reads the files of segments again at a low pace, and compares their checksums: a bit may change on disk at any time.

A damaged segment is removed, and its shard is quarantined and opened again, which takes the vectors from RocksDB.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

from shard.shard import Shard
from shard.shards import Shards
from shard.vectors.segment_store import DamagedSegment, SegmentStore
from shard.vectors.segments import DenseIndex

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
CHECK_EVERY_S = 24 * 3600.0
"""A segment is checked soon after it was opened, and then at this interval."""

BYTES_PER_S = 32 << 20


class Scrubber:
    """Checks the segments of `shards`. `run` is for a thread of its own, which `stop` ends."""

    def __init__(self, shards: Shards, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._shards = shards
        self._monotonic_s = monotonic_s
        self._checked_s: dict[tuple[SegmentStore, str], float] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Looks every LOOK_EVERY_S for segments that are due, until `stop`."""
        while not self._stopping.wait(LOOK_EVERY_S):
            self.look()

    def stop(self) -> None:
        self._stopping.set()

    def look(self) -> None:
        """Checks all segments that are due."""
        kept: dict[tuple[SegmentStore, str], float] = {}
        for shard in self._shards.all():
            for store, name in _segments(shard):
                key = (store, name)
                kept[key] = self._checked_s.get(key, float("-inf"))
                if self._monotonic_s() - kept[key] > CHECK_EVERY_S and not self._stopping.is_set():
                    self._check(shard, store, name)
                    kept[key] = self._monotonic_s()
        self._checked_s = kept

    def _check(self, shard: Shard, store: SegmentStore, name: str) -> None:
        try:
            store.check(name, self._pause)
        except DamagedSegment as error:
            log.error("a segment of shard %d of collection %s is damaged: %s", shard.number, shard.collection.name, error)
            store.remove(name)
            shard.on_damage(error)

    def _pause(self, size: int) -> bool:
        """Waits after `size` bytes were read. Returns whether to go on."""
        return not self._stopping.wait(size / BYTES_PER_S)


def _segments(shard: Shard) -> Iterator[tuple[SegmentStore, str]]:
    for vectors in (*shard.vectors.values(), *shard.past.vectors.values()):
        if isinstance(vectors, DenseIndex):
            yield from ((vectors.store, name) for name in vectors.segment_names())
