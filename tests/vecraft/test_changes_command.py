"""`vecraft changes` prints the changes of a collection, and says how to go on (N4)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx
import pytest

from tests.conftest import result
from vecraft.cli import main

WAIT_S = 30


@pytest.fixture
def changed(http: httpx.Client, name: str) -> str:
    points = [{"id": number, "vector": [1, 2, 3, 4], "payload": {"n": number}} for number in (1, 2)]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": points}))
    result(http.post(f"/collections/{name}/points/delete?wait=true", json={"points": [1]}))
    return name


def test_the_changes_are_printed_and_one_can_go_on(
    node_url: str, http: httpx.Client, changed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["changes", changed, "--url", node_url]) == 0
    out, error = capsys.readouterr()
    words = [line.split()[1:] for line in out.splitlines()]
    assert words == [["insert", "1", "vector,", "n"], ["insert", "2", "vector,", "n"], ["delete", "1", "vector,", "n"]]
    place = error.removeprefix("go on with: --from ").strip()
    result(http.post(f"/collections/{changed}/points/payload?wait=true", json={"points": [2], "payload": {"k": 1}}))
    assert main(["changes", changed, "--url", node_url, "--from", place, "--json", "--with-before", "--with-vector"]) == 0
    (change,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert change["before"] == {"payload": {"n": 2}, "vector": [1, 2, 3, 4]}
    assert change["after"]["payload"] == {"n": 2, "k": 1}
    assert main(["changes", changed, "--url", node_url, "--snapshot", "--json"]) == 0
    assert [json.loads(line)["op"] for line in capsys.readouterr().out.splitlines()] == ["snapshot"]


def test_what_the_node_refuses_is_said(node_url: str, changed: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in ((["nowhere"], "doesn't exist"), ([changed, "--from", "nonsense"], "from: ")):
        assert main(["changes", *arguments, "--url", node_url]) == 1
        out, error = capsys.readouterr()
        assert not out
        assert says in error


@pytest.mark.slow
def test_a_follower_prints_what_changes_until_it_is_interrupted(node_url: str, http: httpx.Client, changed: str) -> None:
    command = [sys.executable, "-m", "vecraft", "changes", changed, "--url", node_url, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert [follower.stdout.readline().split()[1] for _ in range(3)] == ["insert", "insert", "delete"]
        result(http.post(f"/collections/{changed}/points/delete", json={"points": [2]}))
        assert follower.stdout.readline().split()[1:3] == ["delete", "2"]
        follower.send_signal(signal.SIGINT)
        assert follower.wait(WAIT_S) == 130
        assert follower.stderr.read().startswith("go on with: --from f.")
