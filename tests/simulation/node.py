"""One simulated process: the real writer, replayer, shards and ingest over the memory journal and a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.collection import Collection
from journal.hlc import Clock
from journal.log import Definite, Indefinite, TopicPartition, Unfit
from journal.records import Record
from journal.registry import SchemaRegistry
from journal.writer import Writer
from query.pinned import Pinned
from replayer.ingest.member import Ingest
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.replica import AsOf
from tests.reading import pinned as pinned_shards
from tests.simulation.faults import Crash, KeptStores, ShardFault, SimulatedShards
from tests.simulation.setting import LIMITS, TOPICS

if TYPE_CHECKING:
    from tests.simulation.world import World


KEPT_RATE = 0.9
"""How many restarts keep their RocksDBs open."""


class Node:
    """One process: what it keeps on disk, and what it holds in memory while it lives."""

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.world = world
        self.name = name
        self.folder = folder
        self.skew_ms = world.random.choice((0, 0, -3000, 100, 400))
        self.stores = KeptStores()
        self.start()

    def pinned(self, collection: Collection, as_of: AsOf | None = None) -> Pinned:
        """A collection as this node sees it now, or saw it."""
        return pinned_shards(self.shards.of(collection.id), self.world.random.random() < 0.5, as_of)

    def start(self) -> None:
        self.replaying = True
        self.tasks: list[Callable[[], None]] = []
        self.journal = self.world.connect()
        self.clock = Clock(lambda: self.world.now_ms + self.skew_ms)
        self.writer = Writer(self.journal, TOPICS, self.clock)
        self.shards = SimulatedShards(self)
        self.replayer = Replayer(
            self.journal,
            TOPICS,
            self.clock,
            self.shards,
            self.name,
            LIMITS,
            DeadLetters(),
            lambda: self.world.now_ms,
            lambda: self.world.now_ms / 1000,
        )
        self.lost_share = False
        self.ingesting = False
        self.ingest = Ingest(
            self.journal,
            TOPICS,
            self.writer,
            SchemaRegistry(),
            lambda: self.replayer.catalog.view,
            self.replayer.applied,
            self.name,
            lambda: self.world.now_ms,
            catalog_wait_s=0,
        )
        while True:
            try:
                self.replayer.open()
            except Unfit:
                raise
            except (Definite, Indefinite):
                self.replayer.close()  # as `Replayer.run` does, before it begins again
            else:
                break
        self.replaying = False

    def crash(self) -> None:
        """Everything in memory is gone. RocksDB's files and the checkpoints stay as the last write left them."""
        for opened in self.shards.all():
            opened.checkpoint.stale_rows = 0  # or the shard would take one as it closes
        self.stop()

    def stop(self) -> None:
        """A clean end: what changed goes into checkpoints. It does not die on the way: `crash` is for that."""
        rates = self.world.crash_rate, self.world.shard_fault_rate
        self.world.crash_rate = self.world.shard_fault_rate = 0.0
        self.stores.keeping = self.world.random.random() < KEPT_RATE
        self.ingest.close()
        self.replayer.close()
        self.stores.keeping = False
        self.world.crash_rate, self.world.shard_fault_rate = rates

    def checkpoint(self) -> None:
        """Each shard takes one, or not; the process may die around its write to RocksDB."""
        for opened in self.shards.all():
            if self.world.random.random() < 0.5:
                opened.checkpoint.take()

    def work(self, act: Callable[[], object]) -> None:
        """Does something in which the process may die, and then starts anew."""
        try:
            act()
        except ShardFault:
            pass  # as `BackgroundThread` passes over what fails in a task
        except Crash:
            self.crash()
            self.start()

    def ingest_step(self) -> bool:
        """One step of the ingest, which begins again when anything fails, as `Ingest.run` does. Whether anything came."""
        ingest = self.ingest
        self.ingesting = True
        try:
            if self.lost_share:
                ingest.close()
                self.lost_share = False
            if ingest._member is None:
                ingest.open()
            return ingest.step(0) > 0
        except (Definite, Indefinite):
            ingest.close()
            return True
        finally:
            self.ingesting = False

    def lose_share(self) -> None:
        """The group takes this node for dead while it is only slow; it goes on with what it has."""
        if self.ingest._member is not None:
            self.ingest._member.close()
            self.lost_share = True

    def reach(self, partition: TopicPartition, record: Record | None) -> int:
        """How far a partition is applied: announced, or already on disk when a crash came before the announcement."""
        if partition == TOPICS.system_partition:
            return self.replayer.catalog.view.position
        announced = self.replayer.applied.get()[partition]
        found = None if record is None else self.shards.find(record.collection, record.shard)
        return announced if found is None else max(announced, found.progress(partition).offset)

    def closed(self, collection: int, shard: int) -> int:
        """Up to which stamp points of a shard have expired here."""
        found = self.shards.find(collection, shard)
        return 0 if found is None else found.closed()

    def step(self) -> bool:
        """One replay step, in which the process may die around any write to RocksDB."""
        self.replaying = True
        try:
            return self.replayer.step(0) > 0
        except (Crash, Definite, Indefinite):
            self.crash()
            self.start()
            return True
        finally:
            self.replaying = False

    def catch_up(self) -> None:
        """Reads to the end of the log, and does all that is left to do."""
        for _ in range(10_000):
            waits = bool(self.replayer._paused or self.shards.quarantined())
            if not self.step():
                if not waits:
                    break
                while self.tasks:  # shards are opened again in the background
                    self.work(self.tasks.pop(0))
                self.world.now_ms += 20_000  # until claims are too late, and shards are tried again
        assert not self.shards.quarantined()
        ends = self.journal.end_offsets([TOPICS.system_partition, *TOPICS.data_partitions()])
        assert self.replayer.applied.covers(ends)
        while self.tasks:
            self.tasks.pop(0)()
