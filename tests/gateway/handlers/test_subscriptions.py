"""Subscriptions that the server keeps (N9): delivered until acknowledged, in bounds; what cannot be delivered is put aside."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway import subscriptions as service
from gateway.handlers import subscriptions as handler
from journal.log import TopicPartition
from tests.conftest import refusal, result, start_node, until
from tests.server import Server
from vecraft.node import Node

WAIT_S = 20


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "COMMIT_EVERY_S", 0.01)
        node, thread = start_node(tmp_path_factory.mktemp("node"))
        yield node
        node.stop()
        thread.join(15)


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=WAIT_S) as client:
        yield client


@pytest.fixture
def name(http: httpx.Client) -> Iterator[str]:
    """The name of a collection, and of a subscription of it."""
    name = f"c{uuid4().hex[:8]}"
    create(http, name)
    yield name
    http.delete(f"/subscriptions/{name}")


def create(http: httpx.Client, name: str) -> None:
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 1, "distance": "Dot"}, "shard_number": 2}))


def subscribe(http: httpx.Client, name: str, **config: object) -> None:
    result(http.put(f"/subscriptions/{name}", json={"collection": name, **config}))


def write(http: httpx.Client, name: str, *numbers: int) -> None:
    for number in numbers:
        point = {"id": number, "vector": [1], "payload": {"n": number}}
        result(http.put(f"/collections/{name}/points?wait=true", json={"points": [point]}))


def call(http: httpx.Client, name: str, action: str, **body: object) -> Any:
    return result(http.post(f"/v1/subscriptions/{name}/{action}", json=body))


def fetch(http: httpx.Client, name: str, **body: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call(http, name, "fetch", **body)["deliveries"]
    return found


def ids(deliveries: list[dict[str, Any]]) -> list[int]:
    return [delivery["event"]["id"] for delivery in deliveries]


def tokens(deliveries: list[dict[str, Any]]) -> list[str]:
    return [delivery["token"] for delivery in deliveries]


def test_a_change_is_delivered_until_it_is_acknowledged(http: httpx.Client, name: str) -> None:
    write(http, name, 1)
    subscribe(http, name, **{"from": "now"}, ack_timeout_ms=100)
    write(http, name, 2, 3)
    first = fetch(http, name)
    assert ids(first) == [2, 3]
    assert [delivery["attempt"] for delivery in first] == [1, 1]
    assert call(http, name, "ack", tokens=tokens(first)[:1]) == {"settled": 1, "unknown": []}
    again = fetch(http, name, wait_ms=WAIT_S * 1000)  # when the time to acknowledge is over
    assert (ids(again), again[0]["attempt"]) == ([3], 2)
    assert again[0]["event"] == first[1]["event"]
    assert call(http, name, "ack", tokens=tokens(first)) == {"settled": 1, "unknown": tokens(first)[:1]}
    assert fetch(http, name) == []
    shown = result(http.get(f"/subscriptions/{name}"))
    assert (shown["state"], shown["in_flight"], shown["waiting"], shown["parked"]) == ("active", 0, 0, 0)
    assert name in [each["name"] for each in result(http.get("/subscriptions"))["subscriptions"]]


def test_what_is_in_flight_has_a_bound_and_room_is_noticed(http: httpx.Client, name: str) -> None:
    write(http, name, *range(5))
    subscribe(http, name, max_in_flight=3)
    first = fetch(http, name)
    assert ids(first) == [0, 1, 2]
    assert fetch(http, name) == []
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(fetch, http, name, wait_ms=WAIT_S * 1000)
        call(http, name, "ack", tokens=tokens(first)[:1])
        assert ids(later.result()) == [3]


def test_a_fetch_waits_for_the_next_change(http: httpx.Client, name: str, node: Node) -> None:
    subscribe(http, name, filter={"must": [{"key": "n", "range": {"gte": 5}}]}, envelope="debezium")
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(fetch, http, name, wait_ms=WAIT_S * 1000)
        until(lambda: len(node._services.feeds.followers) > 0, WAIT_S)
        write(http, name, 1, 7)
        (only,) = later.result()
    assert only["event"]["after"] == {"id": 7, "payload": {"n": 7}}


def test_a_refused_change_is_delivered_again(http: httpx.Client, name: str) -> None:
    write(http, name, 1)
    subscribe(http, name)
    first = fetch(http, name)
    assert call(http, name, "nack", tokens=tokens(first)) == {"refused": 1, "unknown": []}
    assert [delivery["attempt"] for delivery in fetch(http, name)] == [2]


def fail(http: httpx.Client, name: str, attempts: int) -> None:
    """Refuses the first change until it is given up."""
    for _ in range(attempts):
        assert call(http, name, "nack", tokens=tokens(fetch(http, name, limit=1)))["refused"] == 1


def test_what_fails_too_often_is_parked_and_can_be_replayed_or_discarded(http: httpx.Client, name: str) -> None:
    write(http, name, 1, 2)
    subscribe(http, name, max_attempts=2, max_in_flight=1)
    fail(http, name, 2)
    fail(http, name, 2)
    assert fetch(http, name) == []
    parked = result(http.get(f"/subscriptions/{name}/parked"))["parked"]
    assert [(one["id"], one["attempts"]) for one in parked] == [(1, 2), (2, 2)]
    assert call(http, name, "parked/replay", tokens=[parked[1]["token"]]) == {"replayed": 1, "gone": []}
    (again,) = fetch(http, name)
    assert (again["token"], again["attempt"], again["event"]["id"]) == (parked[1]["token"], 1, 2)
    assert len(result(http.get(f"/subscriptions/{name}/parked"))["parked"]) == 2, "until it is acknowledged"
    call(http, name, "ack", tokens=[again["token"]])
    assert [one["id"] for one in result(http.get(f"/subscriptions/{name}/parked"))["parked"]] == [1]
    assert call(http, name, "parked/discard") == {"discarded": 1}
    assert result(http.get(f"/subscriptions/{name}/parked"))["parked"] == []
    missing = http.post(f"/subscriptions/{name}/parked/discard", json={"tokens": [again["token"]]})
    assert missing.status_code == 404


def test_when_as_many_are_parked_as_may_be_it_stops(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.subscriptions.MAX_PARKED", 1)
    write(http, name, 1, 2)
    subscribe(http, name, max_attempts=1, max_in_flight=1)
    fail(http, name, 1)
    fail(http, name, 1)
    stopped = http.post(f"/subscriptions/{name}/fetch")
    assert stopped.status_code == 409
    assert "the bound is 1" in stopped.json()["status"]["error"]
    call(http, name, "parked/discard")
    call(http, name, "resume")
    assert ids(fetch(http, name)) == [2]


def test_what_fails_too_often_is_skipped_or_stops_the_subscription(http: httpx.Client, name: str) -> None:
    write(http, name, 1, 2)
    subscribe(http, name, max_attempts=1, max_in_flight=1, on_failure="skip")
    fail(http, name, 1)
    deliveries = fetch(http, name)
    assert ids(deliveries) == [2]
    result(http.put(f"/subscriptions/{name}", json={"collection": name, "max_attempts": 1, "on_failure": "stop"}))
    call(http, name, "nack", tokens=tokens(deliveries))
    assert http.post(f"/subscriptions/{name}/fetch").status_code == 409
    shown = result(http.get(f"/subscriptions/{name}"))
    assert shown["state"] == "stopped"
    assert "point 2 was delivered 1 times" in shown["reason"]
    call(http, name, "resume")
    assert ids(fetch(http, name)) == [2]


def test_its_lag_stands_as_that_of_a_consumer_group(http: httpx.Client, name: str, node: Node) -> None:
    state = node._services.node
    homes = node._services.feeds.partitions(node._services.reads.catalog.find(name))[:-1]
    subscribe(http, name)
    group = result(http.get(f"/subscriptions/{name}"))["group"]
    write(http, name, 1, 2)

    def lag() -> dict[TopicPartition, int]:
        ends, committed = state.journal.end_offsets(homes), state.journal.committed(group, homes)
        return {home: ends[home] - committed.get(home, 0) for home in homes}

    first = fetch(http, name)
    assert sum(lag().values()) > 0
    call(http, name, "ack", tokens=tokens(first))
    until(lambda: fetch(http, name) == [] and not any(lag().values()), WAIT_S)


@pytest.mark.parametrize("kept_by", ["the group", "the catalog"])
def test_a_node_that_knows_nothing_goes_on_at_the_place(
    http: httpx.Client, name: str, node: Node, monkeypatch: pytest.MonkeyPatch, kept_by: str
) -> None:
    """As after a restart. A log on Kafka forgets groups that commit nothing for a week; then the catalog has the place."""
    catalog, journal = node._services.node.replayer.catalog, node._services.node.journal
    monkeypatch.setattr(service, "MOVE_EVERY_MS", -1 if kept_by == "the catalog" else 3_600_000)
    subscribe(http, name, **{"from": "now"})
    begin = catalog.view.subscriptions[name].settled
    write(http, name, 1, 2, 3)
    first = fetch(http, name)
    call(http, name, "ack", tokens=tokens(first)[:2])
    group = result(http.get(f"/subscriptions/{name}"))["group"]
    homes = node._services.feeds.partitions(node._services.reads.catalog.find(name))[:-1]
    version = first[2]["event"]["version"] << 2
    if kept_by == "the catalog":
        until(lambda: catalog.view.subscriptions[name].settled >= version, WAIT_S)
        journal.commit(group, dict.fromkeys(homes, 0))
    else:
        until(lambda: max([one.epoch for one in journal.commits(group, homes).values()], default=0) >= version, WAIT_S)
        assert catalog.view.subscriptions[name].settled == begin
    node._services.subscriptions.states.clear()
    assert ids(fetch(http, name)) == [3]


def test_what_another_node_has_settled_is_passed_over(
    http: httpx.Client, name: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other node is what is committed for the group."""
    monkeypatch.setattr(service, "LOOK_EVERY_S", 0)
    write(http, name, 1, 2, 3)
    subscribe(http, name)
    first = fetch(http, name)
    group = result(http.get(f"/subscriptions/{name}"))["group"]
    homes = node._services.feeds.partitions(node._services.reads.catalog.find(name))[:-1]
    version = first[2]["event"]["version"] << 2
    node._services.node.journal.commit(group, dict.fromkeys(homes, 0), dict.fromkeys(homes, version))
    assert call(http, name, "ack", tokens=tokens(first)) == {"settled": 1, "unknown": tokens(first)[:2]}


