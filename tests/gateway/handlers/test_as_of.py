"""Every read as of a past instant answers what it answered then (N1, N2)."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from journal.hlc import stamp_at
from tests.conftest import refusal, result, running, until

COUNT = 60


def vector(seed: int, size: int = 8) -> list[float]:
    return np.random.default_rng(seed).standard_normal(size).round(3).tolist()  # type: ignore[no-any-return]


def point(number: int, seed: int) -> dict[str, Any]:
    vectors = {
        "": vector(seed),
        "many": [vector(seed + 1000, 4), vector(seed + 2000, 4)],
        "terms": {"indices": [seed % 7, 10], "values": [1.0 + seed % 3, 0.5]},
    }
    return {
        "id": number,
        "vector": vectors,
        "payload": {"n": seed, "color": "red" if seed % 2 else "blue", "text": f"word{seed % 5}"},
    }


@pytest.fixture
def past(http: httpx.Client, name: str) -> str:
    """A collection of three kinds of vectors, with indexes of its payload and an alias."""
    http.delete(f"/collections/{name}")
    config = {
        "vectors": {
            "": {"size": 8, "distance": "Cosine"},
            "many": {"size": 4, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
        },
        "sparse_vectors": {"terms": {"modifier": "idf"}},
        "shard_number": 2,
    }
    result(http.put(f"/collections/{name}", json=config))
    for field, schema in (("n", "integer"), ("color", "keyword")):
        result(http.put(f"/collections/{name}/index?wait=true", json={"field_name": field, "field_schema": schema}))
    upsert(http, name, [point(number, number) for number in range(COUNT)])
    return name


def upsert(http: httpx.Client, name: str, points: list[dict[str, Any]]) -> httpx.Response:
    answer = http.put(f"/collections/{name}/points?wait=true", json={"points": points})
    result(answer)
    return answer


def change_everything(http: httpx.Client, name: str) -> None:
    """Vectors, payloads and points change, go and come."""
    path = f"/collections/{name}/points"
    upsert(http, name, [point(number, number + 100) for number in range(0, COUNT, 3)])
    result(http.post(f"{path}/delete?wait=true", json={"points": list(range(1, COUNT, 6))}))
    patched = [number for number in range(2, COUNT, 5) if number % 6 != 1]
    patch = {"payload": {"n": -1, "color": "green"}, "points": patched}
    result(http.post(f"{path}/payload?wait=true", json=patch))
    result(http.put(f"{path}/vectors?wait=true", json={"points": [{"id": 4, "vector": {"": vector(4000)}}]}))
    result(http.post(f"{path}/payload/clear?wait=true", json={"points": [5]}))
    upsert(http, name, [point(number, number) for number in range(COUNT, COUNT + 20)])
    result(http.delete(f"/collections/{name}/index/color?wait=true"))


READS = {
    "get": ("GET", "/points/4", None),
    "retrieve": ("POST", "/points", {"ids": [0, 1, 2, 5, 7, COUNT + 1], "with_vector": True}),
    "scroll": ("POST", "/points/scroll", {"limit": 100, "with_vector": True}),
    "scroll page": ("POST", "/points/scroll", {"limit": 3, "offset": 6}),
    "scroll filtered": ("POST", "/points/scroll", {"limit": 100, "filter": {"must": [{"key": "n", "range": {"gte": 20}}]}}),
    "scroll ordered": ("POST", "/points/scroll", {"limit": 30, "order_by": {"key": "n", "direction": "desc"}}),
    "count": ("POST", "/points/count", {}),
    "count filtered": ("POST", "/points/count", {"filter": {"must": [{"key": "color", "match": {"value": "red"}}]}}),
    "facet": ("POST", "/facet", {"key": "color"}),
    "search": ("POST", "/points/search", {"vector": vector(7), "limit": 10, "with_payload": True, "with_vector": True}),
    "search exact": ("POST", "/points/search", {"vector": vector(8), "limit": 100, "params": {"exact": True}}),
    "search filtered": (
        "POST",
        "/points/search",
        {"vector": vector(9), "limit": 10, "filter": {"must": [{"key": "color", "match": {"value": "blue"}}]}},
    ),
    "multi": ("POST", "/points/query", {"query": [vector(1, 4)], "using": "many", "limit": 20}),
    "sparse": ("POST", "/points/query", {"query": {"indices": [3, 10], "values": [1, 1]}, "using": "terms", "limit": 50}),
    "by id": ("POST", "/points/query", {"query": 3, "limit": 10}),
    "recommend": ("POST", "/points/recommend", {"positive": [0, 4], "negative": [8], "limit": 10}),
    "fusion": (
        "POST",
        "/points/query",
        {
            "prefetch": [
                {"query": vector(2), "limit": 20},
                {"query": {"indices": [3], "values": [1]}, "using": "terms", "limit": 20},
            ],
            "query": {"fusion": "rrf"},
            "limit": 10,
        },
    ),
    "batch": ("POST", "/points/query/batch", {"searches": [{"query": vector(5), "limit": 4}, {"query": 9, "limit": 4}]}),
    "groups": ("POST", "/points/search/groups", {"vector": vector(3), "limit": 4, "group_by": "color", "group_size": 3}),
    "info": ("GET", "", None),
}
"""Requests by name: method, path below the collection, body."""


def read(http: httpx.Client, name: str, wanted: str, as_of: str = "") -> httpx.Response:
    method, path, body = READS[wanted]
    return http.request(method, f"/collections/{name}{path}", json=body, params={"as_of": as_of} if as_of else {})


def shown(answer: httpx.Response) -> Any:
    told = result(answer)
    if isinstance(told, dict) and "points_count" in told:
        return told["points_count"], told["config"], sorted(told["payload_schema"])
    return told


@pytest.mark.parametrize("form", ["stamp", "time", "position", "header"])
def test_a_read_of_the_past_answers_what_it_answered_then(http: httpx.Client, past: str, form: str) -> None:
    before = {wanted: read(http, past, wanted) for wanted in READS}
    position = before["scroll"].headers["x-vecraft-position"]
    stamp = later()
    moment = datetime.fromtimestamp((int(stamp) >> 16) / 1000, UTC)
    change_everything(http, past)
    as_of = {"stamp": stamp, "header": stamp, "position": position, "time": moment.isoformat(timespec="milliseconds")}[form]
    for wanted, answered in before.items():
        if form == "header":
            method, path, body = READS[wanted]
            then = http.request(method, f"/collections/{past}{path}", json=body, headers={"X-Vecraft-As-Of": as_of})
        else:
            then = read(http, past, wanted, as_of)
        assert shown(then) == shown(answered), wanted
        assert then.headers["x-vecraft-as-of"].isdecimal()
        assert then.headers.get("x-vecraft-position") == (position if form == "position" else None)
    changed = [wanted for wanted in READS if shown(read(http, past, wanted)) != shown(before[wanted])]
    assert set(changed) >= {"scroll", "count", "facet", "search", "sparse", "multi", "info"}, "the writes changed the answers"


def test_pages_of_the_past_have_each_point_once(http: httpx.Client, past: str) -> None:
    """Whatever their size: a small page is read in the order of ids, from live and from past rows."""
    before = shown(read(http, past, "scroll"))["points"]
    as_of = later()
    change_everything(http, past)
    for limit in range(1, COUNT + 2):
        page = result(http.post(f"/collections/{past}/points/scroll", json={"limit": limit}, params={"as_of": as_of}))
        assert [point["id"] for point in page["points"]] == [point["id"] for point in before[:limit]]  # type: ignore[index]


def test_an_instant_of_the_last_moment_is_closed_and_read(http: httpx.Client, past: str) -> None:
    upsert(http, past, [point(1, 500)])
    now, present = read(http, past, "scroll", "-0s"), read(http, past, "scroll")
    assert shown(now) == shown(present)
    upsert(http, past, [point(1, 501)])
    for as_of in (now.headers["x-vecraft-as-of"], present.headers["x-vecraft-position"]):
        assert shown(read(http, past, "scroll", as_of)) == shown(now)


def test_the_past_is_the_same_after_a_restart(tmp_path: Path) -> None:
    """From a checkpoint, and from RocksDB alone."""
    with running(tmp_path) as url, httpx.Client(base_url=url) as http:
        result(http.put("/collections/c", json={"vectors": {"size": 8, "distance": "Dot"}}))
        upsert(http, "c", [{"id": number, "vector": vector(number), "payload": {"n": number}} for number in range(30)])
        upsert(http, "c", [{"id": number, "vector": vector(number + 50), "payload": {"n": -number}} for number in range(20)])
        asked = {"vector": vector(3), "limit": 30, "with_payload": True, "with_vector": True}
        now = http.post("/collections/c/points/search", json=asked)
        position = now.headers["x-vecraft-position"]
        upsert(http, "c", [{"id": number, "vector": vector(number + 90), "payload": {"n": 0}} for number in range(10, 25)])
        result(http.post("/collections/c/points/delete?wait=true", json={"points": [1, 2, 3]}))
    for lost in ("", "state/*/0/checkpoint", "state"):
        for path in tmp_path.glob(lost) if lost else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with running(tmp_path) as url, httpx.Client(base_url=url) as http:
            then = http.post("/collections/c/points/search", json=asked, params={"as_of": position})
            assert shown(then) == shown(now), f"without {lost or 'nothing'}"


def test_names_mean_what_they_meant(http: httpx.Client, name: str) -> None:
    upsert_plain(http, name, 1)
    alias = f"alias-{name}"
    created = {"create_alias": {"collection_name": name, "alias_name": alias}}
    result(http.post("/collections/aliases", json={"actions": [created]}))
    then = read_count(http, alias, "-0s")
    as_of = then.headers["x-vecraft-as-of"]
    result(http.post("/collections/aliases", json={"actions": [{"delete_alias": {"alias_name": alias}}]}))
    assert http.post(f"/collections/{alias}/points/count", json={}).status_code == 404
    assert result(read_count(http, alias, as_of)) == {"count": 1}


def test_a_deleted_collection_is_read_as_of_its_time(tmp_path: Path) -> None:
    """Also when another one has its name, and after a restart; until its history is over."""
    with running(tmp_path) as url, httpx.Client(base_url=url) as http:
        stamps, counts = [later()], [0]
        for number in range(1, 4):
            result(http.put("/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}))
            for point_id in range(number):
                upsert_plain(http, "c", point_id)
            stamps.append(later())
            counts.append(number)
            result(http.delete("/collections/c"))
        assert http.post("/collections/c/points/count", json={}).status_code == 404
        until(lambda: len(list(tmp_path.glob("state/deleted/*/0"))) == 3, 20)
        assert read_count(http, "c", stamps[0]).status_code == 404
        assert [result(read_count(http, "c", stamp)) for stamp in stamps[1:]] == [{"count": count} for count in counts[1:]]
        assert read_count(http, "c", "-0s").status_code == 404
        for stamp, existed in zip(stamps, (False, True, True, True), strict=True):
            headers = {"X-Vecraft-As-Of": stamp}
            assert result(http.get("/collections/c/exists", headers=headers)) == {"exists": existed}
            assert result(http.get("/collections", headers=headers)) == {"collections": [{"name": "c"}] * existed}
    with running(tmp_path) as url, httpx.Client(base_url=url) as http:
        assert [result(read_count(http, "c", stamp)) for stamp in stamps[1:]] == [{"count": count} for count in counts[1:]]
        result(http.put("/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}}))
        assert result(read_count(http, "c", "-0s")) == {"count": 0}


def upsert_plain(http: httpx.Client, name: str, number: int) -> None:
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": number, "vector": [1, 2, 3, 4]}]}))


def read_count(http: httpx.Client, name: str, as_of: str) -> httpx.Response:
    return http.post(f"/collections/{name}/points/count", json={}, params={"as_of": as_of})


def test_instants_that_cannot_be_read_are_refused(http: httpx.Client, name: str) -> None:
    path = f"/collections/{name}/points"
    upsert_plain(http, name, 1)
    future = str(stamp_at(int(time.time() * 1000) + 60_000))
    for as_of, status, words in (
        (future, 400, "ahead of this node's clock"),
        ("yesterday", 400, "must be an RFC 3339 time"),
        ("-5parsecs", 400, "must be"),
        ("1.2.3", 400, "not a position token"),
        ("00000000.0.1-0-1", 400, "another log"),
        ("tag:none", 404, "tag 'none' doesn't exist"),
        ("2001-01-01T00:00:00Z", 404, f"Collection `{name}` didn't exist at 2001-01-01"),
        ("9" * 30, 400, "must be"),
    ):
        answer = read_count(http, name, as_of)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    written = http.put(f"{path}?wait=true", json={"points": [{"id": 1, "vector": [1, 2, 3, 4]}]})
    uncovered = read_count(http, name, written.headers["x-vecraft-position"])
    assert (uncovered.status_code, "does not cover" in uncovered.text) == (400, True)
    beyond = read_count(http, name, http.get(f"{path}/1").headers["x-vecraft-position"] + "zz")
    assert (beyond.status_code, "beyond the end" in beyond.text) == (400, True)
    for params, headers in (({"as_of": ""}, {}), ({}, {"X-Vecraft-As-Of": ""}), ({"as_of": "-1s"}, {"X-Vecraft-As-Of": "-2s"})):
        assert http.post(f"{path}/count", json={}, params=params, headers=headers).status_code == 400
    refused = http.put(path, json={"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}, params={"as_of": "-1s"})
    assert refused.status_code == 400
    assert "does not read the past" in refusal(refused)
    shown_now = http.get("/aliases", params={"as_of": "-1s"})
    assert (shown_now.status_code, "shows the present only" in refusal(shown_now)) == (400, True)
    assert http.get(f"/collections/{name}/cluster", params={"as_of": "-1s"}).status_code == 400


def test_what_is_not_kept_is_gone(http: httpx.Client, name: str) -> None:
    result(http.patch(f"/collections/{name}", json={"history_retention_s": 0}))
    upsert_plain(http, name, 1)
    between = later()
    upsert_plain(http, name, 1)
    answer = read_count(http, name, between)
    assert answer.status_code == 410
    assert "the retention is 0 s" in answer.text


def later() -> str:
    """The stamp of this moment; returns when the next writes get later ones."""
    now_ms = int(time.time() * 1000)
    while time.time() * 1000 < now_ms + 2:
        pass
    return str(stamp_at(now_ms, 65535))
