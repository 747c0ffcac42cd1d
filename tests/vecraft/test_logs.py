"""Logs: one form for all lines, a level that can be changed while the node runs, and a bound for what repeats."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from gateway.log_level import QUIET, level, set_level
from journal.log import Indefinite
from replayer.failures import FailureLog
from tests.conftest import result
from tests.server import Server
from vecraft.logs import BURST, WINDOW_S, Bound, JsonLines, TextLines

FIELDS = {"timestamp", "level", "logger", "message", "node"}
CHATTY = "uvicorn.error"


@pytest.fixture
def levels() -> Iterator[None]:
    """Gives the levels of this process back."""
    before = {name: logging.getLogger(name).level for name in ("", *QUIET)}
    yield
    for name, value in before.items():
        logging.getLogger(name or None).setLevel(value)


def record(message: str, *arguments: object, error: Exception | None = None, line: int = 1) -> logging.LogRecord:
    exception = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("shard.shards", logging.WARNING, "shards.py", line, message, arguments, exception)


def raised() -> Exception:
    try:
        raise RuntimeError("no space")
    except RuntimeError as error:
        return error


def test_a_json_line_has_the_fields_and_the_exception_as_one_of_them() -> None:
    plain = json.loads(JsonLines("left").format(record("shard %d fails", 7)))
    assert plain.keys() == FIELDS
    assert (plain["level"], plain["logger"], plain["message"], plain["node"]) == (
        "warning",
        "shard.shards",
        "shard 7 fails",
        "left",
    )
    moment = datetime.fromisoformat(plain["timestamp"])
    assert plain["timestamp"].endswith("Z")
    assert moment.utcoffset() is not None
    text = JsonLines("left").format(record("fails", error=raised()))
    assert "\n" not in text
    failed = json.loads(text)
    assert failed.keys() == FIELDS | {"exception"}
    assert failed["exception"].splitlines()[-1] == "RuntimeError: no space"


def test_what_is_no_unicode_is_logged_all_the_same() -> None:
    assert json.loads(JsonLines("left").format(record("name \udcff")))["message"] == "name ?"


def test_a_name_from_outside_cannot_forge_a_line() -> None:
    """Of the text form: JSON escapes by itself."""
    text = TextLines().format(record("collection %s", "a\n2026-01-01T00:00:00.000Z INFO vecraft: ready\x1b[2J"))
    assert text.endswith(" WARNING shard.shards: collection a\\n2026-01-01T00:00:00.000Z INFO vecraft: ready\\x1b[2J")
    assert len(text.splitlines()) == 1
    assert TextLines().format(record("fails", error=raised())).splitlines()[-1] == "RuntimeError: no space"


def test_each_place_has_a_bound_and_what_is_left_out_is_counted() -> None:
    now_s = [0.0]
    bound = Bound(lambda: now_s[0])
    passed = [bound.filter(record("dead letter")) for _ in range(BURST + 5)]
    assert passed == [True] * BURST + [False] * 5
    assert bound.filter(record("another place", line=2))
    now_s[0] = WINDOW_S
    late = record("dead letter")
    assert bound.filter(late)
    assert TextLines().format(late).endswith("dead letter (5 more like this were left out)")
    later = record("dead letter")
    assert bound.filter(later)
    assert "left out" not in TextLines().format(later)


def test_a_row_of_failures_is_logged_at_its_begin_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog()
    with caplog.at_level(logging.INFO):
        failures.succeeded("it goes on")
        for second in range(5):
            failures.failed("it stopped", Indefinite(f"no answer after {second} s"))
        failures.failed("it stopped", RuntimeError("a defect"))
        failures.succeeded("it goes on")
        failures.succeeded("it goes on")
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", "it stopped: no answer after 0 s"),
        ("ERROR", "it stopped: a defect"),
        ("INFO", "it goes on, after 6 failures"),
    ]


@pytest.mark.usefixtures("levels")
def test_libraries_say_less_than_the_node_unless_all_is_wanted() -> None:
    for name, of_libraries in (("info", "WARNING"), ("error", "ERROR"), ("debug", "DEBUG"), ("warning", "WARNING")):
        set_level(name)  # type: ignore[arg-type]
        assert level() == name
        assert {logging.getLevelName(logging.getLogger(library).level) for library in QUIET} == {of_libraries}


@pytest.mark.usefixtures("levels")
def test_the_level_changes_while_the_node_runs(http: httpx.Client) -> None:
    assert result(http.put("/v1/admin/log-level", json={"level": "error"})) == {"level": "error"}
    assert not logging.getLogger("replayer.loop").isEnabledFor(logging.WARNING)
    assert result(http.get("/admin/log-level")) == {"level": "error"}
    wrong = {"loud": {"level": "loud"}, "`str`": {"level": 10}, "`level`": {}, "`logger`": {"level": "info", "logger": "shard"}}
    for said, body in wrong.items():
        refused = http.put("/v1/admin/log-level", json=body)
        assert refused.status_code == 400
        assert said in refused.text
        assert result(http.get("/admin/log-level")) == {"level": "error"}, "nothing has changed"


def test_every_line_of_a_node_is_json_those_of_libraries_too(tmp_path: Path) -> None:
    server = Server(tmp_path, "--node", "left", "--log-format", "json", "--log-level", "debug").start()
    assert result(httpx.put(f"{server.url}/admin/log-level", json={"level": "info"})) == {"level": "info"}
    server.terminate()
    lines = [json.loads(line) for line in server.log]
    assert all(FIELDS <= line.keys() <= FIELDS | {"exception"} for line in lines)
    assert {line["node"] for line in lines} == {"left"}
    loggers = [line["logger"] for line in lines]
    assert CHATTY in loggers
    changed = next(at for at, line in enumerate(lines) if line["message"] == "the log level is info now, it was debug")
    assert "debug" not in {line["level"] for line in lines[changed:]}
    assert CHATTY not in loggers[changed:]
    assert lines[-1]["message"] == "stopped"