def test_what_it_cannot_be_is_refused(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(**body: object) -> httpx.Response:
        return http.put(f"/subscriptions/{name}", json={"collection": name, **body})

    for body, says in (
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"ack_timeout_ms": 99}, "ack_timeout_ms"),
        ({"max_attempts": 101}, "max_attempts"),
        ({"on_failure": "cry"}, "on_failure"),
        ({"from": "nonsense"}, "from: "),
        ({"filter": {"must": [{"key": 1}]}}, "filter"),
        ({"with_vector": ["none"]}, "none"),
        ({"unknown": 1}, "unknown"),
    ):
        assert says in refusal(put(**body)), body
    assert put(collection="nowhere").status_code == 404
    assert "subscription name" in refusal(http.put("/subscriptions/a b", json={"collection": name}))
    assert http.post(f"/subscriptions/{name}/fetch").status_code == 404
    subscribe(http, name)
    other = f"{name}b"
    create(http, other)
    assert "another collection" in refusal(put(collection=other))
    assert "tokens: " in refusal(http.post(f"/subscriptions/{name}/ack", json={"tokens": ["x"]}))
    assert "tokens" in refusal(http.post(f"/subscriptions/{name}/ack", json={"tokens": []}))
    monkeypatch.setattr(handler, "MAX_REPLAYED", -1)
    assert "tokens: " in refusal(http.post(f"/subscriptions/{name}/parked/replay"))
    monkeypatch.setattr("catalog.subscriptions.MAX_SUBSCRIPTIONS", 1)
    assert "the bound is 1" in refusal(http.put(f"/subscriptions/{other}", json={"collection": other}))
    result(http.delete(f"/collections/{name}"))
    assert http.post(f"/subscriptions/{name}/fetch").status_code == 404


