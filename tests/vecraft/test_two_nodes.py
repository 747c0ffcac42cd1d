"""Two nodes on one Kafka are already a cluster: each sees the other's writes when it must (I9), and either may die (I2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from journal.kafka import KafkaJournal
from journal.topics import Topics
from tests.conftest import result
from tests.kafka_server import KafkaServer
from tests.server import Server, two_nodes_on

pytestmark = pytest.mark.kafka

TRIES = 1000


@pytest.fixture
def nodes(kafka: KafkaServer, tmp_path: Path) -> Iterator[list[Server]]:
    with two_nodes_on(kafka.bootstrap, tmp_path) as servers:
        yield servers


def create(url: str) -> None:
    result(httpx.put(f"{url}/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 2}))


def put(client: httpx.Client, point_id: int, number: int, wait: str = "false") -> httpx.Response:
    body = {"points": [{"id": point_id, "vector": [number, 1, 1, 1], "payload": {"n": number}}]}
    return client.put(f"/collections/c/points?wait={wait}", json=body)


def test_a_strong_read_sees_every_write_of_the_other_node(nodes: list[Server]) -> None:
    """I9, V10: 1,000 writes through one node, each followed by a strong read and a token read through the other."""
    with httpx.Client(base_url=nodes[0].url) as left, httpx.Client(base_url=nodes[1].url) as right:
        create(nodes[0].url)
        stale = []
        for number in range(TRIES):
            token = put(left, number % 10, number).headers["X-Vecraft-Position"]
            if number % 2:
                read = right.post("/collections/c/points?consistency=strong", json={"ids": [number % 10]})
            else:
                read = right.post("/collections/c/points", json={"ids": [number % 10]}, headers={"X-Vecraft-Position": token})
            found = result(read)
            if [point["payload"] for point in found] != [{"n": number}]:
                stale.append((number, found))
        assert not stale, f"{len(stale)} of {TRIES} reads were stale, the first: {stale[0]}"


def test_either_may_die(nodes: list[Server]) -> None:
    """I2: the other node goes on taking writes, and the dead one comes back with all of them; also from nothing (I1)."""
    create(nodes[0].url)
    written = 0
    for dead in (0, 1):
        alive = nodes[1 - dead]
        nodes[dead].kill()
        with httpx.Client(base_url=alive.url) as client:
            for _ in range(50):
                assert result(put(client, written, written, "true"))["status"] == "completed"
                written += 1
        nodes[dead].start()
        count = httpx.post(f"{nodes[dead].url}/collections/c/points/count?consistency=strong", json={})
        assert result(count) == {"count": written}


def test_lag_reads_true_for_ordinary_tools(nodes: list[Server], kafka: KafkaServer) -> None:
    """U4: the node commits under its own group what it has applied, also when it falls idle."""
    create(nodes[0].url)
    with httpx.Client(base_url=nodes[0].url) as client:
        for number in range(20):
            put(client, number, number, "true")
        probe = {"points": [{"id": 1, "vector": [1, 1, 1, 1]}]}
        result(client.put("/collections/c/points?wait=true", json=probe, headers={"X-Request-Id": "probe"}))
        prefix = result(client.get("/operations/probe"))["records"][0]["topic"].rsplit(".", 1)[0]
    topics = Topics(prefix)
    journal = KafkaJournal(kafka.bootstrap)
    try:
        partitions = topics.data_partitions()
        ends = journal.end_offsets(partitions)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:  # each ask is a round trip to the broker
            if journal.committed(f"{prefix}.replayer.right", partitions) == ends:
                break
        assert journal.committed(f"{prefix}.replayer.right", partitions) == ends
        assert sum(ends.values()) >= 20
    finally:
        journal.close()


def test_a_place_in_the_feed_is_the_same_on_both_nodes(nodes: list[Server]) -> None:
    """N4: what is acknowledged on one node is told by the other one; a reader may change nodes after each page."""
    create(nodes[0].url)
    with httpx.Client(base_url=nodes[0].url) as left, httpx.Client(base_url=nodes[1].url, timeout=30) as right:
        told, place = [], "earliest"
        for number in range(30):
            client, other = (left, right) if number % 2 else (right, left)
            result(put(client, number % 7, number))
            params = {"from": place, "consistency": "strong", "wait_ms": 30_000}
            page = result(other.get("/collections/c/changes", params=params))
            told += page["changes"]
            place = page["next"]
            assert [change["after"]["payload"]["n"] for change in told] == list(range(number + 1))
        for client in (left, right):
            assert result(client.get("/collections/c/changes?consistency=strong"))["changes"] == told
            first = result(client.get("/collections/c/changes?snapshot=initial&limit=3"))
            rest = result((right if client is left else left).get("/collections/c/changes", params={"from": first["next"]}))
            assert [change["id"] for change in first["changes"] + rest["changes"]] == list(range(7))


def test_a_subscription_goes_on_through_the_other_node(nodes: list[Server], kafka: KafkaServer) -> None:
    """N9: when the node dies that has delivered, the other one delivers what was not settled; tools see the lag go to 0."""
    create(nodes[0].url)
    left, right = (httpx.Client(base_url=node.url, timeout=30) for node in nodes)
    with left, right:
        result(left.put("/subscriptions/s", json={"collection": "c", "max_in_flight": 10}))
        for number in range(30):
            result(put(left, number, number))
        seen: set[int] = set()
        for client in (left, right):
            path = "/subscriptions/s/fetch?timeout=30"
            while found := result(client.post(path, json={"limit": 4, "wait_ms": 1000 if not seen else 0}))["deliveries"]:
                seen |= {delivery["event"]["id"] for delivery in found}
                acked = [delivery["token"] for delivery in found[:3]]
                result(client.post("/subscriptions/s/ack", json={"tokens": acked if client is left else tokens_of(found)}))
                if client is left and len(seen) > 8:
                    break
            if client is left:
                assert len(seen) < 30
                nodes[0].kill()
        assert seen == set(range(30))
        group = result(right.get("/subscriptions/s"))["group"]
        topics = Topics(group.partition(".subscription.")[0])
        journal = KafkaJournal(kafka.bootstrap)
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:  # each ask is a request and a round trip to the broker
                assert result(right.post("/subscriptions/s/fetch"))["deliveries"] == []
                committed = journal.committed(group, topics.data_partitions())
                if committed and committed == journal.end_offsets(list(committed)):
                    break
            assert committed == journal.end_offsets(list(committed)) != {}
        finally:
            journal.close()


def tokens_of(deliveries: list[dict[str, object]]) -> list[object]:
    return [delivery["token"] for delivery in deliveries]
