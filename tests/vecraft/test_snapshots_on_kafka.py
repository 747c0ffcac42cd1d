"""A new node of a cluster begins from the snapshot of another one (J11)."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.conftest import result
from tests.kafka_server import KafkaServer
from tests.server import Server, on_kafka
from tests.vecraft.test_recovery import everything, written
from vecraft.cli import main

pytestmark = pytest.mark.kafka


def test_a_new_node_begins_from_a_snapshot(kafka: KafkaServer, tmp_path: Path) -> None:
    flags, place = on_kafka(kafka.bootstrap, "snapshots"), (tmp_path / "place").as_uri()
    left = Server(tmp_path / "left", *flags, "--node", "left", "--snapshot-url", place).start()
    written(left.url)
    made = result(httpx.post(f"{left.url}/admin/snapshots", timeout=60))
    points = [{"id": 999, "vector": [1] * 8}]
    result(httpx.put(f"{left.url}/collections/plain/points?wait=true", json={"points": points}))
    expected = everything(left.url)
    assert main(["restore", "--from", place, "--data-dir", str(tmp_path / "right"), *flags]) == 0
    right = Server(tmp_path / "right", *flags, "--node", "right").start()
    assert everything(right.url) == expected
    assert any(re.search(f"restored from snapshot {made['id']}", line) for line in right.log)  # type: ignore[index]
    busy = main(["restore", "--from", place, "--data-dir", str(tmp_path / "right"), *flags])
    assert busy == 1, "the state is in use"
    assert everything(right.url) == expected
    left.kill()
    right.kill()
