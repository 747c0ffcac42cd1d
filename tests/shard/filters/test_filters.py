"""Every filter shape: the indexed answer, the unindexed answer and a plain Python model are equal (I10, V12)."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import PatchPayload, Record, Upsert
from journal.topics import Topics
from payload.schema import FieldSchema, FieldType
from query import points
from shard.batch import Limits
from shard.filters.conditions import Condition, parse_filter
from shard.filters.subjects import Element
from shard.filters.where import where
from shard.shard import Shard
from tests.reading import now, pinned
from tests.shard.filters.model import nodes, same, values

INDEXES = {
    "word": FieldSchema(FieldType.KEYWORD),
    "int": FieldSchema(FieldType.INTEGER),
    "float": FieldSchema(FieldType.FLOAT),
    "bool": FieldSchema(FieldType.BOOL),
    "at": FieldSchema(FieldType.DATETIME),
    "uuid": FieldSchema(FieldType.UUID),
    "deep.list[].x": FieldSchema(FieldType.INTEGER),
}
WORDS = ["red", "green", "blue"]
MOMENTS = ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+01:00", "2024-06-01", "nonsense"]
UUIDS = ["b7a9c2c0-0000-4000-8000-000000000001", "b7a9c2c0-0000-4000-8000-000000000002"]
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -0.5, 2.0, 2**53 + 1, -(2**60), 1e300]))
ANYTHING = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS + MOMENTS + UUIDS))
VALUE = st.one_of(ANYTHING, st.lists(ANYTHING, max_size=3))
PAYLOAD = st.fixed_dictionaries(
    {},
    optional={name: VALUE for name in INDEXES if "." not in name}
    | {
        "deep": st.one_of(
            VALUE, st.fixed_dictionaries({"list": st.lists(st.fixed_dictionaries({}, optional={"x": VALUE}), max_size=3)})
        )
    },
)
KEY = st.sampled_from(list(INDEXES))
BOUNDS = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), NUMBERS, max_size=2)
MOMENT_BOUNDS = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from(MOMENTS[:3]), min_size=1, max_size=2)
LEAF = st.one_of(
    st.builds(
        lambda k, v: {"key": k, "match": {"value": v}},
        KEY,
        st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(WORDS + UUIDS)),
    ),
    st.builds(
        lambda k, v: {"key": k, "match": {"any": v}},
        KEY,
        st.lists(st.one_of(st.integers(-3, 3), st.sampled_from(WORDS)), max_size=3),
    ),
    st.builds(lambda k, v: {"key": k, "match": {"except": v}}, KEY, st.lists(st.sampled_from(WORDS), max_size=2)),
    st.builds(lambda k, b: {"key": k, "range": b}, KEY, BOUNDS | MOMENT_BOUNDS),
    st.builds(
        lambda k, b: {"key": k, "values_count": b},
        KEY,
        st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.integers(0, 3), max_size=2),
    ),
    st.builds(lambda k: {"is_empty": {"key": k}}, KEY),
    st.builds(lambda k: {"is_null": {"key": k}}, KEY),
    st.builds(lambda v: {"has_id": v}, st.lists(st.integers(0, 12), max_size=4)),
)
CLAUSES = ("must", "should", "must_not")
FILTER = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(CLAUSES), st.lists(inner, max_size=3), min_size=1),
        st.builds(lambda c, n: {"min_should": {"conditions": c, "min_count": n}}, st.lists(inner, max_size=3), st.integers(1, 3)),
    ),
    max_leaves=6,
)


# The model: the dialect's documentation, read aloud.


def within(value: Any, bounds: dict[str, Any]) -> bool:
    checks: dict[str, Callable[[Any, Any], bool]] = {
        "gt": lambda v, b: v > b,
        "gte": lambda v, b: v >= b,
        "lt": lambda v, b: v < b,
        "lte": lambda v, b: v <= b,
    }
    return all(checks[name](value, bound) for name, bound in bounds.items())


def moment(text: Any) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo else datetime.fromisoformat(text + "T00:00:00+00:00").timestamp()


def passes(c: dict[str, Any], point_id: int, payload: Any) -> bool:
    def test(inner: dict[str, Any]) -> bool:
        return passes(inner, point_id, payload)

    if "match" in c:
        match, found = c["match"], values(payload, c["key"])
        if "value" in match:
            return any(same(value, match["value"]) for value in found)
        if "any" in match:
            return any(same(value, wanted) for value in found for wanted in match["any"])
        return any(value is not None and not any(same(value, excluded) for excluded in match["except"]) for value in found)
    if "range" in c:
        found = values(payload, c["key"])
        if any(isinstance(bound, str) for bound in c["range"].values()):
            bounds = {name: moment(bound) for name, bound in c["range"].items()}
            return any((at := moment(value)) is not None and within(at, bounds) for value in found)
        return any(isinstance(v, int | float) and not isinstance(v, bool) and within(v, c["range"]) for v in found)
    if "values_count" in c:
        counts = [0 if n is None else len(n) if isinstance(n, list) else 1 for n in nodes(payload, c["key"])] or [0]
        return any(within(count, c["values_count"]) for count in counts)
    if "is_empty" in c:
        return all(node is None or node == [] for node in nodes(payload, c["is_empty"]["key"]))
    if "is_null" in c:
        return any(node is None or (isinstance(node, list) and None in node) for node in nodes(payload, c["is_null"]["key"]))
    if "has_id" in c:
        return point_id in c["has_id"]
    least = c.get("min_should", {"conditions": [], "min_count": 0})
    return (
        all(map(test, c.get("must", [])))
        and not any(map(test, c.get("must_not", [])))
        and (not c.get("should") or any(map(test, c["should"])))
        and sum(map(test, least["conditions"])) >= least["min_count"]
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shard, Shard]]:
    """The same points twice: without indexes, and with one of each kind."""
    made = []
    for number, fields in enumerate(({}, INDEXES)):
        config = CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)})
        collection = Collection("c", 0, config, [[0, 0, 0, 0]], fields)
        made.append(Shard(tmp_path_factory.mktemp("shard") / str(number), collection, 0, Topics(), Limits(), lambda task: None))
    yield made[0], made[1]
    for one in made:
        one.close()


class Feed:
    """Writes the same records to both shards."""

    def __init__(self, shards: tuple[Shard, Shard]) -> None:
        self._shards = shards

    def write(self, operation: Upsert | PatchPayload) -> None:
        partition = TopicPartition("vecraft.tier1", 0)
        for one in self._shards:
            offset = one.progress(partition).offset
            one.apply([(Entry(partition, offset, 1_700_000_000_000, None, b"", ()), Record(hlc=offset, operation=operation))])


@given(st.lists(PAYLOAD, min_size=1, max_size=12), st.data(), st.lists(FILTER, min_size=1, max_size=8))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_indexed_unindexed_and_model_agree(
    shards: tuple[Shard, Shard], payloads: list[Any], data: st.DataObject, filters: list[Any]
) -> None:
    feed = Feed(shards)
    ids = [encode_id(i) for i in range(13)]
    state = dict(enumerate(payloads))
    full = [orjson.dumps(state.get(i, {})) for i in range(13)]
    feed.write(Upsert(ids, [], full))
    for changed in ({}, data.draw(st.dictionaries(st.sampled_from(sorted(state)), PAYLOAD, max_size=3))):
        for point_id, patch in changed.items():
            feed.write(PatchPayload([ids[point_id]], orjson.dumps(patch)))
            state[point_id] = state[point_id] | patch
        for condition in filters:
            expected = sorted(i for i in range(13) if passes(condition, i, state.get(i, {})))
            assert matching(shards, condition) == (expected, expected), condition


def matching(shards: tuple[Shard, Shard], condition: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The numbers of the points that pass, without and with indexes."""
    wanted = where(msgspec.convert(condition, Condition))
    found = [sorted(int.from_bytes(i[1:], "big") for i in now(points.matching(pinned([one]), wanted))[0]) for one in shards]
    return found[0], found[1]


def test_the_model_can_tell_wrong_from_right() -> None:
    assert passes({"key": "int", "match": {"value": 1}}, 0, {"int": [2, 1]})
    assert not passes({"key": "int", "match": {"value": True}}, 0, {"int": 1})
    assert not math.isnan(moment("2024-01-01T00:00:00Z") or math.nan)


def test_a_text_that_was_asked_for_is_forgotten_with_its_filter() -> None:
    """I11: it may be as long as a body."""

    def ask(number: int) -> None:
        text = f"{number} " * 50_000
        asked = parse_filter(msgspec.convert({"must": [{"key": "t", "match": {"text_any": text}}]}, Condition))
        assert asked is not None
        assert asked.test(Element({"t": str(number)}, {}))

    ask(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, 6):
            ask(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000
