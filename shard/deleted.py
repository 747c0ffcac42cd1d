"""The state of deleted collections: kept as long as their history, and opened when somebody reads the past of one (N1)."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from catalog.collection import Collection
from shard.shard import Shard, ShardClosed

log = logging.getLogger(__name__)

_NOTE = "deleted.json"

OPEN_MS = 60_000
"""A collection that nobody has read for this time is closed again."""

MAX_OPEN = 4
"""Deleted collections that are open at the same time; the one that was opened first is closed."""


class _Note(msgspec.Struct):
    """When the state may be removed."""

    until_ms: int


class _Opened(NamedTuple):
    shards: Sequence[Shard]
    read_ms: int


class DeletedCollections:
    """Deleted collections in folders `<collection id>` below `folder`. `open_shards` opens the shards in such a folder.

    The thread that applies keeps and expires; any thread opens.
    """

    def __init__(self, folder: Path, open_shards: Callable[[Path, Collection], Sequence[Shard]]) -> None:
        self._folder = folder
        self._open_shards = open_shards
        self._lock = threading.Lock()
        self._opened: dict[int, _Opened] = {}
        self._until_ms: dict[int, int] = {}
        self._expected: set[int] = set()

    def load(self) -> None:
        """Finds what is kept. A folder without a note was not kept in full, and is removed."""
        for folder in self._folder.glob("*"):
            try:
                self._until_ms[int(folder.name)] = msgspec.json.decode((folder / _NOTE).read_bytes(), type=_Note).until_ms
            except (OSError, ValueError, msgspec.MsgspecError):
                shutil.rmtree(folder, ignore_errors=True)

    def expect(self, collection_id: int) -> None:
        """Notes that the state of a collection is about to be kept."""
        self._expected.add(collection_id)

    def keep(self, state: Path, collection_id: int, until_ms: int) -> None:
        """Takes over the state of a collection whose shards are closed, until a time."""
        kept = self._folder / str(collection_id)
        self._folder.mkdir(exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        (state / _NOTE).write_bytes(msgspec.json.encode(_Note(until_ms)))
        state.rename(kept)
        with self._lock:
            self._until_ms[collection_id] = until_ms
            self._expected.discard(collection_id)

    def shards(self, collection: Collection, now_ms: int) -> Sequence[Shard]:
        """The shards of a deleted collection, opened if they are not; none when its state is not kept. May take long.

        Raises ShardClosed while its state is being put there.
        """
        with self._lock:
            if collection.id in self._expected:
                raise ShardClosed(f"the state of the deleted collection {collection.name!r} is being closed")
            if collection.id not in self._until_ms:
                return ()
            if (opened := self._opened.pop(collection.id, None)) is None:
                try:
                    opened = _Opened(self._open_shards(self._folder / str(collection.id), collection), now_ms)
                except Exception as error:  # RocksDB's errors have no class of their own
                    log.warning("the state of the deleted collection %s cannot be opened: %s", collection.name, error)
                    return ()
            self._opened[collection.id] = opened._replace(read_ms=now_ms)
            while len(self._opened) > MAX_OPEN:
                _close(self._opened.pop(next(iter(self._opened))))
            return opened.shards

    def expire(self, now_ms: int) -> None:
        """Closes what nobody reads any more, and removes what need not be kept."""
        if not self._until_ms:
            return
        with self._lock:
            over = [id_ for id_, until_ms in self._until_ms.items() if until_ms <= now_ms]
            for id_ in [id_ for id_, opened in self._opened.items() if id_ in over or now_ms - opened.read_ms > OPEN_MS]:
                _close(self._opened.pop(id_))
            for id_ in over:
                del self._until_ms[id_]
                log.info("removing the state of the deleted collection %d, whose history is over", id_)
                shutil.rmtree(self._folder / str(id_), ignore_errors=True)

    def close(self) -> None:
        """Closes all shards; their state stays."""
        with self._lock:
            for opened in self._opened.values():
                _close(opened)
            self._opened, self._until_ms = {}, {}

    def kept(self) -> Mapping[int, int]:
        """Until when each collection is kept, in ms since 1970, by id."""
        return dict(self._until_ms)


def _close(opened: _Opened) -> None:
    for shard in opened.shards:
        shard.release()
