"""Segments: what is alive is found, exactly once, whatever is sealed, merged, killed or lost meanwhile (I1, I10)."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replace_hnsw
from pyroaring import BitMap

from catalog.collection import Distance, HnswConfig
from shard.vectors.graph import CodeUse, FlatCodes, Graph, GraphSpec
from shard.vectors.index import MAX_BUILDS, BuildInfo, RowSet, SegmentInfo, SegmentList
from shard.vectors.segment_policy import DEFAULT_POLICY, SegmentPolicy
from shard.vectors.segment_store import SegmentStore, StoredSegment
from shard.vectors.segments import DenseIndex, SegmentState

SIZE = 16
REAL_DATA = Path(__file__).parents[4] / "shared" / "data" / "debian-packages"


SMALL = SegmentPolicy(seal_rows=200, seal_rows_idle=20)


def index(
    folder: Path, size: int = SIZE, distance: Distance = Distance.COSINE, policy: SegmentPolicy = DEFAULT_POLICY
) -> DenseIndex:
    return DenseIndex(SegmentStore(folder), distance, size, GraphSpec(), threading.RLock(), policy)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def build_all(vectors: DenseIndex, idle: bool = False) -> int:
    builds = 0
    while (build := vectors.plan(idle)) is not None:
        vectors.run(build)
        builds += 1
    return builds


@pytest.mark.parametrize("links", [0, 16], ids=["no graphs", "graphs"])
def test_a_growing_segment_gives_back_what_died(tmp_path: Path, links: int) -> None:
    """Without graphs it is never rebuilt. Views keep what they show."""
    spec = GraphSpec(replace_hnsw(HnswConfig(), m=links))
    vectors = DenseIndex(SegmentStore(tmp_path), Distance.DOT, 4, spec, threading.RLock())
    data = np.random.default_rng(1).normal(size=(8_000, 4)).astype(np.float32)
    vectors.add(np.arange(8_000), data)
    vectors.publish()
    before = vectors.view
    vectors.kill(np.arange(7_000))
    vectors.publish()
    assert vectors._growing.vectors.nbytes == 1_000 * 16
    vectors.add(np.arange(8_000, 8_100), data[:100])
    vectors.publish()
    assert sorted(vectors.view.all_rows()) == list(range(7_000, 8_100))
    assert vectors.view.scan(data[7_500], 1_100).rows.min() == 7_000
    assert len(before.all_rows()) == 8_000


def test_rows_that_die_while_a_graph_is_built_stay_dead(tmp_path: Path) -> None:
    data = unit(np.random.default_rng(1).normal(size=(300, SIZE)))
    vectors = index(tmp_path, policy=SMALL)
    vectors.add(np.arange(300), data)
    build = vectors.plan(False)
    assert build is not None
    assert vectors.plan(False) is None, "one build at a time"
    vectors.kill(np.array([5, 7, 250]))  # between the frozen copy and the swap
    vectors.run(build)
    vectors.publish()
    found = vectors.view.search(data[7], 300, 400)
    assert sorted(found.rows) == [row for row in range(300) if row not in (5, 7, 250)]
    assert vectors.status() == {"vectors": 297, "indexed": 297, "segments": 1}


def test_segments_and_builds_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits, what is built, and the latest that is done; a build of nothing leaves nothing."""
    data = unit(np.random.default_rng(1).normal(size=(300, SIZE)))
    vectors = index(tmp_path, policy=SMALL)
    vectors.add(np.arange(200), data[:200])
    vectors.add(np.arange(200, 300), data[200:])
    vectors.publish()
    full, growing = SegmentInfo("from-row-0", 200, True), SegmentInfo("from-row-200", 100)
    assert vectors.segments() == SegmentList([full, growing])
    build = vectors.plan(False)
    assert build is not None
    assert vectors.segments() == SegmentList([full, growing], BuildInfo("", [full]))
    vectors.run(build)
    sealed = vectors.segment_names()[0]
    assert vectors.segments() == SegmentList([SegmentInfo(sealed, 200), growing], None, [BuildInfo(sealed, [full])])
    vectors.kill(np.arange(200))
    vectors.publish()
    build_all(vectors)
    assert vectors.segments().done[-1] == BuildInfo("", [SegmentInfo(sealed, 0)])
    vectors._done.extend(vectors._done[0] for _ in range(2 * MAX_BUILDS))
    assert len(vectors.segments().done) == MAX_BUILDS


