"""A start from a checkpoint gives the state that reading all rows gives; one that cannot be used costs time only (I1, I3)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

import shard.checkpoint
import shard.payload_index
from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Delete, PatchPayload, PointOperation, Record, ReplacePayload, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from payload.geo import Box
from payload.schema import FieldSchema, FieldType
from shard import checkpoint_file
from shard.batch import Limits
from shard.payload_index import FieldIndex
from shard.shard import Shard

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)
FIELDS = {kind.value: FieldSchema(kind) for kind in FieldType}
UUIDS = [f"b7a9c2c0-0000-0000-0000-00000000000{number}" for number in range(3)]
VALUES: dict[str, st.SearchStrategy[object]] = {
    "keyword": st.sampled_from(["red", "green", "blue"]),
    "integer": st.integers(-3, 3) | st.just(2**60 + 1),
    "float": st.floats(-2, 2) | st.integers(-2, 2),
    "bool": st.booleans(),
    "datetime": st.sampled_from(["2024-01-01", "2024-05-05T10:00:00Z", "1969-07-20"]),
    "uuid": st.sampled_from(UUIDS),
    "text": st.sampled_from(["one two", "two three", "three"]),
    "geo": st.fixed_dictionaries({"lon": st.integers(-20, 20), "lat": st.integers(-20, 20)}),
}
PAYLOADS = st.fixed_dictionaries(
    {}, optional={name: values | st.none() | st.lists(values, max_size=3) for name, values in VALUES.items()}
)
IDS = st.lists(
    st.sampled_from([*range(6), "a name that is longer than a row of the table has room for"]), min_size=1, unique=True
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), IDS, PAYLOADS),
        st.tuples(st.just("patch"), IDS, PAYLOADS),
        st.tuples(st.just("replace"), IDS, PAYLOADS),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("take")),
        st.tuples(st.just("take while"), IDS, PAYLOADS),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("kill")),
        st.tuples(st.just("fields"), st.sets(st.sampled_from(sorted(FIELDS)))),
    ),
    max_size=25,
)


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS", 12), ("ROWS_QUIET", 4)):
        monkeypatch.setattr(shard.checkpoint, name, value)
    for name in ("RESORT_ROWS", "_LOCKED_KEYS", "_LOCKED_ROWS"):
        monkeypatch.setattr(shard.payload_index, name, 2)


class Life:
    """A shard that is opened, written, closed and killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks: list[Callable[[], None]] = []
        self.offset = 0
        self.fields = FIELDS
        self.shard = self.open()

    def collection(self) -> Collection:
        config = CollectionConfig({"": VectorParams(2, Distance.DOT)})
        return Collection("c", 0, config, [[0 for _ in TIERS]], fields=self.fields)

    def open(self) -> Shard:
        return Shard(self.folder, self.collection(), 0, TOPICS, Limits(), self.tasks.append)

    def upsert(self, ids: list[object], payload: object = None) -> None:
        vectors = np.full((len(ids), 2), self.offset, np.float32)
        self.apply(Upsert(_encoded(ids), [VectorColumn.of("", vectors)], [orjson.dumps(payload or {})] * len(ids)))

    def apply(self, operation: PointOperation) -> None:
        entry = Entry(HOME, self.offset, 1000 + self.offset, None, b"", ())
        self.shard.apply([(entry, Record(stamp_at(1000 + self.offset), operation, 0))])
        self.offset += 1

    def configure(self, fields: dict[str, FieldSchema]) -> None:
        self.fields = fields
        self.shard.configure(self.collection())

    def take_while(self, ids: list[object], payload: object) -> None:
        """A checkpoint between whose parts a batch is applied."""
        kept = self.shard.checkpoint._parts

        def parts(*arguments: object) -> Iterator[object]:
            for number, part in enumerate(kept(*arguments)):  # type: ignore[arg-type]
                yield part
                if number % 3 == 1:
                    self.upsert(ids, payload)

        self.shard.checkpoint._parts = parts  # type: ignore[assignment, method-assign]
        self.shard.checkpoint.take()
        self.shard.checkpoint._parts = kept  # type: ignore[method-assign]

    def kill(self) -> None:
        """Ends without a checkpoint. RocksDB's files stay as the last write left them."""
        self.shard.release()
        self.tasks.clear()
        self.shard = self.open()

    def reopen(self) -> None:
        self.shard.close()
        self.tasks.clear()
        self.shard = self.open()

    def reread(self) -> None:
        """Opens with nothing but the rows."""
        self.shard.release()
        (self.folder / "checkpoint").unlink(missing_ok=True)
        self.shard = self.open()


