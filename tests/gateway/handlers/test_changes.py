"""The change feed: every change once and in order, nothing that is contradicted, and each place can be resumed after (N4)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway import feeds as service
from gateway.handlers import changes as handler
from journal.hlc import stamp_at
from query import feed
from tests.conftest import refusal, result, start_node, until
from tests.gateway.dialect.conftest import encoding_replica
from vecraft.node import Node

WAIT_S, MAX_PAGES = 20, 500
Event = dict[str, Any]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Every other shard is asked through bytes, and each loop has a few points a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed, "FIRST_STEP", 3)
        patch.setattr(feed, "STEP_CHANGES", 7)
        node, thread = start_node(tmp_path_factory.mktemp("node"), encoding_replica)
        yield node
        node.stop()
        thread.join(15)


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=WAIT_S) as client:
        yield client


@pytest.fixture
def name(http: httpx.Client) -> str:
    """A collection of three shards."""
    name = f"c{uuid4().hex[:8]}"
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Cosine"}, "shard_number": 3}))
    return name


def put(http: httpx.Client, name: str, *numbers: int, mood: str = "calm", tier: int = 1) -> None:
    points = [{"id": number, "vector": [number, 1], "payload": {"n": number, "mood": mood}} for number in numbers]
    path = f"/collections/{name}/points?wait=true"
    result(http.put(path, json={"points": points}, headers={"X-Vecraft-Tier": str(tier)}))


def delete(http: httpx.Client, name: str, *numbers: int) -> None:
    result(http.post(f"/collections/{name}/points/delete?wait=true", json={"points": list(numbers)}))


def write_some(http: httpx.Client, name: str) -> None:
    """Changes of all kinds in several tiers."""
    for tier in (1, 0, 3, 2):
        put(http, name, *range(tier, 30, 2), mood=f"tier {tier}", tier=tier)
    delete(http, name, *range(0, 30, 5))
    result(http.post(f"/collections/{name}/points/payload?wait=true", json={"points": [1, 2, 3], "payload": {"mood": "wild"}}))
    result(http.put(f"/collections/{name}/points/vectors?wait=true", json={"points": [{"id": 4, "vector": [5, 5]}]}))
    put(http, name, 5, 10, 99)
    delete(http, name, 99)


def page(http: httpx.Client, name: str, **asked: object) -> dict[str, Any]:
    params = {key.rstrip("_"): str(value).lower() if isinstance(value, bool) else value for key, value in asked.items()}
    found: dict[str, Any] = result(http.get(f"/collections/{name}/changes", params=params))
    return found


def pages(http: httpx.Client, name: str, **asked: object) -> Iterator[dict[str, Any]]:
    """Pages until the past is over."""
    for _ in range(MAX_PAGES):
        yield (one := page(http, name, **asked))
        if one["caught_up"]:
            return
        asked.pop("snapshot", None)
        asked["from_"] = one["next"]
    raise AssertionError(f"the past is not over after {MAX_PAGES} pages")


def events(http: httpx.Client, name: str, **asked: object) -> list[Event]:
    return [event for one in pages(http, name, **asked) for event in one["changes"]]


def replayed(told: list[Event], points: dict[int, Event] | None = None) -> dict[int, Event]:
    """What a follower has that does what the events say."""
    points = dict(points or {})
    for event in told:
        if event["op"] == "delete":
            points.pop(event["id"], None)
        else:
            points[event["id"]] = event["after"]
    return points


def stored(http: httpx.Client, name: str) -> dict[int, Event]:
    body = {"limit": 1000, "with_vector": True}
    found = result(http.post(f"/collections/{name}/points/scroll", json=body))["points"]
    return {point.pop("id"): point for point in found}


def test_a_follower_that_does_what_it_is_told_has_the_same_points(http: httpx.Client, name: str) -> None:
    write_some(http, name)
    told = events(http, name, limit=4, with_vector=True, with_before=True)
    assert replayed(told) == stored(http, name)
    assert {event["op"] for event in told} == {"insert", "update", "delete"}
    assert [event["version"] for event in told] == sorted(event["version"] for event in told)
    assert len({event["token"] for event in told}) == len(told)
    assert events(http, name, limit=1000, with_vector=True, with_before=True) == told
    known: dict[int, Event] = {}
    for event in told:
        assert event.get("before") == known.get(event["id"])
        assert (event["op"] == "insert") is (event["id"] not in known)
        known = replayed([event], known)


def test_every_place_can_be_resumed_after(http: httpx.Client, name: str) -> None:
    write_some(http, name)
    told = events(http, name)
    for at in range(0, len(told), 3):
        assert events(http, name, from_=told[at]["token"], limit=9) == told[at + 1 :]


def test_what_was_told_is_never_contradicted(http: httpx.Client, name: str) -> None:
    """Each page ends below what may still come in between, whichever tier comes first."""
    told: list[Event] = []
    place = "earliest"
    for number in range(12):
        put(http, name, number % 5, mood=str(number), tier=(1, 3, 0)[number % 3])
        one = page(http, name, from_=place)
        told, place = told + one["changes"], one["next"]
    told += events(http, name, from_=place)
    assert told == events(http, name)
    assert [event["after"]["payload"]["mood"] for event in told] == [str(number) for number in range(12)]


def test_what_changed_is_named_and_only_wanted_parts_are_shown(http: httpx.Client, name: str) -> None:
    put(http, name, 1)
    result(http.post(f"/collections/{name}/points/payload?wait=true", json={"points": [1], "payload": {"mood": "wild"}}))
    result(http.put(f"/collections/{name}/points/vectors?wait=true", json={"points": [{"id": 1, "vector": [0, 1]}]}))
    first, second, third = events(http, name, with_payload=False)
    assert first["changed"] == {"payload": ["n", "mood"], "vectors": [""]}
    assert second["changed"] == {"payload": ["mood"], "vectors": []}
    assert third["changed"] == {"payload": [], "vectors": [""]}
    assert not first.keys() & {"before", "after"}
    body = {"with_payload": ["mood"], "with_vector": True, "with_before": True, "from": second["token"]}
    (shown,) = result(http.post(f"/collections/{name}/changes", json=body))["changes"]
    assert shown["before"]["payload"] == shown["after"]["payload"] == {"mood": "wild"}
    assert shown["after"]["vector"] == [0, 1]


def test_a_filter_holds_before_or_after_a_change(http: httpx.Client, name: str) -> None:
    put(http, name, 1, 2, mood="wild")
    put(http, name, 1, mood="calm")
    put(http, name, 1, mood="sad")
    put(http, name, 3, mood="calm")
    delete(http, name, 2)
    put(http, name, *range(10, 40))
    condition = {"must": [{"key": "mood", "match": {"value": "wild"}}]}
    told, body = [], {"filter": condition, "from": "earliest", "limit": 2}
    while True:
        one = result(http.post(f"/collections/{name}/changes", json=body))
        told += [(event["op"], event["id"]) for event in one["changes"]]
        body["from"] = one["next"]
        if one["caught_up"]:
            break
    assert told == [("insert", 1), ("insert", 2), ("update", 1), ("delete", 2)]
    assert events(http, name, from_=body["from"]) == []  # the tick is after all that was looked at


def test_a_filter_that_nothing_passes_advances(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page looks at a bounded number of changes, and says how far it came."""
    monkeypatch.setattr(feed, "PAGE_STEPS", 1)
    monkeypatch.setattr("shard.local.CHANGE_STEPS", 1)
    put(http, name, *range(60))
    body = {"filter": {"must": [{"key": "n", "match": {"value": -1}}]}, "from": "earliest"}
    one = result(http.post(f"/collections/{name}/changes", json=body))
    assert (one["changes"], one["caught_up"]) == ([], False)
    rest = events(http, name, from_=one["next"])
    assert 0 < len(rest) < 60


