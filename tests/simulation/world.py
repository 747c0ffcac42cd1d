"""A world from a seed: nodes with the real writer, replayer, shards and queries over the memory journal and a virtual clock.

Every choice comes from one random generator, so a seed is a whole history. Faults: refused appends, lost acknowledgements, shards
that cannot be opened, configured or written, crashes before and after each write to RocksDB, restarts from disk, with checkpoints
of any age or none, wiped state, damaged files of it, redelivery, interleaved tiers, skewed and jumping clocks, nodes that pause,
poisoned records in every topic, claims on a catalog that is not there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec

import shard.checkpoint
from catalog.catalog import choose_homes
from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from catalog.ingest import DEFAULT_SOURCE
from journal.log import Definite, Indefinite, Journal, Positions, TopicPartition
from journal.memory import AppendFault, MemoryReader
from journal.records import (
    CatalogOperation,
    ControlIngest,
    CreateCollection,
    CreatePayloadIndex,
    DeleteCollection,
    DeletePayloadIndex,
    IngestPosition,
    MoveIngest,
    PointOperation,
    Upsert,
)
from journal.stamps import NEVER
from journal.topics import INGEST_PARTITIONS, TIERS
from journal.writer import Decided, Destination, Origin, Receipt
from payload.schema import FieldSchema, FieldType
from query import points
from shard.shards import ShardUnavailable
from tests.reading import now
from tests.simulation.checks import check_acknowledged, check_closed, check_ingested, check_node
from tests.simulation.faults import SimulatedJournal
from tests.simulation.model import Home
from tests.simulation.node import Node
from tests.simulation.setting import COLLECTIONS, INGESTED, START_MS, TOPICS
from tests.simulation.writes import any_config, any_foreign_record, any_operation, poisoned_values


class World:
    """Two nodes, one log, and a client that remembers what was acknowledged."""

    ACTIONS = 120

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.crash_rate = self.random.choice((0.0, 0.02, 0.1))
        self.fault_rate = self.random.choice((0.0, 0.05))
        self.shard_fault_rate = self.random.choice((0.0, 0.0, 0.02, 0.1))
        self.shard_faults = 0
        self.journal = SimulatedJournal(lambda: self.now_ms, self._fault)
        self.journal.random = self.random
        self.journal.ensure_topics(TOPICS.all())
        self.acknowledged: list[tuple[str, Positions]] = []
        self.told: dict[tuple[Home, int], set[bytes]] = {}
        self.closed: list[tuple[int, int, Positions, int]] = []
        self.nodes = [Node(self, f"node{number}", folder / f"node{number}") for number in range(2)]
        self.number = 0
        self._interrupted = False

    def connect(self) -> Journal:
        """The log as a process opens it."""
        return self.journal

    def check_unpublished(self, node: Node) -> None:
        """Called between a write to RocksDB and its publication."""
        check_node(node, published=False)

    def run(self) -> None:
        """Lives through its random events, then lets everything settle and checks it all."""
        shard.checkpoint.ROWS, shard.checkpoint.ROWS_QUIET = 40, 1
        choices = (
            [self._write] * 8 + [self._decide] * 8 + [self._barriers] * 2 + [self._step] * 8 + [self._pass_time] * 3
            + [self._build] * 3 + [self._check_one] * 2 + [self._catalog_command] * 2
            + [self._crash, self._redeliver, self._poison, self._jump_clock, self._wipe, self._damage, self._restart]
            + [self._produce] * 5 + [self._ingest] * 3 + [self._checkpoint] * 3 + [self._control_ingest]
        )  # fmt: skip
        self._create("red")
        while not any(self.journal.end_offsets([TOPICS.system_partition]).values()):
            self._create("red")
        self._create_ingested()
        for _ in range(self.ACTIONS):
            self.random.choice(choices)()
        self.settle()

    def close(self) -> None:
        for node in self.nodes:
            node.crash()
            node.stores.close(node.folder)

    def settle(self) -> None:
        """No more faults: every node reaches the end, and its answers are those of the log; then once more from nothing (I1)."""
        self.crash_rate = self.fault_rate = self.shard_fault_rate = 0.0
        self._drain_ingest()
        for wiped in (False, True):
            for node in self.nodes:
                if wiped:
                    self._wipe(node)
                node.catch_up()
                check_node(node)
        check_acknowledged(self)
        check_ingested(self)
        check_closed(self)

    def _drain_ingest(self) -> None:
        """With clocks that are right, all that was produced gets into the journal."""
        self.now_ms += 120_000
        for node in self.nodes:
            node.skew_ms = 0
        self._command(ControlIngest(DEFAULT_SOURCE, "resume"), self.nodes[0])
        for node in self.nodes:
            node.catch_up()
        idle = 0
        for _ in range(1_000):
            idle = 0 if any([node.ingest_step() for node in self.nodes]) else idle + 1  # noqa: C419 (each is to do its share)
            if idle > len(self.nodes):  # one that joins again changes the shares of the others
                break
            for node in self.nodes:
                node.catch_up()
        ends = self.journal.end_offsets([TopicPartition(TOPICS.ingest, p) for p in range(INGEST_PARTITIONS)])
        assert {p: end for p, end in ends.items() if end} == self.journal.committed(self.nodes[0].ingest.group, list(ends))

    # What may happen.

    def _operation(self, collection: Collection) -> PointOperation:
        """Some points of upserts expire, within the time of a history."""
        operation = any_operation(self.random, collection)
        if isinstance(operation, Upsert) and self.random.random() < 0.2:
            return msgspec.structs.replace(operation, ttl_ms=self.random.randint(1, 30_000))
        return operation

    def _write(self) -> None:
        node = self.random.choice(self.nodes)
        if (target := self._any_collection(node)) is None:
            return
        collection, destination = target
        key = self.random.choice(("", "", "", f"key{self.random.randrange(5)}"))
        origin = self._origin(key)
        self._expect(
            origin,
            lambda: node.writer.write_points(destination, [self._operation(collection)], self.random.choice(TIERS), origin),
        )

    def _decide(self) -> None:
        """A write with conditions, decided on what a node knows, or on what it does not; and the end of such a request."""
        node = self.random.choice(self.nodes)
        if (target := self._any_collection(node)) is None:
            return
        collection, destination = target
        origin = self._origin(self.random.choice(("", "", "", f"key{self.random.randrange(3)}")))
        tier, attempt = self.random.choice(TIERS), self.random.randrange(3)
        if origin.idempotency_key and self.random.random() < 0.2:
            shard = self.random.randrange(len(collection.homes))
            self._expect(origin, lambda: node.writer.write_result(destination, shard, tier, b"{}", origin, attempt))
            return
        operation = self._operation(collection)
        decided = Decided(operation, [self._version(node, collection, id_) for id_ in operation.ids])
        self._expect(origin, lambda: node.writer.write_decided(destination, [decided], tier, origin, attempt))

    def _version(self, node: Node, collection: Collection, point_id: bytes) -> int:
        """The version that a node knows of a point; seldom another."""
        if self.random.random() < 0.1:
            return NEVER
        try:
            found = now(points.retrieve(node.pinned(collection), [point_id]))
        except ShardUnavailable:
            return NEVER
        return found[0].version if found else NEVER

    def _barriers(self) -> None:
        node = self.random.choice(self.nodes)
        if (target := self._any_collection(node)) is not None:
            collection, destination = target
            origin, shard = self._origin(), self.random.randrange(len(collection.homes))
            self._expect(origin, lambda: node.writer.write_barriers(destination, shard, TIERS, origin))

    def _any_collection(self, node: Node) -> tuple[Collection, Destination] | None:
        view = node.replayer.catalog.view
        if not (names := sorted(view.collections.keys() & set(COLLECTIONS))):
            return None
        collection = view.collections[self.random.choice(names)]
        return collection, Destination("", collection.id, view.position, collection.homes)

    def _catalog_command(self) -> None:
        node = self.random.choice(self.nodes)
        name = self.random.choice(COLLECTIONS)
        schema = msgspec.json.encode(FieldSchema(FieldType.KEYWORD))
        match self.random.randrange(5):
            case 0 | 1:
                self._create(name)
            case 2:
                origin = self._origin()
                self._expect(origin, lambda: node.writer.write_catalog(DeleteCollection(name), origin))
            case 3:
                origin = self._origin()
                self._expect(origin, lambda: node.writer.write_catalog(CreatePayloadIndex(name, "tag", schema), origin))
            case 4:
                origin = self._origin()
                self._expect(origin, lambda: node.writer.write_catalog(DeletePayloadIndex(name, "tag"), origin))

    def _create(self, name: str) -> None:
        node = self.random.choice(self.nodes)
        config = any_config(self.random)
        homes = choose_homes(node.replayer.catalog.view, config.shard_number)
        origin = self._origin()
        command = CreateCollection(name, msgspec.json.encode(config), homes)
        self._expect(origin, lambda: node.writer.write_catalog(command, origin))

    def _create_ingested(self) -> None:
        config = CollectionConfig(vectors={"": VectorParams(3, Distance.DOT)}, shard_number=2)
        command = CreateCollection(INGESTED, msgspec.json.encode(config), choose_homes(self.nodes[0].replayer.catalog.view, 2))
        saved, self.fault_rate = self.fault_rate, 0.0
        self.nodes[0].skew_ms = 0
        self.nodes[0].writer.write_catalog(command, self._origin()).result(0)
        self.fault_rate = saved

    def _produce(self) -> None:
        partition, body, headers = any_foreign_record(self.random, self.number)
        self.number += 1
        saved, self.fault_rate = self.fault_rate, 0.0
        self.journal.append(partition, body, headers=headers).result(0)
        self.fault_rate = saved

    def _ingest(self) -> None:
        self.random.choice(self.nodes).ingest_step()

    def _control_ingest(self) -> None:
        """Operators pause and resume partitions, or have them read again."""
        partition, node = self.random.randrange(INGEST_PARTITIONS), self.random.choice(self.nodes)
        match self.random.randrange(4):
            case 0:
                self._command(ControlIngest(DEFAULT_SOURCE, "pause", [partition]), node)
            case 1:
                self._command(ControlIngest(DEFAULT_SOURCE, "resume"), node)
            case _:
                self._move_back(partition, node)

    def _move_back(self, number: int, node: Node) -> None:
        partition = TopicPartition(TOPICS.ingest, number)
        committed = self.journal.committed(self.nodes[0].ingest.group, [partition]).get(partition, 0)
        position = IngestPosition(number, self.random.randint(0, committed))
        self._command(MoveIngest(DEFAULT_SOURCE, TOPICS.ingest, [position]), node)

    def _command(self, operation: CatalogOperation, node: Node) -> None:
        origin = self._origin()
        self._expect(origin, lambda: node.writer.write_catalog(operation, origin))

    def _step(self) -> None:
        node = self.random.choice(self.nodes)
        for _ in range(self.random.randint(1, 5)):
            node.step()

    def _pass_time(self) -> None:
        self.now_ms += self.random.choice((0, 1, 50, 700, 20_000))

    def _jump_clock(self) -> None:
        self.random.choice(self.nodes).skew_ms = self.random.choice((-60_000, -500, 0, 300, 2_000))

    def _build(self) -> None:
        node = self.random.choice(self.nodes)
        if node.tasks:
            node.work(node.tasks.pop(0))

    def _checkpoint(self) -> None:
        node = self.random.choice(self.nodes)
        node.work(node.checkpoint)

    def _restart(self) -> None:
        node = self.random.choice(self.nodes)
        node.stop()
        node.start()

    def _crash(self) -> None:
        node = self.random.choice(self.nodes)
        node.crash()
        node.start()

    def _wipe(self, node: Node | None = None) -> None:
        """The state is removed: all of it, only the segments' files, or only the rows, beside which the caches stay."""
        node = node or self.random.choice(self.nodes)
        node.crash()
        if self.random.random() < 0.5:
            node.stores.close(node.folder)
            shutil.rmtree(node.folder, ignore_errors=True)
        else:
            for removed in node.folder.glob(f"*/*/{self.random.choice(('segments', 'rows'))}"):
                node.stores.close(removed)
                shutil.rmtree(removed)
        node.start()

    def _damage(self) -> None:
        """A file of the state is changed, cut short or emptied while the node is down."""
        node = self.random.choice(self.nodes)
        node.crash()
        shards = sorted(node.folder.glob("*/*/"))
        shard = self.random.choice(shards) if shards else node.folder
        node.stores.close(shard)
        files = sorted(path for path in shard.glob("*/**/*") if path.is_file() and path.stat().st_size)
        if files:
            damaged = self.random.choice(files)
            data = bytearray(damaged.read_bytes())
            at = self.random.randrange(len(data))
            match self.random.randrange(3):
                case 0:
                    data[at] ^= 1 << self.random.randrange(8)
                case 1:
                    del data[at:]
                case 2:
                    data.clear()
            damaged.write_bytes(data)
        node.start()

    def _redeliver(self) -> None:
        """The log is read again from further back."""
        replayer = self.random.choice(self.nodes).replayer
        assert isinstance(replayer._reader, MemoryReader)
        back = {p: max(0, o - self.random.randint(0, 5)) for p, o in replayer._reader._positions.items()}
        replayer._reader.assign(back)

    def _poison(self) -> None:
        partition = self.random.choice([TOPICS.system_partition, *TOPICS.data_partitions()])
        end = self.journal.end_offsets([TOPICS.system_partition])[TOPICS.system_partition]
        values = poisoned_values(self.random, self.now_ms, end)
        saved, self.fault_rate = self.fault_rate, 0.0
        self.journal.append(partition, self.random.choice(values)).result()
        self.fault_rate = saved

    def _fault(self, partition: TopicPartition) -> AppendFault | None:
        if self.fault_rate and self.random.random() < 0.02 and not self._interrupted:
            self._interrupted = True  # in the middle of whatever is writing here
            one, other = self.random.sample(self.nodes, 2)
            one.lose_share()
            if not (other.ingesting or other.writer._lock.locked()):  # a node has one thread that ingests
                if self.random.random() < 0.5 and not other.replaying:  # and one that replays
                    self._move_back(self.random.randrange(INGEST_PARTITIONS), other)
                    other.step()
                other.ingest_step()
            self._interrupted = False
        if self.random.random() >= self.fault_rate:
            return None
        return self.random.choice(list(AppendFault))

    def _origin(self, key: str = "") -> Origin:
        self.number += 1
        return Origin(f"request{self.number}", key)

    def _expect(self, origin: Origin, write: Callable[[], Future[Receipt]]) -> None:
        try:
            receipt = write().result(0)
        except (Definite, Indefinite):
            return
        self.acknowledged.append((origin.id, dict(receipt.token().positions)))

    def _check_one(self) -> None:
        node = self.random.choice(self.nodes)
        node.step()
        check_node(node)
