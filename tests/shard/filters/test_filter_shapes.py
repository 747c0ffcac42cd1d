"""Filters of every shape over payloads of every kind: the indexes' answer, the answer without them and a plain model are equal,
after writes, edits and deletes alike (I10, V12)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qdrant_client.local.siphash import point_id_slice

import shard.payload_index
from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Delete, PatchPayload, PointOperation, Record, ReplacePayload, Upsert, VectorColumn
from journal.topics import Topics
from payload.schema import FieldSchema, FieldType, Tokenizer
from shard.batch import Limits
from shard.filters.conditions import Condition
from shard.filters.where import where
from shard.shard import Shard
from shard.view import ShardView
from tests.shard.filters.model import nodes, same, values

COUNT = 12
ELEMENTS = "deep.list"
INDEXES = {
    "word": FieldSchema(FieldType.KEYWORD, prefix=True),
    "int": FieldSchema(FieldType.INTEGER),
    "looked": FieldSchema(FieldType.INTEGER, range=False),
    "ranged": FieldSchema(FieldType.INTEGER, lookup=False),
    "float": FieldSchema(FieldType.FLOAT),
    "bool": FieldSchema(FieldType.BOOL),
    "at": FieldSchema(FieldType.DATETIME),
    "uuid": FieldSchema(FieldType.UUID),
    "text": FieldSchema(FieldType.TEXT, tokenizer=Tokenizer.WORD, phrase_matching=True),
    "geo": FieldSchema(FieldType.GEO),
    f"{ELEMENTS}[].x": FieldSchema(FieldType.INTEGER),
    f"{ELEMENTS}[].t": FieldSchema(FieldType.TEXT),
    f"{ELEMENTS}[].w": FieldSchema(FieldType.KEYWORD),
}

WORDS = ["red", "Red", "re", "green", ""]
TEXTS = ["a red house", "House, a", "the_red", "RED red", "a", "…"]
ASKED_TEXTS = [*WORDS, "a red", "red house", "house red", "re HOUSE", "the", "se"]
MOMENTS = ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+01:00", "2024-06-01", "2024-01-01 12:30", "nonsense"]
UUIDS = ["b7a9c2c0-0000-4000-8000-000000000001", "b7a9c2c0-0000-4000-8000-000000000002"]
SMALL = [-1, 0, 1, 2, 3]
NUMBERS = [*SMALL, 0.5, -0.5, 2.0, 2**53, 2**53 + 1, -(2**60), 1e300]
PLACES = [{"lon": lon, "lat": lat} for lon in range(-3, 4) for lat in range(-3, 4)]
PLACES += [{"lon": 179.5, "lat": 0}, {"lon": -179.5, "lat": 1}, {"lon": 181, "lat": 0}, {"lon": 1}, {"lon": "1", "lat": 1}]
OWN: dict[str, list[Any]] = {
    "word": WORDS,
    "int": NUMBERS,
    "looked": SMALL,
    "ranged": SMALL,
    "float": NUMBERS,
    "bool": [True, False],
    "at": MOMENTS,
    "uuid": UUIDS,
    "text": TEXTS,
    "geo": PLACES,
    "x": SMALL,
    "t": TEXTS,
    "w": WORDS,
}
RING = [(-2, -2), (3, -2), (3, 1), (0, 3), (-2, 1), (-2, -2)]
HOLE = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
SIDES = ["gt", "gte", "lt", "lte"]
ON_TEXTS = ["text", "text_any", "phrase", "prefix", "substring"]


def line(points: list[tuple[int, int]]) -> dict[str, Any]:
    return {"points": [{"lon": lon, "lat": lat} for lon, lat in points]}


class Dice:
    """Payloads and filters from a seed: mostly what a field is for and what is asked of it, now and then anything."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.one_of = self.random.choice

    def some(self, make: Callable[[], Any], most: int) -> list[Any]:
        return [make() for _ in range(self.random.randint(0, most))]

    def payload(self) -> dict[str, Any]:
        kept = [name for name in INDEXES if "." not in name and self.random.random() < 0.7]
        payload = {name: self.value(name) for name in kept}
        if self.random.random() < 0.9:
            payload["deep"] = self.often(lambda: {"list": self.often(lambda: self.some(self.element, 3))})
        return payload

    def often(self, make: Callable[[], Any]) -> Any:
        return make() if self.random.random() < 0.8 else self.anything()

    def anything(self) -> Any:
        return self.one_of([None, [], {}, *map(self.one_of, OWN.values())])

    def value(self, key: str) -> Any:
        def single() -> Any:
            return self.often(lambda: self.one_of(OWN[key]))

        return single() if self.random.random() < 0.6 else self.some(single, 3)

    def element(self) -> Any:
        return self.often(lambda: {key: self.value(key) for key in ("x", "t", "w") if self.random.random() < 0.7})

    def filter(self, depth: int = 0) -> dict[str, Any]:
        if depth > 2 or self.random.random() < 0.5:
            return self.leaf()
        return self.clauses(lambda: self.filter(depth + 1))

    def clauses(self, inner: Callable[[], Any]) -> dict[str, Any]:
        made = {name: self.some(inner, 3) for name in ("must", "should", "must_not") if self.random.random() < 0.4}
        if not made or self.random.random() < 0.2:
            made["min_should"] = {"conditions": self.some(inner, 4), "min_count": self.random.randint(1, 3)}  # type: ignore[assignment]
        return made

    def leaf(self) -> dict[str, Any]:
        if self.random.random() < 0.15:
            return self.on_point()
        if self.random.random() < 0.2:
            return {"nested": {"key": self.one_of([ELEMENTS, f"{ELEMENTS}[]", "deep"]), "filter": self.on_element()}}
        return self.on_field(self.one_of(list(INDEXES)))

    def on_element(self, depth: int = 0) -> dict[str, Any]:
        if self.random.random() < 0.1:
            return self.on_point()
        if depth > 1 or self.random.random() < 0.5:
            return self.on_field(self.one_of(["x", "t", "w"]))
        return self.clauses(lambda: self.on_element(depth + 1))

    def on_point(self) -> dict[str, Any]:
        total = self.random.randint(1, 3)
        return self.one_of(
            [
                {"has_id": self.some(lambda: self.random.randint(0, COUNT), 4)},
                {"has_vector": self.one_of(["", "other"])},
                {"slice": {"total": total, "index": self.random.randrange(total)}},
            ]
        )

    def on_field(self, key: str) -> dict[str, Any]:
        if self.random.random() < 0.1:
            return {self.one_of(["is_empty", "is_null"]): {"key": key}}
        name = key.rpartition(".")[2]
        kinds = [name] if self.random.random() < 0.7 else [*OWN, "count", "count", "is"]
        return {"key": key} | self.condition(self.one_of(kinds))

    def condition(self, kind: str) -> dict[str, Any]:
        match kind:
            case "float" | "ranged":
                return {"range": self.bounds(NUMBERS)}
            case "at":
                return {"range": self.bounds(MOMENTS[:4])}
            case "text" | "t":
                return {"match": {self.one_of(ON_TEXTS): self.one_of(ASKED_TEXTS)}}
            case "geo":
                return self.area()
            case "count":
                return {"values_count": self.bounds([0, 1, 2, 3])}
            case "is":
                return {self.one_of(["is_empty", "is_null"]): self.one_of([True, False])}
            case "int" | "x" if self.random.random() < 0.5:
                return {"range": self.bounds(NUMBERS)}
            case "word" | "w" if self.random.random() < 0.3:
                return {"match": {self.one_of(["prefix", "substring"]): self.one_of(WORDS)}}
        values = [value for value in OWN[kind] if not isinstance(value, float)]
        wanted = [value for value in self.some(lambda: self.one_of(values), 3) if not isinstance(value, bool)]
        return {"match": self.one_of([{"value": self.one_of(values)}, {"any": wanted}, {"except": wanted}])}

    def bounds(self, values: list[Any]) -> dict[str, Any]:
        return {side: self.one_of(values) for side in self.random.sample(SIDES, self.random.randint(1, 2))}

    def area(self) -> dict[str, Any]:
        def corner() -> dict[str, int]:
            return {"lon": self.one_of([-180, -3, 0, 2, 179, 180]), "lat": self.one_of([-4, -2, 0, 1, 3, 4])}

        return self.one_of(
            [
                {"geo_bounding_box": {"top_left": corner(), "bottom_right": corner()}},
                {"geo_bounding_box": {"top_left": corner() | {"lat": 4}, "bottom_right": corner() | {"lat": -4}}},
                {"geo_radius": {"center": corner(), "radius": self.one_of([0, 120_000, 300_000, 3e7])}},
                {"geo_radius": {"center": {"lon": 0, "lat": self.one_of([88, -90])}, "radius": 1e7}},
                {"geo_polygon": {"exterior": line(RING)}},
                {"geo_polygon": {"exterior": line(RING), "interiors": [line(HOLE)]}},
            ]
        )


