"""Score formulas: what is refused, of a point or of a formula, and how it says so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shard.ranking.formula import MAX_DEPTH, MAX_TERMS, FormulaBody, FormulaError, parse_formula
from tests.shard.ranking.scored_point import BERLIN, candidate, decay, score


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("gone", "formula: 'gone' has no value at point 7, and none in defaults"),
        ({"sum": [1, "none"]}, "formula.sum[1]: 'none' has no value at point 7, and none in defaults"),
        ("word", "formula: 'word' is 'red' at point 7, must be a number"),
        ("yes", "formula: 'yes' is True at point 7, must be a number"),
        ("null", "formula: 'null' has no value at point 7, and none in defaults"),
        ("many", "formula: 'many' is [1, 2] at point 7, must be a number"),
        ("deep.list[].x", "formula: 'deep.list[].x' is [3, 4] at point 7, must be a number"),
        ({"div": {"left": 1, "right": 0}}, "formula.div: 1 is divided by zero for point 7, and by_zero_default is not given"),
        ({"div": {"left": 1e300, "right": 1e-300}}, "formula.div(1e+300, 1e-300) is not a finite number for point 7"),
        ({"sqrt": {"neg": "two"}}, "formula.sqrt(-2) is not a finite number for point 7"),
        ({"ln": 0}, "formula.ln(0) is not a finite number for point 7"),
        ({"log10": -1}, "formula.log10(-1) is not a finite number for point 7"),
        ({"acosh": 0.5}, "formula.acosh(0.5) is not a finite number for point 7"),
        ({"exp": 1000}, "formula.exp(1000) is not a finite number for point 7"),
        ({"pow": {"base": -1, "exponent": 0.5}}, "formula.pow(-1, 0.5) is not a finite number for point 7"),
        ({"pow": {"base": 0, "exponent": -1}}, "formula.pow(0, -1) is not a finite number for point 7"),
        ({"mult": [1e200, 1e200]}, "formula.mult(1e+200, 1e+200) is not a finite number for point 7"),
        ({"sum": [1.7e308] * 6}, "formula.sum(1.7e+308, 1.7e+308, 1.7e+308, 1.7e+308, …) is not a finite number for point 7"),
        (1e39, "formula is 1e+39 for point 7, which is not a finite float32"),
        ({"datetime_key": "word"}, "formula.datetime_key: 'word' is 'red' at point 7, must be an RFC 3339 date and time"),
        ({"datetime_key": "two"}, "formula.datetime_key: 'two' is 2 at point 7, must be an RFC 3339 date and time"),
        (
            {"geo_distance": {"origin": BERLIN, "to": "nowhere"}},
            "formula.geo_distance: 'nowhere' is {'lon': 500, 'lat': 0} at point 7, must be a place of lon and lat",
        ),
        ({"geo_distance": {"origin": BERLIN, "to": "gone"}}, "formula.geo_distance.to: 'gone' has no value at point 7"),
    ],
    ids=str,
)
def test_a_point_without_a_score_is_an_error_that_names_expression_and_point(formula: Any, said: str) -> None:
    with pytest.raises(FormulaError) as raised:
        score(formula)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ({}, "formula: needs exactly one operation or condition, not none"),
        ({"sum": [], "neg": 1}, "formula: needs exactly one operation or condition, not sum and neg"),
        ({"neg": 1, "has_id": [1]}, "formula: needs exactly one operation or condition, not has_id and neg"),
        ({"sum": [1, {"key": "word", "match": {}}]}, "formula.sum[1].match: needs exactly one of"),
        ({"neg": {"key": "word"}}, "formula.neg"),
        ({"max": []}, "formula.max: needs at least one expression"),
        ({"min": []}, "formula.min: needs at least one expression"),
        ("$score[", "formula: '$score[' is not a score"),
        ("$score[-1]", "formula: '$score[-1]' is not a score"),
        ("$score[1][2]", "formula: '$score[1][2]' is not a score"),
        ("$scores", "formula: '$scores' is not a score"),
        ("", "formula: key is empty"),
        ("a[x]", "formula: key 'a[x]' is not a path"),
        ({"datetime": "soon"}, "formula.datetime: 'soon' is not an RFC 3339 date and time"),
        ({"datetime_key": "a..b"}, "formula.datetime_key: key 'a..b' is not a path"),
        ({"geo_distance": {"origin": {"lon": 0, "lat": 91}, "to": "berlin"}}, "formula.geo_distance.origin: lon must be"),
        ({"geo_distance": {"origin": BERLIN, "to": ""}}, "formula.geo_distance.to: key is empty"),
        (decay("lin_decay", 1, scale=0), "formula.lin_decay.scale: is 0, must be above 0"),
        (decay("exp_decay", 1, scale=-2), "formula.exp_decay.scale: is -2, must be above 0"),
        (decay("lin_decay", 1, midpoint=1.5), "formula.lin_decay.midpoint: is 1.5, must be between 0 and 1"),
        (decay("exp_decay", 1, midpoint=1), "formula.exp_decay.midpoint: is 1, must be above 0 and below 1"),
        (decay("gauss_decay", 1, midpoint=0), "formula.gauss_decay.midpoint: is 0, must be above 0 and below 1"),
        (decay("gauss_decay", "$score["), "formula.gauss_decay.x: '$score['"),
        (decay("gauss_decay", 1, target="a[x]"), "formula.gauss_decay.target: key 'a[x]'"),
    ],
    ids=str,
)
def test_a_formula_that_means_nothing_is_refused_before_any_point(formula: Any, said: str) -> None:
    with pytest.raises(FormulaError) as raised:
        parse_formula(msgspec.convert({"formula": formula}, FormulaBody))
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("defaults", "said"),
    [
        ({"$score": "x"}, "defaults.$score: is 'x', must be a number"),
        ({"$score[": 1}, "defaults: '$score[' is not a score"),
        ({"a..b": 1}, "defaults: key 'a..b' is not a path"),
    ],
)
def test_a_default_must_be_of_a_variable(defaults: Any, said: str) -> None:
    with pytest.raises(FormulaError) as raised:
        score(1, defaults=defaults)
    assert str(raised.value).startswith(said)


def test_a_default_too_large_for_a_float_is_refused() -> None:
    for name in ("$score", "gone"):
        body = FormulaBody(name, {name: 10**400})
        with pytest.raises(FormulaError, match="is not a finite number for point 7"):
            parse_formula(body).score(candidate({}), [])


@pytest.mark.parametrize(
    "formula",
    [True, None, [1], {"add": [1]}, {"sum": 1}, {"sum": [None]}, {"div": {"left": 1}}, {"pow": {"base": 1}}, {"exp_decay": {}}],
    ids=str,
)
def test_what_is_no_expression_does_not_decode(formula: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"formula": formula}, FormulaBody)


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> Any:
        formula: Any = 1
        for _ in range(depth - 1):
            formula = {"neg": formula}
        return formula

    assert abs(score(nested(MAX_DEPTH))) == 1
    with pytest.raises(FormulaError, match=f"deeper than {MAX_DEPTH}"):
        score(nested(MAX_DEPTH + 1))


def test_the_number_of_terms_is_bounded() -> None:
    """The sum and its terms."""
    assert score({"sum": [1] * (MAX_TERMS - 1)}) == MAX_TERMS - 1
    with pytest.raises(FormulaError, match=f"more than {MAX_TERMS} terms"):
        score({"sum": [1] * MAX_TERMS})
