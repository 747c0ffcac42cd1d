"""What must hold: every node answers as the log says, and what was acknowledged or produced is there."""

from __future__ import annotations

import random
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import orjson

from catalog.collection import Collection, Distance
from journal.hlc import COUNTER_BITS
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.memory import MemoryJournal
from journal.records import Upsert, Vector
from journal.stamps import MAX_VERSION, expiry_of, last_version
from journal.topics import INGEST_PARTITIONS, shard_of
from query import feed, points
from query.pinned import Pinned
from query.search import prepare, search
from query.stages import Stage
from shard.filters.conditions import Condition, Key
from shard.filters.fields import Match, Range
from shard.filters.where import where
from shard.past import PastGone
from shard.ranking.rankings import Nearest, SearchParams
from shard.replica import Answer, AsOf, Cursor, PayloadPart
from shard.shard import Shard
from shard.shards import ShardUnavailable
from tests.reading import now
from tests.simulation.model import Expected, ModelPoint, State, expected_state, state_as_of, state_at
from tests.simulation.setting import IDS, INGESTED, LIMITS, TOPICS
from tests.simulation.writes import any_vector

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


T = TypeVar("T")

WINDOW = LIMITS.idempotency_window_ms << COUNTER_BITS


def check_node(node: Node, published: bool = True) -> None:
    """Every read of the node answers as the log below its positions says (I1, I3, I4, I5, I10).

    Not `published`: a batch is written and not yet published, so that what became of its records may already be there.
    """
    expected = expected_state(_entries(node.world.journal), node.reach, TOPICS, LIMITS, node.closed)
    collections = node.replayer.catalog.view.by_id
    assert set(expected.states) == set(collections)
    for id_, collection in collections.items():
        try:
            node.shards.of(id_)
        except ShardUnavailable:
            continue  # not served; all others are
        check_collection(node.pinned(collection), expected.states[id_], node.world.random)
        for shard in node.shards.of(id_) if published else ():
            _check_decisions(node.world, shard, expected)
        _check_past(node, collection, expected)
        if published:
            _check_positions(node, collection, expected)


def _check_past(node: Node, collection: Collection, expected: Expected) -> None:
    """N1: a read as of a closed instant that is kept answers as the log up to there says."""
    shards, choose = node.shards.of(collection.id), node.world.random
    low, high = max(shard.past.kept_since for shard in shards), min(shard.closed() for shard in shards)
    stamps = [write[0][0] for write in expected.writes[collection.id] if low <= write[0][0] <= high]
    if low <= high:
        stamp = choose.choice([*stamps, low, high]) - choose.choice((0, 0, 1))
        if stamp >= low:
            then = node.pinned(collection, AsOf(collection, stamp))
            check_collection(then, state_as_of(expected, collection, stamp), choose)
            if choose.random() < 0.2:
                _check_changes(node, collection, expected, stamp, high)


def _check_positions(node: Node, collection: Collection, expected: Expected) -> None:
    """N2: a read at positions is the state of what is below them, if no point has a write below them after one that is not."""
    shards, choose = node.shards.of(collection.id), node.world.random
    positions = {p: choose.randint(0, shard.progress(p).offset) for shard in shards for p in shard.home_partitions()}
    for partition in positions:  # mostly such as there can have been
        if choose.random() < 0.7:
            positions[partition] = min(
                shard.progress(partition).offset for shard in shards if partition in shard.home_partitions()
            )
    left_out: dict[bytes, int] = {}
    for (stamp, tier, *_), entry, record in expected.writes[collection.id]:
        version = stamp << 2 | tier
        ttl_ms = record.operation.ttl_ms if isinstance(record.operation, Upsert) else 0
        for point_id in record.operation.ids:
            if entry.offset >= positions.get(entry.partition, 0):
                left_out[point_id] = min(version, left_out.get(point_id, version))
            elif left_out.get(point_id, version) < version:
                return
            elif ttl_ms:  # at these positions it may not have expired yet
                left_out[point_id] = min(expiry_of(stamp, ttl_ms), left_out.get(point_id, MAX_VERSION))
    try:
        then = node.pinned(collection, AsOf(collection, 0, positions))
    except PastGone:
        return
    check_collection(then, state_at(expected, collection, positions, TOPICS), choose)


