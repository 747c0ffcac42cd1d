"""The command line: help for each command, and errors in plain words with no traceback."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from journal.log import Definite, Indefinite
from tests.conftest import start_node
from vecraft.cli import COMMANDS, EXIT_INTERRUPTED, main, parser_of
from vecraft.commands import journal_failure
from vecraft.flags import GROUPS
from vecraft.node import _bound_socket
from vecraft.roles import StartError
from vecraft.settings import Settings


def commands_of(parser: argparse.ArgumentParser, *names: str) -> Iterator[list[str]]:
    """Each command line of a parser that leads to a parser of its own: the subcommands at every level."""
    yield [*names]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands_of(below, *names, name)


COMMAND_LINES = [[], *(line for name in COMMANDS for line in commands_of(parser_of(name)) if line[:1] == [name])]
ACTIONS = [line for line in COMMAND_LINES if len(line) == 2]
WAIT_S = 60


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line prints that asks for help."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error of a command line that cannot be carried out."""
    assert main([*arguments]) == 1
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("vecraft: ")
    return error


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=" ".join)
def test_every_command_at_every_level_has_a_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A percent sign in any of its texts would raise."""
    for flag in ("--help", "-h"):
        assert shown(capsys, *arguments, flag).startswith(" ".join(["usage: vecraft", *arguments]) + " ")


TAKING = (["changes"], ["journal", "show"], ["snapshots", "verify"], ["snapshots", "delete"])
"""Commands with an argument that may be any text."""


def test_every_command_is_walked() -> None:
    assert {line[0] for line in COMMAND_LINES if line} == COMMANDS.keys()
    assert {tuple(line) for line in ACTIONS} >= {("journal", "tail"), ("journal", "show"), ("topics", "check")}


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=" ".join)
def test_what_a_command_does_not_know_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    for more in ("--nonsense", "nonsense"):
        if more == "nonsense" and arguments in TAKING:
            continue  # a request, or a snapshot
        with pytest.raises(SystemExit) as ended:
            main([*arguments, more])
        out, error = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert error.startswith("vecraft")
        assert "see `vecraft" in error
        assert len(error.splitlines()) == 1


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["journal", "show"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error == "vecraft journal show: the following arguments are required: WHAT; see `vecraft journal show --help`\n"


@pytest.mark.parametrize(
    ("arguments", "helps"),
    [
        (["journal", "tail"], ": --data-dir names the folder of a node"),
        (["journal", "show", "r1"], ": --data-dir names the folder of a node"),
        (["journal", "repair"], ": --data-dir names the folder of a node"),
        (["ingest", "status"], "(refused|disconnected).*: start one with `vecraft serve`, or name another address with --url"),
        (["ingest", "pause"], ": start one with `vecraft serve`, or name another address with --url"),
        (["ingest", "move", "--to", "latest"], ": start one with `vecraft serve`, or name another address with --url"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_first_use_of_an_action_says_in_one_sentence_what_it_needs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], helps: str
) -> None:
    """In a folder without anything, with no node."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VECRAFT_PORT", "1")
    (line,) = refused(capsys, *arguments).splitlines()
    assert re.search(f"{helps}$", line), line
    assert "Errno" not in line
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_said_with_what_names_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartError, match="name another --port or --host"):
        _bound_socket(*taken.getsockname())


def test_help_names_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    assert all(f" {name} {about} " in text for name, about in COMMANDS.items())
    assert "examples: vecraft demo" in text