def test_a_feed_begins_where_it_is_told(http: httpx.Client, name: str) -> None:
    put(http, name, 1)
    between = page(http, name, from_="now")["next"]
    (first,) = events(http, name)
    put(http, name, 2)
    both, second = [1, 2], [2]
    for start, ids in (
        ("earliest", both),
        ("-1h", both),
        ("2020-01-01T00:00:00Z", both),
        (str(first["version"] - 1), both),
        (str(first["version"]), second),
        (between, second),
        ("now", []),
    ):
        assert [event["id"] for event in events(http, name, from_=start)] == ids, start


def test_the_place_of_an_idle_feed_does_not_grow_old(http: httpx.Client, name: str, node: Node) -> None:
    """Or it would be before what is kept when the next change comes, though nothing was missed."""
    clock, log = node._services.node.clock, node._services.node.replayer.log_name
    collection = node._services.reads.catalog.find(name).id
    for start in ({"from_": "earliest"}, {"from_": "now"}):  # nothing was ever written
        begun = stamp_at(clock.physical_ms() - service.STALE_MS)
        assert feed.parse_place(page(http, name, **start)["next"], log, collection).stamp > begun


def test_what_names_no_place_is_refused(http: httpx.Client, name: str, node: Node) -> None:
    put(http, name, 1)
    other = f"{name}b"
    result(http.put(f"/collections/{other}", json={"vectors": {"size": 2, "distance": "Dot"}}))
    elsewhere = page(http, other)["next"]
    place = page(http, name)["next"]
    position = http.get(f"/collections/{name}/changes").headers["X-Vecraft-Position"]
    ahead = feed.parse_place(place, node._services.node.replayer.log_name, node._services.reads.catalog.find(name).id)
    ahead = feed.after(ahead.stamp + (3600_000 << 16)).text(*place.split(".")[1:2], int(place.split(".")[2], 36))
    for params, says in (
        ({"from": "nonsense"}, "from: "),
        ({"from": "2100-01-01T00:00:00Z"}, "ahead of this node's clock"),
        ({"from": ahead}, "ahead of this node's clock"),
        ({"from": elsewhere}, "of another collection"),
        ({"from": place[:-2] + "!!"}, "not a place"),
        ({"from": position}, "a position is no place"),
        ({"from": "now", "snapshot": "initial"}, "snapshot: "),
        ({"snapshot": "never"}, "snapshot"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"wait_ms": 60_001}, "wait_ms"),
        ({"envelope": "paper"}, "envelope"),
        ({"form": "now"}, "form"),
        ({"as_of": "-5m"}, "as_of: "),
    ):
        assert says in refusal(http.get(f"/collections/{name}/changes", params=params)), params
    assert "filter" in refusal(http.post(f"/collections/{name}/changes", json={"filter": {"must": 1}}))
    assert http.get("/collections/nowhere/changes").status_code == 404
    assert http.get(f"/collections/{name}/changes", params={"from": "tag:never"}).status_code == 404


