"""Each producer in infra/examples, run as its README says, with a real broker, node and registry; and the registry's faults."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import fastavro
import httpx
import pytest
from confluent_kafka import Producer

from journal.topics import INGEST_PARTITIONS
from tests.conftest import result, start_node
from tests.infra.debian import variables_or_skip
from tests.infra.prometheus_server import wait_until
from tests.infra.registry_server import RegistryServer
from tests.kafka_server import REPO, KafkaServer, fetch_jars, kafka_or_skip, why_not_java

pytestmark = pytest.mark.kafka

EXAMPLES = REPO / "infra/examples"
README = (EXAMPLES / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"^```\n(.*?)^```", README, re.M | re.S) for line in block.splitlines()]
RUN_TIMEOUT_S, INGESTED_S, RETRIED_S = 90, 30, 60
LAG = re.compile(r"^vecraft_ingest_lag_records\{.*} (\S+)$", re.M)
SCHEMA = {"type": "record", "name": "Point", "fields": [{"name": "vector", "type": {"type": "array", "items": "float"}}]}

QUIET, LOUD = (0.1, 0.9, 0.2, 0.0), (0.9, 0.1, 0.0, 0.3)
LEFT_BY = {
    "kcat.sh": {
        1: (QUIET, {"title": "Gymnopédie No. 1", "year": 1888}),
        2: (LOUD, {"title": "The Rite of Spring", "year": 1913}),
    },
    "producer.py": {11: (QUIET, {"title": "Clair de lune", "year": 1905}), 12: (LOUD, {"title": "Boléro", "year": 1928})},
    "producer_registry.py": {
        21: (QUIET, {"title": "Spiegel im Spiegel", "year": 1978}),
        22: (LOUD, {"title": "Music for 18 Musicians", "year": 1976}),
    },
    "Producer.java": {
        31: (QUIET, {"title": "Blue in Green", "year": 1959}),
        32: (LOUD, {"title": "A Love Supreme", "year": 1965}),
    },
}
"""The points that each example leaves behind."""

each_command = pytest.mark.parametrize("command", COMMANDS)


class Site(NamedTuple):
    """A running node with what it works on."""

    client: httpx.Client
    registry: RegistryServer
    bootstrap: str
    prefix: str

    def wait_ingested(self) -> None:
        """Returns once everything is written that the ingest topic holds; strong reads see it from then on."""
        assert wait_until(lambda: self.waiting() == 0, INGESTED_S), f"{self.waiting()} records wait"

    def waiting(self) -> float:
        """How many records of the ingest topic are not written yet."""
        lags = LAG.findall(self.client.get("/metrics").text)
        return sum(map(float, lags)) if len(lags) == INGEST_PARTITIONS else float("inf")

    def points(self, collection: str) -> dict[int | str, tuple[tuple[float, ...], dict[str, Any]]]:
        asked = {"limit": 100, "with_vector": True}
        found = result(self.client.post(f"/collections/{collection}/points/scroll?consistency=strong", json=asked))["points"]
        return {point["id"]: (rounded(point["vector"]), point["payload"]) for point in found}

    def letters(self, collection: str) -> list[dict[str, Any]]:
        answer = self.client.get(f"/v1/admin/collections/{collection}/dlq").raise_for_status().json()
        return answer["result"]["dead_letters"]

    def send(self, collection: str, body: bytes, key: str = "1", **headers: bytes) -> None:
        """One record, acknowledged."""
        failures = []
        producer = Producer({"bootstrap.servers": self.bootstrap})
        named = {"vecraft-collection": collection.encode(), **headers}
        producer.produce(f"{self.prefix}.ingest", body, key, headers=named, on_delivery=lambda error, _: failures.append(error))
        assert producer.flush(INGESTED_S) == 0
        assert failures == [None]


def rounded(vector: list[float]) -> tuple[float, ...]:
    return tuple(round(number, 6) for number in vector)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    server = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(kafka: KafkaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    prefix = f"t{uuid4().hex[:8]}"
    with RegistryServer() as registry:
        node, thread = start_node(
            tmp_path_factory.mktemp("node"),
            journal="kafka",
            bootstrap_servers=kafka.bootstrap,
            topic_prefix=prefix,
            schema_registry_url=registry.url,
        )
        with httpx.Client(base_url=node.url, timeout=30) as client:
            yield Site(client, registry, kafka.bootstrap, prefix)
        node.stop()
        thread.join(15)


@pytest.fixture
def songs(site: Site) -> str:
    """A collection of its own for a test."""
    name = f"songs-{uuid4().hex[:8]}"
    result(site.client.put(f"/collections/{name}", json={"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 2}))
    return name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples where they may have a `lib`, beside the schemas as ever."""
    root = tmp_path_factory.mktemp("examples")
    shutil.copytree(REPO / "schemas", root / "schemas")
    shutil.copytree(EXAMPLES, root / "infra/examples")
    return root / "infra/examples"


def needs_or_skip(command: str, folder: Path) -> dict[str, str]:
    """What a command needs, as the README says; the variables that lead to it."""
    program = shlex.split(command)[0]
    if program == "java":
        if reason := why_not_java():
            pytest.skip(f"no Java client: {reason}")
        if not (folder / "lib").exists():
            (folder / "lib").symlink_to(fetch_jars())
    if program == "./kcat.sh":
        return variables_or_skip("kcat", "-V", libraries=("librdkafka1", "libyajl2"))
    if program == "python":
        return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return {}


