"""The helper process of bulk bodies: whatever becomes of it, every body is parsed, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.dialect import bulk_parser
from gateway.dialect.bodies import UpsertBody
from gateway.dialect.bulk_parser import BulkParser, _parsed
from gateway.http.errors import BadRequest
from journal.ids import decode_id
from tests.conftest import until

BODY = orjson.dumps({"points": [{"id": number, "vector": [1.0, 2.0]} for number in range(20)]})
WAIT_S = 30


class Rig:
    """A parser, and the processes that it has started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        start = subprocess.Popen

        def noted(*args: Any, **named: Any) -> subprocess.Popen[bytes]:
            self.started.append(start(*args, **named))
            return self.started[-1]

        monkeypatch.setattr(bulk_parser.subprocess, "Popen", noted)
        self.parser = BulkParser()

    def parse(self, body: bytes = BODY) -> list[int | str]:
        """The ids of a body."""
        return [decode_id(id_) for id_ in self.parser.parse(body, False, UpsertBody).result(WAIT_S).operation.ids]

    def start(self) -> subprocess.Popen[bytes]:
        """Parses until a process is up, and returns it."""
        until(lambda: bool(self.parse()) and self.is_up(), WAIT_S)
        return self.started[-1]

    def is_up(self) -> bool:
        return self.parser._helper is not None and self.parser._helper.ready.is_set()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(monkeypatch)
    yield rig
    rig.parser.stop()
    until(lambda: all(process.poll() is not None for process in rig.started), WAIT_S)


IDS = list(range(20))


def test_the_process_parses_what_a_thread_would(rig: Rig) -> None:
    assert rig.parse() == IDS, "the first body does not wait for it"
    process = rig.start()
    assert rig.parse() == IDS
    with pytest.raises(BadRequest, match="Format error"):
        rig.parse(b"{")
    assert process.poll() is None
    assert rig.started == [process]


def test_a_process_that_hangs_is_killed_and_the_body_parsed_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11"""
    monkeypatch.setattr(bulk_parser, "ANSWER_S", 0.2)
    process = rig.start()
    os.kill(process.pid, signal.SIGSTOP)
    assert rig.parse() == IDS
    assert process.wait(WAIT_S) == -signal.SIGKILL


def test_a_process_that_takes_in_nothing_is_killed_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: a body larger than what the channel holds waits to be sent, not for the answer."""
    monkeypatch.setattr(bulk_parser, "ANSWER_S", 0.2)
    process = rig.start()
    os.kill(process.pid, signal.SIGSTOP)
    points = [{"id": number, "vector": [0.5] * 384} for number in range(1000)]
    assert rig.parse(orjson.dumps({"points": points})) == list(range(1000))
    assert process.wait(WAIT_S) == -signal.SIGKILL


def test_a_process_that_does_not_come_up_is_killed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11"""
    monkeypatch.setattr(bulk_parser, "START_S", 0.0)
    assert rig.parse() == IDS
    assert rig.started[0].wait(WAIT_S) == -signal.SIGKILL


def test_a_process_that_fails_again_and_again_is_not_started_for_each_body(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: but it is, once the pause is over."""
    process = rig.start()
    process.kill()
    process.wait(WAIT_S)
    for _ in range(5):
        assert rig.parse() == IDS
    assert len(rig.started) == 1
    monkeypatch.setattr(bulk_parser, "RESTART_S", 0.0)
    assert rig.parse() == IDS
    assert len(rig.started) == 2


def test_texts_for_bm25_become_vectors_where_the_body_is_parsed(rig: Rig) -> None:
    """Texts for other models are left to the server, which has the models."""
    words, meaning = ({"text": "a hen", "model": model} for model in ("qdrant/bm25", "other"))
    body = orjson.dumps({"points": [{"id": 1, "vector": {"words": words, "meaning": meaning}}]})
    rig.start()
    for parsed in (rig.parser.parse(body, False, UpsertBody).result(WAIT_S), _parsed(body, False, UpsertBody)):
        assert [(column.name, column.lengths) for column in parsed.operation.vectors] == [("words", [1])]
        assert [(one.name, one.document.model) for one in parsed.documents] == [("meaning", "other")]
