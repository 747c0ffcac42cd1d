"""Points expire by what their upsert, or their collection, says; the past knows when (N10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import result, running, until

EXPIRED_S = 20


def put(http: httpx.Client, name: str, ids: list[int], **body: Any) -> None:
    points = [{"id": id_, "vector": [id_, 1, 0, 0], "payload": {"n": id_}} for id_ in ids]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": points, **body}))


def ids_of(http: httpx.Client, name: str, as_of: str = "") -> list[int]:
    params = {"as_of": as_of} if as_of else {}
    shown: Any = result(http.post(f"/collections/{name}/points/scroll", json={"limit": 100}, params=params))
    return [point["id"] for point in shown["points"]]


def history(http: httpx.Client, name: str, point_id: int) -> Any:
    return result(http.get(f"/collections/{name}/points/{point_id}/history"))


def test_points_expire_by_their_upsert(http: httpx.Client, name: str) -> None:
    """To the millisecond, and whatever else is written or not."""
    put(http, name, [1, 2, 3], ttl_s=1)
    put(http, name, [4, 5])
    put(http, name, [2])  # written again: for ever
    result(http.post(f"/collections/{name}/points/payload?wait=true", json={"points": [3], "payload": {"n": 33}}))
    assert ids_of(http, name) == [1, 2, 3, 4, 5]
    until(lambda: ids_of(http, name) == [2, 4, 5], EXPIRED_S)
    ended, written = history(http, name, 1)
    assert ended["deleted"]
    assert (int(ended["stamp"]) >> 16) - (int(written["stamp"]) >> 16) == 1000
    assert history(http, name, 3)[0]["stamp"] == ended["stamp"], "a change of the payload does not prolong it"
    at = int(ended["stamp"])
    assert ids_of(http, name, str(at)) == [2, 4, 5]
    assert ids_of(http, name, str(at - 1)) == [1, 2, 3, 4, 5]
    found: Any = result(http.post(f"/collections/{name}/points/search", json={"vector": [1, 0, 0, 0], "limit": 10}))
    assert {hit["id"] for hit in found} == {2, 4, 5}


def test_points_expire_by_their_collection(http: httpx.Client, name: str) -> None:
    result(http.patch(f"/collections/{name}", json={"ttl_s": 1}))
    put(http, name, [1])
    put(http, name, [2], ttl_s=3600)
    assert result(http.get(f"/collections/{name}"))["config"]["ttl_s"] == 1  # type: ignore[index]
    until(lambda: ids_of(http, name) == [2], EXPIRED_S)
    result(http.patch(f"/collections/{name}", json={"ttl_s": 0}))
    put(http, name, [3])
    assert "ttl_s" not in result(http.get(f"/collections/{name}"))["config"]  # type: ignore[index]
    assert ids_of(http, name) == [2, 3]


def test_points_expire_also_while_the_node_is_down(tmp_path: Path) -> None:
    with running(tmp_path) as url, httpx.Client(base_url=url) as http:
        result(http.put("/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}))
        put(http, "c", [1], ttl_s=1)
        put(http, "c", [2])
    with running(tmp_path) as url, httpx.Client(base_url=url) as http:
        until(lambda: ids_of(http, "c") == [2], EXPIRED_S)
        ended, written = history(http, "c", 1)
        assert (int(ended["stamp"]) >> 16) - (int(written["stamp"]) >> 16) == 1000


@pytest.mark.parametrize("ttl_s", [0, -1, 10**12])
def test_a_time_to_live_is_bounded(http: httpx.Client, name: str, ttl_s: int) -> None:
    body = {"points": [{"id": 1, "vector": [1, 1, 0, 0]}], "ttl_s": ttl_s}
    answer = http.put(f"/collections/{name}/points?wait=true", json=body)
    assert answer.status_code == 422
    assert "ttl_s" in answer.text
    assert ids_of(http, name) == []
