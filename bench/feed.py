"""`python -m bench feed`: how long after its acknowledgement a change is told to a follower, and what following costs.

One client writes single points, another one reads the stream; a delay is from the end of the answer to the write until the event
has arrived. The clients are threads of one process, which tell the time by one clock.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson

from bench import document
from bench.client import HttpSession, http_request
from bench.machine import OtherProcesses, description
from bench.measure import Figures, percentiles_ms
from bench.process import Watched
from bench.progress import say
from bench.report import DOWN, UP, Row, number, table
from tests.kafka_server import KafkaServer, why_not_java
from tests.server import Server, on_kafka

DIMENSIONS = 384
STEADY_PER_S = 100
IDLE_FOLLOWERS = 100
IDLE_S, PAUSE_S, TIMEOUT_S = 5.0, 0.02, 30.0

ROWS = (
    Row("alone_p50", "delay, one write at a time, p50", "ms", DOWN),
    Row("alone_p99", "delay, one write at a time, p99", "ms", DOWN),
    Row("steady_p50", f"delay, {STEADY_PER_S} writes a second, p50", "ms", DOWN),
    Row("steady_p99", f"delay, {STEADY_PER_S} writes a second, p99", "ms", DOWN),
    Row("fast_p50", "delay, one client as fast as it can, p50", "ms", DOWN),
    Row("fast_p99", "delay, one client as fast as it can, p99", "ms", DOWN),
    Row("closings", "rounds of barriers meanwhile", "1/s", DOWN),
    Row("followed", "upserts of this client", "1/s", UP),
    Row("unfollowed", "the same without a follower", "1/s", UP),
    Row("past", "reading of the past, with vectors", "changes/s", UP),
    Row("idle", f"CPU with {IDLE_FOLLOWERS} idle followers", "%", DOWN),
)


def main(arguments: Sequence[str]) -> int:
    """Measures the embedded log, and Kafka where it can be started, and prints the table. Returns the exit status."""
    options = _parser().parse_args(arguments)
    others = OtherProcesses()
    figures: dict[str, Figures] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vecraft-bench-")))
        flags: dict[str, list[str]] = {"embedded": []}
        if (reason := why_not_java()) is None:
            broker = stack.enter_context(KafkaServer(folder / "broker"))
            flags["Kafka, one broker"] = on_kafka(broker.bootstrap, "feed")
        else:
            say(f"Kafka: not measured, {reason}")
        for name, given in flags.items():
            say(name)
            with _node(folder / name.partition(",")[0], given) as server:
                figures[name] = measure(server, options.seconds)
    conditions = [
        f"points of {DIMENSIONS} dimensions, a collection of one shard, one follower by a stream, on an otherwise idle node",
        description(),
        f"others took {others.share():.0%} of the machine meanwhile",
    ]
    body = [[row.label, f"{row.unit} {row.better}", *(number(each.get(row.key)) for each in figures.values())] for row in ROWS]
    text = "\n".join([*(f"- {line}" for line in conditions), "", *table(["", "", *figures], body)])
    print(text)
    if options.write is not None:
        document.write(options.write, document.FEED, text)
    return 0


@contextmanager
def _node(folder: Path, flags: Sequence[str]) -> Iterator[Server]:
    server = Server(folder, *flags).start()
    try:
        yield server
    finally:
        server.kill()


def measure(server: Server, seconds: float) -> Figures:
    """The figures of a new node; each window takes so many seconds."""
    config = {"vectors": {"size": DIMENSIONS, "distance": "Dot"}, "hnsw_config": {"m": 0}}
    httpx.put(f"{server.url}/collections/bench", json=config, timeout=TIMEOUT_S).raise_for_status()
    writer = Writer(server.url)
    figures: Figures = {}
    with Follower(server.url) as follower:
        for name, pause_s in (("alone", None), ("steady", 1 / STEADY_PER_S), ("fast", 0.0)):
            closings, begun = _closings(server.url), len(writer.acknowledged)
            writer.run(seconds, pause_s, follower.wait_for)
            follower.wait_for(len(writer.acknowledged) - 1)
            figures["closings"] = (_closings(server.url) - closings) / seconds
            figures["followed"] = (len(writer.acknowledged) - begun) / seconds
            delays_s = [follower.arrived[at] - writer.acknowledged[at] for at in range(begun, len(writer.acknowledged))]
            figures[f"{name}_p50"], figures[f"{name}_p99"] = percentiles_ms(delays_s, 50, 99)
    begun = len(writer.acknowledged)
    writer.run(seconds, 0.0, follower.wait_for)
    figures["unfollowed"] = (len(writer.acknowledged) - begun) / seconds
    figures["past"] = _past(server.url, len(writer.acknowledged))
    with ExitStack() as stack:
        for _ in range(IDLE_FOLLOWERS):
            stack.enter_context(Follower(server.url, "now"))
        process = Watched(server.pid)
        used_s = process.cpu_s()
        time.sleep(IDLE_S)
        figures["idle"] = 100 * (process.cpu_s() - used_s) / IDLE_S
    return figures


class Writer:
    """Upserts the points 0, 1, 2 … one after the other. `acknowledged` has the times."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._session = HttpSession((parts.hostname or "", parts.port or 0))
        self.acknowledged: list[float] = []

    def run(self, seconds: float, pause_s: float | None, told: Callable[[int], None]) -> None:
        """Writes for so many seconds, in an even pace with `pause_s`; without it, each when the one before was told."""
        begun_s = time.perf_counter()
        first = len(self.acknowledged)
        while (now_s := time.perf_counter()) - begun_s < seconds:
            if pause_s:
                time.sleep(max(0.0, begun_s + pause_s * (len(self.acknowledged) - first) - now_s))
            self._write(len(self.acknowledged))
            if pause_s is None:
                told(len(self.acknowledged) - 1)
                time.sleep(PAUSE_S)

    def _write(self, point_id: int) -> None:
        point = {"id": point_id, "vector": [point_id % 7 / 10] * DIMENSIONS, "payload": {"n": point_id}}
        self._session.send(http_request("PUT", "/collections/bench/points", orjson.dumps({"points": [point]})))
        self.acknowledged.append(time.perf_counter())


