"""The metrics page: documented, bounded whatever names come from outside, and as Prometheus reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.http import metrics
from gateway.http import series as bounded
from gateway.http.routes import ROUTES
from gateway.http.series import OTHER
from journal import statistics
from journal.log import TopicPartition
from tests.conftest import result, start_node, until
from tests.kafka_server import KafkaServer
from vecraft.node import Node

REPO = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|([^|]*)\| (.+) \|$", re.MULTILINE)
WAIT_S = 30
COLLECTIONS = [f"c{number}" for number in range(5)]
STRANGERS = [f"stranger{number}" for number in range(40)]
MOST = 3
LETTERS = 'vecraft_dlq_size{collection=""}'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Of five collections, with dead letters of collections that producers have invented."""
    place = tmp_path_factory.mktemp("place").as_uri()
    node, thread = start_node(tmp_path_factory.mktemp("node"), snapshot_url=place)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        fill(node, http)
        for name in STRANGERS:
            letter = json.dumps({"collection": name, "id": 1, "vector": [1, 2]}).encode()
            node._services.node.journal.append(TopicPartition("vecraft.ingest", 0), letter).result(WAIT_S)
        until(lambda: f"{LETTERS} {len(STRANGERS)}.0" in http.get("/metrics").text, WAIT_S)
    yield node
    node.stop()
    thread.join(15)


def fill(node: Node, http: httpx.Client) -> None:
    """Some of all that a client can name: collections, points, paths."""
    for name in COLLECTIONS:
        result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}}))
        result(http.put(f"/collections/{name}/points?wait=true", json={"points": [{"id": 1, "vector": [1, 2]}]}))
    for path in STRANGERS:
        assert http.get(f"/{path}").status_code == http.get(f"/collections/{path}").status_code == 404


def families(text: str) -> dict[str, Metric]:
    """The metrics of a page by the name that the page documents."""
    found = text_string_to_metric_families(text)
    return {metric.name + ("_total" if metric.type == "counter" else ""): metric for metric in found}


def series(metric: Metric) -> list[tuple[str, ...]]:
    """The label values of each series; of a histogram once, without its buckets."""
    return sorted({tuple(value for label, value in sample.labels.items() if label != "le") for sample in metric.samples})


def exposed(node: Node) -> dict[str, Metric]:
    return families(metrics.exposition(node._services).decode())


def documented(kafka: bool) -> dict[str, tuple[str, list[str]]]:
    """Type and labels of each metric of the page that a node has on Kafka, or embedded."""
    rows = ROW.findall((REPO / "docs/metrics.md").read_text())
    assert len({name for name, *_ in rows}) == len(rows) > 50
    assert all(meaning for *_, meaning in rows)
    found = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, _, _ in rows}
    return {name: row for name, row in found.items() if kafka or not name.startswith("vecraft_kafka_")}


def compare(page: dict[str, Metric], kafka: bool) -> None:
    wanted = documented(kafka)
    assert page.keys() == wanted.keys()
    for name, (kind, labels) in wanted.items():
        assert page[name].type == kind, name
        assert page[name].documentation, name
        for sample in page[name].samples:
            assert sorted(sample.labels.keys() - {"le"}) == sorted(labels), name


def test_the_documented_metrics_are_those_of_a_node(node: Node) -> None:
    compare(exposed(node), kafka=False)