@pytest.mark.parametrize("arguments", [[], ["journal"], ["audit"], ["ingest"], ["snapshots"], ["topics"]], ids=" ".join)
def test_a_command_that_says_nothing_of_what_to_do_prints_its_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert shown(capsys, *arguments) == shown(capsys, *arguments, "--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_description_and_examples(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = shown(capsys, name, "--help")
    assert text.startswith(f"usage: vecraft {name} ")
    assert f"examples: vecraft {name}" in text


@pytest.mark.parametrize("arguments", ACTIONS, ids=" ".join)
def test_each_action_has_the_settings_that_matter_to_it(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    text = shown(capsys, *arguments, "--help")
    assert text.startswith(f"usage: vecraft {' '.join(arguments)} ")
    asks_a_node = arguments[0] in ("ingest", "snapshots") or arguments == ["journal", "trim"]
    address = "--port N" if asks_a_node else "--bootstrap-servers TEXT Kafka brokers, comma-separated (default: 127.0.0.1:9092; "
    assert address in text
    assert "--serving-threads" not in text


def test_the_help_of_serve_has_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "serve", "--help")
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text
        assert f"; VECRAFT_{name.upper()})" in text
    assert "--port N port to listen on; 0 for any that is free (default: 6333; VECRAFT_PORT)" in text
    assert "80 % of the machine's" in text


def test_every_setting_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(Settings.model_fields)


def test_help_imports_nothing_that_takes_long() -> None:
    """A newcomer's first command answers at once."""
    code = (
        "import sys; from vecraft.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*({'pydantic', 'numpy', 'httpx', 'vecraft.node'} & sys.modules.keys()), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert found.stderr == "\n"


def test_what_is_no_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sevre"])
    assert ended.value.code == 2
    assert "invalid choice: 'sevre'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running node with three records: a collection, and two points of it under the requests r1 and r2."""
    folder = tmp_path_factory.mktemp("node")
    node, thread = start_node(folder)
    with httpx.Client(base_url=node.url, timeout=30) as http:
        http.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        for number in (1, 2):
            body = {"points": [{"id": number, "vector": [1, 2]}]}
            written = http.put("/collections/c/points?wait=true", json=body, headers={"X-Request-Id": f"r{number}"})
            written.raise_for_status()
    yield folder
    node.stop()
    thread.join(15)


def test_tail_prints_the_latest_records(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["journal", "tail", "--count", "2", "--data-dir", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:] for line in lines] == [["r1", "Upsert", "1"], ["r2", "Upsert", "2"]]


def test_show_prints_a_record_by_its_position_or_its_request(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["journal", "show", "vecraft.system/0/0", "--data-dir", str(folder)]) == 0
    assert "CreateCollection 'c'" in capsys.readouterr().out
    assert main(["journal", "show", "r2", "--data-dir", str(folder)]) == 0
    assert "Upsert 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("vecraft.tier1/abc/1", "'vecraft.tier1/abc/1' is not a position: topic/partition/offset"),
        ("x/y/z", "not a position"),
        ("vecraft.tier1/0", "not a position"),
        ("vecraft.tier1/0/1/2", "not a position"),
        ("vecraft.tier1/0/-1", "not a position"),
        ("vecraft.tier1/0/" + "9" * 30, "not a position"),
        ("/", "not a position"),
        ("vecraft.tier9/0/1", "no partition vecraft.tier9/0, its topics are vecraft.system, vecraft.tier0"),
        ("vecraft.tier1/9/1", "no partition vecraft.tier1/9"),
        ("vecraft.system/0/7", "vecraft.system/0 has no record at 7, its last is at 0"),
        ("vecraft.tier3/0/0", "vecraft.tier3/0 has no record at 0, it is empty"),
        ("nobody", "no record of request 'nobody'"),
        ("", "no record of request ''"),
    ],
)
def test_a_record_that_is_not_there_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, what: str, text: str
) -> None:
    error = refused(capsys, "journal", "show", what, "--data-dir", str(folder))
    assert text in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["tail"], ["show", "r1"], ["show", "vecraft.tier1/0/0"]], ids=" ".join)
def test_a_folder_without_a_journal_is_said_and_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    for missing in (tmp_path / "nowhere", tmp_path):
        error = refused(capsys, "journal", *arguments, "--data-dir", str(missing))
        assert error == f"vecraft: there is no journal in {missing / 'journal'}: --data-dir names the folder of a node\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["tail"], ["show", "r1"], ["show", "vecraft.tier1/0/0"]], ids=" ".join)
