"""The compose files: what can be seen without Docker, and, where there is Docker, that what they bring up survives a kill."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from confluent_kafka import Producer

from tests.conftest import result
from tests.infra.compose import REPO, Compose, services, variables
from tests.infra.prometheus_server import wait_until
from vecraft.settings import Settings, load_settings

FILES = ("docker-compose.yml", "docker-compose.three-brokers.yml")
DOCKERFILE = REPO / "infra/docker/Dockerfile"
READY_S, WRITE_S = 120, 60

each_file = pytest.mark.parametrize("file", FILES)


def nodes(file: str) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services(file).items() if "VECRAFT_NODE" in service.get("environment", {})}


def set_by_image() -> dict[str, str]:
    return dict(re.findall(r"(VECRAFT_\w+)=(\S+)", re.search(r"^ENV .*$", DOCKERFILE.read_text(), re.M)[0]))


@each_file
def test_the_nodes_settings_are_settings(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable would be passed over in silence, so the names are held against the table."""
    for name, node in nodes(file).items():
        given = set_by_image() | node["environment"]
        for variable, value in given.items():
            assert variable.removeprefix("VECRAFT_").lower() in Settings.model_fields, f"{name}: {variable}"
            monkeypatch.setenv(variable, str(value))
        settings = load_settings({})
        assert (settings.node, settings.journal) == (name, "kafka")
        assert {broker.partition(":")[0] for broker in settings.bootstrap_servers.split(",")} == set(node["depends_on"])


@each_file
def test_what_is_mounted_exists_and_what_is_kept_is_declared(file: str) -> None:
    declared = yaml.safe_load((REPO / file).read_text())["volumes"]
    used = [volume.split(":")[0] for service in services(file).values() for volume in service.get("volumes", [])]
    assert [source for source in used if source.startswith("/") and not Path(source).exists()] == []
    assert {source for source in used if not source.startswith("/")} == set(declared)


@each_file
def test_every_port_is_open_to_this_machine_only_and_can_be_moved(file: str) -> None:
    ports = [port for service in services(file).values() for port in service.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports), ports
    published = [port.split(":")[1] for port in ports]
    assert len(set(published)) == len(published)
    assert set(published) == set(variables(file).values())


@each_file
def test_every_image_is_pinned(file: str) -> None:
    images = {service["image"] for service in services(file).values()} | set(re.findall(r"FROM (\S+)", DOCKERFILE.read_text()))
    assert all(":" in image and not image.endswith((":latest", ":main")) for image in images), images


@each_file
def test_one_plain_up_brings_everything(file: str) -> None:
    profiles = re.search(r"^COMPOSE_PROFILES=(.+)$", (REPO / ".env").read_text(), re.M)[1].split(",")
    assert {profile for service in services(file).values() for profile in service["profiles"]} == set(profiles)


@each_file
def test_prometheus_scrapes_every_node(file: str) -> None:
    config = yaml.safe_load((REPO / "infra/prometheus/prometheus.yml").read_text())
    targets = {target for job in config["scrape_configs"] for static in job["static_configs"] for target in static["targets"]}
    assert targets == {f"{name}:6333" for name in nodes(file)}


@each_file
def test_grafana_finds_its_dashboards_and_their_source(file: str) -> None:
    grafana = REPO / "infra/grafana"
    [provider] = yaml.safe_load((grafana / "provisioning/dashboards/vecraft.yml").read_text())["providers"]
    [source] = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    service = services(file)["grafana"]
    assert f"{grafana / 'dashboards'}:{provider['options']['path']}:ro" in service["volumes"]
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(provider["options"]["path"])
    dashboard = json.loads((grafana / "dashboards" / home.name).read_text())
    assert dashboard["templating"]["list"][0]["current"]["value"] == source["uid"]
    assert source["url"] == "http://prometheus:9090"


class Session:
    """A client of two nodes that remembers what was acknowledged."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._clients = {name: httpx.Client(base_url=compose.url(name), timeout=30) for name in ("left", "right")}
        self.written: dict[int, int] = {}

    def wait_ready(self, name: str) -> None:
        def ready() -> bool:
            try:
                return self._clients[name].get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        assert wait_until(ready, READY_S), f"{name} is not ready: {self._compose.log(name)}"

    def create(self) -> None:
        result(self._clients["left"].put("/collections/c", json={"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 2}))

    def write(self, name: str, count: int) -> None:
        """New points, one by one. An indefinite answer is asked again under the same key, as the README says."""
        for _ in range(count):
            number = len(self.written)
            body = {"points": [{"id": number, "vector": [number, 1, 1, 1], "payload": {"n": number}}]}
            headers = {"Idempotency-Key": uuid4().hex}

            def acknowledged(name: str = name, body: Any = body, headers: Any = headers) -> bool:
                answer = self._clients[name].put("/collections/c/points?wait=true", json=body, headers=headers)
                assert answer.status_code in (200, 503, 504), answer.text
                return answer.status_code == 200

            assert wait_until(acknowledged, WRITE_S), f"{name} takes no writes"
            self.written[number] = number

    def produce(self, bootstrap: str) -> None:
        """A new point, as a producer on this machine writes it to the ingest topic."""
        number = len(self.written)
        body = {"collection": "c", "id": number, "vector": [number, 1, 1, 1], "payload": {"n": number}}
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce("vecraft.ingest", json.dumps(body))
        assert producer.flush(WRITE_S) == 0
        self.written[number] = number

    def read(self, name: str) -> dict[int, int]:
        """All points, by a strong read of exactly what was written, and one more that was not."""
        ids = [*self.written, len(self.written)]
        found = result(self._clients[name].post("/collections/c/points?consistency=strong", json={"ids": ids}))
        return {point["id"]: point["payload"]["n"] for point in found}


@pytest.fixture
def project() -> str:
    return f"vecraft-test-{uuid4().hex[:8]}"


@pytest.mark.slow
@pytest.mark.kafka
def test_either_node_may_be_killed(project: str) -> None:
    """I2, I9: the other one goes on, and the killed one comes back with everything."""
    with Compose("docker-compose.yml", project) as compose:
        session = Session(compose)
        session.wait_ready("left")
        session.wait_ready("right")
        session.create()
        session.write("left", 50)
        assert session.read("right") == session.written
        session.produce(compose.kafka)
        assert wait_until(lambda: session.read("left") == session.written, WRITE_S), "what was produced here did not arrive"
        for dead, alive in (("left", "right"), ("right", "left")):
            compose.kill(dead)
            session.write(alive, 50)
            compose.start(dead)
            session.wait_ready(dead)
            assert session.read(dead) == session.written


@pytest.mark.slow
@pytest.mark.kafka
def test_one_of_three_brokers_may_be_killed(project: str) -> None:
    """I2: what was acknowledged is on two brokers at least; writes go on, and all is there when the broker is back."""
    with Compose("docker-compose.three-brokers.yml", project) as compose:
        session = Session(compose)
        session.wait_ready("left")
        session.wait_ready("right")
        session.create()
        session.write("left", 50)
        for broker in ("kafka1", "kafka2"):
            compose.kill(broker)
            session.write("left", 25)
            session.write("right", 25)
            assert session.read("left") == session.read("right") == session.written
            compose.start(broker)
            compose.wait_healthy(broker)
        assert session.read("left") == session.read("right") == session.written
