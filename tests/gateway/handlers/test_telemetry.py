"""What a node tells about itself in the dialect's forms is true: telemetry, metrics, quotas, builds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from catalog.collection import Collection, CollectionConfig
from gateway.dialect.builds import builds_of
from gateway.durations import BUCKETS_S, LATEST, Answered, AnswerTimes
from shard.vectors.index import BuildInfo, SegmentInfo, SegmentList
from tests.conftest import START_S, result, start_node
from vecraft.node import Node

SEARCH = "/collections/{collection_name}/points/search"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With two collections, of which one was searched three times, twice in vain."""
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    with httpx.Client(base_url=node.url, timeout=30) as http:
        for name in ("secret", "other"):
            result(
                http.put(f"/collections/{name}", json={"vectors": {"hidden": {"size": 2, "distance": "Dot"}}, "shard_number": 2})
            )
        points = [{"id": n, "vector": {"hidden": [n, 1]} if n else {}} for n in range(5)]
        result(http.put("/collections/secret/points?wait=true", json={"points": points}))
        alias = {"create_alias": {"collection_name": "secret", "alias_name": "known"}}
        result(http.post("/collections/aliases", json={"actions": [alias]}))
        result(http.post("/collections/known/points/search", json={"vector": {"name": "hidden", "vector": [1, 2]}, "limit": 1}))
        for name in ("secret", "nowhere"):
            http.post(f"/collections/{name}/points/search", json={"vector": {"name": "nope", "vector": [1, 2]}, "limit": 1})
    yield node
    node.stop()
    thread.join(START_S)


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as client:
        yield client


def telemetry(http: httpx.Client, query: str) -> Any:
    return result(http.get(f"/telemetry?{query}"))


def test_each_level_tells_more(http: httpx.Client) -> None:
    plain, short, whole, shards = (telemetry(http, f"details_level={level}") for level in (0, 1, 2, 3))
    assert plain["collections"] == {"number_of_collections": 2}
    assert not {"requests", "memory"} & plain.keys()
    assert sorted(one["vectors"] for one in short["collections"]["collections"]) == [0, 4]
    (secret,) = (one for one in whole["collections"]["collections"] if one["id"] == "secret")
    assert secret["config"]["params"]["vectors"]["hidden"]["size"] == 2
    assert "shards" not in secret
    for level in (3, 10):
        (secret,) = (
            one for one in telemetry(http, f"details_level={level}")["collections"]["collections"] if one["id"] == "secret"
        )
        local = [shard["local"] for shard in secret["shards"]]
        assert (sum(one["num_points"] for one in local), sum(one["num_vectors_by_name"]["hidden"] for one in local)) == (5, 4)
    assert shards["memory"]["resident_bytes"] > shards["memory"]["allocated_bytes"] > 0
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(shards["app"]["startup"]) < timedelta(hours=1)


def test_answers_are_counted_by_route_status_and_collection(http: httpx.Client) -> None:
    requests = telemetry(http, "details_level=1&per_collection=true")["requests"]["rest"]
    searches = requests["responses"][f"POST {SEARCH}"]
    assert {status: one["count"] for status, one in searches.items()} == {"200": 1, "400": 1, "404": 1}
    assert {name: set(of[f"POST {SEARCH}"]) for name, of in requests["per_collection_responses"].items() if name == "secret"} == {
        "secret": {"200", "400"}
    }
    one = searches["200"]
    assert 0 < one["min_duration_micros"] == one["max_duration_micros"] == pytest.approx(one["avg_duration_micros"])
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(one["last_responded"]) < timedelta(hours=1)
    assert "per_collection_responses" not in telemetry(http, "details_level=1")["requests"]["rest"]


@pytest.mark.parametrize("path", ["/telemetry?details_level=10&per_collection=true", "/metrics?per_collection=true"])
def test_what_is_anonymous_has_no_names(http: httpx.Client, path: str) -> None:
    assert not any(name in http.get(f"{path}&anonymize=true").text for name in ("secret", "hidden"))
    assert all(name in http.get(path).text for name in ("secret", "hidden"))


