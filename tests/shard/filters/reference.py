"""Which points pass a filter: the dialect's reference, read aloud."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from qdrant_client.local.siphash import point_id_slice

from tests.shard.filters.dice import MOMENTS
from tests.shard.filters.model import nodes, same, values


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