# The model: the dialect's reference, read aloud.


class Point:
    def __init__(self, number: int | None, payload: Any, has_vector: bool = False) -> None:
        self.number, self.payload, self.has_vector = number, payload, has_vector


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda v, b: v > b,
    "gte": lambda v, b: v >= b,
    "lt": lambda v, b: v < b,
    "lte": lambda v, b: v <= b,
}


def within(value: Any, bounds: dict[str, Any]) -> bool:
    return all(COMPARE[name](value, bound) for name, bound in bounds.items())


def moment(text: Any) -> float | None:
    if text not in MOMENTS[:4]:
        return None
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def matches(match: dict[str, Any], value: Any) -> bool:
    ((kind, wanted),) = match.items()
    if kind in ("value", "any"):
        return any(same(value, one) for one in (wanted if kind == "any" else [wanted]))
    if kind == "except":
        return value is not None and not any(same(value, one) for one in wanted)
    if not isinstance(value, str):
        return False
    if kind in ("prefix", "substring"):
        return value.startswith(wanted) if kind == "prefix" else wanted in value
    asked, held = words(wanted), words(value)
    if kind == "phrase":
        return bool(asked) and f" {' '.join(asked)} " in f" {' '.join(held)} "
    return bool(asked) and (set(asked) <= set(held) if kind == "text" else bool(set(asked) & set(held)))


