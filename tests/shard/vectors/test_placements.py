"""Placements are true: what is pinned is in no file, what is cached is read at the start, what is cold is not."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from catalog.collection import Distance, HnswConfig, Memory, ScalarQuantization, TurboQuantization
from shard.vectors.graph import GraphSpec
from shard.vectors.segment_policy import SegmentPolicy
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import DenseIndex

COUNT, SIZE = 2_000, 64
POLICY = SegmentPolicy(seal_rows=1_000)


def opened(folder: Path, spec: GraphSpec, cached: bool = False) -> DenseIndex:
    return DenseIndex(SegmentStore(folder, cached), Distance.DOT, SIZE, spec, threading.RLock(), POLICY)


def built(folder: Path, spec: GraphSpec) -> DenseIndex:
    index = opened(folder, spec)
    index.add(np.arange(COUNT), list(np.random.default_rng(1).standard_normal((COUNT, SIZE), np.float32)))
    build = index.plan(False)
    assert build is not None
    index.run(build)
    return index


def is_mapped(folder: Path, file: str) -> bool:
    """Whether a file of that name is; what is removed stays mapped as long as a view holds it."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return any(str(folder) in line and line.endswith(file) for line in lines)


def resident_share(path: Path) -> float:
    """The share of a file's pages that are in the page cache."""
    pages = -(-path.stat().st_size // mmap.PAGESIZE)
    seen = (ctypes.c_ubyte * pages)()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        address = ctypes.addressof(start := ctypes.c_char.from_buffer(mapped))
        done = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), ctypes.c_size_t(path.stat().st_size), seen)
        del start
    assert done == 0, os.strerror(ctypes.get_errno())
    return sum(page & 1 for page in seen) / pages


def evict(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize(
    ("spec", "pinned"),
    [
        (GraphSpec(), False),
        (GraphSpec(HnswConfig(memory=Memory.CACHED), ScalarQuantization(always_ram=False)), False),
        (GraphSpec(HnswConfig(memory=Memory.PINNED)), True),
        (GraphSpec(HnswConfig(), TurboQuantization(memory=Memory.PINNED)), True),
        (GraphSpec(HnswConfig(), ScalarQuantization(always_ram=True)), True),
        (GraphSpec(HnswConfig(), ScalarQuantization(always_ram=True, memory=Memory.CACHED)), False),
    ],
    ids=["default", "cached", "pinned graph", "pinned codes", "always_ram", "memory before always_ram"],
)
def test_a_pinned_graph_is_in_no_file(tmp_path: Path, spec: GraphSpec, pinned: bool) -> None:
    index = built(tmp_path, spec)
    for _ in range(2):
        assert is_mapped(tmp_path, "vectors.npy")
        assert is_mapped(tmp_path, "graph.faiss") is not pinned
        sizes = index.sizes_bytes()
        assert (sizes["pinned_links"] > 0, sizes["mapped_links"] > 0) == (pinned, not pinned)
        index = opened(tmp_path, spec)
        assert not len(index.load(np.arange(COUNT), COUNT))
        index.publish()


def test_a_changed_placement_is_applied_by_a_new_graph(tmp_path: Path) -> None:
    index = built(tmp_path, GraphSpec())
    index.spec = GraphSpec(HnswConfig(memory=Memory.PINNED))
    build = index.plan(False)
    assert build is not None
    index.run(build)
    assert not is_mapped(tmp_path, "graph.faiss")
    assert index.plan(False) is None


def test_cached_vectors_are_read_at_the_start_and_cold_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(tmp_path, GraphSpec())
    (path,) = tmp_path.glob("*/vectors.npy")
    index = opened(tmp_path, GraphSpec())  # so that nothing maps the file
    evict(path)
    if resident_share(path) > 0.5:
        pytest.skip("this file system does not give back pages")
    monkeypatch.setattr(index.store, "check", lambda name: None)  # small segments are read once more, for their checksum
    index.load(np.arange(COUNT), COUNT)
    assert resident_share(path) < 0.5
    cached = opened(tmp_path, GraphSpec(), cached=True)
    monkeypatch.setattr(cached.store, "check", lambda name: None)
    cached.load(np.arange(COUNT), COUNT)
    assert resident_share(path) == 1