def test_a_view_does_not_find_rows_by_codes_that_were_added_after_it(tmp_path: Path) -> None:
    """A segment gets its codes when it is full; older views of it are then searched by the same codes."""
    data = unit(np.random.default_rng(5).normal(size=(250, SIZE)))
    vectors = index(tmp_path, policy=WAITING)
    vectors.add(np.arange(101), data[:101])
    vectors.publish()
    early = vectors.view
    vectors.kill(np.array([3]))
    vectors.publish()
    without = vectors.view
    vectors.add(np.arange(101, 250), data[101:])
    assert vectors.plan(False) is not None
    vectors.store_waiting()
    vectors.publish()
    assert vectors.view.segments[0].segment.codes is not None
    for view, rows in ((early, range(101)), (without, [row for row in range(101) if row != 3])):
        for row in (3, 100, 101, 249):
            found = view.search(data[row], 60)
            assert set(found.rows.tolist()) <= set(rows)
            assert (row in found.rows) == (row in rows)
    assert 249 in vectors.view.search(data[249], 60).rows


WAITING = replace(SMALL, coded_rows=1, unsaved_rows=0)


def waiting(folder: Path, data: np.ndarray) -> DenseIndex:
    """One segment that has codes and files and waits for its graph."""
    vectors = index(folder, policy=WAITING)
    vectors.add(np.arange(len(data)), data)
    assert vectors.plan(False) is not None
    vectors.store_waiting()
    vectors.publish()
    return vectors


def test_a_restart_opens_the_segments_that_wait_for_their_graph(tmp_path: Path) -> None:
    """Their vectors are not read from RocksDB again, which would take 20 s for a million."""
    data = unit(np.random.default_rng(6).normal(size=(210, SIZE)))
    vectors = waiting(tmp_path, data)
    assert vectors.sizes_bytes()["growing"] == 0, "its vectors are mapped"
    alive = [row for row in range(210) if row != 7]
    again = index(tmp_path, policy=WAITING)
    assert not len(again.load(np.array([*alive, 210]), 211)[:-1])
    again.publish()
    assert again.status() == {"vectors": 209, "indexed": 0, "segments": 1}
    assert sorted(again.view.scan(data[0], 300).rows) == alive
    assert again.view.search(data[9], 1).rows.tolist() == [9]
    assert build_all(again) == 1
    assert again.status() == {"vectors": 209, "indexed": 209, "segments": 1}
    assert len(list(tmp_path.iterdir())) == 1, "the files of the sealed segment alone"


def test_a_waiting_segment_whose_graph_is_finished_first_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = index(tmp_path, policy=WAITING)
    vectors.add(np.arange(200), unit(np.random.default_rng(6).normal(size=(200, SIZE))))
    build = vectors.plan(False)
    assert build is not None
    write = SegmentStore.write

    def write_slowly(store: SegmentStore, *args: Any) -> StoredSegment:
        stored = write(store, *args)
        if isinstance(stored.graph_or_codes, FlatCodes):
            vectors.run(build)
        return stored

    monkeypatch.setattr(SegmentStore, "write", write_slowly)
    vectors.store_waiting()
    assert vectors.status() == {"vectors": 200, "indexed": 200, "segments": 1}
    (folder,) = tmp_path.iterdir()
    assert not folder.name.endswith("waiting")


def test_a_waiting_segment_that_cannot_be_written_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk is full: the files only save time."""

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(SegmentStore, "write", fail)
    data = unit(np.random.default_rng(6).normal(size=(210, SIZE)))
    vectors = waiting(tmp_path, data)
    assert vectors.view.search(data[9], 1).rows.tolist() == [9]
    assert vectors.sizes_bytes()["growing"] > 0


def test_a_build_that_ends_after_its_index_was_closed_changes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder may be gone by then, or another index may have opened it."""
    vectors = waiting(tmp_path, unit(np.random.default_rng(6).normal(size=(210, SIZE))))
    before = sorted(tmp_path.rglob("*"))
    again = index(tmp_path, policy=WAITING)
    again.load(np.arange(210), 210)
    build_graph = Graph.build

    def build_and_close(*args: Any) -> object:
        again.abandon()
        return build_graph(*args)

    monkeypatch.setattr(Graph, "build", build_and_close)
    assert build_all(again) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert vectors.view.search(vectors.view.segments[0].segment.vectors[3], 1).rows.tolist() == [3]


