"""`python -m bench datatypes`: memory and recall of each datatype and quantisation, on a part of the data.

Each is measured on one index without a server around it: one process builds it, and a fresh one opens its files and searches, so
that its memory is that of a node after a restart. Multi-vectors have no files; their process builds and searches.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from bench import document
from bench.data import TIE, Data, K
from bench.machine import OtherProcesses, description
from bench.process import Watched
from bench.progress import say
from bench.report import number, table
from catalog.collection import (
    BinaryQuantization,
    Datatype,
    Distance,
    HnswConfig,
    ProductQuantization,
    Quantization,
    ScalarQuantization,
    TurboQuantization,
)
from journal.records import Vectors
from shard.vectors.datatypes import Encoding
from shard.vectors.graph import CodeUse, GraphSpec
from shard.vectors.multi import MultiIndex
from shard.vectors.segment_policy import SegmentPolicy
from shard.vectors.segment_store import SegmentStore
from shard.vectors.segments import DenseIndex, DenseView

VECTORS = 20_000
QUERIES = 300
PER_POINT = 4
"""Vectors of a multi-vector, and of a query for them."""

QUANTIZATIONS: dict[str, Quantization] = {
    "scalar": ScalarQuantization(),
    "product x16": ProductQuantization("x16"),
    "binary": BinaryQuantization(),
    "turbo, 4 bits": TurboQuantization("bits4"),
    "turbo, 2 bits": TurboQuantization("bits2"),
    "turbo, 1.5 bits": TurboQuantization("bits1_5"),
    "turbo, 1 bit": TurboQuantization("bits1"),
}
VARIANTS = {str(datatype): GraphSpec(datatype=datatype) for datatype in Datatype} | {
    f"float32, {name}": GraphSpec(HnswConfig(), quantization) for name, quantization in QUANTIZATIONS.items()
}
MULTI_VARIANTS = {name: spec for name, spec in VARIANTS.items() if not isinstance(spec.quantization, ProductQuantization)}


class Measured(NamedTuple):
    """Sizes in bytes per vector; memory of the process in MiB; recall@10 with and without ranking by the vectors; p50 in ms."""

    vectors: float
    codes: float
    links: float
    memory_mib: float
    recall: float
    recall_by_codes: float | None
    search_ms: float
    scan_ms: float


HEAD = (
    *("vectors, B", "codes, B", "links, B", "process, MiB", "recall@10", "recall@10, not rescored"),
    *("search p50, ms", "exact p50, ms"),
)


def main(arguments: Sequence[str], load: Callable[[Path | None, int | None], Data]) -> int:
    """Measures all variants and prints the tables. Returns the exit status."""
    options = _parser().parse_args(arguments)
    data, others = load(options.data, options.vectors), OtherProcesses()
    dense = {name: measured(name, data, spec) for name, spec in VARIANTS.items()}
    multi = {name: measured_multi(name, data, spec) for name, spec in MULTI_VARIANTS.items()}
    note = f"others took {others.share():.0%} of the machine meanwhile"
    text = render(data, note, dense, multi)
    print(text)
    if options.write is not None:
        document.write(options.write, document.DATATYPES, text)
    return 0


def measured(name: str, data: Data, spec: GraphSpec) -> Measured:
    """The figures of dense vectors of a datatype, in one sealed segment."""
    say(f"dense, {name}")
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as folder:
        _in_process(partial(_build, Path(folder), data.vectors, spec))
        found: Measured = _in_process(partial(_search, Path(folder), data.vectors, data.queries[:QUERIES], spec))
    return found


def measured_multi(name: str, data: Data, spec: GraphSpec) -> Measured:
    """The figures of multi-vectors of a datatype."""
    say(f"multi-vectors, {name}")
    found: Measured = _in_process(partial(_search_multi, data.vectors, data.queries[:QUERIES], spec))
    return found


def _in_process(work: Callable[[], Any]) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work)


def as_written(vectors: Vectors, spec: GraphSpec) -> Vectors:
    """Unit vectors as a client would write them: for uint8 as bytes, by one linear function for all numbers."""
    return np.clip(vectors * 640 + 128, 0, 255) if spec.datatype is Datatype.UINT8 else vectors


def distance_of(spec: GraphSpec) -> Distance:
    """Bytes are moved away from zero, which keeps distances and not angles; those of unit vectors order points alike."""
    return Distance.EUCLID if spec.datatype is Datatype.UINT8 else Distance.COSINE


def _opened(folder: Path, size: int, spec: GraphSpec) -> DenseIndex:
    return DenseIndex(SegmentStore(folder), distance_of(spec), size, spec, threading.RLock(), SegmentPolicy(seal_rows=1))


def _build(folder: Path, vectors: Vectors, spec: GraphSpec) -> None:
    index, encoding = _opened(folder, vectors.shape[1], spec), Encoding(spec.datatype, distance_of(spec), vectors.shape[1])
    index.add(np.arange(len(vectors)), list(encoding.encode(as_written(vectors, spec))))
    build = index.plan(idle=False)
    assert build is not None
    index.run(build)


def _search(folder: Path, vectors: Vectors, queries: Vectors, spec: GraphSpec) -> Measured:
    index, asked = _opened(folder, vectors.shape[1], spec), as_written(queries, spec)
    least = np.array([np.partition(vectors @ query, -K)[-K] for query in queries]) - TIE
    del queries
    before = _memory_mib()
    index.load(np.arange(len(vectors)), len(vectors))
    index.publish()
    view: DenseView = index.view

    def recall(found: Sequence[Any]) -> float:
        unit = asked if spec.datatype is not Datatype.UINT8 else _unit((asked - 128) / 640)
        hits = [int((vectors[rows[:K]] @ query >= low).sum()) for rows, query, low in zip(found, unit, least, strict=True)]
        return sum(hits) / (K * len(hits))

    found, search_ms = _timed(lambda query: view.search(query, K).rows, asked)
    after = _memory_mib()
    by_codes = [view.search(query, K, use=CodeUse(rescore=False)).rows for query in asked]
    _, scan_ms = _timed(lambda query: view.scan(query, K).rows, asked[:30])
    sizes, count = index.sizes_bytes(), len(vectors)
    return Measured(
        *(sizes[f"mapped_{part}"] / count for part in ("vectors", "codes", "links")),
        memory_mib=after - before,
        recall=recall(found),
        recall_by_codes=recall(by_codes),
        search_ms=search_ms,
        scan_ms=scan_ms,
    )


def _search_multi(vectors: Vectors, queries: Vectors, spec: GraphSpec) -> Measured:
    size, points = vectors.shape[1], len(vectors) // PER_POINT
    asked = np.split(as_written(queries, spec), len(queries) // PER_POINT)
    floats = MultiIndex(Distance.COSINE, size)
    floats.add(np.arange(points), np.split(vectors[: points * PER_POINT], points))
    floats.publish()
    exact = [floats.view.scan(query, K).rows[:K] for query in np.split(queries, len(queries) // PER_POINT)]
    before = _memory_mib()
    index, encoding = MultiIndex(distance_of(spec), size, spec), Encoding(spec.datatype, distance_of(spec), size)
    for start in range(0, points, points // 10):
        some = vectors[start * PER_POINT : (start + points // 10) * PER_POINT]
        encoded = np.split(encoding.encode(as_written(some, spec)), len(some) // PER_POINT)
        index.add(np.arange(start, start + len(encoded)), encoded)
    if (build := index.plan(idle=True)) is not None:
        index.run(build)
    index.publish()
    found, search_ms = _timed(lambda query: index.view.search(query, K).rows, asked)
    after = _memory_mib()
    _, scan_ms = _timed(lambda query: index.view.scan(query, K).rows, asked[:30])
    hits = [len({*rows[:K].tolist()} & {*best.tolist()}) for rows, best in zip(found, exact, strict=True)]
    return Measured(
        vectors=encoding.width * encoding.dtype.itemsize,
        codes=index.sizes_bytes().get("codes", 0) / len(vectors),
        links=0.0,
        memory_mib=after - before,
        recall=sum(hits) / (K * len(hits)),
        recall_by_codes=None,
        search_ms=search_ms,
        scan_ms=scan_ms,
    )


def _memory_mib() -> float:
    """The memory of this process, without what it could give back at once."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return Watched(os.getpid()).pss_mib()


