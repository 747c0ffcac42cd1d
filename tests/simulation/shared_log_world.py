"""A world whose log is one that nodes share, as on Kafka: a partition loses its end, or a topic is made anew, under two nodes.

What must hold: both nodes say so and serve nothing of it; after a repair that writes back from one of them, the other one, which
only starts again, has the same points in the same versions; after a loss that all accept, all have what the log has; and a log
that is another one is used only when that is said (`vecraft topics adopt`).
"""

from __future__ import annotations

import contextlib
import copy
import io
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from unittest.mock import patch

import msgspec

from catalog.catalog import choose_homes
from journal.log import Appended, Entry, Headers, Indefinite, Journal, JournalError, Positions, TopicPartition, lost_end
from journal.memory import MemoryJournal, MemoryReader
from journal.records import CreateCollection
from journal.topics import TIERS
from journal.writer import Destination, Origin
from shard.shards import ShardUnavailable
from tests.simulation.checks import check_collection
from tests.simulation.log_node import LogNode
from tests.simulation.model import expected_state
from tests.simulation.setting import COLLECTIONS, LIMITS, START_MS, TOPICS
from tests.simulation.writes import any_config, any_operation
from vecraft.adoption import adopt
from vecraft.recovery import repair
from vecraft.settings import Settings

TRUTH = [TOPICS.system_partition, *TOPICS.data_partitions()]


class SharedJournal(MemoryJournal):
    """A log in memory that may lose what it has held. `seen_by_a_process` is what a process has of it."""

    def __init__(self, world: SharedLogWorld) -> None:
        super().__init__(lambda: world.now_ms)
        self.made: dict[str, int] = {}
        """How often each topic was made anew."""
        self._floors: Positions = {}

    def seen_by_a_process(self) -> SharedJournal:
        seen = copy.copy(self)
        seen._refused, seen._floors, seen._closed = {}, {}, False
        return seen

    def lose_end(self, partition: TopicPartition, count: int) -> None:
        del self._logs[partition][-count:]

    def make_anew(self, topic: str) -> None:
        self.made[topic] = self.made.get(topic, 0) + 1
        for partition in self._logs:
            if partition.topic == topic:
                self._logs[partition].clear()

    def identities(self, topics: list[str]) -> dict[str, str]:  # type: ignore[override]
        return {topic: f"{name}:{self.made.get(topic, 0)}" for topic, name in super().identities(topics).items()}

    def append(
        self,
        partition: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: Headers = (),
        time_ms: int | None = None,
    ) -> Future[Appended]:
        """As the Kafka journal, it notices when an offset is given out again that it has seen."""
        future = super().append(partition, value, key, headers, time_ms)
        offset, floor = future.result(0).offset, self._floors.get(partition, 0)
        if offset >= floor:
            self._floors[partition] = offset + 1
            return future
        self.refuse(partition, lost_end(partition, offset, floor))
        doubtful: Future[Appended] = Future()
        doubtful.set_exception(Indefinite(lost_end(partition, offset, floor)))
        return doubtful

    def reader(self, shuffle: random.Random | None = None) -> MemoryReader:
        return SharedReader(self, shuffle)


class SharedReader(MemoryReader):
    """As Kafka's brokers, the log refuses to be read beyond its end."""

    def poll(self, *args, **limits):  # type: ignore[no-untyped-def]
        for partition, offset in self._positions.items():
            if offset > len(self._journal._logs[partition]):
                raise JournalError(f"{partition}/{offset} is out of range")
        batch = super().poll(*args, **limits)
        assert isinstance(self._journal, SharedJournal)
        for partition, offset in batch.positions.items():
            self._journal._floors[partition] = max(offset, self._journal._floors.get(partition, 0))
        return batch


class SharedNode(LogNode):
    """A node with a folder of its own."""

    def stop(self) -> None:
        self.replayer.close()


