"""The log of a running node is cut: nothing that is answered changes, what goes is told before, and a lost state comes from a
snapshot (I1, I2, I9)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from journal.log import Positions
from journal.topics import Topics
from tests.conftest import result, until
from tests.snapshots.test_node import WAIT_S, Running, state_of
from tests.vecraft.test_recovery import everything, written
from vecraft.cli import main

TOPICS = Topics()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts at multiples of 5, and an audit that follows at once: with 1,000 and a minute the tests would take long."""
    monkeypatch.setattr("snapshots.cutting.EVERY", 5)
    monkeypatch.setattr("replayer.audit.auditor.LOOK_EVERY_S", 0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "data", (tmp_path / "place").as_uri())
    written(running.node.url)
    yield running
    running.stop()


def trim(running: Running, **body: object) -> dict[str, Any]:
    return result(httpx.post(f"{running.node.url}/v1/admin/journal/trim", json=body, timeout=WAIT_S))  # type: ignore[return-value]


def records(plan: dict[str, Any]) -> int:
    return sum(part["records"] for part in plan["partitions"])


def starts(running: Running) -> Positions:
    return state_of(running.node).journal.start_offsets([TOPICS.system_partition, *TOPICS.data_partitions()])


def cut(running: Running) -> dict[str, Any]:
    """Makes a snapshot that is later than what may go, and cuts that once the audit has followed."""
    until(lambda: running.saved() and records(trim(running, dry_run=True, retention_s=0)) > 0, WAIT_S)
    auditor, journal = state_of(running.node).auditor, state_of(running.node).journal
    until(lambda: auditor.positions().items() >= journal.end_offsets(TOPICS.data_partitions()).items(), WAIT_S)
    return trim(running, dry_run=False, retention_s=0)


