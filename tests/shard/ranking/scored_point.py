"""A point with a value of every kind, and its score by a formula."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import orjson

from journal.ids import encode_id
from shard.filters.subjects import PointSubject, Source
from shard.ranking.formula import FormulaBody, parse_formula
from shard.store import Row

BERLIN = {"lon": 13.4050, "lat": 52.5200}
LONDON = {"lon": -0.1278, "lat": 51.5074}
PAYLOAD = {
    "two": 2,
    "half": 0.5,
    "one_of": [7],
    "many": [1, 2],
    "none": [],
    "null": None,
    "yes": True,
    "word": "red",
    "deep": {"list": [{"x": 3}, {"x": 4}]},
    "at": "2024-01-01T00:00:10.5Z",
    "day": "2024-01-01",
    "berlin": BERLIN,
    "nowhere": {"lon": 500, "lat": 0},
}
NEW_YEAR_S = 1_704_067_200.0
LEAF = {"key": "word", "match": {"value": "red"}}


def candidate(payload: Any, point_id: int = 7, vectors: tuple[str, ...] = ("image",)) -> PointSubject:
    source = SimpleNamespace(fields={}, vector_names=lambda row: set(vectors))
    return PointSubject(Row(encode_id(point_id), orjson.dumps(payload), 0, row=0), cast(Source, source))


def score(formula: Any, *scores: float | None, defaults: Any = None, payload: Any = PAYLOAD) -> float:
    body = msgspec.json.decode(orjson.dumps({"formula": formula, "defaults": defaults}), type=FormulaBody)
    return parse_formula(body).score(candidate(payload), scores)


def decay(kind: str, x: Any, **params: Any) -> dict[str, Any]:
    return {kind: {"x": x, **params}}
