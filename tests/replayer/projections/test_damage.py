"""Damage on disk is found, said and healed (I1, I2, V21): files of the state and of the log, flipped, cut short or removed."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rocksdict import Cache

from catalog.collection import CollectionConfig, Distance, VectorParams
from journal.embedded import EmbeddedJournal
from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import TopicPartition
from journal.records import CreateCollection, Upsert, VectorColumn
from journal.writer import Destination, Origin, Writer
from query import points
from shard import store
from shard.batch import Limits
from shard.shards import Shards, ShardUnavailable
from tests.reading import now, pinned
from tests.replayer.rig import TOPICS, replayer_on

HOMES = {"c": [0, 0, 0, 0], "d": [1, 1, 1, 1]}
"""Two collections whose shards share no partition."""

COUNT = 400
SIZE = 64


class Kept:
    """A node on an embedded log, without HTTP: the log in `log`, the state in `state`."""

    def __init__(self, folder: Path) -> None:
        self.now_ms = 1_700_000_000_000
        self.journal = EmbeddedJournal(folder / "log", lambda: self.now_ms)
        self.clock = Clock(lambda: self.now_ms)
        self.shards = Shards(folder / "state", TOPICS, Limits(), lambda task: None, checkpoints=lambda task: task())
        self.replayer = replayer_on(self.journal, self.clock, self.shards, lambda: self.now_ms)
        self.writer = Writer(self.journal, TOPICS, self.clock)

    def write(self, name: str, numbers: range) -> None:
        collection = self.replayer.catalog.view.collections[name]
        vectors = np.random.default_rng(numbers.start).standard_normal((len(numbers), SIZE)).astype(np.float32)
        upsert = Upsert([encode_id(n) for n in numbers], [VectorColumn.of("", vectors)], [b'{"n":%d}' % n for n in numbers])
        destination = Destination("", collection.id, self.replayer.catalog.view.position, collection.homes)
        self.writer.write_points(destination, [upsert], 1, Origin("r")).result()

    def settle(self) -> None:
        while self.replayer.step(0):
            self.now_ms += 10

    def heal(self) -> None:
        """Lets time pass, until no shard is quarantined."""
        for _ in range(40):
            self.settle()
            if not self.shards.quarantined():
                return
            self.now_ms += 2_000
        raise AssertionError(self.shards.quarantined())

    def read(self, name: str) -> dict[bytes, tuple[bytes, bytes]]:
        """Payload and vector of every point of a collection."""
        collection = self.replayer.catalog.view.collections[name]
        (shard,) = self.shards.of(collection.id)
        view = shard.view
        ids = sorted(now(points.matching(pinned([shard]), None))[0])
        return {row.id: (row.payload, view.vectors_of(row.row)[""].tobytes()) for row in view.find(ids)}

    def all(self) -> dict[str, dict[bytes, tuple[bytes, bytes]]]:
        return {name: self.read(name) for name in HOMES}

    def close(self) -> None:
        self.replayer.close()
        self.journal.close()


def copy_alive(folder: Path, to: Path) -> None:
    """Copies the files of a running node, as they would be left by a kill."""
    while True:
        try:
            shutil.copytree(folder, to, ignore=shutil.ignore_patterns("LOCK"))
            return
        except shutil.Error:  # RocksDB removed a file meanwhile
            shutil.rmtree(to)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[bytes, tuple[bytes, bytes]]]]:
    """The folder of a node that was killed after writes, and what it held."""
    folder = tmp_path_factory.mktemp("node")
    node = Kept(folder / "alive")
    node.replayer.open()
    config = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(SIZE, Distance.DOT)}))
    for name, homes in HOMES.items():
        node.writer.write_catalog(CreateCollection(name, config, [homes]), Origin("create")).result()
    node.settle()
    for start in range(0, COUNT, 50):
        for name in HOMES:
            node.write(name, range(start, start + 50))
        node.settle()
        if start == COUNT // 2:
            for shard in node.shards.all():
                shard.checkpoint.take()
                for table in shard.store._tables.values():
                    table.flush()
    held = node.all()
    copy_alive(folder / "alive", folder / "killed")
    node.close()
    return folder / "killed", held


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own: the files are copies, and RocksDB would find their blocks, read before the damage, in the cache."""
    monkeypatch.setattr(store, "_cache", Cache(1 << 20))