def test_the_present_state_comes_first_where_it_is_wanted(http: httpx.Client, name: str) -> None:
    write_some(http, name)
    before = stored(http, name)
    asked = {"with_vector": True, "limit": 4}
    first = page(http, name, snapshot="initial", **asked)
    write_some(http, name)
    put(http, name, *range(100, 110))
    rest = events(http, name, from_=first["next"], **asked)
    told = first["changes"] + rest
    snapshot = [event for event in told if event["op"] == "snapshot"]
    assert [event["id"] for event in snapshot] == sorted(before)
    assert told[: len(snapshot)] == snapshot
    assert replayed(snapshot) == before
    assert replayed(told) == stored(http, name)
    for at in (0, 5, len(snapshot) - 1, len(snapshot)):  # each token leads to the rest, within the state and after it
        assert events(http, name, from_=told[at]["token"], **asked) == told[at + 1 :]


def test_what_is_not_kept_is_gone_and_the_refusal_says_how_to_begin_anew(http: httpx.Client, name: str) -> None:
    put(http, name, 1)
    (first,) = events(http, name)
    result(http.patch(f"/collections/{name}", json={"history_retention_s": 0}))
    put(http, name, 1, mood="lost")  # while nothing is kept
    assert "history_retention_s" in refusal(http.get(f"/collections/{name}/changes"))
    result(http.patch(f"/collections/{name}", json={"history_retention_s": 3600}))
    put(http, name, *range(20))
    answer = http.get(f"/collections/{name}/changes", params={"from": first["token"]})
    assert answer.status_code == 410
    text = answer.json()["status"]["error"]
    assert "snapshot=initial" in text
    oldest = next(word for word in text.split() if feed.is_place(word))
    assert events(http, name, from_=oldest) == events(http, name) != []