def place(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, dict) or not {"lon", "lat"} <= value.keys() or isinstance(value["lon"], str):
        return None
    return (value["lon"], value["lat"]) if abs(value["lon"]) <= 180 else None


def on_sphere(lon: float, lat: float) -> np.ndarray[Any, Any]:
    lon, lat = math.radians(lon), math.radians(lat)
    return np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])


def around(ring: list[dict[str, float]], lon: float, lat: float) -> str:
    """Where a place is to a ring: on it, in it or out of it, by the angle under which the ring's edges are seen."""
    turn = 0.0
    for a, b in pairwise(ring):
        ax, ay, bx, by = a["lon"] - lon, a["lat"] - lat, b["lon"] - lon, b["lat"] - lat
        cross, dot = ax * by - ay * bx, ax * bx + ay * by
        if cross == 0 and dot <= 0:
            return "on"
        turn += math.atan2(cross, dot)
    return "in" if abs(turn) > math.pi else "out"


def lies(condition: dict[str, Any], lon: float, lat: float) -> bool:
    if box := condition.get("geo_bounding_box"):
        west, east = box["top_left"]["lon"], box["bottom_right"]["lon"]
        over = lon > west or lon < east if west > east else west < lon < east
        return over and box["bottom_right"]["lat"] < lat < box["top_left"]["lat"]
    if circle := condition.get("geo_radius"):
        center, there = on_sphere(**circle["center"]), on_sphere(lon, lat)
        angle = math.atan2(np.linalg.norm(np.cross(center, there)), center @ there)
        return angle * 6_371_008.8 < circle["radius"]
    polygon = condition["geo_polygon"]
    holes = [around(hole["points"], lon, lat) for hole in polygon.get("interiors", [])]
    return around(polygon["exterior"]["points"], lon, lat) != "out" and "in" not in holes


