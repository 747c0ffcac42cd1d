"""Named vectors come and go on a live collection, and every replica ends with the same points (I1, I6, V15)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.collection import CollectionConfig, Distance, NewVector, SparseParams, VectorParams
from journal import codec
from journal.hlc import Clock, stamp_at
from journal.ids import encode_id
from journal.log import TopicPartition
from journal.memory import MemoryJournal
from journal.records import (
    SPARSE,
    CreateCollection,
    CreateVector,
    Delete,
    DeleteVector,
    PatchPayload,
    PatchVectors,
    Record,
    UnsetVectors,
    Upsert,
    Vector,
    VectorColumn,
)
from journal.stamps import NEVER, version_of
from query import points
from query.search import search
from query.stages import Stage
from shard.batch import Limits
from shard.ranking.rankings import Nearest
from shard.replica import PayloadPart
from shard.shards import Shards
from tests.reading import now, pinned
from tests.replayer.rig import NOW_MS, TOPICS, replayer_on

NAMES = ["a", "b"]
KINDS = {
    "two": NewVector(dense=VectorParams(2, Distance.COSINE)),
    "three": NewVector(dense=VectorParams(3, Distance.DOT)),
    "many": NewVector(dense=VectorParams(2, Distance.DOT, multi=True)),
    "sparse": NewVector(sparse=SparseParams()),
}
IDS = [encode_id(number) for number in range(3)]

names, kinds, ids = st.sampled_from(NAMES), st.sampled_from(sorted(KINDS)), st.sampled_from(IDS)
commands = st.builds(lambda name, kind: CreateVector("c", name, msgspec.json.encode(KINDS[kind])), names, kinds) | st.builds(
    DeleteVector, st.just("c"), names
)


def column(name: str, kind: str, number: int) -> VectorColumn:
    match kind:
        case "two" | "three":
            return VectorColumn.of(name, np.full((1, 2 if kind == "two" else 3), number, np.float32))
        case "many":
            return VectorColumn.of_each(name, [np.full((2, 2), number, np.float32)])
    return VectorColumn.of_each(name, [np.array([(number, number)], SPARSE)])


columns = st.dictionaries(names, st.tuples(kinds, st.integers(1, 9))).map(
    lambda given: [column(name, kind, number) for name, (kind, number) in given.items()]
)
operations = st.one_of(
    st.builds(lambda id_, vectors, n: Upsert([id_], vectors, [b'{"n":%d}' % n]), ids, columns, st.integers(0, 9)),
    st.builds(lambda id_, vectors: PatchVectors([id_], vectors), ids, columns),
    st.builds(lambda id_, given: UnsetVectors([id_], sorted(given)), ids, st.sets(names, min_size=1)),
    st.builds(lambda id_, n: PatchPayload([id_], b'{"p":%d}' % n), ids, st.integers(0, 9)),
    st.builds(lambda id_: Delete([id_]), ids),
)
conditions = st.none() | st.integers(-3, -1)
"""None, or the condition that the point is as one of the last writes left it."""

WRITE, COMMAND, STEP, RESTART = "write", "command", "step", "restart"
steps = st.one_of(
    st.tuples(st.just(WRITE), operations, st.integers(0, 3), st.integers(0, 3), st.integers(0, 20), conditions),
    st.tuples(st.just(COMMAND), commands),
    st.tuples(st.just(STEP)),
    st.tuples(st.just(RESTART)),
)


class Replica:
    """A node's replay of a log, without HTTP."""

    def __init__(self, log: MemoryJournal, folder: Path) -> None:
        self._now_ms = NOW_MS
        self.shards = Shards(folder, TOPICS, Limits(), lambda task: None, checkpoints=lambda task: task())
        clock = Clock(lambda: self._now_ms)
        self.replayer = replayer_on(log, clock, self.shards, lambda: self._now_ms, folder.name)
        self.replayer.open()

    def settle(self) -> None:
        while self.replayer.step(0):
            self._now_ms += 10

    def state(self) -> tuple[Any, Any]:
        """All points with versions, payloads and vectors; and what a search by each vector finds."""
        collection = self.replayer.catalog.view.collections["c"]
        read = pinned(self.shards.of(collection.id))
        found = now(points.retrieve(read, IDS, PayloadPart(), vectors=True))
        searches = {}
        for name in (*collection.config.vectors, *collection.config.sparse_vectors):
            vector = QUERIES[kind_of(collection.config, name)]
            ranked = now(search(read, Stage(Nearest(name, vector), 9)))
            searches[name] = list(zip(ranked.ids, ranked.scores.tolist(), ranked.versions, strict=True))
        shown = {p.id: (p.version, p.payload, {name: vector.tolist() for name, vector in p.vectors.items()}) for p in found}
        return shown, searches