@pytest.fixture
def folder(killed: tuple[Path, object], tmp_path: Path) -> Path:
    shutil.copytree(killed[0], tmp_path / "node")
    return tmp_path / "node"


@pytest.fixture
def node(folder: Path) -> Iterator[Kept]:
    """Not opened yet: a test does its damage first."""
    node = Kept(folder)
    yield node
    node.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -max(1, path.stat().st_size // 3)])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: list[Callable[[Path], None]] = [flip, cut, empty, Path.unlink, make_folder]
KINDS = ["*.sst", "*.log", "MANIFEST-*", "CURRENT", "IDENTITY", "rocksdict-config.json"]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", [f"rows/{kind}" for kind in KINDS] + ["checkpoint", "../identity"])
def test_state_with_a_damaged_file_is_rebuilt_while_the_rest_serves(
    folder: Path, killed: tuple[Path, dict[str, object]], kind: str, way: Callable[[Path], None]
) -> None:
    """I1: whatever is damaged, a node comes back by itself with the same points; nothing damaged is served meanwhile."""
    files = sorted((folder / "state" / "0" / "0").glob(kind))
    assert files
    for path in files:
        way(path)
    node = Kept(folder)
    try:
        node.replayer.open()
        node.settle()
        assert node.read("d") == killed[1]["d"]
        try:
            assert node.read("c") == killed[1]["c"]
        except ShardUnavailable:
            node.heal()
        assert node.all() == killed[1]
    finally:
        node.close()


def test_a_block_found_broken_by_a_read_is_healed(folder: Path, killed: tuple[Path, dict[str, object]]) -> None:
    """I1: RocksDB finds it when the block is read, maybe long after the start."""
    for path in (folder / "state" / "0" / "0" / "rows").glob("*.sst"):
        data = bytearray(path.read_bytes())
        for at in range(100, len(data) // 2, 500):
            data[at] ^= 255
        path.write_bytes(data)
    node = Kept(folder)
    try:
        node.replayer.open()
        node.settle()
        woken = threading.Event()
        node.shards.on_damage = woken.set
        if not node.shards.quarantined():
            (shard,) = node.shards.of(0)
            with pytest.raises(Exception, match="is damaged"):
                shard.guarded(lambda: [shard.view.vectors_of(row) for row in shard.alive])
            assert woken.is_set()
            node.settle()
            with pytest.raises(ShardUnavailable, match="its state is removed and replayed from the log"):
                node.read("c")
        assert node.read("d") == killed[1]["d"]
        node.heal()
        assert node.all() == killed[1]
    finally:
        node.close()


def test_missing_logs_of_the_state_are_not_served_as_if_nothing_had_happened(
    folder: Path, killed: tuple[Path, dict[str, object]]
) -> None:
    """I3: all write-ahead logs but the last are gone."""
    node = Kept(folder)
    node.replayer.open()
    for number in range(3):  # a new write-ahead log each time, which the rows need
        (shard,) = node.shards.of(0)
        shard.store._tables["default"].flush()
        node.write("c", range(COUNT + number, COUNT + number + 1))
        node.settle()
    expected = node.all()
    rows = folder / "state" / "0" / "0" / "rows"
    copy_alive(rows, folder / "copy")
    node.close()
    shutil.rmtree(rows)
    shutil.copytree(folder / "copy", rows)
    logs = sorted(rows.glob("*.log"))
    assert len(logs) > 2
    for path in logs[:-1]:
        path.unlink()
    node = Kept(folder)
    try:
        node.replayer.open()
        assert node.shards.quarantined()
        node.heal()
        assert node.all() == expected
    finally:
        node.close()


def test_an_older_log_of_the_state_may_be_damaged(folder: Path, killed: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    """I3: the logs of several starts are kept. What comes after the damage is replayed, also when the node is killed again."""
    for number in range(3):
        node = Kept(folder)
        node.replayer.open()
        node.settle()
        node.heal()
        node.write("c", range(COUNT + 10 * number, COUNT + 10 * (number + 1)))
        node.settle()
        expected = node.all()
        assert len(expected["c"]) == COUNT + 10 * (number + 1)
        folder = tmp_path / f"killed{number}"
        copy_alive(tmp_path / "node" if number == 0 else tmp_path / f"killed{number - 1}", folder)
        node.close()
        logs = sorted((folder / "state" / "0" / "0" / "rows").glob("*.log"))
        assert len(logs) > 1
        flip(logs[0])
    node = Kept(folder)
    try:
        node.replayer.open()
        node.settle()
        node.heal()
        assert node.all() == expected
    finally:
        node.close()


def test_a_log_whose_end_is_lost_is_not_accepted_in_silence(folder: Path, killed: tuple[Path, dict[str, object]]) -> None:
    """I2: the state still has what the log has lost. It is kept, nothing is served from it, and no offset is given out twice."""
    (folder / "log" / "ends").unlink()
    wal = max((folder / "log").glob("*.log"))
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size * 2 // 3])
    node = Kept(folder)
    try:
        node.replayer.open()
        node.settle()
        for name in HOMES:
            with pytest.raises(ShardUnavailable, match=r"v.tier1/\d ends at \d and has held 8 records: .* are lost"):
                node.read(name)
        assert list((folder / "state" / "0" / "0" / "rows").glob("*.sst"))
        home = TopicPartition(TOPICS.tier(1), 0)
        with pytest.raises(Exception, match="takes no writes"):
            node.journal.append(home, b"x")
    finally:
        node.close()


def test_a_log_that_lost_its_end_is_found_without_any_state(folder: Path) -> None:
    """I2: from the ends that the log notes beside itself."""
    shutil.rmtree(folder / "state")
    journal = EmbeddedJournal(folder / "log")
    home = TopicPartition(TOPICS.tier(1), 0)
    end = journal.end_offsets([home])[home]
    journal.close()
    noted = msgspec.json.decode((folder / "log" / "ends").read_bytes(), type=dict[str, int])
    assert noted["v.tier1/0"] == end
    (folder / "log" / "ends").write_bytes(msgspec.json.encode(noted | {"v.tier1/0": end + 3}))
    node = Kept(folder)
    try:
        node.replayer.open()
        node.settle()
        with pytest.raises(ShardUnavailable, match=f"the 3 records from {end} to {end + 2} are lost"):
            node.read("c")
        assert len(node.read("d")) == COUNT
    finally:
        node.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_or_changed_record_in_the_middle_is_found(
    folder: Path, killed: tuple[Path, dict[str, object]], seed: int
) -> None:
    """I2: a shard that has applied the record goes on; one that would need it is not served."""
    dice = random.Random(seed)
    journal = EmbeddedJournal(folder / "log")
    offset = dice.randrange(1, 7)
    key = b"e" + TOPICS.tier(1).encode() + b"\x00\x00\x00" + offset.to_bytes(8, "big")
    value = journal._db[key]
    if seed % 2:
        del journal._db[key]
    else:
        at = dice.randrange(200, len(value))
        journal._db[key] = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    journal.close()
    node = Kept(folder)
    try:
        node.replayer.open()
        node.settle()
        assert node.all() == killed[1]
    finally:
        node.close()
    shutil.rmtree(folder / "state")
    node = Kept(folder)
    try:
        stop = threading.Thread(target=node.replayer.run)
        stop.start()
        while not node.replayer.caught_up():
            assert node.replayer.failure is None
        with pytest.raises(ShardUnavailable, match=f"the log is damaged at v.tier1/0/{offset}"):
            node.read("c")
        assert node.read("d") == killed[1]["d"]
    finally:
        node.replayer.stop()
        stop.join(10)
        node.close()
