"""What may happen to a node: death, standing still, a full disk, a wrong clock, poison (V21, J12, U2; I2, I6, I9)."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from confluent_kafka import Producer

from journal.topics import Topics
from tests.conftest import result, until
from tests.faults.checker import COLLECTION, VECTOR, WAIT_S, Load, StrongReads, create, everything
from tests.faults.conftest import Report, node
from tests.kafka_server import KafkaServer, kafka_or_skip
from tests.server import Server

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("nodes")]

RECORDS = int(os.environ.get("VECRAFT_FAULT_RECORDS", "20000"))
KILLS = 5
GUESTS = 4
INGEST_S = 240


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    server = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


def dev_node(folder: Path, name: str, prefix: str, kafka: KafkaServer, **options: object) -> Server:
    return node(folder, name, prefix, kafka.bootstrap, "--preset", "dev", **options)  # type: ignore[arg-type]


@pytest.fixture
def pair(kafka: KafkaServer, prefix: str, tmp_path: Path) -> Iterator[list[Server]]:
    """Two nodes on one broker."""
    servers = [dev_node(tmp_path, name, prefix, kafka).start() for name in ("left", "right")]
    create(servers[0].url)
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return request.node.name.removeprefix("test_")[:40]


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


def count(url: str) -> int:
    try:
        answer = httpx.post(f"{url}/collections/{COLLECTION}/points/count?consistency=eventual", json={}, timeout=30)
    except httpx.TransportError:
        return -1
    return int(answer.json()["result"]["count"]) if answer.status_code == 200 else -1


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
    until(lambda: points in (count(pair[0].url), count(pair[1].url)), INGEST_S)
    kills.stop()
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


def both_ingest(servers: list[Server]) -> bool:
    """Whether each node has a share of the ingest topic, as far as what it has written tells."""
    pages = [httpx.get(f"{server.url}/metrics", timeout=30).text for server in servers]
    return all('vecraft_ingest_records_total{outcome="written"} 0.0' not in page for page in pages)


def lag(url: str) -> int:
    """Records of the ingest topic that nobody has written yet."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=30).text
    except httpx.TransportError:
        return -1
    found = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("vecraft_ingest_lag_records{")]
    return int(sum(found)) if found else -1


def test_a_node_is_killed_under_load(pair: list[Server], first: int, report: Report) -> None:
    """V21: node replacement; the other node goes on, and a node without any state is rebuilt from the log."""
    with Load([pair[0].url], first) as load, StrongReads(pair[1].url, load) as reads:
        load.more(200)
        reads.more(20)
        pair[1].kill()
        gap_s = load.more(20)
        started_s = time.monotonic()
        pair[1].start()
        restart_s = time.monotonic() - started_s
    load.check(pair[1].url)
    report(
        "node killed (-9), restarted on its state",
        f"the other node's next write {gap_s * 1000:.0f} ms later; the node is ready {restart_s:.1f} s after its start",
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system of its own can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_disk_under_the_state_is_full(
    kafka: KafkaServer, prefix: str, tmp_path: Path, small_disk: Path, first: int, report: Report
) -> None:
    """V21, I2: the node says that it is not ready, and lives; the log has what is acknowledged; space is all it needs."""
    server = dev_node(small_disk, "small", prefix, kafka).start()
    other = dev_node(tmp_path, "other", prefix, kafka).start()
    try:
        create(other.url)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        written = 0

        def full() -> bool:
            nonlocal written
            points = [
                {"id": first + written + n, "vector": VECTOR, "payload": {"n": first + written + n, "text": "x" * 5_000}}
                for n in range(100)
            ]
            answer = httpx.put(f"{other.url}/collections/{COLLECTION}/points?wait=true", json={"points": points}, timeout=WAIT_S)
            assert result(answer)["status"] == "completed"
            written += 100
            return httpx.get(f"{server.url}/healthz").status_code == 503

        until(full, WAIT_S)
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        ballast.unlink()
        back_s = until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200, WAIT_S)
        found = everything(server.url)
        assert found.keys() == set(range(first, first + written))
    finally:
        server.kill()
        other.kill()
    report(
        "disk full under a node's state", f"not ready, the other node goes on; ready {back_s:.1f} s after there was space; 0 lost"
    )