def passes(c: dict[str, Any], point: Point) -> bool:
    if "key" in c:
        return passes_on(c, nodes(point.payload, c["key"]), values(point.payload, c["key"]))
    for name in ("is_empty", "is_null"):
        if name in c:
            return passes({"key": c[name]["key"], name: True}, point)
    if "has_id" in c:
        return point.number in c["has_id"]
    if "has_vector" in c:
        return c["has_vector"] == "" and point.has_vector
    if "slice" in c:
        return point.number is not None and point_id_slice(point.number, c["slice"]["total"]) == c["slice"]["index"]
    if "nested" in c:
        arrays = [node for node in nodes(point.payload, c["nested"]["key"].removesuffix("[]")) if isinstance(node, list)]
        elements = [Point(None, element) for array in arrays for element in array if isinstance(element, dict)]
        return any(passes(c["nested"]["filter"], element) for element in elements)
    least = c.get("min_should", {"conditions": [], "min_count": 0})
    return (
        all(passes(inner, point) for inner in c.get("must", []))
        and not any(passes(inner, point) for inner in c.get("must_not", []))
        and (not c.get("should") or any(passes(inner, point) for inner in c["should"]))
        and sum(passes(inner, point) for inner in least["conditions"]) >= least["min_count"]
    )


def passes_on(c: dict[str, Any], found: list[Any], flat: list[Any]) -> bool:
    if "match" in c:
        return any(matches(c["match"], value) for value in flat)
    if "range" in c and any(isinstance(bound, str) for bound in c["range"].values()):
        bounds = {name: moment(bound) for name, bound in c["range"].items()}
        return any((at := moment(value)) is not None and within(at, bounds) for value in flat)
    if "range" in c:
        return any(isinstance(v, int | float) and not isinstance(v, bool) and within(v, c["range"]) for v in flat)
    if "values_count" in c:
        counts = [0 if n is None else len(n) if isinstance(n, list) else 1 for n in found] or [0]
        return any(within(count, c["values_count"]) for count in counts)
    if "is_empty" in c:
        return all(node is None or node == [] for node in found) == c["is_empty"]
    if "is_null" in c:
        return (None in flat) == c["is_null"]
    return any((at := place(value)) is not None and lies(c, *at) for value in flat)


# The comparison.