def test_a_cut_changes_no_answer_and_a_lost_state_comes_from_the_snapshot(
    running: Running, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    url = running.node.url
    before = everything(url)
    refused = httpx.post(f"{url}/admin/journal/trim", json={"dry_run": True, "retention_s": 0})
    assert refused.status_code == 409
    assert "there is no snapshot" in refused.text
    saved = running.saved()
    for wanted in ({"dry_run": False}, {"dry_run": False, "retention_s": 3600}):  # for ever; and all is younger than an hour
        assert records(trim(running, **wanted)) == 0
    until(lambda: running.saved() and records(trim(running, dry_run=True, retention_s=0)) > 0, WAIT_S)
    assert set(starts(running).values()) == {0}, "a dry run changes nothing"
    assert main(["journal", "trim", "--dry-run", "--retention", "0s", "--url", url]) == 0
    assert "nothing is cut off yet: say --yes" in capsys.readouterr().out
    plan = cut(running)
    told = {part["partition"]: part["to"] for part in plan["partitions"]}
    assert told == {str(partition): start for partition, start in starts(running).items()}
    assert starts(running)[TOPICS.system_partition] == 0
    assert "never cut" in plan["partitions"][-1]["reason"]
    going = [part for part in plan["partitions"] if part["records"]]
    assert all(part["bytes"] > 0 and part["oldest"] <= part["newest"] for part in going)
    assert plan["snapshot"] != saved.id
    assert any(plan["snapshot"] in text for text in plan["unreadable"])
    _check_reading(running, going[0], capsys)
    running.upsert(range(1000, 1010))
    after = everything(url)
    assert after["rich"] == before["rich"]
    running.stop()
    assert main(["audit", "verify", "--data-dir", str(running.data_dir)]) == 0
    running.start()
    assert everything(running.node.url) == after, "the state of before goes on"
    assert "begins with snapshot" not in caplog.text
    running.stop()
    shutil.rmtree(running.data_dir / "state")
    running.start()
    assert f"this node has no state: it begins with snapshot {plan['snapshot']}" in caplog.text
    assert everything(running.node.url) == after


def _check_reading(running: Running, part: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Who reads the log finds what is left, and is told of the rest."""
    url = running.node.url
    found = result(httpx.get(f"{url}/operations?limit=1000", timeout=WAIT_S))["operations"]  # type: ignore[index]
    assert found
    assert not any("fault" in each for each in found)
    positions = [each["position"].rpartition("/") for each in found]
    assert all(int(offset) >= part["to"] for partition, _, offset in positions if partition == part["partition"])
    history = result(httpx.get(f"{url}/collections/plain/points/1/history"))
    assert [each for each in history if "payload" in each and "request_id" not in each]  # type: ignore[union-attr]
    data = ["--data-dir", str(running.data_dir)]
    assert main(["journal", "show", f"{part['partition']}/{part['from']}", *data]) == 1
    assert f"the log was cut, its first is at {part['to']}" in capsys.readouterr().err
    assert main(["journal", "show", "no-such-request", *data]) == 1
    assert "no record of request" in capsys.readouterr().err
    assert main(["journal", "tail", "--count", "1000", *data]) == 0


def test_what_cannot_be_is_refused_and_changes_nothing(running: Running) -> None:
    running.saved()
    url = f"{running.node.url}/admin/journal/trim"
    for body, status, text in (
        ({}, 400, "dry_run"),
        ({"dry_run": False, "retention_s": -1}, 422, "retention_s"),
        ({"dry_run": False, "retention_s": 0, "beyond": ["nobody"]}, 400, "beyond names 'nobody'"),
        ({"dry_run": False, "retention_s": 0, "other": 1}, 400, "other"),
    ):
        answer = httpx.post(url, json=body)
        assert (answer.status_code, text in answer.text) == (status, True), answer.text
    assert set(starts(running).values()) == {0}
    assert main(["journal", "trim", "--yes", "--retention", "0s", "--beyond", "nobody", "--url", running.node.url]) == 1
    with pytest.raises(SystemExit):
        main(["journal", "trim", "--yes", "--retention", "thirty"])
    with pytest.raises(SystemExit):
        main(["journal", "trim", "--retention", "30d"])


@pytest.mark.slow
def test_a_state_that_is_behind_the_cut_comes_from_the_snapshot(
    running: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running.stop()
    shutil.copytree(running.data_dir / "state", tmp_path / "old")
    running.start()
    for n in range(30):
        running.upsert([2000 + n])
    result(httpx.put(f"{running.node.url}/collections/late", json={"vectors": {"size": 2, "distance": "Dot"}}))
    plan = cut(running)
    assert records(plan)
    before = everything(running.node.url)
    running.stop()
    shutil.rmtree(running.data_dir / "state")
    shutil.copytree(tmp_path / "old", running.data_dir / "state")
    url, running.url = running.url, ""  # without a place it serves what it can, and names the rest
    running.start(is_ready=False)
    until(lambda: bool(state_of(running.node).shards.quarantined()), WAIT_S)
    lines = httpx.get(f"{running.node.url}/readyz").text
    assert "begins at" in lines
    assert "are needed" in lines
    running.stop()
    running.url = url
    running.start()
    assert f"it begins with snapshot {plan['snapshot']}" in caplog.text
    assert everything(running.node.url) == before
    assert result(httpx.post(f"{running.node.url}/collections/late/points/count", json={}))["count"] == 0  # type: ignore[index]


@pytest.mark.slow
def test_the_last_snapshot_of_a_cut_log_stays(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    cut(running)
    running.saved()
    before = everything(running.node.url)
    url = f"{running.node.url}/admin/snapshots"
    listed = [each["id"] for each in result(httpx.get(url))["snapshots"]]  # type: ignore[index]
    refused = [id_ for id_ in listed if httpx.delete(f"{url}/{id_}").status_code == 409]
    assert len(refused) == 1
    assert [each["id"] for each in result(httpx.get(url))["snapshots"]] == refused  # type: ignore[index]
    running.stop()
    shutil.rmtree(running.data_dir / "state")
    running.start()
    assert f"begins with snapshot {refused[0]}" in caplog.text
    assert everything(running.node.url) == before


@pytest.mark.slow
def test_a_damaged_snapshot_is_no_reason_to_cut(running: Running) -> None:
    plan = cut(running)
    first = starts(running)
    for n in range(30):
        running.upsert([3000 + n])
    manifest = running.saved()
    files = Path(running.url.removeprefix("file://")) / "node1" / "files"
    for digest in manifest.contents():
        (files / digest).write_bytes(b"damaged")
    answer = httpx.post(f"{running.node.url}/admin/journal/trim", json={"dry_run": False, "retention_s": 0}, timeout=WAIT_S)
    assert answer.status_code == 409
    assert manifest.id in answer.text
    assert plan["snapshot"] in answer.text
    assert starts(running) == first


@pytest.mark.slow
def test_the_log_is_cut_after_each_snapshot_when_the_node_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = Running(tmp_path / "data", (tmp_path / "place").as_uri(), journal_retention_s=0)
    written(running.node.url)

    def is_cut() -> bool:
        running.saved()
        return max(starts(running).values()) > 0

    until(is_cut, WAIT_S)
    assert "the log was cut" in caplog.text
    running.stop()