@pytest.mark.parametrize("seed", range(4))
def test_any_history_answers_like_a_scan(tmp_path: Path, seed: int) -> None:
    """Adds, kills, builds and restarts at random; every scan and wide search is that of the rows alive."""
    random = np.random.default_rng(seed)
    vectors, data, alive, next_row = index(tmp_path, policy=WAITING), {}, set(), 0
    for _ in range(60):
        match random.integers(5):
            case 0 | 1:
                rows = np.arange(next_row, next_row + random.integers(1, 150))
                new = unit(random.normal(size=(len(rows), SIZE)))
                vectors.add(rows, new)
                data |= dict(zip(rows.tolist(), new, strict=True))
                alive |= set(rows.tolist())
                next_row += len(rows)
            case 2 if alive:
                dead = random.choice(sorted(alive), min(len(alive), 40), replace=False)
                vectors.kill(np.sort(dead))
                alive -= set(dead.tolist())
            case 3:
                build_all(vectors, bool(random.integers(2)))
            case 4:
                vectors.plan(bool(random.integers(2)))  # its build never runs
                vectors.store_waiting()
        if random.random() < 0.2:
            vectors = index(tmp_path, policy=WAITING)
            missing = vectors.load(sorted(alive), next_row)
            if len(missing):
                vectors.add(missing, np.stack([data[row] for row in missing.tolist()]))
        vectors.publish()
        query = unit(random.normal(size=(1, SIZE)))[0]
        expected = sorted(alive, key=lambda row: -float(data[row] @ query))
        assert vectors.view.scan(query, 10).rows.tolist() == expected[:10]
        assert set(vectors.view.scan(query, 10_000).rows.tolist()) == alive
        some = np.array(sorted(alive)[::3], np.int64)
        among = RowSet(BitMap(some.tolist()))
        assert set(vectors.view.scan(query, 10_000, among).rows.tolist()) == set(some.tolist())
        assert set(vectors.view.search(query, 20, 200, among).rows.tolist()) <= set(some.tolist())
        assert set(vectors.view.all_rows()) == alive


def test_a_segment_grows_then_waits_for_its_graph_then_is_sealed(tmp_path: Path) -> None:
    vectors = index(tmp_path, policy=SMALL)

    def states() -> list[SegmentState]:
        vectors.publish()
        return [view.segment.state for view in vectors.view.segments]

    vectors.add(np.arange(199), unit(np.random.default_rng(1).normal(size=(199, SIZE))))
    assert vectors.plan(False) is None
    assert states() == [SegmentState.GROWING]
    vectors.add(np.array([199]), unit(np.ones((1, SIZE))))
    build = vectors.plan(False)
    assert build is not None
    vectors.add(np.array([200]), unit(np.ones((1, SIZE))))
    assert states() == [SegmentState.BUILDING, SegmentState.GROWING]
    assert vectors.status() == {"vectors": 201, "indexed": 0, "segments": 2}
    vectors.run(build)
    assert states() == [SegmentState.SEALED, SegmentState.GROWING]