class Follower:
    """Reads the stream in a thread. `arrived` has the time of the event of each point."""

    def __init__(self, url: str, start: str = "earliest") -> None:
        self.arrived: dict[int, float] = {}
        self._more = threading.Condition()
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=TIMEOUT_S)
        headers = {"Accept": "text/event-stream"}
        self._connection.request("GET", f"/collections/bench/changes?from={start}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._answer.readline()  # that it has begun
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.sock is not None:
            self._connection.sock.shutdown(2)  # ends the read in the thread
        self._thread.join(TIMEOUT_S)
        self._connection.close()

    def wait_for(self, point_id: int) -> None:
        """Returns when the event of this point has arrived."""
        with self._more:
            if not self._more.wait_for(lambda: point_id in self.arrived, TIMEOUT_S):
                raise TimeoutError(f"the change of point {point_id} was not told within {TIMEOUT_S} s")

    def _read(self) -> None:
        try:
            while line := self._answer.readline():
                if line.startswith(b'data: {"token"'):
                    now_s = time.perf_counter()
                    with self._more:
                        self.arrived[orjson.loads(line[6:])["id"]] = now_s
                        self._more.notify_all()
        except (OSError, ValueError, http.client.HTTPException):
            return


def _past(url: str, changes: int) -> float:
    """The rate of reading all changes in pages."""
    params = {"from": "earliest", "limit": "1000", "with_vector": "true"}
    told, begun_s = 0, time.perf_counter()
    with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        while told < changes:
            page = orjson.loads(client.get("/collections/bench/changes", params=params).content)["result"]
            told += len(page["changes"])
            params["from"] = page["next"]
    return told / (time.perf_counter() - begun_s)


def _closings(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=TIMEOUT_S).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("vecraft_feed_closings_total "))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench feed", description="How soon a change is told to a follower.")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a timed window (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="a Markdown file whose section on the feed is replaced")
    return parser
