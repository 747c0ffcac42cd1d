"""`vecraft journal repair` and `vecraft topics adopt`: what the state still knows comes back, or a loss is accepted (I1, I2)."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rocksdict import Rdict

from journal.embedded import EmbeddedJournal, _entry_key, _options
from journal.log import TopicPartition
from journal.topics import Topics
from shard.store import Store
from tests.conftest import result, start_node, until
from tests.server import Server
from vecraft.cli import main

COUNT = 300


def written(url: str) -> None:
    """Points with dense, sparse and multi-vectors in one collection, and plain ones in another."""
    random = np.random.default_rng(1)
    with httpx.Client(base_url=url, timeout=60) as client:
        multi = {"size": 4, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}
        vectors = {"a": {"size": 8, "distance": "Cosine"}, "m": multi}
        result(client.put("/collections/rich", json={"vectors": vectors, "sparse_vectors": {"s": {}}}))
        result(client.put("/collections/plain", json={"vectors": {"size": 8, "distance": "Dot"}}))
        for start in range(0, COUNT, 20):
            rich, plain = [], []
            for n in range(start, start + 20):
                named = {"a": random.normal(size=8).tolist(), "m": random.normal(size=(1 + n % 3, 4)).tolist()}
                if n % 2:
                    named["s"] = {"indices": [n, n + 1], "values": [1.5, -2.0]}
                rich.append({"id": n, "vector": named, "payload": {"n": n, "deep": {"k": [n]}}})
                plain.append({"id": n, "vector": random.normal(size=8).tolist(), "payload": {"n": n}})
            for name, points in (("rich", rich), ("plain", plain)):
                result(client.put(f"/collections/{name}/points?wait=true", json={"points": points}))
            result(client.post("/collections/rich/points/delete?wait=true", json={"points": [start]}))


def everything(url: str) -> dict[str, list[Any]]:
    body = {"limit": 1000, "with_payload": True, "with_vector": True}
    return {
        name: result(httpx.post(f"{url}/collections/{name}/points/scroll", json=body, timeout=60))["points"]
        for name in ("rich", "plain")
    }


@pytest.fixture
def shortened(tmp_path: Path) -> tuple[Path, dict[str, list[Any]]]:
    """A stopped node whose write-ahead log was cut, after a kill, and what the node held before."""
    server = Server(tmp_path).start()
    written(server.url)
    before = everything(server.url)
    server.kill()
    wal = max((tmp_path / "journal").glob("*.log"))
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    return tmp_path, before


def test_what_the_state_still_knows_is_written_back(
    shortened: tuple[Path, dict[str, list[Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = shortened
    server = Server(folder).launch()
    for name in before:
        scroll = partial(httpx.post, f"{server.url}/collections/{name}/points/scroll", json={}, timeout=30)
        until(lambda scroll=scroll: "are lost; its state is kept until an operator decides" in scroll().text, 20)
        put = httpx.put(f"{server.url}/collections/{name}/points", json={"points": [{"id": 1, "vector": {}}]}, timeout=30)
        assert (scroll().status_code, put.status_code) == (503, 503)
    assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 503
    server.terminate()
    assert main(["journal", "repair", "--data-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "points that the log lacks or has otherwise" in said
    assert main(["journal", "repair", "--data-dir", str(folder), "--write-back"]) == 0
    assert "points are written to the log" in capsys.readouterr().out
    node, thread = start_node(folder)
    assert everything(node.url) == before
    node.stop()
    thread.join(15)
    assert main(["journal", "repair", "--data-dir", str(folder)]) == 0
    assert "the log holds all that this node's state was made from" in capsys.readouterr().out


def test_a_hole_in_the_log_is_filled_from_the_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """I2: writes that came after it stay as they are, also those that the state had not applied."""
    node, thread = start_node(tmp_path)
    written(node.url)
    shutil.copytree(tmp_path / "state", tmp_path / "state.earlier", ignore=shutil.ignore_patterns("LOCK"))
    later = {"points": [{"id": 7, "vector": [9] * 8, "payload": {"n": "later"}}]}
    result(httpx.put(f"{node.url}/collections/plain/points?wait=true", json=later, headers={"X-Vecraft-Tier": "0"}))
    before = everything(node.url)
    node.stop()
    thread.join(15)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state.earlier").rename(tmp_path / "state")
    log = Rdict(str(tmp_path / "journal"), _options())
    removed = [_entry_key(TopicPartition("vecraft.tier1", partition), 2) for partition in (0, 1)]
    assert all(key in log for key in removed)
    for key in removed:
        del log[key]
    log.close()
    assert main(["journal", "repair", "--data-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "collection rich, shard 0: the log is damaged at vecraft.tier1/0/2: 1 records are missing" in said
    assert main(["journal", "repair", "--data-dir", str(tmp_path), "--write-back"]) == 0
    node, thread = start_node(tmp_path)
    assert everything(node.url) == before
    node.stop()
    thread.join(15)


def test_a_loss_is_accepted(shortened: tuple[Path, dict[str, list[Any]]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, before = shortened
    assert main(["journal", "repair", "--data-dir", str(folder), "--accept-loss"]) == 0
    node, thread = start_node(folder)
    after = everything(node.url)
    assert 0 < len(after["plain"]) < len(before["plain"])
    assert all(point in before["plain"] for point in after["plain"])
    points = [{"id": 999, "vector": [0] * 8}]
    result(httpx.put(f"{node.url}/collections/plain/points?wait=true", json={"points": points}))
    node.stop()
    thread.join(15)


@pytest.mark.slow
def test_another_log_is_adopted_only_when_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The journal was removed, and the state was not: nothing of it is served, and nothing of it is removed in silence."""
    node, thread = start_node(tmp_path)
    written(node.url)
    node.stop()
    thread.join(15)
    shutil.rmtree(tmp_path / "journal")
    server = Server(tmp_path)
    server.launch()
    assert server.wait() == 1
    assert any("vecraft topics adopt" in line for line in server.log), server.log
    flags = ["topics", "adopt", "--data-dir", str(tmp_path)]
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert "the state holds 285 points of collection rich" in said
    assert "with --yes" in said
    assert main([*flags, "--yes"]) == 0
    assert "the state is put aside in" in capsys.readouterr().out
    node, thread = start_node(tmp_path)
    assert result(httpx.get(f"{node.url}/collections"))["collections"] == []
    assert len(list(tmp_path.glob("state.before-*"))) == 1
    node.stop()
    thread.join(15)


