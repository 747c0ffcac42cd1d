"""A world from a seed: nodes with the real writer, replayer, shards and queries over the memory journal and a virtual clock.

Every choice comes from one random generator, so a seed is a whole history. Faults: refused appends, lost acknowledgements, shards
that cannot be opened, configured or written, crashes before and after each write to RocksDB, restarts from disk, with checkpoints
of any age or none, wiped state, redelivery, interleaved tiers, skewed and jumping clocks, nodes that pause, poisoned records in
every topic, claims on a catalog that is not there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec
import numpy as np
import orjson

import shard.checkpoint
from catalog.catalog import choose_homes
from catalog.collection import Collection, CollectionConfig, Distance, SparseParams, VectorParams
from journal import codec
from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import Definite, Entry, Indefinite, Positions, TopicPartition
from journal.memory import AppendFault, MemoryJournal, MemoryReader
from journal.records import (
    SPARSE,
    CreateCollection,
    CreatePayloadIndex,
    Delete,
    DeleteCollection,
    DeletePayloadIndex,
    PatchPayload,
    PatchVectors,
    PointOperation,
    Record,
    ReplacePayload,
    UnsetVectors,
    Upsert,
    Vector,
    VectorColumn,
)
from journal.registry import SchemaRegistry
from journal.topics import INGEST_PARTITIONS, TIERS, Topics
from journal.writer import Destination, Origin, Receipt, Writer
from payload.schema import FieldSchema, FieldType
from query import points
from query.pinned import Pinned
from query.search import prepare, search
from query.stages import Stage
from replayer.ingest.member import Ingest
from replayer.projections.dead_letters import DeadLetters
from replayer.replayer import Replayer
from shard.batch import Limits
from shard.filters.conditions import Condition, Key
from shard.filters.fields import Match, Range
from shard.filters.where import where
from shard.ranking.rankings import Nearest, SearchParams
from shard.replica import PayloadPart
from shard.shard import Shard
from shard.shards import Shards, ShardUnavailable
from shard.store import Changes
from shard.vectors.segment_policy import SegmentPolicy
from tests.reading import now
from tests.reading import pinned as pinned_shards
from tests.simulation.model import ModelPoint, State, expected_state

TOPICS = Topics("sim")
LIMITS = Limits(idempotency_window_ms=60_000)
POLICY = SegmentPolicy(seal_rows=6)
NAMES = ("a", "b")
COLLECTIONS = ("red", "blue")
EXTERNAL_IDS = (0, 1, 2, 3, 4, 5, 6, 7, "b7a9c2c0-0000-0000-0000-000000000001", "free text")
IDS = [encode_id(i) for i in EXTERNAL_IDS]
INGESTED = "green"
"""A collection that only foreign producers write to, and nobody deletes."""
START_MS = 1_700_000_000_000


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
                world.check(self._node)
            if fate > 1 - world.crash_rate:
                raise Crash("after the write")
            self._may_fail("after the write")

        return write_or_die


class SimulatedJournal(MemoryJournal):
    """Its readers interleave the partitions at random."""

    random: random.Random

    def reader(self, shuffle: random.Random | None = None) -> MemoryReader:
        return super().reader(self.random)


class Node:
    """One process: what it keeps on disk, and what it holds in memory while it lives."""

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.world = world
        self.name = name
        self.folder = folder
        self.skew_ms = world.random.choice((0, 0, -3000, 100, 400))
        self.start()

    def pinned(self, collection: Collection) -> Pinned:
        """A collection as this node sees it now."""
        return pinned_shards(self.shards.of(collection.id), encoding=self.world.random.random() < 0.5)

    def start(self) -> None:
        self.tasks: list[Callable[[], None]] = []
        self.clock = Clock(lambda: self.world.now_ms + self.skew_ms)
        self.writer = Writer(self.world.journal, TOPICS, self.clock)
        self.shards = SimulatedShards(self)
        self.replayer = Replayer(
            self.world.journal,
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
            self.world.journal,
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
                return self.replayer.open()
            except (Definite, Indefinite):
                self.replayer.close()  # as `Replayer.run` does, before it begins again

    def crash(self) -> None:
        """Everything in memory is gone. RocksDB's files and the checkpoints stay as the last write left them."""
        for opened in self.shards.all():
            opened.checkpoint.stale_rows = 0  # or the shard would take one as it closes
        self.stop()

    def stop(self) -> None:
        """A clean end: what changed goes into checkpoints. It does not die on the way: `crash` is for that."""
        rates = self.world.crash_rate, self.world.shard_fault_rate
        self.world.crash_rate = self.world.shard_fault_rate = 0.0
        self.ingest.close()
        self.replayer.close()
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

    def step(self) -> bool:
        """One replay step, in which the process may die around any write to RocksDB."""
        try:
            return self.replayer.step(0) > 0
        except (Crash, Definite, Indefinite):
            self.crash()
            self.start()
            return True


