"""What may go wrong inside a process: shards that fail, writes around which it dies, partitions that come in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from catalog.collection import Collection
from journal.memory import MemoryJournal, MemoryReader
from shard.shard import Shard
from shard.shards import Shards
from shard.store import Changes
from tests.simulation.checks import check_node
from tests.simulation.setting import LIMITS, POLICY, TOPICS

if TYPE_CHECKING:
    from tests.simulation.node import Node


class Crash(BaseException):
    """The process dies here. No exception that anything may handle."""


class ShardFault(Exception):
    """Something fails inside one shard."""


class SimulatedShards(Shards):
    """Shards that fail at random, and around whose writes the process may die."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.folder, TOPICS, LIMITS, node.tasks.append, POLICY)
        self._node = node

    def _new_shard(self, collection: Collection, number: int) -> Shard:
        self._may_fail("opening")
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
                check_node(self._node, published=False)
            if fate > 1 - world.crash_rate:
                raise Crash("after the write")
            self._may_fail("after the write")

        return write_or_die


class SimulatedJournal(MemoryJournal):
    """Its readers interleave the partitions at random."""

    random: random.Random

    def reader(self, shuffle: random.Random | None = None) -> MemoryReader:
        return super().reader(self.random)
