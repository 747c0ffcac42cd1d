"""A node with few file descriptors refuses collections with a text, and never stops serving (I11)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.admission.descriptors import Descriptors
from gateway.http.errors import InsufficientStorage
from shard import descriptors
from shard.descriptors import PER_SHARD
from tests.conftest import until
from tests.server import Server

WAIT_S = 120
"""A shard that has failed several times is tried again after a minute."""

VECTORS = {"vectors": {"size": 2, "distance": "Dot"}}
POINT = {"points": [{"id": 1, "vector": [1, 2]}]}


@contextmanager
def limited(folder: Path, limit: int) -> Iterator[Server]:
    """A node that may have so many descriptors; killed in the end."""
    start = f"import resource, vecraft.cli; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit})); vecraft.cli.process()"
    server = Server(folder, program=("-c", start))
    try:
        yield server.start()
    finally:
        server.kill()


def test_room_is_kept_for_connections_and_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "limit", lambda: 2000)
    monkeypatch.setattr(descriptors, "used", lambda: 1000)
    bound = Descriptors(most_connections=500)  # so 400 are left beside them and the 100 that are kept for growth
    bound.check(400 // PER_SHARD, 0)
    with pytest.raises(
        InsufficientStorage, match=r"34 new and 0 quarantined .* of this node's 2000 storage uses 1000, 500 are kept"
    ):
        bound.check(400 // PER_SHARD + 1, 0)
    with pytest.raises(InsufficientStorage):
        bound.check(1, 400 // PER_SHARD)
    bound.doors.append(range(300))  # these are connections, and not storage
    bound.check(700 // PER_SHARD, 0)


def system_end(http: httpx.Client) -> str:
    found = re.search(r'vecraft_end_offset\{topic="vecraft.system",partition="0"\} (\S+)', http.get("/metrics").text)
    assert found
    return found[1]


@pytest.mark.slow
def test_a_node_at_its_limit_refuses_collections_and_goes_on(tmp_path: Path) -> None:
    """At the door, before anything is written. With an even lower limit later, it serves the shards for which there is room."""
    names: list[str] = []
    with limited(tmp_path, 512) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        while (answer := http.put(f"/collections/c{len(names)}", json=VECTORS)).status_code == 200:
            names.append(f"c{len(names)}")
            http.put(f"/collections/{names[-1]}/points?wait=true", json=POINT).raise_for_status()
        assert answer.status_code == 507
        assert "no room for 1 new and 0 quarantined shards" in answer.json()["status"]["error"]
        assert "of this node's 512 storage uses" in answer.json()["status"]["error"]
        before = system_end(http)
        assert http.put("/collections/another", json=VECTORS).status_code == 507
        assert system_end(http) == before
        assert http.put(f"/collections/{names[0]}", json=VECTORS).status_code == 409
        assert {each["name"] for each in http.get("/collections").json()["result"]["collections"]} == set(names)
        http.delete(f"/collections/{names.pop()}").raise_for_status()
        http.delete(f"/collections/{names.pop()}").raise_for_status()
        until(lambda: http.put("/collections/another", json=VECTORS).status_code == 200, WAIT_S)
        http.delete("/collections/another").raise_for_status()
    assert len(names) > 10
    with limited(tmp_path, 160) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        assert http.get("/admin/health").json()["quarantined"]
        answers = {name: http.get(f"/collections/{name}/points/1") for name in names}
        served = [name for name, answer in answers.items() if answer.status_code == 200]
        refused = [name for name, answer in answers.items() if answer.status_code == 503]
        assert served
        assert refused
        assert len(served) + len(refused) == len(names)
        for name in refused:
            assert "file descriptors of 160 are in use" in answers[name].json()["status"]["error"]
        for name in served:
            http.delete(f"/collections/{name}").raise_for_status()
        until(lambda: any(http.get(f"/collections/{name}/points/1").status_code == 200 for name in refused), WAIT_S)