def _encoded(ids: list[object]) -> list[bytes]:
    return [encode_id(id_) for id_ in ids]  # type: ignore[arg-type]


def contents(mine: Shard) -> object:
    """All that the shard knows in memory."""
    rows = list(mine.alive)
    known = mine.rows.view().known(rows)
    assert mine.view.alive == mine.alive
    counts = [count for count in mine.rows._alive if count]
    return rows, known, counts, {name: indexed(index) for name, index in mine.payload.fields.items()}


def indexed(index: FieldIndex) -> object:
    sets = [set(rows) for rows in (index.rows, index.filled, index.nulls, index._several)]
    postings = {key: set(rows) for key, rows in index.postings._rows.items()}
    ordered = places = None
    if index.ordered is not None:
        numbers = {row: sorted(values) for row, values in index.ordered._values.items()}
        at_least = set(index.ordered.between(lambda number: number >= 0, 0, None))
        ordered = (numbers, at_least, list(index.ordered.order().ascending(None, False, BitMap(), [])))
    if index._places is not None:
        held = {row: sorted(values) for row, values in index._places._values.items()}
        places = (held, set(index._places.within(Box(-10, -10, 10, 10))))
    return sets, postings, ordered, places


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_a_start_from_a_checkpoint_gives_what_all_rows_give(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    folder = Path(tempfile.mkdtemp())
    life = Life(folder)
    try:
        for step in steps:
            perform(life, step)
        expected = contents(life.shard)
        life.kill()
        assert contents(life.shard) == expected, "after a kill"
        life.reopen()
        assert contents(life.shard) == expected, "after a stop"
        life.reread()
        assert contents(life.shard) == expected, "after reading all rows"
    finally:
        life.shard.release()
        shutil.rmtree(folder)


def perform(life: Life, step: tuple) -> None:  # type: ignore[type-arg]
    match step:
        case ("upsert", ids, payload):
            life.upsert(ids, payload)
        case ("patch", ids, payload):
            life.apply(PatchPayload(_encoded(ids), orjson.dumps(payload), ["keyword"]))
        case ("replace", ids, payload):
            life.apply(ReplacePayload(_encoded(ids), orjson.dumps(payload)))
        case ("delete", ids):
            life.apply(Delete(_encoded(ids)))
        case ("take",):
            life.shard.checkpoint.take()
        case ("take while", ids, payload):
            life.take_while(ids, payload)
        case ("reopen",):
            life.reopen()
        case ("kill",):
            life.kill()
        case ("fields", names):
            life.configure({name: FIELDS[name] for name in names})


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path / "shard")
    life.upsert([0, 1, 2, 3], {"keyword": "red", "float": 1.5})
    life.shard.checkpoint.take()
    life.upsert([3, 4], {"keyword": "blue"})
    yield life
    life.shard.release()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever a shard reads all its rows."""
    scans: list[int] = []
    read = Shard._read_all_rows
    monkeypatch.setattr(Shard, "_read_all_rows", lambda mine: (scans.append(1), read(mine)))
    return scans


def test_a_start_reads_only_the_rows_touched_since(life: Life, scans: list[int]) -> None:
    expected = contents(life.shard)
    life.kill()
    assert not scans
    assert life.shard.checkpoint.stale_rows == 3, "the old and the new row of point 3, the row of point 4"
    assert contents(life.shard) == expected


def _cut(data: bytes) -> bytes:
    return data[:-40]


def _flip(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _other_format(data: bytes) -> bytes:
    return data.replace(b"checkpoint 1", b"checkpoint 0", 1)


def _nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_cut, _flip, _other_format, _nothing])
def test_a_damaged_file_is_not_used(life: Life, scans: list[int], damage: Callable[[bytes], bytes]) -> None:
    expected = contents(life.shard)
    file = life.folder / "checkpoint"
    file.write_bytes(damage(file.read_bytes()))
    life.kill()
    assert scans == [1]
    assert not file.exists()
    assert contents(life.shard) == expected


def _rewritten(file: Path, **changes: object) -> None:
    head, *parts = checkpoint_file.read(file)
    assert isinstance(head, checkpoint_file.Head)
    fields = {"store": head.store, "batch": head.batch} | changes
    checkpoint_file.write(file, [checkpoint_file.Head(**fields), *parts])  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"store": "another"}, {"batch": 3}])
def test_a_file_of_another_state_is_not_used(life: Life, scans: list[int], changes: dict[str, object]) -> None:
    """Of another RocksDB, or of a batch that this one has not."""
    expected = contents(life.shard)
    _rewritten(life.folder / "checkpoint", **changes)
    life.kill()
    assert scans == [1]
    assert contents(life.shard) == expected


def test_a_file_from_before_the_last_checkpoint_is_not_used(life: Life, scans: list[int]) -> None:
    """What was touched between the two is not known any more."""
    file = life.folder / "checkpoint"
    old = file.read_bytes()
    life.shard.checkpoint.take()
    file.write_bytes(old)
    expected = contents(life.shard)
    life.kill()
    assert scans == [1]
    assert contents(life.shard) == expected


def test_a_checkpoint_that_was_not_finished_leaves_the_old_one(life: Life, scans: list[int]) -> None:
    expected = contents(life.shard)

    def parts(*_: object) -> Iterator[object]:
        yield checkpoint_file.AliveRows(b"")
        raise OSError("the disk is full")

    life.shard.checkpoint._parts = parts  # type: ignore[assignment, method-assign]
    with pytest.raises(OSError, match="full"):
        life.shard.checkpoint.take()
    life.kill()
    assert not scans
    assert contents(life.shard) == expected


def test_only_an_index_that_is_not_in_the_checkpoint_is_built_anew(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.fields = FIELDS | {"keyword": FieldSchema(FieldType.TEXT)}
    built: list[FieldType] = []
    add = FieldIndex.add
    monkeypatch.setattr(FieldIndex, "add", lambda index, *rest: (built.append(index.schema.type), add(index, *rest)))
    life.shard.release()
    life.shard = life.open()
    assert built == [FieldType.TEXT] * 5
    assert set(life.shard.payload.fields["keyword"].postings._rows) == {"red", "blue"}


def test_it_is_taken_while_idle_when_a_few_rows_changed(life: Life) -> None:
    life.shard.checkpoint.take()
    life.upsert([0])
    life.shard.tend(idle=True)
    assert not life.tasks, "two rows are fewer than four"
    life.upsert([1])
    life.shard.tend(idle=True)
    life.shard.tend(idle=True)
    assert life.tasks == [life.shard.checkpoint.take]
    life.tasks.pop()()
    life.shard.tend(idle=True)
    assert not life.tasks, "nothing changed since"


def test_it_is_taken_while_writes_come_in_when_many_rows_changed(life: Life) -> None:
    life.shard.checkpoint.take()
    for number in range(5):
        life.upsert([number])
    assert not life.tasks, "ten rows are fewer than twelve"
    life.upsert([5, 6])
    assert life.tasks == [life.shard.checkpoint.take]


def test_a_task_that_comes_after_the_end_does_nothing(life: Life) -> None:
    life.upsert([0, 1, 2, 3, 4])
    life.upsert([0, 1, 2, 3, 4])
    take = life.tasks[0]
    life.kill()
    life.shard.release()
    before = (life.folder / "checkpoint").read_bytes()
    take()
    assert (life.folder / "checkpoint").read_bytes() == before
    life.shard = life.open()