def test_reading_a_journal_leaves_its_folder_as_it_is(tmp_path: Path, folder: Path, arguments: list[str]) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder / "journal", copied / "journal", ignore=shutil.ignore_patterns("LOCK"))
    before = _files(copied)
    main(["journal", *arguments, "--data-dir", str(copied)])
    assert _files(copied) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_topics_that_the_journal_does_not_have_are_said(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """Of another prefix."""
    for arguments in (["tail"], ["show", "r1"], ["show", "other.tier1/0/0"]):
        error = refused(capsys, "journal", *arguments, "--data-dir", str(folder), "--topic-prefix", "other")
        assert error == "vecraft: the journal has no topics other.*, --topic-prefix names those of the node\n"


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0"])
def test_a_name_that_no_folder_can_have_is_said(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert len(refused(capsys, "journal", "tail", "--data-dir", name).splitlines()) == 1


def test_a_journal_that_cannot_be_read_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "CURRENT").write_text("nonsense")
    assert "cannot read the journal in" in refused(capsys, "journal", "tail", "--data-dir", str(tmp_path))


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "9" * 30])
def test_a_number_of_records_is_one_or_more(capsys: pytest.CaptureFixture[str], count: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["journal", "tail", f"--count={count}"])
    assert ended.value.code == 2
    assert "must be 1 or more" in capsys.readouterr().err


def test_brokers_that_do_not_answer_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--bootstrap-servers", "127.0.0.1:1", "--append-timeout-s", "0.5"]
    for command in (["topics", "check"], ["journal", "tail", "--journal", "kafka"]):
        assert "--bootstrap-servers" not in refused(capsys, *command, *flags)


def test_brokers_that_nobody_has_named_are_said_with_what_names_them() -> None:
    said, unsaid = Settings(journal="kafka", bootstrap_servers="127.0.0.1:9092"), Settings(journal="kafka")
    assert str(journal_failure(Indefinite("nothing listens"), unsaid)) == "nothing listens: --bootstrap-servers names the brokers"
    assert str(journal_failure(Indefinite("nothing listens"), said)) == "nothing listens"
    assert str(journal_failure(Definite("not allowed"), unsaid)) == "not allowed"


@pytest.mark.parametrize("command", ["serve --journal kafka", "topics check", "journal tail --journal kafka"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no.such.setting=1", 'No such configuration property: "no.such.setting"'),
        ("acks=1", "acks cannot be set here: acknowledged means that all in-sync replicas have the record"),
        ("security.protocol=${env:KAFKA_SECRET}", "(hidden)"),
    ],
)
def test_a_configuration_of_kafka_that_cannot_be_is_said(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    text: str,
    said: str,
) -> None:
    """By each command, in one sentence, with status 2, and without secrets."""
    monkeypatch.setenv("KAFKA_SECRET", "a-secret-that-nobody-sees")
    (tmp_path / "kafka.properties").write_text(text)
    flags = ["--kafka-config", str(tmp_path / "kafka.properties"), "--data-dir", str(tmp_path / "data")]
    assert main([*command.split(), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vecraft: kafka_config {tmp_path / 'kafka.properties'}")
    assert said in line
    assert "nobody-sees" not in line


def test_a_config_that_is_no_toml_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "vecraft.toml").write_text("port = = 1")
    assert main(["serve", "--config", str(tmp_path / "vecraft.toml")]) == 2
    assert "vecraft.toml is not TOML: Invalid value" in capsys.readouterr().err


def test_following_ends_quietly(folder: Path) -> None:
    """By Ctrl-C, or because nobody reads on."""
    command = [sys.executable, "-m", "vecraft", "journal", "tail", "--follow", "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, error = following.communicate(timeout=WAIT_S)
    assert (following.returncode, error) == (EXIT_INTERRUPTED, "")
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*command[:5], "--data-dir", str(folder)]
    cut = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=WAIT_S, check=False)
    os.close(write_end)
    assert (cut.returncode, cut.stderr) == (1, "")