def test_dashboards_of_the_dialect_find_their_metrics(http: httpx.Client) -> None:
    def read(query: str = "") -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(http.get(f"/metrics{query}").text)
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    page = read()
    assert page["app_info", "vecraft", "0.1.0"] == 1
    assert (page["collections_total",], page["collections_vector_total",]) == (2, 4)
    assert (page["collection_points", "secret"], page["collection_vectors", "secret", "hidden"]) == (5, 4)
    assert page["collection_update_queue_length", "secret"] == 0
    assert page["rest_responses_total", "POST", SEARCH, "200"] == 1
    assert page["rest_responses_fail_total", "POST", SEARCH, "404"] == 1
    assert page["rest_responses_duration_seconds_count", "POST", SEARCH, "400"] == 1
    assert page["rest_responses_duration_seconds_bucket", "POST", SEARCH, "400", "+Inf"] == 1
    of_any_status = page["vecraft_request_seconds_count", "POST", SEARCH]
    assert of_any_status == page["vecraft_request_seconds_bucket", "POST", SEARCH, "+Inf"] == 3
    assert page["memory_resident_bytes",] > page["memory_allocated_bytes",] > 0
    apart = read("?per_collection=true")
    assert apart["rest_responses_total", "POST", SEARCH, "200", "secret"] == 1
    assert ("rest_responses_total", "POST", SEARCH, "200") not in apart


def test_the_quota_is_the_memory_budget(node: Node, http: httpx.Client) -> None:
    told: Any = result(http.get("/quotas"))
    assert told["config"]["max_resident_memory_percent"] == 80
    assert 0 <= told["usage"]["resident_memory_percent"] < 80
    assert 0 < told["usage"]["disk_usage_percent"] <= 100
    refused = http.put("/quotas", json={"enabled": False})
    assert (refused.status_code, "--memory-budget-mb" in refused.text) == (501, True)


def test_segments_of_a_collection_are_told(http: httpx.Client) -> None:
    told: Any = result(http.get("/collections/secret/optimizations?with=idle_segments,queued,completed"))
    assert (told["queued"], told["completed"], told["running"]) == ([], [], [])
    assert sum(one["points_count"] for one in told["idle_segments"]) == 4
    assert told["summary"]["idle_segments"] == len(told["idle_segments"]) == 2
    assert "idle_segments" not in result(http.get("/collections/secret/optimizations"))  # type: ignore[operator]
    refused = http.get("/collections/secret/optimizations?with=some")
    assert (refused.status_code, "queued, completed, idle_segments" in refused.text) == (400, True)


def test_builds_in_the_form_of_the_dialect() -> None:
    waits, built, grows = SegmentInfo("a", 20, True), SegmentInfo("b", 30, True), SegmentInfo("c", 5)
    done = [BuildInfo("d", [SegmentInfo("e", 7)]), BuildInfo("f", [SegmentInfo("g", 8)])]
    collection = Collection("c", 1, CollectionConfig(), [])
    told = builds_of(collection, 0, "v", SegmentList([waits, built, grows], BuildInfo("", [built]), done))
    assert [one["points_count"] for one in told.queued] == [20]
    assert [one["points_count"] for one in told.idle] == [5]
    assert [(one["status"], one["progress"]["total"]) for one in told.running] == [("optimizing", 30)]
    assert [one["segments"][0]["points_count"] for one in told.done] == [8, 7], "the latest is first"
    later = builds_of(collection, 0, "v", SegmentList([SegmentInfo("f", 8)]))
    assert later.idle[0]["uuid"] == told.done[0]["uuid"], "a build has the identity of the segment that it made"


def test_durations_are_counted_in_buckets() -> None:
    times, kind = AnswerTimes(lambda: 7.0), Answered("GET", "/", 200)
    for seconds in (0.0002, 0.0005, 0.001, 100):
        times.add(kind, seconds, "c")
    one = times.all()[kind]
    assert (one.count, one.shortest_s, one.longest_s, one.last_s) == (4, 0.0002, 100, 7)
    assert (one.counts[0], one.counts[1], one.counts[-1]) == (2, 1, 1)
    assert len(one.counts) == len(BUCKETS_S) + 1
    for _ in range(20 * LATEST):
        times.add(kind, 1, None)
    assert one.mean_s == pytest.approx(1, abs=0.01), "the latest count"
    assert times.of_collections(["c"])["c"][kind].count == 4
    assert times.of_collections([]) == {} == times.of_collections(["c"]), "what a collection that is gone had is forgotten"
