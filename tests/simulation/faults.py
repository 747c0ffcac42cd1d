"""What may go wrong inside a process: shards that fail, writes around which it dies, partitions that come in any order."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import shard.shard
from catalog.collection import Collection
from journal.memory import MemoryJournal, MemoryReader
from shard.shard import Shard
from shard.shards import Shards
from shard.store import Changes, Store, VectorFormats
from tests.simulation.setting import LIMITS, POLICY, TOPICS

if TYPE_CHECKING:
    from tests.simulation.node import Node


class Crash(BaseException):
    """The process dies here. No exception that anything may handle."""


class ShardFault(Exception):
    """Something fails inside one shard."""


class KeptStores:
    """The RocksDBs of a node. Most stay open while its process is down, since opening them would be most of a history's time.

    A process leaves in RocksDB what it has written, however it ends. What a kept one leaves out is RocksDB's own recovery.
    """

    def __init__(self) -> None:
        self.keeping = False
        """Whether a store that is closed now is kept."""
        self._kept: dict[Path, tuple[bytes, Store]] = {}

    def open(self, path: Path, formats: VectorFormats) -> Store:
        """The store that was kept, or a new one, also when the files of the kept one were removed meanwhile."""
        identity, kept = self._kept.pop(path, (b"", None))
        if kept is not None and identity == _identity(path):
            store = copy.copy(kept)
            store._formats = formats
        else:
            if kept is not None:
                kept.close()
            store = Store(path, formats)
        close = store.close
        store.close = lambda: self._keep(path, store) if self.keeping else close()  # type: ignore[method-assign]
        return store

    def _keep(self, path: Path, store: Store) -> None:
        kept = copy.copy(store)
        for wrapped in ("close", "write"):
            vars(kept).pop(wrapped, None)
        self._kept[path] = (_identity(path), kept)

    def close(self, folder: Path) -> None:
        """Really closes what is kept in a folder, as is needed before anything is done to the files there."""
        for path in [path for path in self._kept if path.is_relative_to(folder)]:
            self._kept.pop(path)[1].close()


def _identity(path: Path) -> bytes:
    """The random name that RocksDB gives its folder."""
    try:
        return (path / "IDENTITY").read_bytes()
    except FileNotFoundError:
        return b"none"


class SimulatedShards(Shards):
    """Shards that fail at random, and around whose writes the process may die."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.folder, TOPICS, LIMITS, node.tasks.append, POLICY)
        self._node = node

    def _new_shard(self, collection: Collection, number: int) -> Shard:
        self._may_fail("opening")
        with patch.object(shard.shard, "Store", self._node.stores.open):
            opened = super()._new_shard(collection, number)
        opened.store.write = self._mortal(opened.store.write)  # type: ignore[method-assign]
        opened.configure = self._failing(opened.configure)  # type: ignore[method-assign]
        return opened

    def _may_fail(self, what: str) -> None:
        world = self._node.world
        if world.shard_fault_rate and world.random.random() < world.shard_fault_rate:
            world.shard_faults += 1
            raise ShardFault(what)

    def _failing(self, configure: Callable[[Collection], None]) -> Callable[[Collection], None]:
        def configure_or_fail(collection: Collection) -> None:
            self._may_fail("configuring")
            configure(collection)

        return configure_or_fail

    def _mortal(self, write: Callable[[Changes], None]) -> Callable[[Changes], None]:
        world = self._node.world

        def write_or_die(changes: Changes) -> None:
            fate = world.random.random()
            if fate < world.crash_rate:
                raise Crash("before the write")
            self._may_fail("before the write")
            write(changes)
            if 0.5 < fate < 0.6:  # a read between the write and its publication sees the moment before
                world.check_unpublished(self._node)
            if fate > 1 - world.crash_rate:
                raise Crash("after the write")
            self._may_fail("after the write")

        return write_or_die


class SimulatedJournal(MemoryJournal):
    """Its readers interleave the partitions at random."""

    random: random.Random

    def reader(self, shuffle: random.Random | None = None) -> MemoryReader:
        return super().reader(self.random)
