"""Score formulas: the value of each expression, by table."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from shard.ranking.formula import FormulaBody, parse_formula
from tests.shard.ranking.scored_point import BERLIN, LEAF, NEW_YEAR_S, decay, score


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (1.5, 1.5),
        (3, 3),
        ("$score", 0.25),
        ("$score[0]", 0.25),
        ("$score[1]", -4),
        ("two", 2),
        ("one_of", 7),
        ("deep.list[1].x", 4),
        ({"key": "word", "match": {"value": "red"}}, 1),
        ({"key": "word", "match": {"value": "blue"}}, 0),
        ({"must": [{"key": "two", "range": {"gt": 1}}, {"has_vector": "image"}]}, 1),
        ({"has_id": [7]}, 1),
        ({"must_not": {"has_id": [7]}}, 0),
        ({"is_empty": {"key": "gone"}}, 1),
        ({"mult": [2, "two", "half"]}, 2),
        ({"mult": []}, 1),
        ({"sum": ["$score", {"mult": [0.5, {"key": "word", "match": {"any": ["red"]}}]}]}, 0.75),
        ({"sum": []}, 0),
        ({"max": [1, "two", -5]}, 2),
        ({"min": [1, "two", -5]}, -5),
        ({"max": ["half"]}, 0.5),
        ({"neg": "two"}, -2),
        ({"abs": "$score[1]"}, 4),
        ({"div": {"left": 3, "right": "two"}}, 1.5),
        ({"div": {"left": 3, "right": 0, "by_zero_default": 9}}, 9),
        ({"div": {"left": 3, "right": "two", "by_zero_default": 9}}, 1.5),
        ({"sqrt": 9}, 3),
        ({"sqrt": 0}, 0),
        ({"pow": {"base": "two", "exponent": 3}}, 8),
        ({"pow": {"base": -8, "exponent": 2}}, 64),
        ({"exp": 1}, math.e),
        ({"exp": -1000}, 0),
        ({"log10": 1000}, 3),
        ({"ln": math.e}, 1),
        ({"acosh": 1}, 0),
        ({"acosh": math.cosh(2)}, 2),
        ({"sum": [{"datetime": "2024-01-01T00:00:00Z"}, -NEW_YEAR_S]}, 0),
        ({"sum": [{"datetime": "2024-01-01T01:00:00+01:00"}, -NEW_YEAR_S]}, 0),
        ({"sum": [{"datetime_key": "at"}, {"neg": {"datetime": "2024-01-01"}}]}, 10.5),
        ({"sum": [{"datetime_key": "day"}, -NEW_YEAR_S]}, 0),
        ({"geo_distance": {"origin": BERLIN, "to": "berlin"}}, 0),
        ({"geo_distance": {"origin": {"lon": 77, "lat": 90}, "to": "berlin"}}, math.radians(90 - 52.52) * 6_371_008.8),
        ({"geo_distance": {"origin": {"lon": -166.595, "lat": -52.52}, "to": "berlin"}}, math.pi * 6_371_008.8),
    ],
    ids=str,
)
def test_an_expression_has_its_value(formula: Any, expected: float) -> None:
    assert score(formula, 0.25, -4.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "at_target", "at_scale", "at_two", "far"),
    [
        ("lin_decay", 1, 0.5, 0, 0),
        ("exp_decay", 1, 0.5, 0.25, 0),
        ("gauss_decay", 1, 0.5, 0.0625, 0),
    ],
)
def test_a_decay_is_midpoint_one_scale_from_its_target(
    kind: str, at_target: float, at_scale: float, at_two: float, far: float
) -> None:
    for sign in (1, -1):
        found = [score(decay(kind, 100 + sign * away, target=100, scale=10)) for away in (0, 10, 20, 1e9)]
        assert found == pytest.approx([at_target, at_scale, at_two, far])
    assert score(decay(kind, 1)) == pytest.approx(0.5)  # target 0, scale 1, midpoint 0.5
    assert score(decay(kind, 5, scale=5, midpoint=0.9)) == pytest.approx(0.9)
    assert score(decay(kind, "$score", target="two"), 2.0) == 1
    assert score(decay(kind, 0, scale=1e-320)) == 1
    assert score(decay(kind, 1e300, target=-1e300, scale=1e-300)) == 0


def test_a_linear_decay_may_end_at_its_scale_or_never_fall() -> None:
    assert score(decay("lin_decay", 1, midpoint=0)) == 0
    assert score(decay("lin_decay", 1000, midpoint=1)) == 1


@pytest.mark.parametrize(
    ("formula", "scores", "defaults", "expected"),
    [
        ("$score", (), None, 0),
        ("$score", (None,), None, 0),
        ("$score[9]", (1.0,), None, 0),
        ("$score", (None,), {"$score": 5}, 5),
        ("$score", (None,), {"$score[0]": 5}, 5),
        ("$score[0]", (), {"$score": 5}, 5),
        ("$score[1]", (1.0, None), {"$score": 5, "$score[1]": 6}, 6),
        ("$score", (0.5,), {"$score": 5}, 0.5),
        ("gone", (), {"gone": 4}, 4),
        ("gone", (), {"gone": [4]}, 4),
        ("none", (), {"none": 4}, 4),
        ("two", (), {"two": 4}, 2),
        ("deep.list[5].x", (), {"deep.list[5].x": 4}, 4),
        ({"sum": [{"datetime_key": "gone"}, -NEW_YEAR_S]}, (), {"gone": "2024-01-01T00:00:02Z"}, 2),
        ({"geo_distance": {"origin": BERLIN, "to": "gone"}}, (), {"gone": BERLIN}, 0),
    ],
)
def test_what_a_point_lacks_takes_its_default(formula: Any, scores: Any, defaults: Any, expected: float) -> None:
    assert score(formula, *scores, defaults=defaults) == expected


@pytest.mark.parametrize(
    "formula",
    [
        {"mult": [0, "gone"]},
        {"mult": ["two", {"key": "word", "match": {"value": "blue"}}, "gone"]},
        {"mult": [1e300, 1e300, 0]},
        {"div": {"left": 0, "right": "gone"}},
        {"div": {"left": {"key": "word", "match": {"value": "blue"}}, "right": 0}},
    ],
)
def test_nothing_is_computed_past_a_factor_of_zero(formula: Any) -> None:
    assert score(formula) == 0


def test_a_formula_tells_what_it_reads() -> None:
    formula = {"sum": ["$score", "two", {"datetime_key": "at"}, {"geo_distance": {"origin": BERLIN, "to": "berlin"}}, LEAF]}
    parsed = parse_formula(msgspec.convert({"formula": formula}, FormulaBody))
    assert parsed.keys == {"two", "at", "berlin"}
    assert [condition.key for condition in parsed.conditions] == ["word"]


def test_a_score_is_a_float32() -> None:
    assert score(0.1) == 0.10000000149011612
