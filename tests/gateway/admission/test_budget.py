"""The memory budget: data is refused with a text before memory runs out; deletes and reads go on (I11)."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.admission.budget import LOOK_EVERY_S, MIB, Budget
from gateway.http.errors import InsufficientStorage
from tests.conftest import start_node


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
