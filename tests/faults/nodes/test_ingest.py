"""Nodes that die, stand still, come and go while a plain producer writes (V21, U2; I9)."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import httpx
import orjson
import pytest
from confluent_kafka import Producer

from journal.topics import Topics
from tests.conftest import result, until
from tests.faults.checker import COLLECTION, VECTOR, WAIT_S, Load, StrongReads, create, everything
from tests.faults.conftest import Report
from tests.faults.nodes.conftest import dev_node
from tests.faults.nodes.ingest_progress import both_ingest, count, lag
from tests.kafka_server import KafkaServer
from tests.server import Server

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("nodes")]
RECORDS = int(os.environ.get("VECRAFT_FAULT_RECORDS", "20000"))
KILLS = 5
GUESTS = 4
INGEST_S = 240


class Kills(threading.Thread):
    """Kills one node or the other every few seconds, and starts it again."""

    def __init__(self, servers: list[Server]) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._servers = servers
        self._stopping = threading.Event()

    def run(self) -> None:
        choose = random.Random(7)
        while not self._stopping.wait(choose.uniform(1, 3)):
            server = choose.choice(self._servers)
            server.kill()
            self.count += 1
            server.start()

    def stop(self) -> None:
        self._stopping.set()
        self.join(WAIT_S)


def test_a_plain_producer_while_nodes_are_killed(pair: list[Server], kafka: KafkaServer, prefix: str, report: Report) -> None:
    """U2: exactly the records, once, whoever reads them. Some points are written twice: the later one counts."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True, "linger.ms": 5})
    kills = Kills(pair)
    kills.start()
    started_s = time.monotonic()
    for number in range(RECORDS):
        point = number % (RECORDS - RECORDS // 10)
        body = {"collection": COLLECTION, "id": point, "vector": VECTOR, "payload": {"n": number}}
        while True:
            try:
                producer.produce(Topics(prefix).ingest, orjson.dumps(body), key=str(point))
                break
            except BufferError:
                producer.poll(0.1)
        if number % (RECORDS // KILLS) == RECORDS // KILLS - 1:  # so that the kills fall into the middle of it
            enough = number // (RECORDS // KILLS)
            until(lambda enough=enough: producer.flush(0.1) == 0 and kills.count > enough, WAIT_S)
    assert producer.flush(WAIT_S) == 0
    points = RECORDS - RECORDS // 10
    kills.stop()  # a slow machine may not get on at all between kills that never end
    until(lambda: points in (count(pair[0].url), count(pair[1].url)), INGEST_S)
    for server in pair:
        until(lambda server=server: lag(server.url) == 0, INGEST_S)
        found = everything(server.url)
        expected = {point: {"n": point + points if point + points < RECORDS else point} for point in range(points)}
        assert found == expected
        assert result(httpx.get(f"{server.url}/v1/admin/dlq"))["count"] == 0
    report(
        "nodes killed (-9) while they ingest",
        f"{RECORDS} records of a plain producer, {kills.count} kills in {time.monotonic() - started_s:.0f} s: "
        "exactly the records, each once",
    )


def test_a_node_stands_still(pair: list[Server], kafka: KafkaServer, prefix: str, first: int, report: Report) -> None:
    """I9, U2: SIGSTOP for longer than the group waits; the other takes its share, and what it still writes is dropped."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap})

    def produce(numbers: range) -> None:
        for number in numbers:
            body = {"collection": COLLECTION, "id": number, "vector": VECTOR, "payload": {"n": number}}
            producer.produce(Topics(prefix).ingest, orjson.dumps(body), key=str(number))
        assert producer.flush(WAIT_S) == 0

    with Load([pair[0].url], first) as load, StrongReads(pair[0].url, load) as reads:
        numbers = iter(range(first + 500_000, first + 501_000))
        until(lambda: produce(range(at := next(numbers), at + 1)) or both_ingest(pair), WAIT_S)
        pair[1].pause()
        produce(range(first + 501_000, first + 502_000))
        taken_s = until(lambda: lag(pair[0].url) == 0, WAIT_S)
        gap_s = load.more(20)
        pair[1].resume()
        with StrongReads(pair[1].url, load) as resumed:
            resumed.more(50)
        produce(range(first + 502_000, first + 503_000))
        until(lambda: lag(pair[1].url) == 0, WAIT_S)
    for server in pair:
        load.check(server.url)
        assert everything(server.url).keys() >= set(range(first + 501_000, first + 503_000))
    report(
        "node stopped (SIGSTOP) and resumed",
        f"the other node takes over its share of the ingest topic after {taken_s:.0f} s, and goes on writing "
        f"({gap_s * 1000:.0f} ms); 0 of {reads.fresh + resumed.fresh} strong reads stale, nothing twice",
    )


def test_nodes_come_and_go(kafka: KafkaServer, prefix: str, tmp_path: Path, first: int, report: Report) -> None:
    """U2: a real group whose members change while a producer writes; test_ingest_groups does it a thousand times."""
    stays = dev_node(tmp_path, "stays", prefix, kafka).start()
    create(stays.url)
    guest = dev_node(tmp_path, "guest", prefix, kafka)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    written = 0
    try:
        for _ in range(GUESTS):
            for joins in (True, False):
                if joins:
                    guest.start()
                else:
                    assert guest.terminate() == 0
                for number in range(first + written, first + written + 200):
                    body = {"collection": COLLECTION, "id": number, "vector": VECTOR, "payload": {"n": number}}
                    producer.produce(Topics(prefix).ingest, orjson.dumps(body), key=str(number))
                written += 200
                assert producer.flush(WAIT_S) == 0
        done_s = until(lambda: lag(stays.url) == 0, WAIT_S)
        assert everything(stays.url) == {number: {"n": number} for number in range(first, first + written)}
    finally:
        stays.kill()
        guest.kill()
    report(
        f"a node that joins and leaves {GUESTS} times",
        f"{written} records ingested, each once; the last {done_s:.0f} s after the leave",
    )