def _timed(search: Callable[[Any], Any], queries: Sequence[Any]) -> tuple[list[Any], float]:
    """The results, and the median time in ms; a first round warms up."""
    for query in queries[:30]:
        search(query)
    found, seconds = [], []
    for query in queries:
        begun_s = time.perf_counter()
        found.append(search(query))
        seconds.append(time.perf_counter() - begun_s)
    return found, 1000 * median(seconds)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def render(data: Data, note: str, dense: dict[str, Measured], multi: dict[str, Measured]) -> str:
    """The report as Markdown, without a title."""
    conditions = [
        f"data: {data.source}, Cosine; one sealed segment; uint8 as an affine image in bytes, Euclid",
        description(),
        f"bytes per vector in the segment's files; process: growth of PSS by opening it and {QUERIES} searches, of which the "
        "mapped files are a part that the system may take back",
        f"1 thread; k = {K}; recall with ties against the exact neighbours by float32; at the measured width of each graph",
        f"multi-vectors: {PER_POINT} vectors a point and a query; recall against exact MaxSim by float32",
        note,
    ]
    lines = [*(f"- {line}" for line in conditions), "", *_table("dense vectors", dense), "", *_table("multi-vectors", multi)]
    return "\n".join(lines)


def _table(title: str, figures: dict[str, Measured]) -> list[str]:
    body = [[name, *map(number, one)] for name, one in figures.items()]
    return table([title, *HEAD], body)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench datatypes", description="Memory and recall of each datatype.")
    parser.add_argument("--vectors", type=int, default=VECTORS, help="how many at most (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="a folder of data, or 'generated' (default: the real data when there)")
    parser.add_argument("--write", type=Path, help="a Markdown file whose section on datatypes is replaced")
    return parser