class World:
    """Two nodes, one log, and a client that remembers what was acknowledged."""

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
        self.nodes = [Node(self, f"node{number}", folder / f"node{number}") for number in range(2)]
        self.number = 0
        self._interrupted = False

    def run(self, actions: int) -> None:
        """Lives through `actions` random events, then lets everything settle and checks it all."""
        shard.checkpoint.ROWS, shard.checkpoint.ROWS_QUIET = 40, 1
        choices = (
            [self._write] * 10 + [self._step] * 8 + [self._pass_time] * 3 + [self._build] * 3 + [self._check_one] * 2
            + [self._catalog_command] * 2 + [self._crash, self._redeliver, self._poison, self._jump_clock, self._wipe]
            + [self._produce] * 5 + [self._ingest] * 3 + [self._checkpoint] * 3 + [self._restart]
        )  # fmt: skip
        self._create("red")
        while not any(self.journal.end_offsets([TOPICS.system_partition]).values()):
            self._create("red")
        self._create_ingested()
        for _ in range(actions):
            self.random.choice(choices)()
        self.settle()

    def close(self) -> None:
        for node in self.nodes:
            node.crash()

    def settle(self) -> None:
        """No more faults: every node reaches the end, and its answers are those of the log; then once more from nothing (I1)."""
        self.crash_rate = self.fault_rate = self.shard_fault_rate = 0.0
        self._drain_ingest()
        for wiped in (False, True):
            for node in self.nodes:
                if wiped:
                    self._wipe(node)
                self.catch_up(node)
                self.check(node)
        self.check_acknowledged()
        self.check_ingested()

    def _drain_ingest(self) -> None:
        """With clocks that are right, all that was produced gets into the journal."""
        self.now_ms += 120_000
        for node in self.nodes:
            node.skew_ms = 0
            self.catch_up(node)
        for _ in range(1_000):
            if not any([node.ingest_step() for node in self.nodes]):  # noqa: C419 (each is to do its share)
                break
            for node in self.nodes:
                self.catch_up(node)
        ends = self.journal.end_offsets([TopicPartition(TOPICS.ingest, p) for p in range(INGEST_PARTITIONS)])
        assert {p: end for p, end in ends.items() if end} == self.journal.committed(self.nodes[0].ingest.group, list(ends))

    def catch_up(self, node: Node) -> None:
        for _ in range(10_000):
            waits = bool(node.replayer._paused or node.shards.quarantined())
            if not node.step():
                if not waits:
                    break
                self.now_ms += 20_000  # until claims are too late, and shards are tried again
        assert not node.shards.quarantined()
        ends = self.journal.end_offsets([TOPICS.system_partition, *TOPICS.data_partitions()])
        assert node.replayer.applied.covers(ends)
        while node.tasks:
            node.tasks.pop(0)()

    # What may happen.

    def _write(self) -> None:
        node = self.random.choice(self.nodes)
        view = node.replayer.catalog.view
        if not (names := sorted(view.collections.keys() & set(COLLECTIONS))):
            return
        collection = view.collections[self.random.choice(names)]
        destination = Destination("", collection.id, view.position, collection.homes)
        key = self.random.choice(("", "", "", f"key{self.random.randrange(5)}"))
        origin = self._origin(key)
        self._expect(
            origin,
            lambda: node.writer.write_points(destination, [self._operation(collection)], self.random.choice(TIERS), origin),
        )

    def _operation(self, collection: Collection) -> PointOperation:
        ids = self.random.sample(IDS, self.random.randint(1, 4))
        kind = self.random.choice((Upsert, Upsert, Upsert, Delete, PatchPayload, ReplacePayload, PatchVectors, UnsetVectors))
        if kind is Upsert:
            return Upsert(ids, self._columns(collection, ids), [self._payload() for _ in ids])
        if kind is Delete:
            return Delete(ids)
        if kind is PatchPayload:
            return PatchPayload(ids, self._payload() or b"{}", self.random.sample(("n", "tag", "x"), self.random.randint(0, 2)))
        if kind is ReplacePayload:
            return ReplacePayload(ids, self._payload() or b"{}")
        if kind is PatchVectors:
            return PatchVectors(ids, self._columns(collection, ids))
        return UnsetVectors(ids, [self.random.choice([*collection.config.vectors, *collection.config.sparse_vectors])])

    def _columns(self, collection: Collection, ids: list[bytes]) -> list[VectorColumn]:
        columns = []
        for name in [*collection.config.vectors, *collection.config.sparse_vectors]:
            some = sorted(self.random.sample(range(len(ids)), self.random.randint(1, len(ids))))
            whose = None if len(some) == len(ids) else some
            vectors = [any_vector(self.random, collection, name) for _ in some]
            dense = vectors[0].dtype != SPARSE and vectors[0].ndim == 1
            columns.append(
                VectorColumn.of(name, np.stack(vectors), whose) if dense else VectorColumn.of_each(name, vectors, whose)
            )
        return columns

    def _payload(self) -> bytes:
        fields = {"n": self.random.randint(0, 5), "tag": self.random.choice("xyz"), "x": [1, {"y": None}]}
        return orjson.dumps({key: fields[key] for key in self.random.sample(sorted(fields), self.random.randint(0, 3))})

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
        vectors = {n: VectorParams(3, self.random.choice(list(Distance))) for n in self.random.choice((NAMES, ("",)))}
        if self.random.random() < 0.5:
            vectors["tokens"] = VectorParams(2, Distance.DOT, multi=True)
        sparse = {"terms": SparseParams()} if self.random.random() < 0.5 else {}
        config = CollectionConfig(vectors=vectors, shard_number=self.random.choice((1, 1, 3)), sparse_vectors=sparse)
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
        """A foreign producer writes: to the ingest collection always in one tier, so that its order is its own."""
        number = self.random.randrange(len(EXTERNAL_IDS))
        collection = self.random.choice((INGESTED, INGESTED, *COLLECTIONS, "nowhere"))
        body: dict[str, object] = {"collection": collection, "id": EXTERNAL_IDS[number]}
        match self.random.randrange(8):
            case 0:
                body["op"] = "delete"
            case 1 | 2:
                body |= {"op": "patch", "payload": {"n": self.number, "tag": self.random.choice(("x", None))}}
            case 3:
                body["vector"] = [1]  # of a size that no collection has
            case _:
                names = NAMES if collection != INGESTED and self.random.random() < 0.5 else ("",)
                vectors = {name: [self.random.randint(-9, 9) for _ in range(3)] for name in names}
                body |= {"vector": vectors.get("", vectors), "payload": {"n": self.number}}
        self.number += 1
        headers = [("vecraft-tier", b"%d" % (2 if collection == INGESTED else self.random.choice(TIERS)))]
        if collection != INGESTED and self.random.random() < 0.3:
            headers.append(("ce_id", b"%d" % self.random.randrange(3)))
        saved, self.fault_rate = self.fault_rate, 0.0
        partition = TopicPartition(TOPICS.ingest, number % INGEST_PARTITIONS)
        self.journal.append(partition, orjson.dumps(body), headers=headers).result(0)
        self.fault_rate = saved

    def _ingest(self) -> None:
        self.random.choice(self.nodes).ingest_step()

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
            shutil.rmtree(node.folder, ignore_errors=True)
        else:
            for removed in node.folder.glob(f"*/*/{self.random.choice(('segments', 'rows'))}"):
                shutil.rmtree(removed)
        node.start()

    def _redeliver(self) -> None:
        """The log is read again from further back."""
        replayer = self.random.choice(self.nodes).replayer
        assert isinstance(replayer._reader, MemoryReader)
        back = {p: max(0, o - self.random.randint(0, 5)) for p, o in replayer._reader._positions.items()}
        replayer._reader.assign(back)

    def _poison(self) -> None:
        partition = self.random.choice([TOPICS.system_partition, *TOPICS.data_partitions()])
        values = [b"", b"poison", _forged(collection=99), _forged(collection=0), _forged(hlc=self.now_ms + 5_000 << 16)]
        end = self.journal.end_offsets([TOPICS.system_partition])[TOPICS.system_partition]
        values += [_forged(position=end + self.random.randint(0, 3)) for _ in range(2)]
        saved, self.fault_rate = self.fault_rate, 0.0
        self.journal.append(partition, self.random.choice(values)).result()
        self.fault_rate = saved

    def _fault(self, partition: TopicPartition) -> AppendFault | None:
        if self.fault_rate and self.random.random() < 0.02 and not self._interrupted:
            self._interrupted = True  # in the middle of whatever is writing here
            one, other = self.random.sample(self.nodes, 2)
            one.lose_share()
            if not (other.ingesting or other.writer._lock.locked()):  # a node has one thread that ingests
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

    # What must hold.

    def _check_one(self) -> None:
        node = self.random.choice(self.nodes)
        node.step()
        self.check(node)

    def check(self, node: Node) -> None:
        """Every read of the node answers as the log below its positions says (I1, I3, I4, I5, I10)."""
        expected = expected_state(self.entries(), node.reach, TOPICS, LIMITS)
        collections = node.replayer.catalog.view.by_id
        assert set(expected) == set(collections)
        for id_, collection in collections.items():
            try:
                node.shards.of(id_)
            except ShardUnavailable:
                continue  # not served; all others are
            check_collection(node, collection, expected[id_], self.random)

    def check_acknowledged(self) -> None:
        """What was acknowledged is in the log (I2), and no replica refuses it (I6)."""
        verdicts = {node.name: node.replayer.operations for node in self.nodes}
        ends = self.journal.end_offsets([TOPICS.system_partition, *TOPICS.data_partitions()])
        for request_id, positions in self.acknowledged:
            assert all(ends[p] >= offset for p, offset in positions.items())
            for name, operations in verdicts.items():
                refused = [part for part in operations.of(request_id) if part.verdict == "refused"]
                assert not refused, f"{name} refuses the acknowledged {request_id}: {refused}"

    def check_ingested(self) -> None:
        """U2: what foreign producers wrote is there, each record once, in the order of each point's records."""
        expected: State = {}
        for entry in (e for p in range(INGEST_PARTITIONS) for e in self.journal._logs[TopicPartition(TOPICS.ingest, p)]):
            body = orjson.loads(entry.value)
            point_id = encode_id(body["id"])
            if body["collection"] != INGESTED or len(body.get("vector", "any")) != 3:
                continue
            if "op" not in body:
                expected[point_id] = ModelPoint(body["payload"], {"": np.array(body["vector"], np.float32)})
            elif body["op"] == "delete":
                expected.pop(point_id, None)
            elif point_id in expected:
                patched = expected[point_id].payload | body["payload"]
                expected[point_id].payload = {key: value for key, value in patched.items() if value is not None}
        for node in self.nodes:
            collection = node.replayer.catalog.view.collections[INGESTED]
            check_collection(node, collection, expected, self.random)

    def entries(self) -> list[Entry]:
        return [entry for p in [TOPICS.system_partition, *TOPICS.data_partitions()] for entry in self.journal._logs[p]]


