"""Writes that depend on what is stored: what a retry finds of an attempt that died, and what an error says (V13, V14)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from gateway import decided
from gateway.barriers import Barriers
from gateway.http.endpoint import _request_digest
from gateway.services import Services
from gateway.turns import NoTurn, Turns
from journal.ids import encode_id
from journal.records import PatchPayload
from journal.stamps import Version
from journal.writer import Decided, Destination, Origin
from query import points
from shard.replica import PayloadPart
from tests.conftest import result, start_node
from tests.reading import now, pinned

PATH = "/collections/c/points/payload"
ROUTE = "/collections/{collection_name}/points/payload"
EDIT = {"payload": {"b": 1}, "key": "deep", "points": [1, 2]}


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, httpx.Client]]:
    """A node's inside, and a client of it."""
    running, thread = start_node(tmp_path_factory.mktemp("node"))
    assert running._services is not None
    with httpx.Client(base_url=running.url, timeout=30) as client:
        client.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        two = [{"id": id_, "vector": [1, 2], "payload": {"deep": {"n": id_}}} for id_ in (1, 2)]
        result(client.put("/collections/c/points?wait=true", json={"points": two}))
        yield running._services, client
    running.stop()
    thread.join(15)


def payloads(client: httpx.Client) -> dict[int, Any]:
    found = result(client.post("/collections/c/points?consistency=strong", json={"ids": [1, 2], "with_payload": True}))
    return {point["id"]: point["payload"]["deep"] for point in found}


class Attempt:
    """The writes of a node that died in the middle of a request with the key `once`: the first attempt, one point at a time."""

    def __init__(self, services: Services, body: bytes) -> None:
        self._services = services
        self._collection = services.reads.catalog.collections["c"]
        self._origin = Origin("died", "once/" + _request_digest("POST", f"{ROUTE}/c", body))

    def version(self, point: int) -> Version:
        found = points.retrieve(pinned(self._services.node.shards.of(self._collection.id)), [encode_id(point)], PayloadPart())
        return now(found)[0].version

    def write(self, point: int, expected: Version) -> None:
        collection = self._collection
        position = self._services.reads.catalog.position
        patch = PatchPayload([encode_id(point)], orjson.dumps({"deep": {"n": point, "b": 1}}))
        destination = Destination("", collection.id, position, collection.homes)
        writing = self._services.writes.writer.write_decided(destination, [Decided(patch, [expected])], 1, self._origin, 1)
        assert self._services.node.replayer.applied.wait(writing.result(10).token().positions, 10)


def test_a_retry_goes_on_where_an_attempt_died(node: tuple[Services, httpx.Client]) -> None:
    """What the first attempt has changed is left alone, also when it was changed again; what comes late of it has no effect."""
    services, client = node
    body = orjson.dumps(EDIT)
    first = Attempt(services, body)
    expected = first.version(2)
    first.write(1, first.version(1))
    result(client.post(f"{PATH}?wait=true", json={"payload": {"b": 5}, "key": "deep", "points": [1]}))
    headers = {"Idempotency-Key": "once", "Content-Type": "application/json"}
    assert result(client.post(f"{PATH}?wait=true", content=body, headers=headers))["status"] == "completed"
    assert payloads(client) == {1: {"n": 1, "b": 5}, 2: {"n": 2, "b": 1}}
    result(client.post(f"{PATH}?wait=true", json={"payload": {"b": 7}, "key": "deep", "points": [2]}))
    first.write(2, expected)
    first.write(2, first.version(2))
    assert payloads(client)[2] == {"n": 2, "b": 7}