def test_the_envelopes_tell_the_same(http: httpx.Client, name: str) -> None:
    put(http, name, 1)
    put(http, name, 1, mood="wild")
    delete(http, name, 1)
    asked = {"with_vector": True, "with_before": True}
    native = events(http, name, **asked)
    clouds = events(http, name, envelope="cloudevents", **asked)
    assert [event["data"] | {"token": event["id"]} for event in clouds] == native
    assert [event["type"].rpartition(".")[2] for event in clouds] == ["inserted", "updated", "deleted"]
    assert all(event["specversion"] == "1.0" and event["source"] == f"/collections/{name}" for event in clouds)
    rows = events(http, name, envelope="debezium", **asked)
    assert [row["op"] for row in rows] == ["c", "u", "d"]
    assert [row["source"]["sequence"] for row in rows] == [event["token"] for event in native]
    for row, event in zip(rows, native, strict=True):
        for side in ("before", "after"):
            assert row[side] == (event[side] | {"id": 1} if side in event else None)
    put(http, name, 2)
    (row,) = page(http, name, snapshot="initial", envelope="debezium")["changes"]
    assert (row["op"], row["source"]["snapshot"]) == ("r", "true")


def test_a_record_that_writes_a_point_twice_is_one_change(http: httpx.Client, name: str) -> None:
    put(http, name, 1)
    points = [{"id": id_, "vector": [n, 1], "payload": {"n": n}} for n in range(5) for id_ in (1, 2)]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": points}))
    told = events(http, name, limit=1, with_before=True)
    assert sorted((event["id"], event["op"], event["after"]["payload"]["n"]) for event in told) == [
        (1, "insert", 1),
        (1, "update", 4),
        (2, "insert", 4),
    ]


