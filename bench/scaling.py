"""`python -m bench scaling`: how the costs of Vecraft DB grow with the number of vectors, on generated clusters.

The requests of an ingest are first written to a file, then sent from it. So generating them does not slow down the server, and
neither requests nor vectors need to fit into the client's memory. The ground truth is computed while they are generated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import document
from bench.client import WARM_UP_S, per_second
from bench.data import DIMENSIONS, NOISE, TIE, Clusters, Filter, Fresh, K, Points
from bench.machine import OtherProcesses, description
from bench.measure import Figures, percentiles_ms, restarted_s, wait_searchable
from bench.process import disk_mib
from bench.progress import say
from bench.report import DOWN, UP, Row, number, table
from bench.target import BATCH
from bench.vecraft_server import VecraftServer
from journal.records import Vectors

SIZES = (10_000, 100_000, 1_000_000)
FILTERS: dict[str, Filter | None] = {"all": None, "wide": Filter("section", "wide"), "narrow": Filter("section", "narrow")}
QUERIES = 100
_CHUNK = 20 * BATCH
_SETTLE_S_PER_VECTOR, _SETTLE_LEAST_S = 0.004, 120.0

ROWS = (
    Row("acknowledged", "ingest, acknowledged", "vectors/s", UP),
    Row("readable_s", "from acknowledged to all readable", "s", DOWN),
    Row("built_s", "from acknowledged to all indexed", "s", DOWN),
    Row("indexed", "ingest, searchable with index", "vectors/s", UP),
    Row("all_p50", "search, p50", "ms", DOWN),
    Row("all_p95", "search, p95", "ms", DOWN),
    Row("all_p99", "search, p99", "ms", DOWN),
    Row("all_recall", "recall@10", "", UP),
    Row("wide_p50", "10 % filter, p50", "ms", DOWN),
    Row("wide_recall", "10 % filter, recall@10", "", UP),
    Row("narrow_p50", "1 % filter, p50", "ms", DOWN),
    Row("narrow_recall", "1 % filter, recall@10", "", UP),
    Row("pss", "memory (PSS)", "MiB", DOWN),
    Row("disk", "disk", "MiB", DOWN),
    Row("start_s", "start with the data, until a search is answered", "s", DOWN),
)


class Best(NamedTuple):
    """The best hits of each query so far: rows and cosines, shape (queries, K), best first."""

    rows: NDArray[np.int64]
    scores: Vectors


class Truths:
    """The exact neighbours of some queries for each filter, computed chunk by chunk."""

    def __init__(self, queries: Vectors) -> None:
        self.queries = queries
        nothing = Best(np.full((len(queries), K), -1), np.full((len(queries), K), -np.inf, np.float32))
        self._best = dict.fromkeys(FILTERS, nothing)

    def add(self, points: Points) -> None:
        for name, only in FILTERS.items():
            passes = [only is None or payload[only.field] == only.value for payload in points.payloads]
            at = np.flatnonzero(passes)
            rows, scores = self._best[name]
            rows = np.hstack([rows, np.broadcast_to(np.asarray(points.ids)[at], (len(self.queries), len(at)))])
            scores = np.hstack([scores, self.queries @ points.vectors[at].T])
            order = np.argsort(-scores, axis=1)[:, :K]
            self._best[name] = Best(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))

    def recall(self, name: str, answers: Sequence[Sequence[int]], score: Callable[[int, int], float]) -> float:
        """Recall of `answers` (rows) for a filter. `score` gives the cosine of a query and a row, to detect ties."""
        good = total = 0
        for query, (rows, truth, least) in enumerate(
            zip(answers, self._best[name].rows, self._best[name].scores[:, -1], strict=True)
        ):
            true = {int(row) for row in truth if row >= 0}
            ties = sum(score(query, row) >= least - TIE for row in set(rows) - true) if len(true) == K else 0
            good += min(len(true), len(true & set(rows)) + ties)
            total += len(true)
        return good / total


def main(arguments: Sequence[str]) -> int:
    """Measures each size and prints the table. Returns the exit status."""
    options = _parser().parse_args(arguments)
    sizes = [int(size) for size in options.sizes.split(",")]
    figures, notes = {}, []
    for size in sizes:
        others = OtherProcesses()
        figures[size], settings = measure(size, options.seconds)
        notes.append(f"{size:,}: others took {others.share():.0%} of the machine meanwhile")
    text = render(figures, [f"vecraft: {settings}", *notes])
    print(text)
    if options.write is not None:
        document.write(options.write, document.SCALING, text)
    return 0


def measure(count: int, seconds: float) -> tuple[Figures, str]:
    """The figures for `count` vectors in a new database, and its settings."""
    clusters = Clusters(count)
    truths = Truths(clusters.queries(QUERIES))
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as name:
        folder = Path(name)
        (folder / "vecraft").mkdir()
        with VecraftServer(folder / "vecraft") as target:
            target.create(DIMENSIONS)
            say(f"{count:,}: {-(-count // BATCH):,} requests are written to a file")
            sizes = _prepare(target, clusters, count, truths, folder / "requests")
            say(f"{count:,}: ingest")
            figures = _ingest(target, folder / "requests", sizes, count)
            (folder / "requests").unlink()
            figures |= _searches(target, clusters, truths, seconds, count)
            figures |= {"pss": target.process.pss_mib(), "disk": disk_mib(target.folder)}
            say(f"{count:,}: restart")
            figures["start_s"] = restarted_s(target, target.search(truths.queries[0]))
            return figures, target.settings


def _prepare(target: VecraftServer, clusters: Clusters, count: int, truths: Truths, file: Path) -> list[int]:
    """Writes all requests of an ingest to a file. Returns the size of each, in bytes."""
    sizes = []
    with file.open("wb") as out:
        for points in _chunks(clusters, count):
            truths.add(points)
            for at in range(0, len(points.ids), BATCH):
                part = slice(at, at + BATCH)
                request = target.bulk(Points(points.ids[part], points.vectors[part], points.payloads[part]), last=False)
                sizes.append(out.write(request))
    return sizes


def _chunks(clusters: Clusters, count: int) -> Iterator[Points]:
    for start in range(0, count, _CHUNK):
        yield clusters.points(start, min(_CHUNK, count - start))


def _ingest(target: VecraftServer, file: Path, sizes: Sequence[int], count: int) -> Figures:
    """Sends the requests, then waits until all vectors are readable, and until all are indexed."""
    session = target.session()
    begun_s = time.perf_counter()
    with file.open("rb") as requests:
        for size in sizes:
            session.send(requests.read(size))
    acknowledged_s = time.perf_counter() - begun_s
    session.close()
    say(f"{count:,}: until readable, after {acknowledged_s:.1f} s of ingest")
    timeout_s = _SETTLE_LEAST_S + count * _SETTLE_S_PER_VECTOR
    while target.points() < count:
        if time.perf_counter() - begun_s > acknowledged_s + timeout_s:
            raise TimeoutError(f"not readable {timeout_s:.0f} s after the ingest")
        time.sleep(0.1)
    readable_s = time.perf_counter() - begun_s
    say(f"{count:,}: until indexed")
    wait_searchable(target, count, timeout_s)
    indexed_s = time.perf_counter() - begun_s
    return {
        "acknowledged": count / acknowledged_s,
        "readable_s": readable_s - acknowledged_s,
        "built_s": indexed_s - acknowledged_s,
        "indexed": count / indexed_s,
    }


def _searches(target: VecraftServer, clusters: Clusters, truths: Truths, seconds: float, count: int) -> Figures:
    """Searches with one client. Timed queries are never repeated."""
    fresh = Fresh(clusters.queries(20 * QUERIES))
    figures: Figures = {}

    def score(query: int, row: int) -> float:
        start = row - row % _CHUNK
        vectors = clusters.points(start, min(_CHUNK, count - start)).vectors
        return float(truths.queries[query] @ vectors[row - start])

    for name, only in FILTERS.items():
        say(f"{count:,}: search, {name}")
        answers = [target.rows_of(target.send(target.search(query, only))) for query in truths.queries]
        figures[f"{name}_recall"] = truths.recall(name, answers, score)
        probes = target.run([[target.search(query, only) for query in fresh.take(500)]], WARM_UP_S, 0)
        enough = int(2 * (seconds + WARM_UP_S) * (per_second(probes) or 1000)) + 10
        (taken,) = target.run([[target.search(query, only) for query in fresh.take(enough)]], seconds)
        for percent, value in zip((50, 95, 99), percentiles_ms(taken.answered(), 50, 95, 99), strict=True):
            figures[f"{name}_p{percent}"] = value
    return figures


def render(figures: dict[int, Figures], notes: Sequence[str]) -> str:
    """The report as Markdown, without a title."""
    conditions = [
        f"data: generated, overlapping clusters of about 100 vectors, {DIMENSIONS} dimensions; an empty database for each size",
        description(),
        f"1 client; k = {K}; no timed search repeats a query (noise of {NOISE:g}); recall over {QUERIES} queries, exact truth",
        *notes,
    ]
    return "\n".join([*(f"- {line}" for line in conditions), "", *growth_table(ROWS, figures)])


def growth_table(rows: Sequence[Row], figures: Mapping[int, Figures]) -> list[str]:
    """The lines of a table of the figures by size, and of their growth from each size to the next."""
    sizes = list(figures)
    steps = list(pairwise(sizes))
    head = ["", "", *(f"{size:,}" for size in sizes), *(f"{more:,} / {less:,}" for less, more in steps)]
    body = []
    for row in rows:
        values = [figures[size].get(row.key) for size in sizes]
        growth = [_growth(figures[less].get(row.key), figures[more].get(row.key)) for less, more in steps]
        body.append([row.label, f"{row.unit} {row.better}".strip(), *map(number, values), *growth])
    return table(head, body)


def _growth(less: float | None, more: float | None) -> str:
    return "—" if not less or more is None else f"{number(more / less)}x"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench scaling", description="How the costs of Vecraft DB grow.")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of vectors (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a timed window (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="a Markdown file whose section on scaling is replaced")
    return parser
