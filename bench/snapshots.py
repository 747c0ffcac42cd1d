"""`python -m bench snapshots`: what snapshots of a node, and archives of a collection, cost and save.

Searches are sent one at a time while nothing else runs, and while snapshots are made one after the other into a folder; each
goes to an empty place, so it sends every file. A start is measured until the node is ready and the collection is green.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench import document
from bench.client import http_request
from bench.data import Data, Fresh
from bench.machine import OtherProcesses, description
from bench.measure import Figures
from bench.progress import say
from bench.report import number, table
from bench.vecraft_server import VecraftServer, upsert_bodies

CHANGED = 0.01
POLL_S = 0.05
GREEN_S = 600.0

ROWS = {
    "ingest_s": "fresh ingest, until every vector is in a graph, s",
    "replay_s": "start without state: a full replay, until every vector is in a graph, s",
    "restore_s": "`vecraft restore`, s",
    "restored_s": "start after it, until every vector is in a graph, s",
    "snapshot_s": "snapshot, s",
    "snapshot_mib": "its size, MiB",
    "next_s": "snapshot after 1 % of the points were written anew, s",
    "next_mib": "what it sent, MiB",
    "verify_s": "verify, s",
    "quiet_p50": "search p50 alone, ms",
    "busy_p50": "search p50 while snapshots are made, ms",
    "quiet_p99": "search p99 alone, ms",
    "busy_p99": "search p99 while snapshots are made, ms",
    "archive_s": "archive of the collection, s",
    "archive_mib": "its size, MiB",
    "archive_p99": "search p99 while archives are made, ms",
    "recover_s": "recovery of the archive into a new collection, until all is applied, s",
}


def main(arguments: Sequence[str], load: Callable[[Path | None, int | None], Data]) -> int:
    """Measures and prints the table. Returns the exit status."""
    options = _parser().parse_args(arguments)
    data, others = load(options.data, options.vectors), OtherProcesses()
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as folder:
        figures = measure(data, Path(folder), options.seconds)
    conditions = [
        f"{len(data.vectors):,} vectors of {data.vectors.shape[1]} dimensions, one collection of one shard, the embedded log",
        "snapshots lie in a folder of the same disk; files are read at 100 MiB/s at most",
        description(),
        f"others took {others.share():.0%} of the machine meanwhile",
    ]
    rows = [[text, number(figures.get(key))] for key, text in ROWS.items()]
    text = "\n".join([*(f"- {line}" for line in conditions), "", *table(["", "measured"], rows)])
    print(text)
    if options.write is not None:
        document.write(options.write, document.SNAPSHOTS, text)
    return 0


def measure(data: Data, folder: Path, seconds: float) -> Figures:
    """The figures of a node with all of the data."""
    target = VecraftServer(folder)
    place = (folder / "place").as_uri()
    target.flags = ("--snapshot-url", place)
    bodies = upsert_bodies(data)
    with target:
        figures = {"ingest_s": _timed("ingest", lambda: _ingest(target, data, bodies))}
        figures |= _first(target, bodies[: max(1, int(CHANGED * len(bodies)))])
        figures |= _searches(target, data, bodies, seconds)
        figures |= _archives(target, data, seconds)
        _green(target, len(data.vectors))
        _call(target, "POST", "/admin/snapshots")
        target.stop()
        state = folder / "data" / "state"
        shutil.rmtree(state)
        figures["replay_s"] = _timed("replay", lambda: _started(target, len(data.vectors)))
        target.stop()
        command = [sys.executable, "-m", "vecraft", "restore", "--from", place, "--data-dir", str(folder / "data")]
        run = lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
        figures["restore_s"] = _timed("restore", run)
        figures["restored_s"] = _timed("start", lambda: _started(target, len(data.vectors)))
    return figures


def _ingest(target: VecraftServer, data: Data, bodies: Sequence[bytes]) -> None:
    target.create(data.vectors.shape[1])
    session = target.session()
    for at, body in enumerate(bodies):
        session.send(http_request("PUT", f"/collections/bench/points?wait={'true' if at == len(bodies) - 1 else 'false'}", body))
    session.close()
    _green(target, len(data.vectors))


def _first(target: VecraftServer, changed: Sequence[bytes]) -> Figures:
    """The first snapshot, and one after some points changed."""
    figures: Figures = {}
    made: dict[str, Any] = {}
    figures["snapshot_s"] = _timed("snapshot", lambda: made.update(_call(target, "POST", "/admin/snapshots")))
    figures["snapshot_mib"] = made["bytes"] / (1 << 20)
    for body in changed:
        target.send(http_request("PUT", "/collections/bench/points?wait=true", body))
    figures["next_s"] = _timed("next snapshot", lambda: made.update(_call(target, "POST", "/admin/snapshots")))
    figures["next_mib"] = _metric(target, "vecraft_snapshot_sent_bytes") / (1 << 20)
    figures["verify_s"] = _timed("verify", lambda: _call(target, "POST", f"/admin/snapshots/{made['id']}/verify"))
    return figures


def _searches(target: VecraftServer, data: Data, bodies: Sequence[bytes], seconds: float) -> Figures:
    """Searches alone, and beside snapshots."""
    say("searches")
    _green(target, len(data.vectors))
    quiet = _latencies(target, data, seconds)
    with _repeating(lambda: _snapshot_of_new(target)):
        busy = _latencies(target, data, seconds)
    figures: Figures = {}
    for name, taken in (("quiet", quiet), ("busy", busy)):
        figures |= {f"{name}_p50": float(np.percentile(taken, 50)), f"{name}_p99": float(np.percentile(taken, 99))}
    return figures


def _snapshot_of_new(target: VecraftServer) -> None:
    """A snapshot at a place that is empty: it sends every file."""
    _call(target, "POST", "/admin/snapshots")
    for listed in _call(target, "GET", "/admin/snapshots")["snapshots"]:
        _call(target, "DELETE", f"/admin/snapshots/{listed['id']}")


def _archives(target: VecraftServer, data: Data, seconds: float) -> Figures:
    figures: Figures = {}
    made: dict[str, Any] = {}
    figures["archive_s"] = _timed("archive", lambda: made.update(_call(target, "POST", "/collections/bench/snapshots")))
    figures["archive_mib"] = made["size"] / (1 << 20)

    def archive() -> None:
        name = _call(target, "POST", "/collections/bench/snapshots")["name"]
        _call(target, "DELETE", f"/collections/bench/snapshots/{name}")

    with _repeating(archive):
        figures["archive_p99"] = float(np.percentile(_latencies(target, data, seconds), 99))
    location = (target.folder / "data" / "snapshots" / "bench" / made["name"]).resolve().as_uri()
    recover = lambda: _call(target, "PUT", "/collections/copy/snapshots/recover", {"location": location})  # noqa: E731
    figures["recover_s"] = _timed("recover", recover)
    _call(target, "DELETE", "/collections/copy")
    return figures


@contextmanager
def _repeating(work: Callable[[], object]) -> Iterator[None]:
    """Runs work again and again in a thread; an error of it ends the measurement."""
    stopping, errors = threading.Event(), []

    def run() -> None:
        try:
            while not stopping.is_set():
                work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
    if errors:
        raise errors[0]


def _latencies(target: VecraftServer, data: Data, seconds: float) -> list[float]:
    """Milliseconds of searches, one after the other."""
    queries, session = Fresh(data.queries), target.session()
    requests = (target.search(query) for _ in iter(int, 1) for query in queries.take(256))
    taken: list[float] = []
    until_s = time.perf_counter() + seconds
    while (begun_s := time.perf_counter()) < until_s:
        request = next(requests)
        begun_s = time.perf_counter()
        session.send(request)
        taken.append(1000 * (time.perf_counter() - begun_s))
    session.close()
    return taken


def _started(target: VecraftServer, count: int) -> None:
    target.start()
    _green(target, count)


def _green(target: VecraftServer, count: int) -> None:
    until_s = time.monotonic() + GREEN_S
    while not target.searchable(count):
        if time.monotonic() > until_s:
            raise TimeoutError(f"not all vectors are in graphs after {GREEN_S:g} s")
        time.sleep(POLL_S)


def _timed(what: str, work: Callable[[], object]) -> float:
    say(what)
    begun_s = time.perf_counter()
    work()
    return time.perf_counter() - begun_s


def _call(target: VecraftServer, method: str, path: str, body: object = None) -> Any:
    request = http_request(method, path, b"" if body is None else orjson.dumps(body))
    return orjson.loads(target.send(request))["result"]


def _metric(target: VecraftServer, name: str) -> float:
    lines = target.send(http_request("GET", "/metrics")).decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).partition(" ")[2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench snapshots", description="What snapshots cost and save.")
    parser.add_argument("--vectors", type=int, help="how many at most (default: all real ones)")
    parser.add_argument("--data", type=Path, help="a folder of real vectors, or 'generated' (default: real ones when there)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a timed window (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="a Markdown file whose section on snapshots is replaced")
    return parser
