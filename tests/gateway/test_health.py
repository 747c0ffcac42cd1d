"""Health by component: each says what it is, why and since when, and a change is logged once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.health import DISK_FULL_BYTES, DISK_LOW_BYTES, FRESH_S, MIB, OVERLOADED_S, STALLED_S, Health, Status, described
from gateway.services import DiskUsage
from journal.hlc import Clock
from journal.log import Indefinite, Overloaded, TopicPartition
from replayer.lag import Lag, LagState, Measured
from shard.shards import Quarantine
from tests.conftest import start_node
from vecraft.node import Node

HOME = TopicPartition("vecraft.tier1", 0)
NAMES = ["replay", "ingest", "journal", "disk", "memory", "clock", "shards"]
BUDGET = 1000 * MIB


class World:
    """A node whose parts can be set, and its health. All is well at first."""

    def __init__(self) -> None:
        self.now_s, self.caught_up, self.is_ready = 0.0, True, True
        self.free, self.used = 2 * DISK_LOW_BYTES, 0
        self.lag: dict[TopicPartition, Measured] | Exception = {HOME: Measured(5, Lag(), LagState.NORMAL)}
        self.applied = {HOME: 5}
        self.quarantined: dict[tuple[int, int], Quarantine] = {}
        self.served: list[object] = [object()]
        self.replayer = SimpleNamespace(
            failure=None,
            caught_up=lambda: self.caught_up,
            behind=lambda: (5, 9),
            applied=SimpleNamespace(get=lambda: self.applied),
        )
        self.ingest = SimpleNamespace(failure=None)
        self.journal = SimpleNamespace(failure=None, refusals=lambda: {})
        self.clock = Clock(lambda: round(self.now_s * 1000), 500)
        node: Any = SimpleNamespace(
            replayer=self.replayer,
            ingest=self.ingest,
            journal=self.journal,
            clock=self.clock,
            budget=SimpleNamespace(bytes=BUDGET, used=lambda: self.used),
            shards=SimpleNamespace(quarantined=lambda: self.quarantined, all=lambda: self.served),
            disk_usage=lambda: None if self.free < 0 else DiskUsage(100 << 30, 0, self.free),
            lag=self._lag,
            ready=lambda: self.is_ready,
            stopping=threading.Event(),
        )
        self.stopping = node.stopping
        self.health = Health(node, lambda: self.now_s)

    def _lag(self) -> dict[TopicPartition, Measured]:
        if isinstance(self.lag, Exception):
            raise self.lag
        return self.lag

    def look(self, after_s: float = 2 * FRESH_S) -> dict[str, tuple[str, str]]:
        """Status and cause of what is not ok, that long after the look before."""
        self.now_s += after_s
        found = self.health.look()
        assert list(found) == NAMES
        return {name: (of.status.name, of.cause) for name, of in found.items() if of.status is not Status.OK}


@pytest.fixture
def world() -> World:
    world = World()
    assert world.look() == {}
    return world


def test_the_replay_says_whether_it_starts_stops_stalls_or_is_far_behind(world: World) -> None:
    world.caught_up = False
    assert world.look()["replay"] == ("STARTING", "5 of 9 records are replayed")
    world.caught_up = True
    world.replayer.failure = RuntimeError("no space")
    assert world.look() == {"replay": ("FAILING", "the replay has stopped: no space")}
    world.look(2 * STALLED_S)
    world.replayer.failure = None
    world.lag = {HOME: Measured(20_005, Lag(records=20_000), LagState.BACK_PRESSURE)}
    assert world.look() == {"replay": ("DEGRADED", "the replay is far behind: 20000 records wait")}
    stalled = f"the replay has applied nothing for {STALLED_S:.0f} s, 20000 records wait"
    assert world.look(STALLED_S - 2 * FRESH_S) == {"replay": ("FAILING", stalled)}
    world.applied = {HOME: 6}
    assert world.look()["replay"][0] == "DEGRADED", "it applies again"
    world.lag = {HOME: Measured(6, Lag(), LagState.NORMAL)}
    assert world.look(10 * STALLED_S) == {}, "nothing to apply is no standstill"


def test_the_journal_says_whether_it_answers_and_takes_writes(world: World) -> None:
    world.lag = Indefinite("Kafka: no broker")
    assert world.look() == {"journal": ("FAILING", "the log cannot be asked: Kafka: no broker")}
    world.lag = {}
    world.journal.failure = RuntimeError("disk")
    assert world.look()["journal"] == ("FAILING", "the log cannot be written: disk")
    world.journal.failure = None
    world.health.overloaded()
    assert world.look()["journal"][0] == "DEGRADED"
    assert world.look(OVERLOADED_S) == {}


def test_a_journal_that_was_never_there_is_not_ok(world: World) -> None:
    """The state is not open, so that nothing is asked of the log."""
    world.lag, world.applied, world.caught_up = {}, {}, False
    world.replayer.failure = Indefinite("Kafka: no broker")
    found = world.look()
    assert found["journal"] == ("FAILING", "the log cannot be asked: Kafka: no broker")
    assert found["replay"][0] == "FAILING"
    assert found["ingest"][0] == "STARTING"


def test_the_ingest_says_why_it_has_stopped(world: World) -> None:
    world.ingest.failure = Indefinite("schema registry")
    assert world.look() == {"ingest": ("FAILING", "the ingest has stopped: schema registry")}


@pytest.mark.parametrize(
    ("free", "status"),
    [(DISK_LOW_BYTES, "OK"), (DISK_LOW_BYTES - 1, "DEGRADED"), (DISK_FULL_BYTES - 1, "FAILING"), (-1, "FAILING")],
)
def test_the_disk_says_how_much_is_free(world: World, free: int, status: str) -> None:
    world.free = free
    assert world.look().get("disk", ("OK", ""))[0] == status


@pytest.mark.parametrize(("used", "status"), [(900 * MIB, "OK"), (901 * MIB, "DEGRADED"), (1001 * MIB, "FAILING")])
def test_the_memory_is_held_against_its_budget(world: World, used: int, status: str) -> None:
    world.used = used
    assert world.look().get("memory", ("OK", ""))[0] == status


@pytest.mark.parametrize(
    ("skew_ms", "found"),
    [
        (250, None),
        (251, ("DEGRADED", "this node's clock is 251 ms behind the log's, the bound is 500")),
        (-600, ("FAILING", "this node's clock is 600 ms ahead of the log's, the bound is 500")),
    ],
)
def test_the_clock_is_compared_with_append_times(world: World, skew_ms: int, found: tuple[str, str] | None) -> None:
    world.now_s = 100.0
    world.clock.compare_written(100_000, 100_000 + skew_ms)
    assert world.look(2 * FRESH_S).get("clock") == found
    world.clock.compare_written(100_000, 100_500)  # was acknowledged a second after it was sent: that explains it
    assert world.look() == {}


def test_a_node_that_only_reads_sees_a_clock_ahead_of_its_own(world: World) -> None:
    world.now_s = 100.0
    world.clock.compare_read(100_900)
    assert world.clock.skew_ms == 900
    world.clock.compare_read(50_000)  # an old record
    assert world.clock.skew_ms == 0


def test_shards_in_quarantine_stop_service_when_no_other_is_served(world: World) -> None:
    world.quarantined = {(1, 3): Quarantine("songs", 3, "IO error", 1)}
    assert world.look() == {"shards": ("DEGRADED", "1 shards are not served; shard 3 of 'songs': IO error")}
    world.served = []
    assert world.look()["shards"][0] == "FAILING"


def test_a_change_is_logged_once_and_has_a_time(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.health"):
        world.used = 2 * BUDGET
        for _ in range(5):
            world.look()
            world.used += MIB  # another cause, the same status
        since = world.health.seen()["memory"].since_ms
        assert since == 2000, "of the first look that found it"
        world.used = 0
        world.look()
        world.look()
    assert [(line.levelname, line.getMessage().split(":")[0]) for line in caplog.records] == [
        ("ERROR", "memory is failing"),
        ("INFO", "memory is ok after 5.0 s"),
    ]
    assert described(world.health.seen())["components"]["memory"] == {"status": "ok", "since": "1970-01-01T00:00:07.000Z"}


def test_a_node_that_is_not_ready_any_more_says_so_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.health"):
        for ready in (True, False, False, True, True):
            world.is_ready = ready
            world.look()
        world.stopping.set()
        world.is_ready = False
        world.look()
    assert [line.getMessage() for line in caplog.records] == ["the node is not ready", "the node is ready again"]


def test_looks_that_come_together_are_one(world: World) -> None:
    """Probes and scrapes share a look, and do not wait for one that waits for the log."""
    world.used = 2 * BUDGET
    assert world.look(FRESH_S) == {}
    assert "memory" in world.look(FRESH_S)
    world.health._looking.acquire()
    world.used = 0
    assert "memory" in world.look()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    yield node
    node.stop()
    thread.join(15)


def test_the_page_shows_each_component_and_is_503_while_one_fails(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node._services is not None
    health = node._services.health
    with httpx.Client(base_url=node.url, timeout=30) as http:
        page = http.get("/admin/health").json()
        assert (http.get("/healthz").text, page["status"]) == ("healthz check passed\n", "ok")
        assert list(page["components"]) == NAMES
        for path in ("/healthz", "/livez", "/readyz"):
            assert http.get(f"/v1{path}").text == http.get(path).text != ""
        assert http.get("/v1/admin/health").json()["components"].keys() == page["components"].keys()
        assert http.head("/v1/readyz").status_code == http.get("/v1/metrics").status_code == 200
        assert all(set(of) == {"status", "since"} for of in page["components"].values())
        monkeypatch.setattr(type(node._services.node), "disk_usage", lambda _: None)
        monkeypatch.setattr("gateway.health.FRESH_S", -1.0)
        failing = http.get("/healthz")
        assert (failing.status_code, failing.text.splitlines()[0]) == (503, "healthz check failed")
        assert failing.text.splitlines()[1].startswith("disk is failing since ")
        assert failing.text.endswith(": the data folder cannot be looked at\n")
        assert (http.get("/readyz").status_code, http.get("/readyz").text) == (200, "all shards are ready\n"), "reads are served"
        page = http.get("/admin/health").json()
        assert (page["ready"], page["components"]["disk"]["status"]) == (True, "failing")
        assert page["components"]["disk"]["cause"] == "the data folder cannot be looked at"
        assert 'vecraft_health{component="disk"} 3.0' in http.get("/metrics").text
        monkeypatch.undo()
        monkeypatch.setattr("gateway.health.FRESH_S", -1.0)
        assert http.get("/healthz").status_code == 200
    assert health.seen()["disk"].status is Status.OK


def test_a_write_that_is_refused_for_too_many_that_wait_is_seen(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert node._services is not None

    def refuse(*_: object) -> None:
        raise Overloaded("67108864 bytes wait for the disk")

    monkeypatch.setattr("gateway.health.FRESH_S", -1.0)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        http.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        monkeypatch.setattr(node._services.node.journal, "append", refuse)
        assert http.put("/collections/c/points", json={"points": [{"id": 1, "vector": [1, 2]}]}).status_code == 429
        page, told = http.get("/healthz"), http.get("/admin/health").json()
    assert (page.status_code, told["components"]["journal"]["status"]) == (200, "degraded")
    assert "journal is degraded since " in page.text


def test_its_own_thread_looks_until_it_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.health.LOOK_EVERY_S", 0.001)
    looked = threading.Event()
    monkeypatch.setattr(world.health, "look", looked.set)
    thread = threading.Thread(target=world.health.run)
    thread.start()
    assert looked.wait(10)
    world.health.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_the_folder_of_a_node_has_a_size(node: Node) -> None:
    assert node._services is not None
    usage = node._services.node.disk_usage()
    assert usage is not None
    assert usage.total > usage.free > 0
