"""N12: the heads of the log over HTTP, what covers an answer, and `vecraft audit verify`, on an embedded node."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rocksdict import Rdict

from journal.embedded import _entry_key, _options
from journal.log import TopicPartition
from replayer.audit import auditor
from tests.conftest import refusal, result, start_node, until
from vecraft.cli import main
from vecraft.node import Node

WAIT_S = 20
HEADS, PROOF = "/v1/audit/checkpoints", "/v1/audit/proof"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that looks at its log all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auditor, "LOOK_EVERY_S", 0.05)
        patch.setattr(auditor, "READY_EVERY_S", 0.01)
        node, thread = start_node(tmp_path_factory.mktemp("node"))
        result(httpx.put(f"{node.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}))
        yield node
        node.stop()
        thread.join(15)
        assert not thread.is_alive()


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as client:
        yield client


def written(http: httpx.Client) -> str:
    """The token of a write."""
    points = {"points": [{"id": 1, "vector": [1, 2]}]}
    token: str = http.put("/collections/c/points?wait=true", json=points).headers["X-Vecraft-Position"]
    return token


def proof(http: httpx.Client, token: str) -> dict[str, Any]:
    found: dict[str, Any] = result(http.get(PROOF, params={"position": token}))
    return found


def test_an_answer_is_covered_by_heads(http: httpx.Client) -> None:
    token = written(http)
    until(lambda: proof(http, token)["covered"], WAIT_S)
    found = proof(http, token)
    assert {each["partition"].split("/")[0] for each in found["partitions"]} <= {"vecraft.tier1", "vecraft.system"}
    for each in found["partitions"]:
        assert each["begin"] == 0
        assert each["below"]["offset"] < each["position"] <= each["covered_by"]["offset"]

    def latest_heads() -> dict[str, dict[str, Any]]:
        return {head["partition"]: head for head in result(http.get(HEADS))["heads"]}

    covered = {each["partition"]: each["covered_by"] for each in found["partitions"]}
    until(lambda: all(latest_heads()[name]["offset"] >= head["offset"] for name, head in covered.items()), WAIT_S)
    heads, latest = result(http.get(HEADS)), latest_heads()
    assert len(latest) == 15
    assert len(heads["chain"]) == len(latest["vecraft.tier1/0"]["digest"]) == 64
    assert heads["log"].keys() == {"vecraft.system", *(f"vecraft.tier{tier}" for tier in range(4))}
    assert result(http.get("/audit/checkpoints"))["lines"] >= heads["lines"] >= found["lines"] > 0


@pytest.mark.parametrize("token", ["nonsense", "", "aaaaaaaa.0.1-0-5"])
def test_what_is_no_token_of_this_log_is_refused(http: httpx.Client, token: str) -> None:
    assert refusal(http.get(PROOF, params={"position": token})).startswith("position: ")


def test_a_position_is_needed_and_nothing_else_is_taken(http: httpx.Client) -> None:
    assert "position" in refusal(http.get(PROOF))
    assert "positions" in refusal(http.get(PROOF, params={"position": "x", "positions": "y"}))


def test_checkpoints_that_cannot_be_read_are_said(node: Node, http: httpx.Client) -> None:
    token = written(http)
    until(lambda: proof(http, token)["covered"], WAIT_S)
    path = node.settings.data_dir / "audit" / "checkpoints.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"nonsense\n" + whole)
    answer = http.get(PROOF, params={"position": token})
    path.write_bytes(whole)
    assert (answer.status_code, "line 1 of" in answer.text) == (503, True)


def test_answers_that_were_kept_verify_the_log(
    node: Node, http: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when the node's own file is out of reach, or not to be trusted."""
    token = written(http)
    until(lambda: proof(http, token)["covered"], WAIT_S)
    kept = {"heads": http.get(HEADS), "proof": http.get(PROOF, params={"position": token})}
    for name, answer in kept.items():
        (tmp_path / name).write_bytes(answer.content)
        status, lines, _ = verify(capsys, node.settings.data_dir, "--checkpoints", str(tmp_path / name))
        assert status == 0
        assert int(lines[-1].split()[1]) > 0, "some records are covered"
        forged = answer.json()
        for head in forged["result"].get("heads", []) + [each["covered_by"] for each in forged["result"].get("partitions", [])]:
            head["digest"] = "00" * 32 if head["records"] else head["digest"]
        (tmp_path / name).write_bytes(httpx.Response(200, json=forged).content)
        status, lines, _ = verify(capsys, node.settings.data_dir, "--checkpoints", str(tmp_path / name))
        assert (status, any(line.startswith("DIFFERS") for line in lines)) == (1, True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a stopped node with two records."""
    node, thread = start_node(tmp_path / "data")
    with httpx.Client(base_url=node.url, timeout=30) as http:
        result(http.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}))
        written(http)
    node.stop()
    thread.join(15)
    assert not thread.is_alive()
    return tmp_path / "data"


def verify(capsys: pytest.CaptureFixture[str], folder: Path, *more: str) -> tuple[int, list[str], str]:
    status = main(["audit", "verify", "--data-dir", str(folder), *more])
    out, error = capsys.readouterr()
    return status, out.splitlines(), error


def test_the_command_verifies_a_log_and_names_what_differs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, lines, error = verify(capsys, folder)
    assert (status, error) == (0, "")
    assert lines[-1].startswith("verified: 2 of 2 records are those that were noted, ")
    copy = folder.parent / "copy.jsonl"
    shutil.copy(folder / "audit" / "checkpoints.jsonl", copy)
    shutil.rmtree(folder / "audit")
    status, lines, error = verify(capsys, folder)
    assert (status, lines) == (1, [])
    assert error.startswith(f"vecraft: there are no checkpoints in {folder / 'audit' / 'checkpoints.jsonl'}: ")
    assert verify(capsys, folder, "--checkpoints", str(copy))[0] == 0
    table = Rdict(str(folder / "journal"), _options())
    table.delete(_entry_key(TopicPartition("vecraft.system", 0), 0))
    table.close()
    status, lines, error = verify(capsys, folder, "--checkpoints", str(copy))
    assert (status, error) == (1, "")
    assert lines[-2].startswith("DIFFERS  vecraft.system/0: ")
    assert lines[-1] == "the log is not the one that the checkpoints were noted of"
    copy.write_text("nonsense\n")
    status, lines, error = verify(capsys, folder, "--checkpoints", str(copy))
    assert (status, lines) == (1, [])
    assert "line 1 of" in error


def test_a_node_goes_on_with_its_checkpoints_when_its_state_is_removed(folder: Path) -> None:
    """The folder of a node on Kafka may have nothing else."""
    shutil.rmtree(folder / "state")
    journal = folder / "journal"
    journal.rename(folder.parent / "journal")
    node, thread = start_node(folder)
    node.stop()
    thread.join(15)
    assert not thread.is_alive()
