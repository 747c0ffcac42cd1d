"""What several tests need: a running node, and clients of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from gateway.dialect import configs
from gateway.reads import MakeReplica, local_replica
from shard.ranking import execution
from tests.kafka_server import KafkaServer, kafka_or_skip
from vecraft.node import Node
from vecraft.settings import load_settings

SCANNED_FLOATS, execution.SCAN_FLOATS = execution.SCAN_FLOATS, 0  # tests walk through graphs of few points, too

START_S = 30
READY_S = 120
ONE_SHARD = configs.DEFAULT_SHARDS
DIALECT = Path(__file__).parent / "gateway" / "dialect"


@pytest.fixture(scope="module", autouse=True)
def one_shard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collections have one shard unless a test says otherwise, also while the dialect's nodes of other kinds live beside."""
    with pytest.MonkeyPatch.context() as patch:
        if DIALECT not in request.path.parents:
            patch.setattr(configs, "DEFAULT_SHARDS", ONE_SHARD)
        yield


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real broker of the module's own."""
    server = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield server
    server.stop()


def start_node(
    data_dir: Path, make_replica: MakeReplica = local_replica, is_ready: bool = True, **settings: object
) -> tuple[Node, threading.Thread]:
    """A node in a thread of this process, listening on a free port, and ready unless that is not to be waited for."""
    node = Node(load_settings({"data_dir": data_dir, "port": 0, **settings}), make_replica)
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    assert node.started.wait(START_S)
    if is_ready:
        wait_ready(node.url)
    return node, thread


def wait_ready(url: str) -> None:
    """Returns once the node says that it is ready."""
    until(lambda: _says_ready(url), READY_S)


def _says_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def until(holds: Callable[[], bool], seconds: float) -> float:
    """Asks again until it holds, and returns the seconds that took. What is asked should cost something, such as a request."""
    started_s = time.monotonic()
    while not holds():
        assert time.monotonic() - started_s < seconds, f"does not hold after {seconds} s"
    return time.monotonic() - started_s


@contextmanager
def running(data_dir: Path, make_replica: MakeReplica = local_replica) -> Iterator[str]:
    """The address of an embedded node, which is stopped in the end."""
    node, thread = start_node(data_dir, make_replica)
    yield node.url
    node.stop()
    thread.join(15)
    assert not thread.is_alive(), "the node did not stop"


@pytest.fixture(scope="session")
def node_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded node."""
    with running(tmp_path_factory.mktemp("node")) as url:
        yield url


@pytest.fixture
def http(node_url: str) -> Iterator[httpx.Client]:
    """An HTTP client of the node that keeps cookies, as a client's session does."""
    with httpx.Client(base_url=node_url, timeout=30) as client:
        yield client


@pytest.fixture
def name(http: httpx.Client) -> Iterator[str]:
    """A collection of 4 dimensions, compared by dot product."""
    name = f"c{uuid4().hex[:8]}"
    http.put(f"/collections/{name}", json={"vectors": {"size": 4, "distance": "Dot"}}).raise_for_status()
    yield name
    http.delete(f"/collections/{name}").raise_for_status()


def result(response: httpx.Response) -> object:
    """The result of a success; the error's text when it is none."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["status"] == "ok"
    assert body["time"] >= 0
    return body["result"]


def refusal(response: httpx.Response) -> str:
    """The text of a refusal: 422 for what can be read and breaks a bound or lacks a condition, else 400."""
    text: str = response.json()["status"]["error"]
    assert response.status_code == (422 if text.startswith("Validation error in ") else 400), response.text[:400]
    return text


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that interrupt each other all the time, so that a race shows."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)
