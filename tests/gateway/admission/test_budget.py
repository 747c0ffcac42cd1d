"""The memory budget: data is refused with a text before memory runs out; deletes and reads go on (I11)."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.admission.budget import LOOK_EVERY_S, MIB, RELEASE_EVERY_S, Budget
from gateway.http.errors import InsufficientStorage
from tests.conftest import start_node, until
from tests.server import Server

BATCH, SIZE = 1_000, 256


def test_beyond_the_budget_is_refused_and_looked_at_again() -> None:
    now, used = [0.0], [5 * MIB]
    budget = Budget(10 * MIB, lambda: used[0], lambda: now[0])
    budget.check()
    used[0] = 11 * MIB
    budget.check()  # the last look was a moment ago
    now[0] += 2 * LOOK_EVERY_S
    with pytest.raises(InsufficientStorage, match="11 MiB of memory, memory_budget_mb is 10"):
        budget.check()
    used[0], now[0] = 5 * MIB, now[0] + 2 * LOOK_EVERY_S
    budget.check()


def test_a_node_at_its_limit_refuses_data_and_goes_on(tmp_path: Path) -> None:
    """I11: 507 with a text; what is there is still read and deleted; the page says what takes memory."""
    node, thread = start_node(tmp_path)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        http.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        point = {"points": [{"id": 1, "vector": [1, 2]}]}
        http.put("/collections/c/points?wait=true", json=point).raise_for_status()
        shown = http.get("/admin/memory").json()["result"]
        assert shown["anonymous_bytes"] > 10 * MIB
        assert shown["collections"]["c"]["vectors"] == 1
        assert {"ids", "payload_index", "growing"} <= shown["collections"]["c"]["bytes"].keys()
    node.stop()
    thread.join(15)
    node, thread = start_node(tmp_path, memory_budget_mb=1)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        refused = http.put("/collections/c/points?wait=true", json=point)
        assert refused.status_code == 507
        assert "memory_budget_mb is 1" in refused.json()["status"]["error"]
        assert int(refused.headers["Retry-After"]) > 0
        assert http.get("/collections/c/points/1").status_code == 200
        assert http.post("/collections/c/points/delete?wait=true", json={"points": [1]}).status_code == 200
        assert http.post("/collections/c/points/count", json={}).json()["result"] == {"count": 0}
    node.stop()
    thread.join(15)


def test_freed_memory_is_returned_before_data_is_refused() -> None:
    now, used = [0.0], [11 * MIB]

    def release() -> None:
        used[0] -= 2 * MIB

    budget = Budget(10 * MIB, lambda: used[0], lambda: now[0], release)
    budget.check()
    assert used[0] == 9 * MIB
    used[0], now[0] = 13 * MIB, now[0] + 2 * LOOK_EVERY_S
    with pytest.raises(InsufficientStorage):
        budget.check()  # it was just tried
    now[0] += RELEASE_EVERY_S
    with pytest.raises(InsufficientStorage):
        budget.check()
    assert used[0] == 11 * MIB


@pytest.mark.slow
def test_deleting_makes_room(tmp_path: Path) -> None:
    """A node at its budget, of which nine tenths are deleted, takes at least a quarter of that again, without a restart.

    Without a history, which holds what is deleted for as long as it is kept.
    """
    server = Server(tmp_path, "--memory-budget-mb", "260", "--history-retention-s", "0").start()
    try:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            http.put(
                "/collections/c", json={"vectors": {"size": SIZE, "distance": "Dot"}, "hnsw_config": {"m": 0}}
            ).raise_for_status()
            for field in ("keyword", "text"):
                body = {"field_name": field, "field_schema": field}
                http.put("/collections/c/index?wait=true", json=body).raise_for_status()
            full = fill(http, 0)
            for start in range(0, full * 9 // 10, BATCH):
                ids = list(range(start, min(start + BATCH, full * 9 // 10)))
                http.post("/collections/c/points/delete?wait=true", json={"points": ids}).raise_for_status()
            until(lambda: upsert(http, full).status_code == 200, 30)
            assert fill(http, full) > full * 9 // 10 // 4
    finally:
        server.kill()


def upsert(http: httpx.Client, start: int) -> httpx.Response:
    ids = range(start, start + BATCH)
    payloads = [{"keyword": f"key {at}", "text": f"{at} and {at * 13}"} for at in ids]
    body = {"batch": {"ids": list(ids), "vectors": [[1] * SIZE] * BATCH, "payloads": payloads}}
    return http.put("/collections/c/points?wait=true", json=body)


def fill(http: httpx.Client, start: int) -> int:
    """Writes points from an id on until they are refused; returns how many were taken. At most 400,000."""
    for first in range(start, start + 400_000, BATCH):
        if (response := upsert(http, first)).status_code == 507:
            return first - start
        response.raise_for_status()
    return 400_000
