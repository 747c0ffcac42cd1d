"""Acknowledged means durable (I2): a node killed at any moment of an ingest comes back with every acknowledged point, once."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import result
from tests.server import Server

KILLS = 20
BATCH = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


def ingest(url: str, first: int, acknowledged: list[int], batches: threading.Semaphore) -> None:
    """Upserts until the server is gone, half of it with wait=true, and notes what was acknowledged."""
    with httpx.Client(base_url=url, timeout=10) as client:
        for batch in range(first, first + 100_000, BATCH):
            rows = [{"id": i, "vector": [i, 1, 2, 3], "payload": {"n": i}} for i in range(batch, batch + BATCH)]
            try:
                answer = client.put(
                    f"/collections/c/points?wait={'true' if batch // BATCH % 2 else 'false'}", json={"points": rows}
                )
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                acknowledged.extend(range(batch, batch + BATCH))
                batches.release()


@pytest.mark.slow
def test_killed_during_ingest(server: Server) -> None:
    """20 kills; after each, all that was ever acknowledged is there, exactly once, with its own payload and vector."""
    choose = random.Random(1)
    acknowledged: list[int] = []
    server.start()
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}))
    for kill in range(KILLS):
        batches = threading.Semaphore(0)
        thread = threading.Thread(target=ingest, args=(server.url, kill * 100_000, acknowledged, batches))
        thread.start()
        for _ in range(choose.randint(1, 40)):  # death comes somewhere within the batch after these
            assert batches.acquire(timeout=10)
        server.kill()
        thread.join()
        server.start()
        found = everything(server.url)
        assert len(found) == len({point["id"] for point in found}), "a point stands twice"
        points = {point["id"]: point for point in found}
        missing = [i for i in acknowledged if i not in points]
        assert not missing, f"after kill {kill + 1} {len(missing)} of {len(acknowledged)} acknowledged points are gone"
        assert all(point["payload"] == {"n": i} and point["vector"] == [i, 1, 2, 3] for i, point in points.items())
    assert len(acknowledged) > KILLS * BATCH


def everything(url: str) -> list[dict[str, object]]:
    with httpx.Client(base_url=url, timeout=30) as client:
        points: list[dict[str, object]] = []
        body: dict[str, object] = {"limit": 10_000, "with_vector": True}
        while True:
            page = result(client.post("/collections/c/points/scroll?consistency=strong", json=body))
            points += page["points"]
            if page["next_page_offset"] is None:
                assert result(client.post("/collections/c/points/count", json={}))["count"] == len(points)
                return points
            body["offset"] = page["next_page_offset"]


def test_a_clean_stop_cuts_nothing(server: Server) -> None:
    """SIGTERM in the middle of writes: exit status 0 within the bound, and what was acknowledged is there."""
    acknowledged: list[int] = []
    server.start()
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}))
    batches = threading.Semaphore(0)
    thread = threading.Thread(target=ingest, args=(server.url, 0, acknowledged, batches))
    thread.start()
    for _ in range(5):
        assert batches.acquire(timeout=10)
    assert server.terminate() == 0
    thread.join()
    server.start()
    assert {point["id"] for point in everything(server.url)} >= set(acknowledged)