def test_points_that_others_keep_changing(node: tuple[Services, httpx.Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of rounds: 409, which says what was changed and what was not."""
    _, client = node
    monkeypatch.setattr(decided, "MAX_ROUNDS", 3)
    take, rounds = decided.DecidedWrites._write, []

    async def changed_by_another(self: Any, mine: Any, decisions: Any) -> Any:
        rounds.append(len(decisions))
        patch = PatchPayload([encode_id(2)], b'{"other": %d}' % len(rounds))
        await self.writes.write(mine.request, mine.response, mine.collection, patch)
        return await take(self, mine, decisions)

    monkeypatch.setattr(decided.DecidedWrites, "_write", changed_by_another)
    refused = client.post(f"{PATH}?wait=true", json=EDIT)
    assert refused.status_code == 409
    text = refused.json()["status"]["error"]
    assert "1 points were changed by others each of the 3 times" in text
    assert "1 points of it are written" in text
    assert len(rounds) == 3
    assert payloads(client) == {1: {"n": 1, "b": 1}, 2: {"n": 2}}


def test_a_batch_that_fails_says_what_of_it_was_done(node: tuple[Services, httpx.Client]) -> None:
    _, client = node
    operations = [{"delete": {"points": [1]}}, {"set_payload": {"payload": {"a": 1}, "points": [9]}}, {"delete": {"points": [2]}}]
    refused = client.post("/collections/c/points/batch?wait=true", json={"operations": operations})
    assert refused.status_code == 404
    assert "operations[1], set_payload, failed; the 1 before it are applied, the 1 after it are not" in refused.text
    assert payloads(client).keys() == {2}


def test_turns_are_taken_in_order_and_given_back() -> None:
    """Whoever is cancelled, or waits too long, leaves the queue."""

    async def live() -> list[str]:
        turns, order = Turns(), []
        entered, leave = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with turns.take(["a", "b"], 5):
                entered.set()
                await leave.wait()
                order.append("first")

        async def other(name: str, keys: list[str], timeout_s: float = 5) -> None:
            async with turns.take(keys, timeout_s):
                order.append(name)

        tasks = [asyncio.create_task(first())]
        await entered.wait()
        await other("beside", ["c"])
        tasks += [asyncio.create_task(other(name, keys)) for name, keys in (("second", ["b", "c"]), ("third", ["c"]))]
        with pytest.raises(NoTurn):
            await other("late", ["a"], 0.01)
        gone = asyncio.create_task(other("gone", ["a", "c"]))
        await asyncio.sleep(0)
        gone.cancel()
        leave.set()
        await asyncio.gather(*tasks)
        assert turns.waiting == 0
        assert not turns._queues
        return order

    assert asyncio.run(live()) == ["beside", "first", "second", "third"]


def test_requests_that_wait_share_a_round_of_barriers() -> None:
    """I11: many writers at once do not write many barriers; one that comes during a round waits for the next."""

    async def live() -> list[list[int]]:
        rounds: list[list[int]] = []
        go_on = asyncio.Event()

        async def write(collection: Any, shard: int, tiers: list[int]) -> None:
            rounds.append(tiers)
            await go_on.wait()

        barriers = Barriers(write)
        collection: Any = type("Collection", (), {"id": 1})()
        waiting = [asyncio.create_task(barriers.round(collection, 0, 1))]
        while not rounds:
            await asyncio.sleep(0)
        waiting += [asyncio.create_task(barriers.round(collection, 0, tier)) for tier in (1, 1, 2)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*waiting)
        assert not barriers._shards
        return rounds

    assert asyncio.run(live()) == [[0, 2, 3], [0, 1, 2, 3]]


def test_a_point_that_would_become_too_large_is_found_before_anything_is_written(node: tuple[Services, httpx.Client]) -> None:
    """Not after the points before it are changed."""
    _, client = node
    many = [{"id": id_, "vector": [1, 2], "payload": {"f": 1, "deep": {}}} for id_ in range(10, 610)]
    many[400]["payload"] = {"f": 1, "deep": {"big": "x" * 600_000}}
    for start in range(0, len(many), 300):
        result(client.put("/collections/c/points?wait=true", json={"points": many[start : start + 300]}))
    body = {"filter": {"must": [{"key": "f", "match": {"value": 1}}]}, "payload": {"more": "y" * 350_000}, "key": "deep"}
    refused = client.post(f"{PATH}?wait=true", json=body)
    assert refused.status_code == 400
    assert "a record holds at most 900000" in refused.text
    changed = {"must_not": [{"is_empty": {"key": "deep.more"}}]}
    assert result(client.post("/collections/c/points/count", json={"filter": changed})) == {"count": 0}


def test_a_turn_that_does_not_come_in_time_is_a_503(node: tuple[Services, httpx.Client]) -> None:
    """Definite: nothing was written."""
    services, client = node
    key = (services.reads.catalog.collections["c"].id, encode_id(1))

    async def hold() -> httpx.Response:
        async with services.decided.turns.take([key], 5):
            return await asyncio.to_thread(client.post, f"{PATH}?wait=true&timeout=1", json=EDIT)

    refused = asyncio.run(hold())
    assert refused.status_code == 503
    assert "not written" in refused.json()["status"]["error"]
    assert refused.headers["Retry-After"]
    assert payloads(client)[1] == {"n": 1}


def test_an_error_carries_the_position_of_what_was_written_and_seen(node: tuple[Services, httpx.Client]) -> None:
    """I9: in its header, its cookie, and the session of an API key."""
    services, client = node
    other = client.put("/collections/c/points", json={"points": [{"id": 5, "vector": [1, 2]}]}, headers={"X-Vecraft-Tier": "0"})
    seen = other.headers["X-Vecraft-Position"]
    client.cookies.clear()
    body = {"payload": {"a": 1}, "points": [1, 99]}
    refused = client.post(PATH, json=body, headers={"X-Vecraft-Position": seen, "api-key": "mine"})
    assert refused.status_code == 404
    tiers = {part.split("-")[0] for part in refused.headers["X-Vecraft-Position"].split(".")[2:]}
    assert {"0", "1"} <= tiers
    assert refused.cookies["vecraft_position"] == refused.headers["X-Vecraft-Position"]
    assert services.sessions.get("mine") is not None
