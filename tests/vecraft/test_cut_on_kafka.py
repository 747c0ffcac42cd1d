"""The log on a real Kafka is cut by DeleteRecords, and the other node is thought of (I1, I9)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from journal.kafka import KafkaJournal
from journal.log import Positions
from journal.topics import Topics
from tests.conftest import result, until
from tests.kafka_server import KafkaServer
from tests.server import Server, on_kafka
from vecraft.cli import main

pytestmark = pytest.mark.kafka
WAIT_S = 60


class Cluster:
    """Two nodes on one log, of which the left one makes snapshots and cuts the log."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        prefix = f"t{uuid4().hex[:8]}"
        self.topics = Topics(prefix)
        self.journal = KafkaJournal(bootstrap, append_timeout_s=10)
        self._folder = folder
        self._flags = on_kafka(bootstrap, prefix)
        self._place = ["--snapshot-url", (folder / "place").as_uri()]
        self.left = Server(folder / "left", *self._flags, *self._place, "--node", "left")
        self.right = self.right_with()
        self.left.start()
        self.right.start()

    def right_with(self, place: bool = False) -> Server:
        """The node right, with or without a place of snapshots."""
        return Server(self._folder / "right", *self._flags, *(self._place if place else []), "--node", "right")

    def starts(self) -> Positions:
        return self.journal.start_offsets([self.topics.system_partition, *self.topics.data_partitions()])

    def upsert(self, collection: str, ids: range) -> None:
        def one(id_: int) -> None:
            body = {"points": [{"id": id_, "vector": [id_, 1]}]}
            result(httpx.put(f"{self.left.url}/collections/{collection}/points", json=body, timeout=WAIT_S))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(one, ids))

    def saved(self) -> None:
        """A snapshot of the left node, whose audit has read the log up to there."""
        result(httpx.get(self.left.url + "/admin/snapshots"))
        self.left.terminate()
        self.left.start()  # the audit looks at its start, then once a minute
        result(httpx.post(f"{self.left.url}/admin/snapshots", timeout=WAIT_S))

    def trim(self, **body: object) -> dict[str, Any]:
        answer = httpx.post(f"{self.left.url}/admin/journal/trim", json={"retention_s": 0, **body}, timeout=WAIT_S)
        return result(answer)  # type: ignore[return-value]

    def close(self) -> None:
        self.left.kill()
        self.right.kill()
        self.journal.close()


@pytest.fixture
def cluster(kafka: KafkaServer, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(kafka.bootstrap, tmp_path)
    yield cluster
    cluster.close()


def points(url: str, collection: str) -> Any:
    body = {"limit": 10_000, "with_vector": True}
    answer = httpx.post(f"{url}/collections/{collection}/points/scroll?consistency=strong", json=body, timeout=WAIT_S)
    return result(answer)["points"]  # type: ignore[index]


def going(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in plan["partitions"] if part["records"]]


def test_the_log_is_cut_and_a_node_that_is_behind_starts_from_a_snapshot(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    left, right = cluster.left, cluster.right
    result(httpx.put(f"{left.url}/collections/songs", json={"vectors": {"size": 2, "distance": "Dot"}}))
    cluster.upsert("songs", range(1_100))
    assert len(points(right.url, "songs")) == 1_100
    right.terminate()
    result(httpx.put(f"{left.url}/collections/late", json={"vectors": {"size": 2, "distance": "Dot"}}))
    cluster.upsert("late", range(10))
    cluster.saved()
    until(lambda: bool(going(cluster.trim(dry_run=True))), WAIT_S)
    assert set(cluster.starts().values()) == {0}
    (part,) = going(cluster.trim(dry_run=False))
    assert (part["from"], part["to"]) == (0, 1000)
    assert sorted(cluster.starts().values())[-2:] == [0, 1000]
    right.start()  # with its own state, without snapshots: a later collection needs nothing that was cut off
    for name in ("songs", "late"):
        assert points(right.url, name) == points(left.url, name)
    right.terminate()
    cluster.upsert("songs", range(500, 1_600))
    cluster.saved()

    def held_back() -> str:
        plan = cluster.trim(dry_run=True)
        assert going(plan) == []
        return next(each["reason"] for each in plan["partitions"] if each["partition"] == part["partition"])

    until(lambda: held_back() == "node right has not applied the records after it", WAIT_S)  # once the audit has followed
    until(lambda: bool(going(cluster.trim(dry_run=True, beyond=["right"]))), WAIT_S)
    assert main(["journal", "trim", "--yes", "--retention", "0s", "--beyond", "right", "--url", left.url]) == 0
    assert "node right has not applied all of it" in capsys.readouterr().out
    assert max(cluster.starts().values()) == 2000
    cluster.right = cluster.right_with(place=True)
    cluster.right.start()
    assert any("it begins with snapshot" in line for line in cluster.right.log)
    for name in ("songs", "late"):
        assert points(cluster.right.url, name) == points(left.url, name)
