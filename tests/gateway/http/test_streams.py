"""A reader of a stream that takes nothing is cut off, with bounded memory for it, and can go on after what it has read (I11)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.http import connection
from tests.conftest import result, start_node, until
from vecraft.node import Node

WAIT_S = 30
POINTS, PAYLOAD_BYTES = 60, 200_000
"""Together more than the buffers of two sockets hold."""

REQUEST = b"GET /collections/c/changes HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n"
EVENT = re.compile(rb"id: (\S+)\nevent: change\n(data: .*)\n\n")


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(connection, "SILENCE_S", 0.3)
    monkeypatch.setattr(connection, "SWEEP_S", 0.05)
    node, thread = start_node(tmp_path_factory.mktemp("node"), serving_threads=1)
    yield node
    node.stop()
    thread.join(15)


@pytest.mark.slow
def test_a_reader_that_takes_nothing_is_cut_off_and_can_go_on(node: Node) -> None:
    followers = node._services.feeds.followers
    parts = urlsplit(node.url)
    with httpx.Client(base_url=node.url, timeout=WAIT_S) as http, socket.socket() as slow:
        result(http.put("/collections/c", json={"vectors": {"size": 1, "distance": "Dot"}}))
        for number in range(POINTS):
            point = {"id": number, "vector": [1], "payload": {"text": "x" * PAYLOAD_BYTES}}
            result(http.put("/collections/c/points", json={"points": [point]}))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(WAIT_S)
        slow.connect((parts.hostname, parts.port))
        slow.sendall(REQUEST)
        until(lambda: "vecraft_feed_cut_off_total 1.0" in http.get("/metrics").text, WAIT_S)
        assert len(followers) == 0
        received = b""
        try:
            while more := slow.recv(65536):
                received += more
        except ConnectionResetError:
            pass
        read = [token.decode() for token, _ in EVENT.findall(re.sub(rb"\r\n[0-9a-f]+\r\n", b"", received))]
        assert 0 <= len(read) < POINTS
        page = {"next": read[-1] if read else "earliest", "caught_up": False}
        rest: list[int] = []
        while not page["caught_up"]:
            page = result(http.get("/collections/c/changes", params={"from": page["next"]}))
            rest += [event["id"] for event in page["changes"]]
        assert rest == list(range(len(read), POINTS))