def run(command: str, folder: Path, site: Site, collection: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of the README in the folder of the examples."""
    environment = {
        "VECRAFT_BOOTSTRAP_SERVERS": site.bootstrap,
        "VECRAFT_TOPIC_PREFIX": site.prefix,
        "VECRAFT_COLLECTION": collection,
        "VECRAFT_SCHEMA_REGISTRY_URL": site.registry.url,
    }
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=os.environ | needs_or_skip(command, folder) | environment | variables,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


def example_of(command: str) -> str:
    (name,) = [name for name in LEFT_BY if name in command]
    return name


def test_the_readme_tells_how_to_run_every_example() -> None:
    others = {"README.md", "__pycache__", "follower.py"}  # a follower of changes is no producer: docs/changes.md
    files = {path.name for path in EXAMPLES.iterdir()} - others
    assert {example_of(command) for command in COMMANDS} == files == set(LEFT_BY)


@each_command
def test_an_example_leaves_its_points(command: str, site: Site, folder: Path, songs: str) -> None:
    done = run(command, folder, site, songs)
    assert done.returncode == 0, done.stdout + done.stderr
    site.wait_ingested()
    assert site.points(songs) == LEFT_BY[example_of(command)]
    assert site.letters(songs) == []


def test_what_carries_the_same_idempotency_key_is_not_applied_again(site: Site, folder: Path, songs: str) -> None:
    run("python producer.py", folder, site, songs)
    site.wait_ingested()
    result(site.client.post(f"/collections/{songs}/points/payload?wait=true", json={"payload": {"year": 0}, "points": [11]}))
    run("python producer.py", folder, site, songs)
    site.wait_ingested()
    assert site.points(songs)[11] == (QUIET, {"title": "Clair de lune", "year": 0})


def test_every_example_fails_where_no_broker_takes_its_records(site: Site, folder: Path, songs: str) -> None:
    """All at once, since each tries for a while."""
    runnable = []
    for command in COMMANDS:
        with contextlib.suppress(pytest.skip.Exception):  # of which the test above tells
            needs_or_skip(command, folder)
            runnable.append(command)
    with ThreadPoolExecutor(len(COMMANDS)) as pool:
        ends = pool.map(lambda command: run(command, folder, site, songs, VECRAFT_BOOTSTRAP_SERVERS="127.0.0.1:1"), runnable)
    assert [done.args for done in ends if done.returncode == 0] == []


@pytest.mark.parametrize(
    ("schema_id", "reason"),
    [
        (b"\x00\x00\x00\x03\xe7", "schema 999 is not in the schema registry"),
        (b"\x01" + bytes(15) + b"\x07", "schema 00000000-0000-0000-0000-000000000007 is not in the schema registry"),
    ],
    ids=["number", "GUID"],
)
@pytest.mark.parametrize("in_header", [False, True], ids=["before the body", "in a header"])
def test_an_unknown_schema_is_a_dead_letter(site: Site, songs: str, schema_id: bytes, reason: str, in_header: bool) -> None:
    """I6: the reason names the schema, and the record can still be seen."""
    if in_header:
        site.send(songs, b"body", "a key", __value_schema_id=schema_id)
    else:
        site.send(songs, schema_id + b"body", "a key")
    site.wait_ingested()
    assert wait_until(lambda: len(site.letters(songs)) == 1, INGESTED_S)
    (letter,) = site.letters(songs)
    assert (letter["reason"], letter["topic"]) == (reason, f"{site.prefix}.ingest")
    shown = result(site.client.get(f"/v1/admin/dlq/{letter['number']}"))
    assert (shown["key"], shown["decoded"]) == ("a key", None)


def fails(registry: RegistryServer) -> None:
    registry.failing = True


def is_down(registry: RegistryServer) -> None:
    registry.stop()


def works(registry: RegistryServer) -> None:
    registry.failing = False
    registry.stop()
    registry.start()


@pytest.mark.parametrize("fault", [fails, is_down])
def test_a_record_waits_for_the_registry(
    site: Site, songs: str, fault: Callable[[RegistryServer], None], caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be looked up may be right, so it is no dead letter; and what comes after it in its partition waits too."""
    schema = json.dumps(SCHEMA | {"doc": songs})  # one that the node has not met
    schema_id = httpx.post(f"{site.registry.url}/subjects/any/versions", json={"schema": schema}).json()["id"]
    body = io.BytesIO()
    fastavro.schemaless_writer(body, SCHEMA, {"vector": QUIET})
    fault(site.registry)
    try:
        with caplog.at_level(logging.WARNING, "replayer.ingest"):
            site.send(songs, b"\0" + schema_id.to_bytes(4, "big") + body.getvalue())
            site.send(songs, json.dumps({"op": "patch", "payload": {"order": "kept"}}).encode())
            said = "ingest stopped, trying again"
            assert wait_until(lambda: site.waiting() == 2 and said in caplog.text, RETRIED_S), caplog.text
        assert "schema registry" in caplog.text
        assert (site.points(songs), site.letters(songs)) == ({}, [])
    finally:
        works(site.registry)
    assert wait_until(lambda: site.waiting() == 0, RETRIED_S)
    assert (site.points(songs), site.letters(songs)) == ({1: (QUIET, {"order": "kept"})}, [])
