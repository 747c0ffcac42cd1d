"""The commands' client: results, and failures in words."""

from __future__ import annotations

import socket

import pytest

from vecraft.http_client import Client, RequestFailed, Unreachable


def test_a_request_gives_its_result(node_url: str, name: str) -> None:
    with Client(node_url, 30) as client:
        client.wait_until_ready(30)
        body = {"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}
        written = client.answer("PUT", f"/collections/{name}/points?wait=true", body, {"X-Request-Id": "mine"})
        assert written.headers["X-Request-Id"] == "mine"
        assert client.call("POST", f"/collections/{name}/points/count") == {"count": 1}


def test_a_refusal_says_what_was_asked_and_answered(node_url: str) -> None:
    with Client(node_url, 30) as client, pytest.raises(RequestFailed, match=r"GET /collections/none got 404: .*Not found"):
        client.call("GET", "/collections/none")


def test_a_node_that_is_not_there_or_does_not_answer_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, 0.1) as client, pytest.raises(RequestFailed, match=r"did not answer within 0\.1 s"):
            client.call("GET", "/")
    with Client(url, 30) as client, pytest.raises(Unreachable, match=f"no node answers at {url}"):
        client.wait_until_ready(0)