def test_a_build_that_fails_is_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its input answers meanwhile."""
    data = unit(np.random.default_rng(1).normal(size=(300, SIZE)))
    vectors = index(tmp_path, policy=SMALL)
    vectors.add(np.arange(300), data)
    vectors.publish()
    build = vectors.plan(False)
    assert build is not None

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "write", fail)
        with pytest.raises(OSError, match="disk full"):
            vectors.run(build)
    assert vectors.view.search(data[7], 1).rows.tolist() == [7]
    assert build_all(vectors) == 1
    assert vectors.view.search(data[7], 1).rows.tolist() == [7]
    assert vectors.status() == {"vectors": 300, "indexed": 300, "segments": 1}


def test_the_width_is_the_graphs_own_unless_given_and_grows_with_a_filter(tmp_path: Path) -> None:
    """V11: at most four times, and never less than the candidates that are fetched."""
    vectors = index(tmp_path, policy=SegmentPolicy(seal_rows=200, merge_share=9))
    data = unit(np.random.default_rng(1).normal(size=(500, SIZE)))
    for first, last in ((0, 200), (200, 450), (450, 500)):
        vectors.add(np.arange(first, last), data[first:last])
        build_all(vectors)
    vectors.publish()
    view = vectors.view
    for segment, ef in zip(view.segments, (70, 300, None), strict=True):
        if ef is not None:
            assert segment.segment.graph is not None
            segment.segment.graph.ef = ef
    half, few = RowSet(BitMap(range(250))), RowSet(BitMap(range(3)))
    assert view.widths(10, None, None, CodeUse()) == [70, 300]
    assert view.widths(10, 100, None, CodeUse()) == [100, 100]
    assert view.widths(10, None, half, CodeUse()) == [140, 600]
    assert view.widths(10, None, few, CodeUse()) == [280, 1200]
    assert view.widths(100, 50, None, CodeUse()) == [135, 135]
    assert view.widths(220, 300, None, CodeUse()) == [300], "the smaller one is compared row by row"
    walked: list[int] = []
    for segment in view.segments:
        if (graph := segment.segment.graph) is not None:
            graph.search = lambda query, limit, ef, allowed: walked.append(ef) or np.arange(0)  # type: ignore
    view.search(data[0], 10, None, half)
    assert walked == [140, 600]


def test_segments_ahead_of_the_rows_are_dropped(tmp_path: Path) -> None:
    """A power loss may take rows from RocksDB that a segment file still has; their numbers will be given out again."""
    data = unit(np.random.default_rng(3).normal(size=(250, SIZE)))
    vectors = index(tmp_path, policy=SMALL)
    vectors.add(np.arange(250), data)
    assert build_all(vectors) == 1
    again = index(tmp_path, policy=SMALL)
    assert again.load(range(100), 100).tolist() == list(range(100))
    assert not list(tmp_path.glob("*"))


@pytest.mark.parametrize("distance", list(Distance))
def test_scores_are_exact_also_through_graphs(tmp_path: Path, distance: Distance) -> None:
    """I10: codes are coarse, scores are not."""
    data = unit(np.random.default_rng(4).normal(size=(3000, SIZE)))
    vectors = index(tmp_path, distance=distance)
    vectors.add(np.arange(3000), data)
    assert build_all(vectors, idle=True) == 1
    for query in data[:50]:
        exact, found = vectors.view.scan(query, 10), vectors.view.search(query, 10, 128)
        assert found.rows[0] == exact.rows[0]
        reference = dict(zip(exact.rows.tolist(), exact.scores.tolist(), strict=True))
        shared = [
            (score, reference[row])
            for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
            if row in reference
        ]
        assert len(shared) >= 8
        assert np.allclose(*zip(*shared, strict=True), atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL_DATA.exists(), reason="the real embeddings are not there; `make bench` measures recall on generated ones"
)
def test_recall_on_real_embeddings(tmp_path: Path) -> None:
    """Recall@10 of 0.98 and more at the defaults, with ties, on 62,000 real embeddings; the same after 30 % of updates."""
    data = unit(np.load(REAL_DATA / "vectors.f16.npy").astype(np.float32))
    queries = unit(np.load(REAL_DATA / "queries.f16.npy").astype(np.float32))
    vectors = index(tmp_path, size=data.shape[1])
    vectors.add(np.arange(len(data)), data)
    build_all(vectors)
    assert recall(vectors, queries) >= 0.98
    moved = np.arange(0, len(data), 3)
    vectors.kill(moved)
    vectors.add(np.arange(len(data), len(data) + len(moved)), data[moved])
    build_all(vectors)
    assert recall(vectors, queries) >= 0.98


def recall(vectors: DenseIndex, queries: np.ndarray) -> float:
    vectors.publish()
    hits = 0
    for query in queries:
        worst = vectors.view.scan(query, 10).scores[-1] - 1e-6
        hits += int((vectors.view.search(query, 10).scores >= worst).sum())
    return hits / (10 * len(queries))
