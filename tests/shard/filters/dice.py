"""Payloads of every kind and filters of every shape, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from payload.schema import FieldSchema, FieldType, Tokenizer

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