def test_a_page_has_a_bound_in_bytes(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE_BYTES", 10_000)
    points = [{"id": number, "vector": [1, 1], "payload": {"text": "x" * 1000}} for number in range(40)]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": points}))
    for start in ({"from_": "earliest"}, {"snapshot": "initial"}):
        sizes = [len(one["changes"]) for one in pages(http, name, limit=1000, **start)]
        assert sum(sizes) == 40
        assert max(sizes) <= 9


# Those that wait.


def followers(node: Node) -> int:
    return len(node._services.feeds.followers)


@contextmanager
def waiting(node: Node, work: Callable[[], Any]) -> Iterator[Any]:
    """Work in another thread that has become a follower; its result is awaited in the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        until(lambda: followers(node) > 0 or future.done(), WAIT_S)
        yield future
        future.result(WAIT_S)


def test_a_request_waits_for_the_next_change(http: httpx.Client, name: str, node: Node) -> None:
    place = page(http, name)["next"]
    with waiting(node, lambda: page(http, name, from_=place, wait_ms=60_000)) as later:
        put(http, name, 7)
    assert [event["id"] for event in later.result()["changes"]] == [7]


def test_a_request_that_waits_in_vain_writes_nothing_and_gets_a_place(http: httpx.Client, name: str, node: Node) -> None:
    put(http, name, 1)
    place = page(http, name)["next"]
    log = node._services.node
    ends = log.journal.end_offsets(log.topics.data_partitions())
    one = page(http, name, from_=place, wait_ms=300)
    assert one == {"changes": [], "next": place, "caught_up": True}
    assert log.journal.end_offsets(log.topics.data_partitions()) == ends


def test_writes_of_other_collections_cost_a_follower_nothing_but_a_look(
    http: httpx.Client, name: str, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collections have partitions in common, so what is written to one wakes the followers of others."""
    read: list[int] = []
    whole = feed.changes

    async def counted(pinned: Any, *given: Any) -> Any:
        read.append(pinned.collection.id)
        return await whole(pinned, *given)

    others = [f"{name}{number}" for number in range(7)]  # more than there are partitions
    for other in others:
        result(http.put(f"/collections/{other}", json={"vectors": {"size": 2, "distance": "Dot"}}))
    place = page(http, name)["next"]
    mine = node._services.reads.catalog.find(name).id
    monkeypatch.setattr(feed, "changes", counted)
    with waiting(node, lambda: page(http, name, from_=place, wait_ms=60_000)) as later:
        for number in range(10):
            for other in others:
                put(http, other, number)
        assert read.count(mine) <= 1
        put(http, name, 7)
    assert [event["id"] for event in later.result()["changes"]] == [7]


def test_a_request_that_waits_for_a_dropped_collection_is_told(http: httpx.Client, name: str, node: Node) -> None:
    params = {"from": "now", "wait_ms": 60_000}
    with waiting(node, lambda: http.get(f"/collections/{name}/changes", params=params)) as later:
        result(http.delete(f"/collections/{name}"))
    assert later.result().status_code == 404


def test_followers_have_a_bound_of_their_own(http: httpx.Client, name: str, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node._services.feeds.followers, "most", 1)
    with waiting(node, lambda: page(http, name, from_="now", wait_ms=60_000)):
        path = f"/collections/{name}/changes"
        for headers in ({}, {"Accept": "text/event-stream"}):
            refused = http.get(path, params={"wait_ms": 1}, headers=headers)
            assert refused.status_code == 429
            assert refused.headers["Retry-After"]
        assert page(http, name)["caught_up"]  # who does not wait is no follower
        put(http, name, 1)
    until(lambda: followers(node) == 0, WAIT_S)


# Streams.


class Stream:
    """The events of a stream: dicts of event, id and data."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == "text/event-stream"
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        event: dict[str, Any] = {}
        for line in self._lines:
            if line:
                key, _, value = line.partition(": ")
                event[key] = json.loads(value) if key == "data" else value
            else:
                if "event" in event:
                    yield event
                event = {}


@contextmanager
def streaming(http: httpx.Client, name: str, last_id: str = "", **params: Any) -> Iterator[Iterator[dict[str, Any]]]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    params = {key.rstrip("_"): value for key, value in params.items()}
    with http.stream("GET", f"/v1/collections/{name}/changes", params=params, headers=headers) as response:
        yield iter(Stream(response))


def test_a_stream_tells_the_past_then_that_it_is_over_then_what_changes(http: httpx.Client, name: str, node: Node) -> None:
    write_some(http, name)
    told = events(http, name)
    with streaming(http, name, limit=5) as stream:
        past = [next(stream) for _ in told]
        assert [event["data"] for event in past] == told
        assert [event["id"] for event in past] == [event["token"] for event in told]
        tick = next(stream)
        assert (tick["event"], tick["data"]["caught_up"]) == ("tick", True)
        put(http, name, 500)
        new = next(stream)
        assert (new["event"], new["data"]["id"]) == ("change", 500)
    with streaming(http, name, last_id=told[3]["token"], from_="now") as stream:
        assert next(stream)["data"] == told[4]
    with streaming(http, name, last_id=tick["id"]) as stream:
        assert next(stream)["data"] == new["data"]
    until(lambda: followers(node) == 0, WAIT_S)  # a client that goes away is no follower any more


def test_a_stream_begins_with_the_present_state(http: httpx.Client, name: str) -> None:
    put(http, name, *range(25))
    delete(http, name, 3)
    with streaming(http, name, snapshot="initial") as stream:
        first = [next(stream) for _ in range(24)]
    assert {event["data"]["op"] for event in first} == {"snapshot"}
    with streaming(http, name, snapshot="initial", last_id=first[10]["id"]) as stream:
        assert [next(stream) for _ in range(13)] == first[11:]


def test_an_idle_stream_ticks(http: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "HEARTBEAT_S", 0.05)
    with streaming(http, name) as stream:
        ticks = [next(stream) for _ in range(4)]
    assert {(tick["event"], tick["data"]["caught_up"]) for tick in ticks} == {("tick", True)}


def test_a_stream_of_a_dropped_collection_ends_and_says_so(http: httpx.Client, name: str) -> None:
    with streaming(http, name) as stream:
        assert next(stream)["event"] == "tick"
        result(http.delete(f"/collections/{name}"))
        end = next(stream)
        assert (end["event"], end["data"]["status"]) == ("end", 404)
        assert "id" not in end
        assert next(stream, None) is None


def test_a_stream_that_is_refused_has_a_status(http: httpx.Client, name: str) -> None:
    headers = {"Accept": "text/event-stream"}
    assert "from: " in refusal(http.get(f"/collections/{name}/changes?from=x", headers=headers))
    assert http.get("/collections/nowhere/changes", headers=headers).status_code == 404


@pytest.mark.slow
def test_a_node_that_stops_ends_those_who_wait(tmp_path_factory: pytest.TempPathFactory) -> None:
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    with httpx.Client(base_url=node.url, timeout=WAIT_S) as http:
        result(http.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}))
        with waiting(node, lambda: page(http, "c", from_="now", wait_ms=60_000)) as later, streaming(http, "c") as stream:
            assert next(stream)["event"] == "tick"
            threading.Thread(target=node.stop).start()
            end = next(stream)
            assert (end["event"], end["data"]["status"]) == ("end", 503)
        assert later.result()["changes"] == []
    thread.join(4)  # less than what requests in flight get
    assert not thread.is_alive()
