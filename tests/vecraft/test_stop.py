"""SIGTERM ends a node within ten seconds, with status 0, whatever runs in it."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from gateway.admission.ids import MAX_IDS
from tests.conftest import result
from tests.server import Server

STOP_S = 10
IN_ROCKSDB = """
import sys, tempfile, threading
from rocksdict import Rdict
from vecraft.cli import process

def read():
    store = Rdict(tempfile.mkdtemp())
    while True:
        store["key"] = "value"
        store.flush()

threading.Thread(target=read, daemon=True).start()
sys.modules["slow"] = type("Slow", (), {"__del__": lambda self: sum(range(30_000_000))})()
process()
"""
"""A node with a thread that is within foreign code all the time, and an interpreter that takes long to finalize."""

IN_THE_WAY = """
import time
from vecraft.cli import process
from vecraft.roles import Roles

async def stop(self):
    time.sleep(60)

Roles.stop = stop
process()
"""
"""A node whose stop blocks its event loop."""


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(tmp_path, program=getattr(request, "param", ("-m", "vecraft")))
    yield server
    server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("server", [("-c", IN_ROCKSDB), ("-c", IN_THE_WAY)], indirect=True, ids=["in RocksDB", "in the way"])
def test_threads_in_foreign_code(server: Server) -> None:
    server.start()
    started_s = time.monotonic()
    assert server.terminate() == 0, server.log[-3:]
    assert time.monotonic() - started_s < STOP_S


@pytest.mark.slow
def test_while_a_graph_is_built(server: Server) -> None:
    vectors = np.random.default_rng(1).normal(size=(10_000, 64)).astype("<f4")
    points = [{"id": at, "vector": b64encode(vector.tobytes()).decode()} for at, vector in enumerate(vectors)]
    server.start()
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 64, "distance": "Cosine"}}))
    result(httpx.put(f"{server.url}/collections/c/points?wait=true", json={"points": points}, timeout=60))
    assert server.terminate() == 0, server.log[-3:]


@pytest.mark.slow
def test_while_large_deletes_run(server: Server) -> None:
    """Twenty at once of the largest list: searches are answered meanwhile, and the node stops in time."""
    server.start()
    result(httpx.put(f"{server.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}))
    body = b'{"points":[%s]}' % b",".join(b"%d" % at for at in range(MAX_IDS))

    def delete() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{server.url}/collections/c/points/delete", content=body, timeout=60)

    deletes = [threading.Thread(target=delete, daemon=True) for _ in range(20)]
    for thread in deletes:
        thread.start()
    for _ in range(5):
        result(httpx.post(f"{server.url}/collections/c/points/search", json={"vector": [1, 1], "limit": 1}, timeout=STOP_S))
    started_s = time.monotonic()
    assert server.terminate() == 0, server.log[-3:]
    assert time.monotonic() - started_s < STOP_S
