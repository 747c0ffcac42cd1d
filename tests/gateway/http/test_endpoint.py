"""What a request's headers leave behind in the node is bounded, whatever their length (I11)."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from gateway.services import Services
from journal.log import Entry
from tests.conftest import start_node
from tests.journal.contract import read

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, httpx.Client]]:
    """A node's inside, and a client of it that keeps no cookies."""
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    assert node._services is not None
    with httpx.Client(base_url=node.url, timeout=30) as client:
        client.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        client.cookies.clear()
        yield node._services, client
    node.stop()
    thread.join(15)


def write(client: httpx.Client, **headers: str) -> str:
    """Writes a point, and returns the request's id."""
    request_id = uuid4().hex
    body = {"points": [{"id": 1, "vector": [1, 2]}]}
    names = {name.replace("_", "-"): value for name, value in headers.items()} | {"X-Request-Id": request_id}
    client.put("/collections/c/points?wait=true", json=body, headers=names).raise_for_status()
    client.cookies.clear()
    return request_id


def records(services: Services) -> list[Entry]:
    partitions = services.node.topics.data_partitions()
    return list(read(services.node.journal, dict.fromkeys(partitions, 0)))


def test_a_session_is_known_by_a_digest_of_its_key(mine: tuple[Services, httpx.Client]) -> None:
    """I9, I11: ten thousand keys are remembered, and a header may be as long as the client likes."""
    services, client = mine
    key = "k" * 20_000
    write(client, api_key=key)
    assert max(map(len, services.sessions._tokens)) <= 32
    read_back = client.get("/collections/c/points/1", headers={"api-key": key})
    assert read_back.headers["X-Vecraft-Sync"].startswith("level=read_your_writes")
    known = len(services.sessions._tokens)
    write(client, api_key=key)
    write(client, api_key=key + "k")
    assert len(services.sessions._tokens) == known + 1


@pytest.mark.parametrize(
    ("given", "written"),
    [(TRACE, TRACE.encode()), ("x" * 20_000, None), (TRACE + "-" + "x" * 20_000, None), (TRACE.upper(), None), ("", None)],
    ids=["well-formed", "anything", "too long", "capital letters", "empty"],
)
def test_a_trace_is_written_to_the_log_when_it_is_one(
    mine: tuple[Services, httpx.Client], given: str, written: bytes | None
) -> None:
    """I11: a log is kept for years. What is no traceparent is left out, as its standard has it."""
    services, client = mine
    request_id = write(client, traceparent=given)
    (entry,) = [each for each in records(services) if dict(each.headers)["ce_id"].startswith(request_id.encode())]
    assert dict(entry.headers).get("traceparent") == written
