"""Every query of the dashboard, and every rule, against a real Prometheus that scrapes a real node on Kafka."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from confluent_kafka import Producer

from tests.conftest import result, start_node
from tests.infra.prometheus_server import CONFIG, REPO, Prometheus, program_or_skip, promtool, wait_until
from tests.kafka_server import KafkaServer, kafka_or_skip

DASHBOARD = json.loads((REPO / "infra/grafana/dashboards/journal-and-lag.json").read_text())
ANSWER_S = 20
"""Within this time every query must find something: some thirty scrapes."""
STAND_INS = {"$__rate_interval": "5s", "$instance": ".*", "$collection": ".*"}
TIERS = range(4)


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Each query of each panel as Grafana would send it, and what the variables are listed from."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            found[f"variable {variable['name']}"] = f'{metric}{{{label}!=""}}'
    return {name: _as_sent(expression) for name, expression in found.items()}


def _as_sent(expression: str) -> str:
    for variable, value in STAND_INS.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"a variable that this test does not know: {expression}"
    return expression


def test_prometheus_accepts_the_configuration() -> None:
    promtool("check", "config", CONFIG / "prometheus.yml")
    promtool("check", "rules", CONFIG / "rules.yml")


def test_each_alert_fires_when_it_should() -> None:
    promtool("test", "rules", Path(__file__).parent / "rules_test.yml")


def test_each_alert_is_tested_to_fire_and_has_an_instruction() -> None:
    rules = yaml.safe_load((CONFIG / "rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load((Path(__file__).parent / "rules_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts, "and not to fire"
    rows = re.findall(r"^\| (Vecraft[\w, ]+) \| .+ \|$", (REPO / "docs/operations.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in row.split(", ")} == alerts


def test_the_panels_do_not_overlap() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        rows, columns = range(place["y"], place["y"] + place["h"]), range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(rows, columns))
        assert not cells & taken, panel["title"]
        assert columns.stop <= 24, panel["title"]
        taken |= cells


class Activity:
    """Writes, searches, ingest and poison, so that every series of a node has something to say."""

    def __init__(self, client: httpx.Client, bootstrap: str) -> None:
        self._client = client
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self.address = client.base_url.netloc.decode()
        result(client.put("/collections/songs", json={"vectors": {"size": 4, "distance": "Dot"}}))

    def step(self) -> None:
        """A write in each tier, a search, and two records for the ingest topic, of which one cannot be applied."""
        for tier in TIERS:
            body = {"points": [{"id": tier, "vector": [tier, 1, 2, 3]}]}
            result(self._client.put("/collections/songs/points?wait=true", json=body, headers={"X-Vecraft-Tier": str(tier)}))
        result(self._client.post("/collections/songs/points/search", json={"vector": [1, 2, 3, 4], "limit": 1}))
        for vector in ([1, 2, 3, 4], [1, 2]):
            self._producer.produce("vecraft.ingest", json.dumps({"collection": "songs", "id": 9, "vector": vector}))
        assert self._producer.flush(ANSWER_S) == 0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    program_or_skip("prometheus")
    server = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def activity(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Activity]:
    """Of a running node that keeps few dead letters, and those for a second."""
    settings = {"bootstrap_servers": kafka.bootstrap, "dead_letters_max": 1, "dead_letters_days": 1e-5}
    node, thread = start_node(tmp_path_factory.mktemp("node"), journal="kafka", **settings)
    with httpx.Client(base_url=node.url, timeout=30) as client:
        yield Activity(client, kafka.bootstrap)
    node.stop()
    thread.join(15)


@pytest.fixture(scope="module")
def prometheus(activity: Activity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), [activity.address]) as server:
        yield server


@pytest.mark.kafka
def test_every_query_of_the_dashboard_finds_data_and_every_rule_can_be_evaluated(
    prometheus: Prometheus, activity: Activity
) -> None:
    missing = queries()

    def all_found() -> bool:
        activity.step()
        for name in [name for name, expression in missing.items() if _finds(prometheus, expression)]:
            del missing[name]
        return not missing

    assert wait_until(all_found, ANSWER_S), missing
    assert wait_until(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()), ANSWER_S)
    assert [rule["lastError"] for rule in prometheus.rules() if rule["health"] != "ok"] == []
    recorded = [rule["name"] for rule in prometheus.rules() if rule["type"] == "recording"]
    assert wait_until(lambda: all(_finds(prometheus, name) for name in recorded), ANSWER_S), recorded


def _finds(prometheus: Prometheus, expression: str) -> bool:
    """NaN is no data: it is what a rate of nothing leads to."""
    values = [float(series["value"][1]) for series in prometheus.query(expression)]
    return bool(values) and not any(math.isnan(value) for value in values)