def test_a_log_with_records_twice_is_not_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a tool leaves a copy that was killed, and copied again what it had not committed. Nothing is changed."""
    node, thread = start_node(tmp_path)
    result(httpx.put(f"{node.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}))
    for number in range(3):
        points = [{"id": 1, "vector": [1, number]}]
        result(httpx.put(f"{node.url}/collections/c/points?wait=true", json={"points": points}))
    node.stop()
    thread.join(15)
    adopt = ["topics", "adopt", "--data-dir", str(tmp_path)]
    assert main(adopt) == 0
    assert "with --yes the state is kept" in capsys.readouterr().out
    home = repeat_first_record(tmp_path / "journal")
    assert main(adopt) == 0
    assert f"must not be served: {home}: 1 records are there twice, the first again at 3" in capsys.readouterr().out
    assert main([*adopt, "--yes"]) == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"audit", "journal", "state"}


def repeat_first_record(folder: Path) -> TopicPartition:
    """Appends the first record of tier 1 again. Returns its partition."""
    topics = Topics()
    journal = EmbeddedJournal(folder)
    journal.ensure_topics(topics.all())
    (home,) = (p for p, end in journal.end_offsets(topics.data_partitions()).items() if end)
    reader = journal.reader()
    reader.assign({home: 0})
    journal.append(home, reader.poll(5, 1).entries[0].value).result()
    reader.close()
    journal.close()
    return home


def test_a_state_that_a_node_uses_is_not_put_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node, thread = start_node(tmp_path)
    httpx.put(f"{node.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
    node.stop()
    thread.join(15)
    (rows,) = (tmp_path / "state").glob("*/*/rows")
    used = Store(rows, {})
    assert main(["topics", "adopt", "--yes", "--data-dir", str(tmp_path)]) == 1
    assert "is in use, stop the node first" in capsys.readouterr().err
    used.close()
    assert rows.is_dir()
