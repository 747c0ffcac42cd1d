"""`python -m tests.poison COUNT [kafka]`: writes so many poisoned records, good points between them, and says what it saw.

Ends with status 1 when the node stopped, when good points are not as they were written, or when dead letters cannot be read.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from journal.kafka import KafkaJournal
from journal.log import Journal
from journal.topics import Topics
from tests.conftest import result, start_node, until
from tests.kafka_server import kafka_or_skip
from tests.poison.records import GOOD, TARGET, Poison, PoisonCabinet
from tests.server import Server, on_kafka

FIRST_GOOD = 10**12
GOOD_IDS = 2_000
IN_FLIGHT = 2_000
GOOD_EVERY = 1_000
LETTERS_EVERY = 20_000
WATCH_S = 0.1
TIMEOUT_S = 120.0


class Watch:
    """Follows how far the node has replayed, and how much memory it has."""

    def __init__(self, url: str, pid: str) -> None:
        self.worst_stall_s = 0.0
        self.worst_lag = 0
        self.rss_mb = [_rss_mb(pid)]
        self._url = url
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def lag(self) -> tuple[int, int]:
        """How many records are applied, and how many are not."""
        partitions = result(httpx.get(f"{self._url}/admin/lag", timeout=TIMEOUT_S))["partitions"]
        return sum(p["applied"] for p in partitions), sum(p["records"] for p in partitions)

    def seen(self) -> str:
        """What was seen until now, as text."""
        tenth = self.rss_mb[len(self.rss_mb) // 10]
        rss = f"RSS {self.rss_mb[0]} MB at the start, {tenth} after a tenth, {self.rss_mb[-1]} now"
        return f"worst stall {self.worst_stall_s:.2f} s, worst lag {self.worst_lag} records, {rss}"

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        last, since_s = -1, time.monotonic()
        while not self._ended.wait(WATCH_S):
            applied, missing = self.lag()
            now_s = time.monotonic()
            if applied != last or not missing:
                last, since_s = applied, now_s
            self.worst_stall_s = max(self.worst_stall_s, now_s - since_s)
            self.worst_lag = max(self.worst_lag, missing)
            self.rss_mb.append(_rss_mb(self._pid))


class Good:
    """Points that are written between the poison, and what they must be."""

    def __init__(self, url: str, choose: random.Random) -> None:
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self._choose = choose
        self._expected: dict[int, dict[str, Any]] = {}
        self.slowest_s = 0.0
        self.written = 0

    def write(self) -> None:
        choose, began_s = self._choose, time.monotonic()
        ids = [FIRST_GOOD + choose.randrange(GOOD_IDS) for _ in range(10)]
        points = [
            {"id": id_, "vector": [choose.randint(-9, 9) for _ in range(4)], "payload": {"n": choose.random()}} for id_ in ids
        ]
        headers = {"X-Vecraft-Tier": str(choose.randrange(4))}
        answer = self._client.put(f"/collections/{GOOD}/points?wait=true", json={"points": points}, headers=headers)
        assert answer.status_code == 200, answer.text
        self._expected |= {point["id"]: point for point in points}
        self.written += len(points)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    def check(self) -> None:
        body = {"ids": sorted(self._expected), "with_payload": True, "with_vector": True}
        found = result(self._client.post(f"/collections/{GOOD}/points", json=body))
        wrong = [point for point in found if point != self._expected[point["id"]]]
        assert len(found) == len(self._expected), f"{len(found)} of {len(self._expected)} good points are there"
        assert not wrong, f"not as they were written: {wrong[:3]}"

    def check_target(self) -> None:
        """The collection that the poison names is served."""
        answer = self._client.post(f"/collections/{TARGET}/points/scroll", json={"limit": 1000})
        assert answer.status_code == 200, answer.text

    def check_letters(self) -> int:
        """The number of dead letters, of which some are read in full."""
        listed = result(self._client.get("/admin/dlq", params={"limit": 100}))
        for letter in listed["dead_letters"][::20]:
            answer = self._client.get(f"/admin/dlq/{letter['number']}")
            assert answer.status_code in (200, 404), answer.text  # it may have left the list meanwhile
        return int(listed["count"])


def _rss_mb(pid: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) >> 10


@contextmanager
def embedded(folder: Path) -> Iterator[tuple[str, str, Journal, Topics]]:
    """A node of this process, and the log below it."""
    node, thread = start_node(folder)
    try:
        yield node.url, "self", node._services.node.journal, Topics("vecraft")
    finally:
        node.stop()
        thread.join(60)


@contextmanager
def on_a_broker(folder: Path) -> Iterator[tuple[str, str, Journal, Topics]]:
    """A node as a process of its own on a real Kafka."""
    kafka = kafka_or_skip(folder / "kafka")
    server = Server(folder / "node", *on_kafka(kafka.bootstrap, "poison"))
    journal, topics = KafkaJournal(kafka.bootstrap), Topics("poison")
    try:
        server.start()
        journal.ensure_topics(topics.all())
        yield server.url, str(server.pid), journal, topics
    finally:
        journal.close()
        server.terminate()
        kafka.stop()


def append(journal: Journal, waiting: deque[Any], poison: Poison) -> None:
    """Appends poison, and waits for an earlier one when too much is in flight."""
    while len(waiting) >= IN_FLIGHT:
        waiting.popleft().result(TIMEOUT_S)
    time_ms = time.time_ns() // 1_000_000 if poison.sets_time else None
    waiting.append(journal.append(*poison[:4], time_ms=time_ms))


def run(count: int, url: str, pid: str, journal: Journal, topics: Topics) -> None:
    """Writes `count` poisoned records and prints what was seen. Raises AssertionError when something is not as it must be."""
    choose = random.Random(count)
    for name in (TARGET, GOOD):
        result(httpx.put(f"{url}/collections/{name}", json={"vectors": {"size": 4, "distance": "Dot"}}, timeout=TIMEOUT_S))
    system = topics.system_partition
    cabinet = PoisonCabinet(choose, topics, target=0, catalog_end=journal.end_offsets([system])[system])
    watch, good, waiting = Watch(url, pid), Good(url, choose), deque[Any]()
    began_s, letters = time.monotonic(), 0
    for number in range(count):
        append(journal, waiting, cabinet.any())
        if number % GOOD_EVERY == 0:
            good.write()
        if number % LETTERS_EVERY == 0:
            good.check()
            good.check_target()
            letters = max(letters, good.check_letters())
            seen = watch.seen()
            print(f"{number} records, {number / (time.monotonic() - began_s):.0f}/s, {letters} letters, {seen}", flush=True)
    while waiting:
        waiting.popleft().result(TIMEOUT_S)
    until(lambda: watch.lag()[1] == 0, TIMEOUT_S)
    took_s = time.monotonic() - began_s
    watch.close()
    good.check()
    good.check_target()
    letters = max(letters, good.check_letters())
    print(f"{count} poisoned records in {took_s:.0f} s, {count / took_s:.0f}/s; {good.written} good points are as written")
    print(f"{watch.seen()}, slowest good write {good.slowest_s:.2f} s, at most {letters} dead letters")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        target = on_a_broker if sys.argv[2:] == ["kafka"] else embedded
        with target(Path(folder)) as node:
            run(int(sys.argv[1]), *node)
