"""`python -m bench collections`: what a node of many small collections costs, and how long it takes to open them.

The log is the embedded one, and every collection has one shard. A start is measured until the node is ready, after a clean stop
and after a kill. A collection takes up to 12 file descriptors: `ulimit -n` must allow them, and some 3,000 for connections.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from bench import document
from bench.client import HttpSession, http_request
from bench.machine import OtherProcesses, description
from bench.measure import Figures
from bench.process import disk_mib
from bench.progress import say
from bench.report import DOWN, Row
from bench.scaling import growth_table
from bench.vecraft_server import VecraftServer

NUMBERS = (20, 200, 2_000)
POINTS, DIMENSIONS = 10, 64
SCRAPES = 5
IDLE_S = 10.0

ROWS = (
    Row("create_ms", "create a collection", "ms", DOWN),
    Row("start_s", "start after a clean stop, until ready", "s", DOWN),
    Row("start_cpu_s", "CPU time of this start", "s", DOWN),
    Row("killed_s", "start after a kill, until ready", "s", DOWN),
    Row("killed_cpu_s", "CPU time of this start", "s", DOWN),
    Row("stop_s", "clean stop", "s", DOWN),
    Row("descriptors", "file descriptors", "", DOWN),
    Row("threads", "threads", "", DOWN),
    Row("pss", "memory (PSS)", "MiB", DOWN),
    Row("disk", "disk", "MiB", DOWN),
    Row("files", "files", "", DOWN),
    Row("scrape_ms", "first scrape of /metrics after a start", "ms", DOWN),
    Row("later_ms", "later scrapes", "ms", DOWN),
    Row("idle", "idle CPU", "%", DOWN),
)


def main(arguments: Sequence[str]) -> int:
    """Measures each number of collections and prints the table. Returns the exit status."""
    options = _parser().parse_args(arguments)
    figures, notes = {}, []
    for number in (int(number) for number in options.numbers.split(",")):
        others = OtherProcesses()
        figures[number] = measure(number, options.idle_seconds)
        notes.append(f"{number:,}: others took {others.share():.0%} of the machine meanwhile")
    conditions = [
        f"collections of one shard with {POINTS} points of {DIMENSIONS} dimensions each, and the embedded log",
        description(),
        *notes,
    ]
    text = "\n".join([*(f"- {line}" for line in conditions), "", *growth_table(ROWS, figures)])
    print(text)
    if options.write is not None:
        document.write(options.write, document.COLLECTIONS, text)
    return 0


def measure(number: int, idle_s: float) -> Figures:
    """The figures for so many collections in a new database."""
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as name, VecraftServer(Path(name)) as target:
        say(f"{number:,}: create")
        figures: Figures = {"create_ms": _create(target, number)}
        _check(target, number)
        target.process.kill()
        figures |= _started(target, "killed")
        _check(target, number)
        begun_s = time.perf_counter()
        target.stop()
        figures["stop_s"] = time.perf_counter() - begun_s
        figures |= _started(target, "start")
        _check(target, number)
        return figures | _costs(target, idle_s)


def _create(target: VecraftServer, number: int) -> float:
    """Creates and fills the collections. Returns the milliseconds that a creation took on average."""
    body = orjson.dumps({"vectors": {"size": DIMENSIONS, "distance": "Cosine"}})
    vectors = np.random.default_rng(1).standard_normal((POINTS, DIMENSIONS)).tolist()
    points = orjson.dumps({"points": [{"id": at, "vector": vector} for at, vector in enumerate(vectors)]})
    session, creating_s = target.session(), 0.0
    for at in range(number):
        begun_s = time.perf_counter()
        session.send(http_request("PUT", f"/collections/c{at}", body))
        creating_s += time.perf_counter() - begun_s
        session.send(http_request("PUT", f"/collections/c{at}/points?wait=true", points))
    session.close()
    return 1000 * creating_s / number


def _started(target: VecraftServer, key: str) -> Figures:
    """Starts the node again. Returns the seconds until it is ready, and its CPU time until then."""
    say(f"start, {key}")
    begun_s = time.perf_counter()
    target.start()
    return {f"{key}_s": time.perf_counter() - begun_s, f"{key}_cpu_s": target.process.cpu_s()}


def _check(target: VecraftServer, number: int) -> None:
    """Raises AssertionError when a collection is not served in full."""
    session = target.session()
    for at in range(number):
        answer = session.send(http_request("POST", f"/collections/c{at}/points/count", b"{}"))
        assert orjson.loads(answer)["result"]["count"] == POINTS
    session.close()


def _costs(target: VecraftServer, idle_s: float) -> Figures:
    say("costs")
    process, session = target.process, target.session()
    scrapes_ms = [_scrape_ms(session) for _ in range(SCRAPES)]
    session.close()
    folder = Path(f"/proc/{process.pid}")
    figures = {
        "descriptors": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
        "pss": process.pss_mib(),
        "disk": disk_mib(target.folder),
        "files": sum(path.is_file() for path in (target.folder / "data").rglob("*")),
        "scrape_ms": scrapes_ms[0],
        "later_ms": float(np.median(scrapes_ms[1:])),
    }
    before_s = process.cpu_s()
    time.sleep(idle_s)
    return figures | {"idle": 100 * (process.cpu_s() - before_s) / idle_s}


def _scrape_ms(session: HttpSession) -> float:
    begun_s = time.perf_counter()
    session.send(http_request("GET", "/metrics"))
    return 1000 * (time.perf_counter() - begun_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench collections", description="What many small collections cost.")
    parser.add_argument("--numbers", default=",".join(map(str, NUMBERS)), help="of collections (default: %(default)s)")
    parser.add_argument(
        "--idle-seconds", type=float, default=IDLE_S, help="how long an idle node is watched (default: %(default)s)"
    )
    parser.add_argument("--write", type=Path, help="a Markdown file whose section on many collections is replaced")
    return parser
