"""A second database that follows the feed ends equal to the first, though its follower is killed again and again (N4)."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import result, start_node
from tests.kafka_server import REPO

KILLS = 50
IDS = 400
"""Points that are changed again and again."""

DELETED_AFTER = 50
"""A point that is written once may be deleted so many writes later."""

STEPS = 6
"""A follower is killed within this many steps after its first one; each page has four."""

CONFIG = {
    "vectors": {"": {"size": 8, "distance": "Cosine"}, "small": {"size": 2, "distance": "Euclid"}},
    "sparse_vectors": {"terms": {}},
    "shard_number": 3,
}


class Writer:
    """Changes points at random until it is stopped."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60)
        self._random = np.random.default_rng(1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.written = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.write()

    def write(self) -> None:
        """One random request, in a random tier. One point is written once only, so that nothing later makes up for its loss."""
        choose = self._random
        ids = choose.choice(IDS, int(choose.integers(1, 12)), replace=False).tolist()
        once = IDS + self.written
        path = "/collections/c/points"
        match int(choose.integers(5)):
            case 0:
                call = ("POST", f"{path}/delete", {"points": [*ids, once - DELETED_AFTER]})
            case 1:
                call = ("POST", f"{path}/payload", {"points": ids, "payload": {"n": int(choose.integers(9)), "key": None}})
            case 2:
                call = ("POST", f"{path}/vectors/delete", {"points": ids, "vector": ["small"]})
            case _:
                call = ("PUT", path, {"points": [self._point(id_) for id_ in (*ids, once)]})
        method, url, body = call
        answer = self._http.request(method, url, json=body, headers={"X-Vecraft-Tier": str(choose.integers(4))})
        assert answer.status_code in (200, 404), answer.text  # 404: some of the points are not there
        self.written += 1

    def _point(self, id_: int) -> dict[str, Any]:
        numbers = self._random.standard_normal(10).astype("<f4").tolist()
        terms = {"indices": [id_, id_ + 1], "values": numbers[:2]}
        return {"id": id_, "vector": {"": numbers[:8], "small": numbers[8:], "terms": terms}, "payload": {"n": id_, "key": "x"}}


def points_of(url: str) -> list[dict[str, Any]]:
    body = {"limit": 100_000, "with_vector": True}
    found: list[dict[str, Any]] = result(httpx.post(f"{url}/collections/c/points/scroll", json=body, timeout=60))["points"]
    return found


@pytest.mark.slow
def test_a_follower_that_is_killed_50_times_ends_equal(tmp_path: Path) -> None:
    nodes = [start_node(tmp_path / name) for name in ("first", "second")]
    first, second = nodes[0][0].url, nodes[1][0].url
    result(httpx.put(f"{first}/collections/c", json=CONFIG))
    place = tmp_path / "place"
    command = [sys.executable, str(REPO / "infra/examples/follower.py"), first, second, "c", str(place)]
    choose, writer = random.Random(1), Writer(first)
    for _ in range(100):
        writer.write()
    writer.start()
    said: set[str] = set()
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            for _ in range(choose.randint(1, STEPS)):
                line = follower.stdout.readline()
                assert line, "the follower has ended by itself"
            said.add(line.split()[0])
            follower.kill()
    writer.stop()
    assert {"reads", "writes", "notes"} < said, "it was killed in each of its steps"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        while "caught up" not in follower.stdout.readline():
            assert follower.poll() is None
        follower.kill()
    assert writer.written > 2 * KILLS
    assert points_of(second) == points_of(first) != []
    for node, thread in nodes:
        node.stop()
        thread.join(15)