def test_every_metric_has_a_bound_whatever_names_come_from_outside(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = exposed(node)
    assert len(series(unbounded["vecraft_points"])) == len(COLLECTIONS)
    monkeypatch.setattr(bounded, "MAX_SERIES", MOST)
    page = exposed(node)
    for name, metric in page.items():
        values = {value for of_series in series(metric) for value in of_series}
        assert not values & {*STRANGERS}, name
        if metric.type != "histogram":
            assert len(series(metric)) <= MOST + 1, name
    routes = {route.path for route in ROUTES}
    assert {route for _, route in series(page["vecraft_request_seconds"])} <= routes
    assert len(series(page["vecraft_append_seconds"])) == 4
    assert (OTHER,) in series(page["vecraft_points"])
    assert (OTHER,) * 4 in series(page["vecraft_shard_lag_records"])
    for name in ("vecraft_points", "vecraft_dlq_size", "vecraft_applied_offset"):
        assert total(page[name]) == total(unbounded[name]), "the rest is summed"


def total(metric: Metric) -> float:
    return sum(sample.value for sample in metric.samples)


def test_a_page_is_what_the_library_would_write() -> None:
    gauge = GaugeMetricFamily("vecraft_a", "Of a name that needs escaping.", labels=["collection", "shard"])
    gauge.add_metric(['a"b\\c\nd, {e="f"}', "0"], 1.5)
    gauge.add_metric(["ü", "1"], 12345678901234567890)
    counter = CounterMetricFamily("vecraft_b", "Without labels.", 3)
    registry = CollectorRegistry()
    registry.register(type("Given", (), {"collect": lambda self: [gauge, counter]})())
    ours = "".join(line for metric in (gauge, counter) for line in metrics._lines(metric))
    assert families(ours) == families(generate_latest(registry).decode())


def test_numbers_of_the_process_and_of_rocksdb_are_there(node: Node) -> None:
    page = exposed(node)
    for name in ("process_resident_memory_bytes", "process_open_fds", "vecraft_memory_budget_bytes", "vecraft_disk_free_bytes"):
        assert total(page[name]) > 0, name
    assert total(page["vecraft_memory_used_bytes"]) < total(page["process_resident_memory_bytes"])
    memtables = {sample.labels["db"]: sample.value for sample in page["vecraft_rocksdb_memtable_bytes"].samples}
    assert memtables.keys() == {"journal", "state"}
    assert all(memtables.values())
    assert {state: value for (state,), value in values(page["vecraft_health"]).items()} == dict.fromkeys(
        ("replay", "ingest", "journal", "disk", "memory", "clock", "shards"), 0
    )


def values(metric: Metric) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for sample in metric.samples}


def test_the_oldest_dead_letter_has_an_age(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, day_ms = node._services.node.clock, 24 * 3600 * 1000
    now = clock._physical
    monkeypatch.setattr(clock, "_physical", lambda: now() + day_ms)
    assert day_ms <= 1000 * total(exposed(node)["vecraft_dlq_oldest_age_seconds"]) < 2 * day_ms


def test_a_closed_database_has_no_numbers() -> None:
    """A shard may be closed while its numbers are asked for."""

    def closed(_: str) -> int:
        raise RuntimeError("DB instance already closed")

    numbers = statistics.of_rocksdb([closed, {"rocksdb.num-files-at-level0": 2}.get])
    assert numbers["rocksdb_level0_files"] == 2
    assert sum(numbers.values()) == 2


@pytest.fixture
def on_kafka(kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node whose Kafka clients give their numbers often."""
    monkeypatch.setattr(statistics, "KAFKA_EVERY_MS", 200)
    place = (tmp_path / "place").as_uri()
    node, thread = start_node(tmp_path / "data", journal="kafka", bootstrap_servers=kafka.bootstrap, snapshot_url=place)
    yield node
    node.stop()
    thread.join(15)


@pytest.mark.kafka
def test_a_node_on_kafka_has_the_numbers_of_its_clients(on_kafka: Node) -> None:
    with httpx.Client(base_url=on_kafka.url, timeout=30) as http:
        fill(on_kafka, http)

        def complete() -> bool:
            page = families(http.get("/metrics").text)
            brokers = values(page["vecraft_kafka_brokers_up"]) if "vecraft_kafka_brokers_up" in page else {}
            return brokers == {("producer",): 1, ("reader",): 1} and total(page["vecraft_kafka_round_trip_seconds"]) > 0

        until(complete, WAIT_S)
    page = exposed(on_kafka)
    compare(page, kafka=True)
    assert values(page["vecraft_health"])["journal",] == 0