@pytest.fixture(scope="module", autouse=True)
def often_sorted() -> Iterator[None]:
    """So that the few rows of these tests meet both halves of a sorted index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard.payload_index, "RESORT_ROWS", 3)
        yield


class Pair:
    """The same points twice: in a shard without indexes, and in one with an index of each kind; and as the model has them."""

    def __init__(self, shards: list[Shard]) -> None:
        self.shards = shards
        self.points: dict[int, Point] = {}
        self.before: list[tuple[list[ShardView], dict[int, Point]]] = []
        """Earlier moments: the views of the shards, and the points as they were."""

    def apply(self, operation: PointOperation) -> None:
        partition = TopicPartition("vecraft.tier1", 0)
        for one in self.shards:
            offset = one.progress(partition).offset
            one.apply([(Entry(partition, offset, 1_700_000_000_000, None, b"", ()), Record(hlc=offset, operation=operation))])

    def upsert(self, payloads: dict[int, Any]) -> None:
        with_vector = [at for at, number in enumerate(payloads) if number % 3]
        columns = [VectorColumn.of("", np.ones((len(with_vector), 2), np.float32), with_vector)] if with_vector else []
        self.apply(Upsert([encode_id(n) for n in payloads], columns, [orjson.dumps(payload) for payload in payloads.values()]))
        self.points |= {number: Point(number, payload, number % 3 != 0) for number, payload in payloads.items()}

    def edit(self, number: int, payload: Any, replace: bool) -> None:
        data, point = orjson.dumps(payload), self.points[number]
        self.apply(ReplacePayload([encode_id(number)], data) if replace else PatchPayload([encode_id(number)], data))
        point.payload = payload if replace else point.payload | payload

    def delete(self, numbers: list[int]) -> None:
        self.apply(Delete([encode_id(number) for number in numbers]))
        self.points = {number: point for number, point in self.points.items() if number not in numbers}

    def check(self, filters: list[dict[str, Any]]) -> None:
        for condition in filters:
            expected = {number for number, point in self.points.items() if passes(condition, point)}
            assert [found(one.view, condition) for one in self.shards] == [expected] * len(self.shards), condition

    def remember(self) -> None:
        """Keeps the views of this moment."""
        points = {number: Point(number, point.payload, point.has_vector) for number, point in self.points.items()}
        self.before.append(([one.view for one in self.shards], points))

    def check_before(self, filters: list[dict[str, Any]]) -> None:
        """I13: a view answers as at its moment, although it asks an index that has moved on."""
        for views, points in self.before:
            for condition in filters:
                expected = {number for number, point in points.items() if passes(condition, point)}
                assert [found(view, condition) for view in views] == [expected] * len(views), condition


def found(view: ShardView, condition: dict[str, Any]) -> set[int]:
    """The numbers of the points that pass, as a search finds them: from the index, the rest tested."""
    wanted = where(msgspec.convert(condition, Condition))
    selected = view.select(wanted)
    rows = view.alive if selected is None else selected.rows
    return {int.from_bytes(id_[1:], "big") for id_ in view.ids(rows.to_array().tolist())[0]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Shard]]:
    made = []
    for number, fields in enumerate(({}, INDEXES)):
        collection = Collection("c", 0, CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}), [[0, 0, 0, 0]], fields)
        made.append(Shard(tmp_path_factory.mktemp("shard") / str(number), collection, 0, Topics(), Limits(), lambda task: None))
    yield made
    for one in made:
        one.close()


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_indexed_unindexed_and_model_agree(shards: list[Shard], seed: int) -> None:
    """A smaller seed is no simpler case, so none is looked for."""
    dice, pair = Dice(seed), Pair(shards)
    filters = [dice.filter() for _ in range(25)]
    pair.upsert({number: dice.payload() for number in range(COUNT)})
    pair.remember()
    pair.check(filters[:15])
    for _ in range(3):
        pair.edit(dice.random.randrange(COUNT), dice.payload(), replace=dice.one_of([True, False]))
    pair.delete(dice.some(lambda: dice.random.randrange(COUNT), 3))
    pair.remember()
    pair.check(filters[:20])
    pair.upsert({number: dice.payload() for number in range(dice.random.randint(1, 3))})
    pair.check(filters)
    pair.check_before(filters)


def test_an_index_made_later_answers_the_same(shards: list[Shard]) -> None:
    """A field index that is built over what is stored gives what one that grew with it gives (I10)."""
    pair = Pair(shards)
    pair.upsert({n: {"word": ["red", None], "text": "a red house", "geo": {"lon": n, "lat": 0}} for n in range(COUNT)})
    with_indexes = pair.shards[1].collection
    for one in pair.shards:
        one.configure(msgspec.structs.replace(with_indexes, fields={}))
    asked = [{"key": "word", "is_null": True}, {"key": "text", "match": {"phrase": "red house"}}]
    asked.append({"key": "geo", "geo_radius": {"center": {"lon": 2, "lat": 0}, "radius": 120_000}})
    pair.check(asked)
    pair.shards[1].configure(with_indexes)
    pair.check(asked)