def _check_changes(node: Node, collection: Collection, expected: Expected, low: int, high: int) -> None:
    """The changes between two instants lead from the points of one to those of the other (N4); histories agree (V3)."""
    points, latest = state_as_of(expected, collection, low), state_as_of(expected, collection, high)
    held = {id_: (point.payload, point.version) for id_, point in points.items()}
    told: dict[bytes, list[tuple[int, bool]]] = {}
    for lease in node.pinned(collection).leases:
        cursor: Cursor | None = Cursor(last_version(low), LAST_ID)
        while cursor is not None:
            page = direct(lease.changes(cursor, last_version(high), 3))
            assert len(page.ids) <= 3
            for id_, version, payload in zip(page.ids, page.versions, page.after.payloads, strict=True):
                told.setdefault(id_, []).append((version, payload is None))
                if payload is None:
                    del held[id_]
                else:
                    held[id_] = orjson.loads(payload) if payload else {}, version
            cursor = page.reached
        for id_ in IDS if lease.shard == 0 else ():
            if shard_of(id_, collection.config.shard_number) == 0:
                states = direct(lease.history(id_, MAX_VERSION, 1000))
                deleted = [payload is None for payload in states.after.payloads]
                lived = [
                    one for one in zip(states.versions, deleted, strict=True) if last_version(low) < one[0] <= last_version(high)
                ]
                assert lived[::-1] == told.get(id_, [])
    assert held == {id_: (point.payload, point.version) for id_, point in latest.items()}
    _check_feed(node.pinned(collection), low, high, told)


def _check_feed(pinned: Pinned, low: int, high: int, told: dict[bytes, list[tuple[int, bool]]]) -> None:
    """The feed tells the changes of all shards in one order, whatever its pages are (N4)."""
    place, found = feed.after(low), list[feed.Change]()
    while place.cursor.version <= last_version(high):
        page = now(feed.changes(pinned, place, high, 3))
        assert page.next > place
        assert all(place < change.place <= page.next for change in page.changes)
        found, place = found + page.changes, page.next
    assert [change.place for change in found] == sorted(change.place for change in found)
    expected = {(version, id_, gone) for id_, states in told.items() for version, gone in states}
    assert {(change.version, change.id, change.kind == "delete") for change in found} == expected
    assert len(found) == len(expected)


LAST_ID = b"\xff" * 64


def direct(answer: Answer[T]) -> T:
    """The answer of a replica that waits for nothing."""
    assert not isinstance(answer, Awaitable)
    return answer


def _check_decisions(world: World, shard: Shard, expected: Expected) -> None:
    """Conditions hold and fail as the log says; what is told once is never taken back, by no replica (I5, I7)."""
    closed = shard.closed()
    positions = {partition: shard.progress(partition).offset for partition in shard.home_partitions()}
    world.closed.append((shard.collection.id, shard.number, positions, closed))
    for partition in shard.home_partitions():
        home = (shard.collection.id, shard.number, partition)
        for offset, stamp in expected.stamps.get(home, {}).items():
            decision = shard.store.decision(TOPICS.tier_of(partition.topic), offset)
            failed = expected.failed.get((home, offset))
            if decision is None and failed is not None and stamp + WINDOW <= shard.progress(partition).stamp:
                continue  # its time is over
            assert (None if decision is None else decision.failed) == failed
            if decision is not None and stamp <= closed:
                assert world.told.setdefault((home, offset), decision.failed) == decision.failed


def check_closed(world: World) -> None:
    """I7: no record was stamped at or below a stamp that was closed before it."""
    expected = expected_state(_entries(world.journal), world.nodes[0].reach, TOPICS, LIMITS)
    for collection, number, positions, closed in world.closed:
        for partition, position in positions.items():
            stamps = expected.stamps.get((collection, number, partition), {})
            assert all(stamp > closed for offset, stamp in stamps.items() if offset >= position)


def check_acknowledged(world: World) -> None:
    """What was acknowledged is in the log (I2), and no replica refuses it (I6)."""
    verdicts = {node.name: node.replayer.operations for node in world.nodes}
    ends = world.journal.end_offsets([TOPICS.system_partition, *TOPICS.data_partitions()])
    for request_id, positions in world.acknowledged:
        assert all(ends[p] >= offset for p, offset in positions.items())
        for name, operations in verdicts.items():
            refused = [part for part in operations.of(request_id) if part.verdict == "refused"]
            assert not refused, f"{name} refuses the acknowledged {request_id}: {refused}"


