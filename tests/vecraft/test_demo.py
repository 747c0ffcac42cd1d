"""The demo, as `make run` starts it: it ends well, and what it prints is so."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import start_node
from vecraft.cli import main

DEMO_S = 120


@pytest.mark.slow
def test_the_demo_shows_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real input, three searches of which one is filtered, a read of its own write (I9), and the record of that write."""
    demo = run_demo(tmp_path)
    assert demo.returncode == 0, demo.stderr
    shown = demo.stdout

    searches = re.findall(r"^Search: (.+?)(?:, only in module (\w+))?  \(.+ ms\)\n((?:  .+\n)+)", shown, re.M)
    assert len(searches) == 3
    assert all(len(hits.splitlines()) == 5 for _, _, hits in searches)
    filtered = [(module, re.findall(r"^  \d\.\d{3}  (\S+)", hits, re.M)) for _, module, hits in searches if module]
    assert [module for module, _ in filtered] == ["zipfile"]
    assert all(name.startswith("zipfile.") for _, names in filtered for name in names)
    assert "functools.lru_cache" in searches[0][2]

    [note] = re.findall(r"^  seen +(.+)$", shown, re.M)
    assert note.startswith("best hit of the demo at ")
    assert "level=read_your_writes" in shown
    assert re.search(r"^API docs: http://127\.0\.0\.1:\d+/docs$", shown, re.M)

    [deleted] = re.findall(r"^Rewind: (\S+) is deleted", shown, re.M)
    assert re.findall(r"^  as of +\d\.\d{3}  (\S+)$", shown, re.M) == [deleted]
    assert re.findall(r"^  \S+Z  (\w+)", shown, re.M) == ["Delete", "PatchPayload", "Upsert"]
    assert re.search(r"^Restored \S+ to it: 1 point written, 0 deleted\.$", shown, re.M)

    [request_id] = re.findall(r"wait=false, request (\S+)$", shown, re.M)
    [position] = re.findall(r"^  position +(vecraft\.tier1/\d+/\d+)$", shown, re.M)
    [hlc] = re.findall(r"^  HLC +(\d+) \(", shown, re.M)
    assert main(["journal", "show", position, "--data-dir", str(tmp_path)]) == 0
    record = capsys.readouterr().out
    assert request_id in record
    assert hlc in record
    assert "functools.lru_cache" in record


def test_a_folder_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    node, thread = start_node(tmp_path)
    demo = run_demo(tmp_path)
    node.stop()
    thread.join(15)
    assert demo.returncode == 1
    assert demo.stderr == f"vecraft demo: data folder {tmp_path} is in use by another process; name another with --data-dir\n"


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = run_demo(tmp_path, port)
    assert demo.returncode == 1
    assert demo.stderr.startswith(f"vecraft demo: cannot listen on 127.0.0.1 port {port}: Address already in use; ")
    assert not list(tmp_path.iterdir())


def run_demo(data_dir: Path, port: int = 0) -> subprocess.CompletedProcess[str]:
    """`vecraft demo --once` as a process of its own."""
    command = [sys.executable, "-m", "vecraft", "demo", "--once", "--port", str(port), "--data-dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEMO_S, check=False)