def check_collection(node: Node, collection: Collection, expected: State, choose: random.Random) -> None:
    """Gets, scrolls, counts and exact searches of one collection against the model's points."""
    pinned = node.pinned(collection)
    found = now(points.retrieve(pinned, IDS, PayloadPart(), True))
    assert [point.id for point in found] == [point_id for point_id in IDS if point_id in expected]
    for point in found:
        model = expected[point.id]
        assert (orjson.loads(point.payload) if point.payload else {}) == model.payload
        assert point.vectors.keys() == model.vectors.keys()
        for name, vector in point.vectors.items():
            assert vector.tobytes() == model.vectors[name].tobytes() or np.allclose(vector, model.vectors[name], atol=1e-6)
    scrolled, after = now(points.scroll(pinned, None, b"", len(IDS)))
    assert scrolled == sorted(expected)
    assert after is None
    tagged = where(Condition(must=Condition(key="tag", match=Match(value="x"))))
    few = where(Condition(must=[Condition(key="n", range=Range(gte=2))], must_not=[Condition(is_empty=Key("tag"))]))
    assert now(points.count(pinned, tagged)) == sum(point.payload.get("tag") == "x" for point in expected.values())
    counted = sum(point.payload.get("n", -1) >= 2 and "tag" in point.payload for point in expected.values())
    assert now(points.count(pinned, few)) == counted
    for name in [*collection.config.vectors, *collection.config.sparse_vectors]:
        _check_search(pinned, name, expected, choose)