@pytest.mark.parametrize("offset_ms", [3_600_000, -3_600_000])
def test_a_clock_that_is_off(kafka: KafkaServer, prefix: str, tmp_path: Path, first: int, offset_ms: int, report: Report) -> None:
    """V14, I4, I6: an hour ahead, its writes are refused; an hour behind, they count as new as the log can vouch for."""
    prefix = prefix.replace("[", "-").rstrip("]")
    right = dev_node(tmp_path, "right", prefix, kafka).start()
    program = (str(Path(__file__).with_name("offset_clock.py")), str(offset_ms))
    wrong = dev_node(tmp_path, "wrong", prefix, kafka, program=program).start()
    try:
        create(right.url)
        with Load([right.url], first) as load, StrongReads(wrong.url, load) as reads:
            load.more(20)
            reads.more(20)
            body = {"points": [{"id": first + 900_000, "vector": VECTOR, "payload": {"n": first + 900_000}}]}
            answer = httpx.put(f"{wrong.url}/collections/{COLLECTION}/points", json=body)
            load.more(20)
        load.check(right.url)
        if offset_ms > 0:
            assert answer.status_code == 503
            assert "clock is off" in answer.text
            assert first + 900_000 not in everything(right.url)
        else:
            assert answer.status_code == 200
            assert everything(right.url)[first + 900_000] == {"n": first + 900_000}
            newer = {"points": [{"id": first, "vector": VECTOR, "payload": {"n": -1}}]}
            until(lambda: overwritten(wrong.url, right.url, newer, first), 30)
    finally:
        right.kill()
        wrong.kill()
    what = "refused with the reason" if offset_ms > 0 else "taken, and after 10 s they win over older ones"
    report(
        f"clock of a node {abs(offset_ms) // 60_000} min {'ahead' if offset_ms > 0 else 'behind'}",
        f"its writes are {what}; reads go on",
    )


def overwritten(wrong: str, right: str, body: dict[str, object], point_id: int) -> bool:
    """Writes through a node that is behind; whether that write won. It does once what it replaces is older than max_lateness."""
    result(httpx.put(f"{wrong}/collections/{COLLECTION}/points?wait=true", json=body))
    found = result(httpx.post(f"{right}/collections/{COLLECTION}/points?consistency=strong", json={"ids": [point_id]}))
    return bool(found[0]["payload"] == {"n": -1})


def test_poison_in_every_topic(pair: list[Server], kafka: KafkaServer, prefix: str, first: int, report: Report) -> None:
    """I6, A3: it is put aside with its reason, once, and nothing waits for it."""
    topics = Topics(prefix)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for topic, spec in topics.all().items():
        for partition in range(spec.partitions):
            producer.produce(topic, b"poison", partition=partition)
    assert producer.flush(WAIT_S) == 0
    poisoned = sum(spec.partitions for topic, spec in topics.all().items() if topic != topics.dead_letters)
    with Load([server.url for server in pair], first) as load:
        load.more(20)
    for server in pair:
        load.check(server.url)
        letters_s = until(lambda server=server: dead(server.url) == poisoned, WAIT_S)
        listed = result(httpx.get(f"{server.url}/v1/admin/dlq"))["dead_letters"]
        assert len({(letter["topic"], letter["partition"], letter["offset"]) for letter in listed}) == poisoned
    report(
        "a poisoned record in every partition",
        f"{poisoned} dead letters on each node within {letters_s:.1f} s, each once; writes go on",
    )


def dead(url: str) -> int:
    return int(result(httpx.get(f"{url}/v1/admin/dlq"))["count"])


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
