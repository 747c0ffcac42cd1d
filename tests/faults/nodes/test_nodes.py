"""What may happen to a node: death, a full disk, a wrong clock, poison (V21, J12; I2, I6, I9)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer

from journal.topics import Topics
from tests.conftest import result, until
from tests.faults.checker import COLLECTION, VECTOR, WAIT_S, Load, StrongReads, create, everything
from tests.faults.conftest import Report
from tests.faults.nodes.conftest import dev_node
from tests.kafka_server import KafkaServer
from tests.server import Server

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("nodes")]


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
            return httpx.get(f"{server.url}/readyz").status_code == 503

        until(full, WAIT_S)
        assert httpx.get(f"{server.url}/livez").status_code == 200
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