def _check_search(pinned: Pinned, name: str, expected: State, choose: random.Random) -> None:
    """min(k, matches) hits with the right scores, through whatever plan the search takes."""
    collection = pinned.collection
    vector = prepare(collection, name, any_vector(choose, collection, name))
    limit = choose.choice((1, 3, 20))
    hits = now(search(pinned, Stage(Nearest(name, vector), limit, params=SearchParams(exact=choose.random() < 0.5))))
    having = {id_: point.vectors[name] for id_, point in expected.items() if name in point.vectors}
    scores = {id_: score for id_, found in having.items() if (score := _score(collection, name, found, vector)) is not None}
    dense = collection.config.vectors.get(name)
    best = sorted(scores.values(), reverse=dense is None or dense.distance.higher_is_closer)[:limit]
    assert len(hits.ids) == len(best)
    assert np.allclose(hits.scores, best, atol=1e-3)
    assert all(np.isclose(score, scores[id_], atol=1e-3) for id_, score in zip(hits.ids, hits.scores, strict=True))


def any_vector(choose: random.Random, collection: Collection, name: str) -> Vector:
    """A vector of small numbers, as the name wants it."""
    if name in collection.config.sparse_vectors:
        return np.array([(at, choose.randint(1, 9)) for at in sorted(choose.sample(range(8), choose.randint(1, 4)))], SPARSE)
    params = collection.config.vectors[name]
    rows = [[choose.randint(-9, 9) for _ in range(params.size)] for _ in range(choose.randint(1, 3) if params.multi else 1)]
    return np.array(rows if params.multi else rows[0], np.float32)


def _score(collection: Collection, name: str, left: Vector, right: Vector) -> float | None:
    """None for sparse vectors that share nothing."""
    if name in collection.config.sparse_vectors:
        shared = dict(left.tolist()).keys() & dict(right.tolist()).keys()
        return sum(dict(left.tolist())[at] * dict(right.tolist())[at] for at in shared) if shared else None
    params = collection.config.vectors[name]
    if params.multi:
        return float((right @ left.T).max(axis=1).sum())
    return _dense_score(params.distance, left, right)


def _dense_score(distance: Distance, left: np.ndarray, right: np.ndarray) -> float:
    if distance.higher_is_closer:
        return float(np.dot(left, right))
    difference = np.abs(left - right)
    return float(np.sqrt((difference**2).sum()) if distance is Distance.EUCLID else difference.sum())


def _forged(collection: int = 0, hlc: int = START_MS << 16, position: int = 1) -> bytes:
    return codec.encode(Record(hlc=hlc, operation=Delete([IDS[0]]), collection=collection, catalog_position=position, shard=0))
