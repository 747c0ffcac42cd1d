"""`python -m bench rewind`: what the past costs. Two nodes get the same writes, one of them keeps no history.

First a part of all points is rewritten, and searches of now and as of before it are compared, in turn, with queries that were
never sent before. Then some points are rewritten many times.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bench import document
from bench.client import HttpSession, http_request
from bench.data import Data, Filter, Fresh, K, recall, truth_of
from bench.machine import OtherProcesses, description
from bench.measure import Figures
from bench.process import disk_mib
from bench.progress import say
from bench.report import DOWN, UP, Row, number, table
from bench.target import BATCH
from bench.vecraft_server import VecraftServer, upsert_bodies, upsert_body
from journal.records import Vectors

KEPT, NOT_KEPT = "history of 24 h", "without history"
REWRITTEN = 0.3
QUERIES = 2_000
STEADY_IDS, STEADY_ROUNDS = 20_000, 50
IDLE_TIMEOUT_S, IDLE_S = 900.0, 3.0
SEED = 5

ROWS = (
    Row("rewritten", "rewriting of 30 %, readable", "points/s", UP),
    Row("first_ms", "first search as of before it", "ms", DOWN),
    Row("now_ms", "search of now, p50", "ms", DOWN),
    Row("then_ms", "search as of before it, p50", "ms", DOWN),
    Row("ratio", "the latter in relation to the former", "", DOWN),
    Row("filtered_now_ms", "10 % filter, now, p50", "ms", DOWN),
    Row("filtered_then_ms", "10 % filter, as of, p50", "ms", DOWN),
    Row("recall_now", "recall@10, now", "", UP),
    Row("recall_then", "recall@10, as of", "", UP),
    Row("steady", "20,000 ids rewritten 50 times", "points/s", UP),
    Row("pss", "memory after it (PSS)", "MiB", DOWN),
    Row("state", "state on disk after it", "MiB", DOWN),
    Row("log", "log on disk after it", "MiB", DOWN),
)


class Measured:
    """One of the two nodes, and the instant before the rewriting."""

    def __init__(self, target: VecraftServer) -> None:
        self.target = target
        self.figures: Figures = {}
        self.as_of = ""
        self.session: HttpSession


def main(arguments: Sequence[str], load: Callable[[Path | None, int | None], Data]) -> int:
    """Measures both nodes and prints the table. Returns the exit status."""
    options = _parser().parse_args(arguments)
    data, others = load(options.data, options.vectors), OtherProcesses()
    figures = measure(data, options.rounds)
    conditions = [data.source, description(), f"others took {others.share():.0%} of the machine meanwhile"]
    text = "\n".join([*(f"- {line}" for line in conditions), "", *_table(figures)])
    print(text)
    if options.write is not None:
        document.write(options.write, document.REWIND, text)
    return 0


def measure(data: Data, rounds: int) -> dict[str, Figures]:
    """The figures of both nodes."""
    with ExitStack() as stack:
        nodes = {}
        for name in (KEPT, NOT_KEPT):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vecraft-bench-")))
            nodes[name] = Measured(stack.enter_context(VecraftServer(folder)))
        for name, node in nodes.items():
            say(f"{name}: ingest and rewriting")
            _begin(node, data, name == KEPT)
        rewritten = _rewritten(data)
        for node in nodes.values():
            _rewrite(node, rewritten)
            _wait_idle(node)
        say("searches")
        _search(nodes, data, rewritten)
        for name, node in nodes.items():
            say(f"{name}: steady rewriting")
            _steady(node, data, rounds)
        return {name: node.figures for name, node in nodes.items()}


def _begin(node: Measured, data: Data, keeps: bool) -> None:
    node.target.create(data.vectors.shape[1])
    node.session = node.target.session()
    if not keeps:
        node.session.send(http_request("PATCH", "/collections/bench", orjson.dumps({"history_retention_s": 0})))
    for body in upsert_bodies(data):
        node.session.send(http_request("PUT", "/collections/bench/points?wait=true", body))
    _wait_idle(node)
    node.as_of = f"{int(time.time() * 1000) << 16 | 0xFFFF}"
    time.sleep(0.01)


def _rewritten(data: Data) -> Data:
    """The data with other vectors in a part of the rows: each gets the vector of another one, with noise."""
    random, rows = np.random.default_rng(SEED), _rows(data)
    vectors = data.vectors.copy()
    vectors[rows] = data.vectors[random.permutation(rows)] + 0.02 * random.standard_normal(
        (len(rows), vectors.shape[1]), np.float32
    )
    vectors[rows] /= np.linalg.norm(vectors[rows], axis=1, keepdims=True)
    return replace(data, vectors=vectors)


def _rows(data: Data) -> NDArray[np.int64]:
    """The rows that are rewritten."""
    count = len(data.vectors)
    return np.sort(np.random.default_rng(SEED).choice(count, int(REWRITTEN * count), replace=False))


def _rewrite(node: Measured, rewritten: Data) -> None:
    rows = _rows(rewritten)
    begun_s = time.perf_counter()
    _upsert(node, rewritten, rows)
    node.figures["rewritten"] = len(rows) / (time.perf_counter() - begun_s)


def _upsert(node: Measured, data: Data, rows: NDArray[np.int64]) -> None:
    for start in range(0, len(rows), BATCH):
        wait = "true" if start + BATCH >= len(rows) else "false"
        body = upsert_body(data.points(rows[start : start + BATCH].tolist()))
        node.session.send(http_request("PUT", f"/collections/bench/points?wait={wait}", body))


def _wait_idle(node: Measured) -> None:
    """Waits until the node builds nothing any more."""
    until_s = time.monotonic() + IDLE_TIMEOUT_S
    while time.monotonic() < until_s:
        before_s = node.target.process.cpu_s()
        time.sleep(IDLE_S)
        if node.target.process.cpu_s() - before_s < 0.1 * IDLE_S:
            return
    raise TimeoutError("the node is never idle")


def _search(nodes: Mapping[str, Measured], data: Data, rewritten: Data) -> None:
    """Sends searches in turn to both nodes, of now and as of before the rewriting."""
    kept, plain = nodes[KEPT], nodes[NOT_KEPT]
    kept.figures["first_ms"] = _timed(kept, data.queries[0], kept.as_of)[0]
    fresh = Fresh(data.queries)
    some = data.filter_of_share(0.1)
    for only, prefix in ((None, ""), (some, "filtered_")):
        times: dict[tuple[str, str], list[float]] = {}
        for query in fresh.take(QUERIES):
            for name, node, as_of, key in (
                (KEPT, kept, "", "now"),
                (KEPT, kept, kept.as_of, "then"),
                (NOT_KEPT, plain, "", "now"),
            ):
                times.setdefault((name, key), []).append(_timed(node, query, as_of, only)[0])
        for (name, key), taken in times.items():
            nodes[name].figures[f"{prefix}{key}_ms"] = float(np.median(taken))
    kept.figures["ratio"] = kept.figures["then_ms"] / kept.figures["now_ms"]
    for node, as_of, truth, key in (
        (kept, "", rewritten, "now"),
        (kept, kept.as_of, data, "then"),
        (plain, "", rewritten, "now"),
    ):
        answers = [_timed(node, query, as_of)[1] for query in data.queries]
        node.figures[f"recall_{key}"] = recall(truth, truth_of(truth), answers)


def _timed(node: Measured, query: Vectors, as_of: str, only: Filter | None = None) -> tuple[float, list[int]]:
    """The milliseconds of a search, and its hits."""
    body: dict[str, Any] = {"vector": query, "limit": K}
    if only is not None:
        body["filter"] = {"must": [{"key": only.field, "match": {"value": only.value}}]}
    suffix = f"?as_of={as_of}" if as_of else ""
    request = http_request(
        "POST", f"/collections/bench/points/search{suffix}", orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    )
    begun_s = time.perf_counter()
    answer = node.session.send(request)
    return 1000 * (time.perf_counter() - begun_s), node.target.rows_of(answer)


def _steady(node: Measured, data: Data, rounds: int) -> None:
    """Rewrites the same points again and again, each time with the vectors of others."""
    random, rows = np.random.default_rng(SEED), np.arange(min(STEADY_IDS, len(data.vectors)))
    begun_s = time.perf_counter()
    for _ in range(rounds):
        _upsert(node, replace(data, vectors=data.vectors[random.permutation(len(data.vectors))]), rows)
    node.figures["steady"] = rounds * len(rows) / (time.perf_counter() - begun_s)
    _wait_idle(node)
    node.figures["pss"] = node.target.process.pss_mib()
    node.figures["state"] = disk_mib(node.target.folder / "data" / "state")
    node.figures["log"] = disk_mib(node.target.folder / "data" / "journal")


def _table(figures: Mapping[str, Figures]) -> list[str]:
    body = [
        [row.label, f"{row.unit} {row.better}".strip(), *(number(one.get(row.key)) for one in figures.values())] for row in ROWS
    ]
    return table(["", "", *figures], body)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench rewind", description="What the past costs.")
    parser.add_argument("--data", type=Path, help="a folder with real vectors (default: the real ones, if they are there)")
    parser.add_argument("--vectors", type=int, help="use only so many vectors")
    parser.add_argument("--rounds", type=int, default=STEADY_ROUNDS, help="of steady rewriting (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="a Markdown file whose section on the past is replaced")
    return parser
