"""Positions, consistency, idempotency, and where an operation stands (V3, V10, I9)."""

from __future__ import annotations

import httpx
import pytest

from journal.log import TopicPartition
from journal.token import parse_token
from journal.topics import Topics
from tests.conftest import result


def point(point_id: int, *vector: float, **payload: object) -> dict[str, object]:
    return {"id": point_id, "vector": list(vector) or [1, 2, 3, 4], "payload": payload}


@pytest.mark.parametrize("how", ["header", "cookie", "api key", "strong", "bounded"])
def test_a_client_reads_its_own_writes(node_url: str, name: str, how: str) -> None:
    """A write with wait=false is seen by the next read of the same client, however it says who it is; 50 times."""
    with httpx.Client(base_url=node_url) as client:
        if how == "api key":
            client.headers["api-key"] = f"key-of-{name}"
        for number in range(50):
            if how != "cookie":
                client.cookies.clear()
            written = client.put(f"/collections/{name}/points", json={"points": [point(1, n=number)]})
            assert result(written)["status"] == "acknowledged"
            if how != "cookie":
                client.cookies.clear()
            query = {"strong": "?consistency=strong", "bounded": "?consistency=bounded&max_staleness_ms=0"}.get(how, "")
            headers = {"X-Vecraft-Position": written.headers["X-Vecraft-Position"]} if how == "header" else {}
            read = client.post(f"/collections/{name}/points{query}", json={"ids": [1]}, headers=headers)
            assert result(read)[0]["payload"] == {"n": number}
            assert f"level={how if query else 'read_your_writes'}" in read.headers["X-Vecraft-Sync"]


def test_a_position_that_this_log_does_not_have(http: httpx.Client, name: str) -> None:
    """V10: in the header it is an error, at once; a cookie is sent without the client's doing, and is replaced."""
    count = f"/collections/{name}/points/count"
    token = http.post(count, json={}).headers["X-Vecraft-Position"]
    log, hlc, *_ = token.split(".")
    for wrong, text in ((f"{log}.{hlc}.1-0-zzzzz", "beyond the end"), (f"0000000a.{hlc}.1-0-1", "another log")):
        http.cookies.clear()
        refused = http.post(count, json={}, headers={"X-Vecraft-Position": wrong})
        assert refused.status_code == 400
        assert text in refused.json()["status"]["error"]
        answer = http.post(count, json={}, headers={"Cookie": f"vecraft_position={wrong}"})
        assert result(answer) == {"count": 0}
        assert answer.cookies["vecraft_position"].split(".")[0] == log
    http.cookies.clear()
    assert http.post(count, json={}, headers={"X-Vecraft-Position": token}).status_code == 200


def test_a_retry_with_the_same_key_changes_nothing(http: httpx.Client, name: str) -> None:
    first, second = {"points": [point(1, n="first")]}, {"points": [point(1, n="second")]}
    for body, key in ((first, "k1"), (second, "k2"), (first, "k1")):
        result(http.put(f"/collections/{name}/points?wait=true", json=body, headers={"Idempotency-Key": f"{name}-{key}"}))
    assert result(http.get(f"/collections/{name}/points/1"))["payload"] == {"n": "second"}


def test_where_an_operation_stands(http: httpx.Client, name: str) -> None:
    """V3: request id -> journal position -> shard -> stamp and verdict."""
    headers = {"X-Request-Id": f"request-{name}", "X-Vecraft-Tier": "3"}
    written = http.put(f"/collections/{name}/points?wait=true", json={"points": [point(1)]}, headers=headers)
    assert written.headers["X-Request-Id"] == f"request-{name}"
    operation = result(http.get(f"/v1/operations/request-{name}"))
    (record,) = operation["records"]
    assert record["topic"] == "vecraft.tier3"
    assert record["offset"] == result(written)["operation_id"]
    assert record["verdict"] == "applied"
    assert record["stamp"] >= record["hlc"] > 0
    assert http.get("/v1/operations/unknown").status_code == 404


def test_the_token_of_a_batch_covers_all_that_it_wrote(http: httpx.Client) -> None:
    """I9: with it, a read on any node sees every operation of the batch, in whichever partition it is."""
    http.put("/collections/batched", json={"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 5}).raise_for_status()
    operations = [
        {"upsert": {"points": [point(1), point(2)]}},
        {"upsert": {"points": [point(number) for number in range(3, 30)]}},
        {"set_payload": {"payload": {"n": 1}, "points": [3]}},
        {"delete": {"points": [5]}},
    ]
    written = http.post("/collections/batched/points/batch", json={"operations": operations}, headers={"X-Request-Id": "batched"})
    assert len(result(written)) == 4
    result(http.post("/collections/batched/points/count?consistency=strong", json={}))
    records = result(http.get("/operations/batched"))["records"]
    assert len({(record["topic"], record["partition"]) for record in records}) > 1
    text = written.headers["X-Vecraft-Position"]
    token = parse_token(text, Topics(), text.split(".")[0]).positions
    for record in records:
        assert token[TopicPartition(record["topic"], record["partition"])] > record["offset"]
    http.delete("/collections/batched").raise_for_status()


def test_many_shards_answer_as_one(http: httpx.Client) -> None:
    """Fan-out and merge over 5 shards give what one would."""
    http.put("/collections/wide", json={"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 5}).raise_for_status()
    points = [point(i, i, 0, 0, 0) for i in range(200)]
    written = http.put("/collections/wide/points?wait=true", json={"points": points}, headers={"X-Request-Id": "wide"})
    assert result(written)["status"] == "completed"
    assert {record["shard"] for record in result(http.get("/operations/wide"))["records"]} == {0, 1, 2, 3, 4}
    hits = result(http.post("/collections/wide/points/search", json={"vector": [1, 0, 0, 0], "limit": 4, "offset": 1}))
    assert [hit["id"] for hit in hits] == [198, 197, 196, 195]
    assert result(http.get("/collections/wide"))["points_count"] == 200
    http.delete("/collections/wide").raise_for_status()


def test_probes_and_metrics(http: httpx.Client, name: str) -> None:
    assert http.get("/livez").status_code == http.get("/readyz").status_code == http.get("/healthz").status_code == 200
    root = http.get("/").json()
    assert root["title"] == "Vecraft DB"
    text = http.get("/metrics").text
    for metric in (
        "vecraft_request_seconds_bucket",
        "vecraft_replay_lag_records",
        "vecraft_hlc_drift_ms",
        f'vecraft_points{{collection="{name}"}} 0.0',
    ):
        assert metric in text


def test_ignored_settings_are_said(http: httpx.Client) -> None:
    body = {"vectors": {"size": 4, "distance": "Dot"}, "optimizers_config": {"default_segment_number": 2}}
    response = http.put("/collections/hinted", json=body)
    assert response.headers["X-Vecraft-Ignored"] == "optimizers_config"
    http.delete("/collections/hinted").raise_for_status()