def test_one_that_is_added_again_begins_anew(http: httpx.Client, name: str) -> None:
    write(http, name, 1, 2)
    subscribe(http, name)
    call(http, name, "ack", tokens=tokens(fetch(http, name)))
    result(http.delete(f"/subscriptions/{name}"))
    subscribe(http, name)
    assert ids(fetch(http, name)) == [1, 2]


@pytest.mark.slow
def test_a_killed_node_delivers_again_what_was_not_settled_and_nothing_is_lost(tmp_path: Path) -> None:
    """At least once, and after 20 kills nothing is left out."""
    server = Server(tmp_path)
    server.start()
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as http:
        create(http, "c")
        subscribe(http, "c", max_in_flight=7, max_attempts=1)
        write(http, "c", *range(60))
    seen: list[int] = []
    repeated = False
    for kill in range(20):
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as http:
            for _ in range(kill % 4):
                found = fetch(http, "c", limit=3)
                repeated |= bool(set(ids(found)) & set(seen))
                seen += ids(found)
                call(http, "c", "ack", tokens=tokens(found)[: 1 + kill % 3] or ["f"]) if found else None
        server.kill()
        server.start()
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as http:
        while found := fetch(http, "c"):
            seen += ids(found)
            call(http, "c", "ack", tokens=tokens(found))
        parked = result(http.get("/subscriptions/c/parked"))["parked"]
    server.kill()
    assert set(seen) == set(range(60))
    assert repeated
    assert not parked