class SharedLogWorld:
    """Two nodes on one log, until the log has come to harm and operators have decided."""

    ACTIONS = 25
    crash_rate = shard_fault_rate = 0.0
    shard_faults = 0

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.number = 0
        self.said = io.StringIO()
        self.log = SharedJournal(self)
        self.log.ensure_topics(TOPICS.all())
        self.nodes = [SharedNode(self, f"node{n}", folder / f"node{n}" / "state") for n in range(2)]  # type: ignore[arg-type]

    def connect(self) -> Journal:
        return self.log.seen_by_a_process()

    def check_unpublished(self, node: LogNode) -> None:
        return

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
            node.stores.close(node.folder)

    def run(self) -> None:
        """Writes, then harm, then what operators decide, then more writes."""
        for _ in range(2):
            self._create()
        for _ in range(self.ACTIONS):
            self._write()
            if self.random.random() < 0.2:
                self.now_ms += self.random.choice((1, 700, 20_000))
        self._settle()
        before = self._entries()
        if self.random.random() < 0.7:
            self._lose_ends(before)
        else:
            self._make_anew()
        for _ in range(5):
            self._write()
        self._settle()
        self._check(self._entries())

    # What may happen.

    def _create(self) -> None:
        node = self.nodes[0]
        config = any_config(self.random)
        homes = choose_homes(node.replayer.catalog.view, config.shard_number)
        command = CreateCollection(self.random.choice(COLLECTIONS), msgspec.json.encode(config), homes)
        node.writer.write_catalog(command, self._origin()).result(0)
        self._settle()

    def _write(self) -> None:
        node = self.random.choice(self.nodes)
        view = node.replayer.catalog.view
        if not view.collections:
            return
        collection = view.collections[self.random.choice(sorted(view.collections))]
        destination = Destination("", collection.id, view.position, collection.homes)
        operation, tier = any_operation(self.random, collection), self.random.choice(TIERS)
        with contextlib.suppress(JournalError):
            node.writer.write_points(destination, [operation], tier, self._origin()).result(0)

    def _origin(self) -> Origin:
        self.number += 1
        return Origin(f"request{self.number}")

    def _settle(self) -> None:
        for node in self.nodes:
            node.settle()

    # Partitions that lose their end.

    def _lose_ends(self, before: list[Entry]) -> None:
        held = [p for p in TOPICS.data_partitions() if self.log._logs[p]]
        lost = {p: self.random.randint(1, len(self.log._logs[p])) for p in self.random.sample(held, self.random.randint(1, 2))}
        with self._maybe_down():
            for partition, count in lost.items():
                self.log.lose_end(partition, count)
        self._settle()
        whole = expected_state(before, lambda *_: 2**63, TOPICS, LIMITS)
        for node in self.nodes:
            for id_, collection in node.replayer.catalog.view.by_id.items():
                homes = {p for shard in range(len(collection.homes)) for p in TOPICS.home_partitions(collection.homes[shard])}
                with contextlib.suppress(ShardUnavailable):
                    node.shards.of(id_)
                    assert not homes & lost.keys(), f"{node.name} serves {collection.name}, and {lost} are lost"
                    check_collection(node.pinned(collection), whole.states[id_], self.random)
        self._write()  # what is lost stays lost, and no offset is given out again
        self._repair(before, writes_back=self.random.random() < 0.6)

    @contextlib.contextmanager
    def _maybe_down(self) -> Iterator[None]:
        """What happens under nodes that run, or while they are stopped."""
        down = [node for node in self.nodes if self.random.random() < 0.5]
        for node in down:
            node.stop()
        yield
        for node in down:
            node.start()

    def _repair(self, before: list[Entry], writes_back: bool) -> None:
        for node in self.nodes:
            node.stop()
            node.stores.close(node.folder)
        present = self._entries()
        kept = before + [entry for entry in present if entry not in before] if writes_back else present
        for node in self.nodes[:1] if writes_back else self.nodes:
            self._command(node, lambda settings: repair(settings, writes_back, not writes_back))
        for node in self.nodes:
            node.start()
        self._settle()
        self._check(kept, versions=not writes_back)
        self._check(self._entries())
        self._remove_state(self.random.choice(self.nodes))
        self._check(self._entries())

    def _command(self, node: LogNode, act) -> None:  # type: ignore[no-untyped-def]
        settings = Settings(data_dir=node.folder.parent, topic_prefix=TOPICS.prefix, idempotency_window_s=60)
        opened = [
            patch(f"vecraft.{module}.opened", lambda settings, accept_ends: self.connect()) for module in ("recovery", "adoption")
        ]
        with (
            opened[0],
            opened[1],
            patch("vecraft.recovery.wall_clock_ms", lambda: self.now_ms),
            contextlib.redirect_stdout(self.said),
        ):
            act(settings)

    def _remove_state(self, node: LogNode) -> None:
        node.stop()
        node.stores.close(node.folder)
        shutil.rmtree(node.folder)
        node.start()
        node.settle()

    # Topics that are made anew.

    def _make_anew(self) -> None:
        topics = self.random.sample([TOPICS.system, *(TOPICS.tier(tier) for tier in TIERS)], self.random.randint(1, 2))
        with self._maybe_down():
            for topic in topics:
                self.log.make_anew(topic)
        for node in self.nodes:
            node.look_at_the_log()
            assert "made anew" in node.refusal, f"{topics} were made anew, and {node.name} says {node.refusal!r}"
        for node in self.nodes:
            node.stores.close(node.folder)
            self._command(node, lambda settings: adopt(settings, confirmed=True))
            node.start()
            assert not node.refusal, node.refusal
        self._settle()
        if any(node.shards.quarantined() for node in self.nodes):  # the log is a part of what the state holds, which is kept
            self._repair([], writes_back=False)
        self._check(self._entries())

    # What must hold.

    def _entries(self) -> list[Entry]:
        return [entry for partition in TRUTH for entry in self.log._logs[partition]]

    def _check(self, entries: list[Entry], versions: bool = True) -> None:
        """Every node serves what follows from these entries."""
        expected = expected_state(entries, lambda *_: 2**63, TOPICS, LIMITS)
        for points in expected.states.values() if not versions else ():
            for point in points.values():
                point.version = -1
        for node in self.nodes:
            assert not node.refusal, node.refusal
            assert not node.shards.quarantined(), node.shards.quarantined()
            assert expected.states.keys() == node.replayer.catalog.view.by_id.keys()
            for id_, collection in node.replayer.catalog.view.by_id.items():
                check_collection(node.pinned(collection), expected.states[id_], self.random)
