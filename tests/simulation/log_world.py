"""A world whose log itself comes to harm, from a seed: one node on the embedded log, with its real files.

Files and records of the log are changed, cut or removed while the node is down, with its state kept, of an earlier time, or gone;
the disk is full for a while. What must hold:

- What was acknowledged is there, or what serves it is refused with a reason that names the loss.
- Nothing that is read from the log is anything else than what was written (I2).
- After a repair that writes back, all is there that the log or the state still had; after one that accepts the loss, what the log
  has. Both hold for a node without state, too (I1).
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import msgspec
from rocksdict import Rdict

import journal.embedded
from catalog.catalog import choose_homes
from journal import codec
from journal.embedded import EmbeddedJournal, _options
from journal.log import Damaged, Entry, Journal, JournalError, Positions, TopicPartition
from journal.records import CreateCollection
from journal.topics import TIERS
from journal.writer import Destination, Origin
from shard.shards import ShardUnavailable
from tests.replayer.projections.test_damage import copy_alive
from tests.simulation.checks import check_collection
from tests.simulation.log_node import LogNode
from tests.simulation.model import Expected, expected_state
from tests.simulation.setting import COLLECTIONS, LIMITS, START_MS, TOPICS
from tests.simulation.writes import any_config, any_operation, poisoned_values
from vecraft.recovery import repair
from vecraft.settings import Settings

WAIT_S = 20
NAMED = re.compile(
    r"damaged at|are lost|takes no writes|Corruption:|No such file|cannot be opened|made anew|was missing|topics are missing"
)
"""How a loss is said."""

Applied = dict[tuple[int, int, TopicPartition], int]
"""How far each shard of a state has applied each of its partitions."""


class FailingJournal(EmbeddedJournal):
    """An embedded log on a disk that may be full."""

    disk_is_full: Literal["", "before", "after"] = ""
    """Whether writes fail, and if so, before or after they are done."""

    def _write(self, group: list[Any]) -> Any:
        if self.disk_is_full == "before":
            raise OSError("No space left on device")
        written = super()._write(group)
        if self.disk_is_full:
            raise OSError("No space left on device")
        return written

    def _try_disk(self) -> None:
        if self.disk_is_full:
            raise OSError("No space left on device")


class LogWorld:
    """One node with its data in `folder`, and what its log has held, by partition."""

    ACTIONS = 60
    crash_rate = shard_fault_rate = 0.0
    shard_faults = 0

    def __init__(self, seed: int, folder: Path) -> None:
        self._patched = patch.multiple("journal.embedded", REOPEN_S=0.001, ENDS_EVERY_S=1e6, TRIAL_BYTES=1)
        self._patched.start()
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.folder = folder
        self.number = 0
        self.journal: FailingJournal | None = None
        self.history: dict[TopicPartition, list[Entry]] = {p: [] for p in PARTITIONS}
        self.is_harmed = False
        self.is_over = False
        self.backup: Applied | None = None
        self.applied: Applied = {}
        """What the state holds, also that of shards that are not served any more."""
        self.said = io.StringIO()
        self.node = LogNode(self, "node", folder / "state")  # type: ignore[arg-type]

    def connect(self) -> Journal:
        self.journal = FailingJournal(self.folder / "journal", lambda: self.now_ms)
        return self.journal

    def disconnect(self) -> None:
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def check_unpublished(self, node: LogNode) -> None:
        return

    def run(self) -> None:
        """Lives through its random events; ends early when the log is so damaged that the node refuses to start."""
        choices = (
            [self._write] * 14 + [self._create] * 2 + [self._step] * 6 + [self._poison] + [self._pass_time] * 2
            + [self._fill_disk, self._restart, self._back_up, self._forget_state] + [self._harm] * 2
        )  # fmt: skip
        for _ in range(2):
            self._create()
        for _ in range(self.ACTIONS):
            self.random.choice(choices)()
            if self.is_over:
                return
        self.node.settle()
        self._check()

    def close(self) -> None:
        self.node.stop()
        self.node.stores.close(self.folder)
        self._patched.stop()

    # What may happen.

    def _create(self) -> None:
        command = CreateCollection(
            self.random.choice(COLLECTIONS),
            msgspec.json.encode(config := any_config(self.random)),
            choose_homes(self.node.replayer.catalog.view, config.shard_number),
        )
        self._try(lambda: self.node.writer.write_catalog(command, self._origin()).result(WAIT_S))
        self.node.settle()

    def _write(self) -> None:
        view = self.node.replayer.catalog.view
        if not view.collections:
            return
        collection = view.collections[self.random.choice(sorted(view.collections))]
        destination = Destination("", collection.id, view.position, collection.homes)
        operation, tier = any_operation(self.random, collection), self.random.choice(TIERS)
        self._try(lambda: self.node.writer.write_points(destination, [operation], tier, self._origin()).result(WAIT_S))

    def _poison(self) -> None:
        partition = self.random.choice([TOPICS.system_partition, *TOPICS.data_partitions()])
        value = self.random.choice(poisoned_values(self.random, self.now_ms, len(self.history[TOPICS.system_partition])))
        self._try(lambda: self._log().append(partition, value).result(WAIT_S))

    def _try(self, write: Callable[[], object]) -> None:
        with contextlib.suppress(JournalError):
            write()
        self._note_history()

    def _step(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            self.node.step()

    def _pass_time(self) -> None:
        self.now_ms += self.random.choice((1, 50, 700, 20_000))

    def _restart(self) -> None:
        self.node.stop()
        self.node.start()
        self._settle_and_check()

    def _back_up(self) -> None:
        """Keeps a copy of the state, which comes back later, as after a loss of power."""
        self.backup = self.applied | _applied_by(self.node)
        self.node.stop()
        self.node.stores.close(self.folder)
        shutil.rmtree(self.folder / "backup", ignore_errors=True)
        shutil.copytree(self.node.folder, self.folder / "backup")
        self.node.start()
        self._settle_and_check()

    def _forget_state(self) -> None:
        if self.is_harmed:
            return  # it may be all that is left of what the log has lost
        self.node.stop()
        self._remove_state()
        self.node.start()
        self._settle_and_check()

    def _fill_disk(self) -> None:
        """The disk is full for some writes: the first is in doubt, all others are refused, and reads go on."""
        log = self._log()
        log.disk_is_full = self.random.choice(("before", "after"))
        for _ in range(3):
            self._write()
            self.node.step()
        log.disk_is_full = ""
        until(lambda: log.failure is None)
        self._note_history()

    def _origin(self) -> Origin:
        self.number += 1
        return Origin(f"request{self.number}")

    def _log(self) -> FailingJournal:
        assert self.journal is not None
        return self.journal

    # Harm.

    def _harm(self) -> None:
        """The node is stopped, or killed, and its log is damaged; maybe its state is an earlier one, or none."""
        self._log()._note_ends()
        self.applied |= _applied_by(self.node)
        is_killed = self.random.random() < 0.7
        if is_killed:
            copy_alive(self.folder / "journal", self.folder / "killed")
        self.node.stop()
        self.node.stores.close(self.folder)
        if is_killed:
            shutil.rmtree(self.folder / "journal")
            (self.folder / "killed").rename(self.folder / "journal")
        self._change_state()
        harm = self.random.choice((self._damage_file, self._damage_file, self._damage_records, self._lose_end))
        harm()
        self.is_harmed = True
        self.node.start()
        self._settle_and_check()
        if not self.is_over and self.random.random() < 0.7:
            self._decide(self.applied)

    def _change_state(self) -> None:
        fate = 1.0 if self.is_harmed else self.random.random()
        if fate < 0.1:
            self._remove_state()
        elif fate < 0.3 and self.backup is not None:
            shutil.rmtree(self.node.folder)
            shutil.copytree(self.folder / "backup", self.node.folder)
            self.applied = dict(self.backup)

    def _remove_state(self) -> None:
        self.node.stores.close(self.folder)
        shutil.rmtree(self.node.folder, ignore_errors=True)
        self.applied = {}

    def _damage_file(self) -> None:
        pattern = self.random.choice(("*.log", "*.log", "*.sst", "MANIFEST-*", "CURRENT", "IDENTITY", "ends"))
        files = sorted(path for path in (self.folder / "journal").glob(pattern) if path.stat().st_size)
        where, how, within = self.random.random(), self.random.randrange(4), self.random.random()
        if not files:
            return
        path = files[int(where * len(files))]  # how many there are depends on when RocksDB removes old ones; the next choice not
        data = bytearray(path.read_bytes())
        match how:
            case 0:
                data[int(within * len(data))] ^= 16
                path.write_bytes(data)
            case 1:
                path.write_bytes(data[: int(within * len(data))])
            case 2:
                path.write_bytes(data[: len(data) - int(within * 40)])
            case 3:
                path.unlink()

    def _damage_records(self) -> None:
        """Changes or removes records in the middle of a partition."""
        with self._raw() as (db, keys):
            for key in self.random.sample(keys, min(len(keys), self.random.randint(1, 3))):
                if self.random.random() < 0.5:
                    del db[key]
                else:
                    data = bytearray(db[key])
                    data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
                    db[key] = bytes(data)

    def _lose_end(self) -> None:
        with self._raw() as (db, keys):
            for key in keys[len(keys) - self.random.randint(1, 5) :] if keys else []:
                del db[key]

    @contextlib.contextmanager
    def _raw(self) -> Iterator[tuple[Rdict, list[bytes]]]:
        """The RocksDB of the log, and the keys of the records of one partition."""
        db = Rdict(str(self.folder / "journal"), _options())
        partition = self.random.choice([p for p in PARTITIONS if self.history[p]])
        prefix = journal.embedded._entry_prefix(partition)
        yield db, [key for key, _ in journal.embedded.scan(db, prefix, prefix)]
        db.close()

    # What must hold.

    def _settle_and_check(self) -> None:
        self.node.settle()
        self._check()

    def _check(self) -> None:
        """All that the log has held is served, or what is not says why."""
        node = self.node
        if node.refusal:
            assert self.is_harmed, node.refusal
            assert NAMED.search(node.refusal), node.refusal
            self.is_over = True
            return
        self._check_contents(expected_state(self._entries(), lambda *_: 2**63, TOPICS, LIMITS))
        assert self.is_harmed or not node.shards.quarantined()

    def _check_contents(self, expected: Expected) -> None:
        node = self.node
        assert expected.states.keys() == node.replayer.catalog.view.by_id.keys()
        for id_, collection in node.replayer.catalog.view.by_id.items():
            try:
                node.shards.of(id_)
            except ShardUnavailable as error:
                reason = str(error)
            else:
                check_collection(node.pinned(collection), expected.states[id_], self.random)
                continue
            assert NAMED.search(reason), reason

    def _entries(self) -> list[Entry]:
        return [entry for partition in PARTITIONS for entry in self.history[partition]]

    def _note_history(self) -> None:
        """Takes over what was appended."""
        log = self._log()
        ends = log.end_offsets(PARTITIONS)
        for entry in _readable(log, {p: len(self.history[p]) for p in PARTITIONS if ends[p] > len(self.history[p])}):
            assert entry.offset == len(self.history[entry.partition])
            self.history[entry.partition].append(entry)

    # What an operator decides.

    def _decide(self, applied: Applied) -> None:
        """`vecraft journal repair`, in one of its ways; then the node is as it says, also without its state."""
        left = _readable(self._log(), dict.fromkeys(PARTITIONS, 0))
        assert all(self.history[entry.partition][entry.offset] == entry for entry in left), "what is read was written"
        writes_back = self.random.random() < 0.7
        if not writes_back:
            lost = {key[:2] for key in applied if self._has_lost(key[2], left)}
            applied = {key: offset for key, offset in applied.items() if key[:2] not in lost}
        places = {(entry.partition, entry.offset) for entry in left}
        kept = [e for e in self._entries() if (e.partition, e.offset) in places or e.offset < _applied_at(applied, e)]
        expected = expected_state(kept, lambda *_: 2**63, TOPICS, LIMITS)
        self.node.stop()
        self._repair(writes_back)
        self.node.start()
        self.node.settle()
        assert not self.node.refusal, self.node.refusal
        assert not self.node.shards.quarantined()
        for points in expected.states.values():
            for point in points.values():
                point.version = -1  # what is written back has another one
        self._check_contents(expected)
        self._begin_anew()

    def _has_lost(self, partition: TopicPartition, left: list[Entry]) -> bool:
        return sum(entry.partition == partition for entry in left) < len(self.history[partition])

    def _repair(self, writes_back: bool) -> None:
        self.node.stores.close(self.folder)
        settings = Settings(data_dir=self.folder, topic_prefix=TOPICS.prefix, idempotency_window_s=60)
        with patch("vecraft.recovery.wall_clock_ms", lambda: self.now_ms), contextlib.redirect_stdout(self.said):
            repair(settings, False, False)
            repair(settings, writes_back, not writes_back)

    def _begin_anew(self) -> None:
        """From here on the log is what counts: a node without state says the same (I1) when the holes are accepted there, too."""
        left = _readable(self._log(), dict.fromkeys(PARTITIONS, 0))
        self.history = {p: [entry for entry in left if entry.partition == p] for p in PARTITIONS}
        ends = self._log().end_offsets(PARTITIONS)
        self.is_over = self.is_harmed = any(len(self.history[p]) < ends[p] for p in PARTITIONS)
        self.backup = None
        self.node.stop()
        self._remove_state()
        self.node.start()
        self._settle_and_check()
        if self.node.shards.quarantined():
            self.node.stop()
            self._repair(writes_back=False)
            self.node.start()
            self._settle_and_check()
            assert not self.node.shards.quarantined()


PARTITIONS = [TOPICS.system_partition, *TOPICS.data_partitions()]


def _readable(log: EmbeddedJournal, positions: Positions) -> list[Entry]:
    """All records from these positions on that can be read."""
    reader = log.reader()
    found: list[Entry] = []
    ends = log.end_offsets(list(positions))
    while any(positions[p] < ends[p] for p in positions):
        reader.assign(positions)
        try:
            batch = reader.poll(0)
        except Damaged as damage:
            positions = positions | {damage.partition: damage.next_offset}
        else:
            found += batch.entries
            positions = batch.positions
    reader.close()
    return found


def _applied_by(node: LogNode) -> Applied:
    return {
        (shard.collection.id, shard.number, p): shard.progress(p).offset
        for shard in node.shards.all()
        for p in shard.home_partitions()
    }


def _applied_at(applied: Applied, entry: Entry) -> int:
    """How far the shard of a record has applied its partition."""
    with contextlib.suppress(codec.DecodeError):
        record = codec.decode(entry.value)
        return applied.get((record.collection, record.shard, entry.partition), 0)
    return 0


def until(holds: Callable[[], bool]) -> None:
    """Waits for a thread of the log."""
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.001)