def check_ingested(world: World) -> None:
    """U2: what foreign producers wrote is there, each record once, in the order of each point's records."""
    expected: State = {}
    for entry in (e for p in range(INGEST_PARTITIONS) for e in world.journal._logs[TopicPartition(TOPICS.ingest, p)]):
        body = orjson.loads(entry.value)
        point_id = encode_id(body["id"])
        if body["collection"] != INGESTED or len(body.get("vector", "any")) != 3:
            continue
        if "op" not in body:
            expected[point_id] = ModelPoint(body["payload"], {"": np.array(body["vector"], np.float32)})
        elif body["op"] == "delete":
            expected.pop(point_id, None)
        elif point_id in expected:
            patched = expected[point_id].payload | body["payload"]
            expected[point_id].payload = {key: value for key, value in patched.items() if value is not None}
    for node in world.nodes:
        collection = node.replayer.catalog.view.collections[INGESTED]
        check_collection(node.pinned(collection), expected, world.random)


def _entries(journal: MemoryJournal) -> list[Entry]:
    return [entry for p in [TOPICS.system_partition, *TOPICS.data_partitions()] for entry in journal._logs[p]]


def check_collection(pinned: Pinned, expected: State, choose: random.Random) -> None:
    """Gets, scrolls, counts and exact searches of one collection against the model's points."""
    collection = pinned.collection
    found = now(points.retrieve(pinned, IDS, PayloadPart(), True))
    assert [point.id for point in found] == [point_id for point_id in IDS if point_id in expected]
    for point in found:
        model = expected[point.id]
        assert (orjson.loads(point.payload) if point.payload else {}) == model.payload
        assert model.version in (-1, point.version)
        assert point.vectors.keys() == model.vectors.keys()
        for name, vector in point.vectors.items():
            assert vector.tobytes() == model.vectors[name].tobytes() or np.allclose(vector, model.vectors[name], atol=1e-6)
    scrolled, after = now(points.scroll(pinned, None, b"", len(IDS)))
    assert scrolled == sorted(expected)
    assert after is None
    tagged = where(Condition(must=Condition(key="tag", match=Match(value="x"))))
    few = where(Condition(must=[Condition(key="n", range=Range(gte=2))], must_not=[Condition(is_empty=Key("tag"))]))
    assert now(points.count(pinned, tagged)) == sum(point.payload.get("tag") == "x" for point in expected.values())
    counted = sum(point.payload.get("n", -1) >= 2 and "tag" in point.payload for point in expected.values())
    assert now(points.count(pinned, few)) == counted
    for name in [*collection.config.vectors, *collection.config.sparse_vectors]:
        _check_search(pinned, name, expected, choose)


def _check_search(pinned: Pinned, name: str, expected: State, choose: random.Random) -> None:
    """min(k, matches) hits with the right scores, through whatever plan the search takes."""
    collection = pinned.collection
    vector = prepare(collection, name, any_vector(choose, collection, name))
    limit = choose.choice((1, 3, 20))
    hits = now(search(pinned, Stage(Nearest(name, vector), limit, params=SearchParams(exact=choose.random() < 0.5))))
    having = {id_: point.vectors[name] for id_, point in expected.items() if name in point.vectors}
    scores = {id_: score for id_, found in having.items() if (score := _score(collection, name, found, vector)) is not None}
    dense = collection.config.vectors.get(name)
    best = sorted(scores.values(), reverse=dense is None or dense.distance.higher_is_closer)[:limit]
    assert len(hits.ids) == len(best)
    assert np.allclose(hits.scores, best, atol=1e-3)
    assert all(np.isclose(score, scores[id_], atol=1e-3) for id_, score in zip(hits.ids, hits.scores, strict=True))


def _score(collection: Collection, name: str, left: Vector, right: Vector) -> float | None:
    """None for sparse vectors that share nothing."""
    if name in collection.config.sparse_vectors:
        shared = dict(left.tolist()).keys() & dict(right.tolist()).keys()
        return sum(dict(left.tolist())[at] * dict(right.tolist())[at] for at in shared) if shared else None
    params = collection.config.vectors[name]
    if params.multi:
        return float((right @ left.T).max(axis=1).sum())
    return _dense_score(params.distance, left, right)


def _dense_score(distance: Distance, left: np.ndarray, right: np.ndarray) -> float:
    if distance.higher_is_closer:
        return float(np.dot(left, right))
    difference = np.abs(left - right)
    return float(np.sqrt((difference**2).sum()) if distance is Distance.EUCLID else difference.sum())