QUERIES: dict[str, Vector] = {
    "two": np.ones(2, np.float32),
    "three": np.ones(3, np.float32),
    "many": np.ones((1, 2), np.float32),
    "sparse": np.array([(number, 1) for number in range(10)], SPARSE),
}


def kind_of(config: CollectionConfig, name: str) -> str:
    vector = config.vector(name)
    return next(kind for kind, known in KINDS.items() if known == vector)


def run(folder: Path, given_steps: list[Any]) -> tuple[Any, Any]:
    """Takes the steps on one replica, and compares it with one that reads the log when all is written."""
    now_ms = NOW_MS
    log = MemoryJournal(lambda: now_ms)
    clock = Clock(lambda: now_ms)
    home, system = [0, 2, 0, 0], TOPICS.system_partition
    live = Replica(log, folder / "live")
    versions: list[int] = []
    config = msgspec.json.encode(CollectionConfig())
    log.append(system, codec.encode(Record(clock.now(), CreateCollection("c", config, [home])))).result()
    live.settle()
    for step in given_steps:
        now_ms += 5
        match step:
            case (kind, operation, tier, back, age_ms, condition) if kind == WRITE:
                position = max(1, log.end_offsets([system])[system] - back)
                hlc = clock.now() - stamp_at(age_ms)
                expected = None if condition is None else [(versions or [NEVER])[max(condition, -len(versions))]]
                versions.append(version_of(hlc, tier))
                record = Record(hlc, operation, 0, position, expected=expected)
                log.append(TopicPartition(TOPICS.tier(tier), home[tier]), codec.encode(record)).result()
            case (kind, command) if kind == COMMAND:
                log.append(system, codec.encode(Record(clock.now(), command))).result()
            case (kind,) if kind == STEP:
                live.settle()
            case _:
                live.replayer.close()
                live = Replica(log, folder / "live")
    live.settle()
    fresh = Replica(log, folder / "fresh")
    fresh.settle()
    live_state, fresh_state = live.state(), fresh.state()
    live.replayer.close()
    fresh.replayer.close()
    again = Replica(log, folder / "live")
    again.settle()
    again_state = again.state()
    again.replayer.close()
    assert live_state == fresh_state == again_state
    return live_state


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25))
def test_replicas_that_learn_of_names_at_different_times_end_with_the_same_points(given_steps: list[Any]) -> None:
    with TemporaryDirectory() as folder:
        run(Path(folder), given_steps)


def test_values_of_a_removed_name_never_come_back(tmp_path: Path) -> None:
    """Not under a new vector of the name, and not by a later write of a writer that did not know of the removal."""
    add = (COMMAND, CreateVector("c", "a", msgspec.json.encode(KINDS["two"])))
    old = (WRITE, Upsert([IDS[0]], [column("a", "two", 3)], [b'{"n":1}']), 1, 0, 0, None)
    late = (WRITE, PatchVectors([IDS[0]], [column("a", "two", 5)]), 2, 2, 0, None)
    shown, searches = run(tmp_path, [add, old, (STEP,), (COMMAND, DeleteVector("c", "a")), add, late])
    assert [(payload, vectors) for _, payload, vectors in shown.values()] == [(b'{"n":1}', {})]
    assert searches == {"a": []}


def test_a_write_of_a_removed_vector_still_counts_as_a_write(tmp_path: Path) -> None:
    """Its version is that of the point, also when another write is decided before it later."""
    add = (COMMAND, CreateVector("c", "a", msgspec.json.encode(KINDS["two"])))
    first = (WRITE, Upsert([IDS[0]], [], [b'{"n":1}']), 1, 0, 0, None)
    second = (WRITE, PatchVectors([IDS[0]], [column("a", "two", 5)]), 1, 0, 0, None)
    remove, decided = (COMMAND, DeleteVector("c", "a")), (WRITE, PatchPayload([IDS[0]], b'{"p":2}'), 2, 0, 17, -2)
    shown, _ = run(tmp_path, [add, first, second, (STEP,), remove, decided])
    ((version, payload, vectors),) = shown.values()
    assert (version & 3, payload, vectors) == (1, b'{"n":1,"p":2}', {})
