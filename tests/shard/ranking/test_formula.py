"""Score formulas: each expression by table, what is refused and how it says so, and the client's own evaluation as an oracle."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.hybrid.formula import evaluate_expression, parse_defaults

from journal.ids import encode_id
from shard.filters.subjects import PointSubject, Source
from shard.ranking.formula import MAX_DEPTH, FormulaBody, FormulaError, parse_formula
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


def candidate(payload: Any, point_id: int = 7, vectors: tuple[str, ...] = ("image",)) -> PointSubject:
    source = SimpleNamespace(fields={}, vector_names=lambda row: set(vectors))
    return PointSubject(Row(0, encode_id(point_id), orjson.dumps(payload), 0), cast(Source, source))


def score(formula: Any, *scores: float | None, defaults: Any = None, payload: Any = PAYLOAD) -> float:
    body = msgspec.json.decode(orjson.dumps({"formula": formula, "defaults": defaults}), type=FormulaBody)
    return parse_formula(body).score(candidate(payload), scores)


def decay(kind: str, x: Any, **params: Any) -> dict[str, Any]:
    return {kind: {"x": x, **params}}


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


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("gone", "formula: 'gone' has no value at point 7, and none in defaults"),
        ({"sum": [1, "none"]}, "formula.sum[1]: 'none' has no value at point 7, and none in defaults"),
        ("word", "formula: 'word' is 'red' at point 7, must be a number"),
        ("yes", "formula: 'yes' is True at point 7, must be a number"),
        ("null", "formula: 'null' is None at point 7, must be a number"),
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
        ({"max": []}, "formula.max needs at least one expression"),
        ({"min": []}, "formula.min needs at least one expression"),
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
        (decay("lin_decay", 1, scale=0), "formula.lin_decay.scale is 0, must be above 0"),
        (decay("exp_decay", 1, scale=-2), "formula.exp_decay.scale is -2, must be above 0"),
        (decay("lin_decay", 1, midpoint=1.5), "formula.lin_decay.midpoint is 1.5, must be between 0 and 1"),
        (decay("exp_decay", 1, midpoint=1), "formula.exp_decay.midpoint is 1, must be above 0 and below 1"),
        (decay("gauss_decay", 1, midpoint=0), "formula.gauss_decay.midpoint is 0, must be above 0 and below 1"),
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
        ({"$score": "x"}, "defaults.$score is 'x', must be a number"),
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


def test_a_formula_tells_what_it_reads() -> None:
    formula = {"sum": ["$score", "two", {"datetime_key": "at"}, {"geo_distance": {"origin": BERLIN, "to": "berlin"}}, LEAF]}
    parsed = parse_formula(msgspec.convert({"formula": formula}, FormulaBody))
    assert parsed.keys == {"two", "at", "berlin"}
    assert [condition.key for condition in parsed.conditions] == ["word"]


def test_a_score_is_a_float32() -> None:
    assert score(0.1) == 0.10000000149011612


# The client's local mode as an oracle.

LEAF = {"key": "word", "match": {"value": "red"}}
NUMBER = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5]), st.floats(-100, 100, width=32))
LEAVES = st.one_of(
    NUMBER,
    st.sampled_from(
        ["$score", "$score[1]", "$score[2]", "two", "half", "one_of", "gone", "deep.list[0].x", "many", "none", "null"]
    ),
    st.just(LEAF),
    st.builds(lambda to: {"geo_distance": {"origin": LONDON, "to": to}}, st.sampled_from(["berlin", "home", "gone"])),
    st.sampled_from([{"datetime": "2024-01-01T00:00:07Z"}, {"datetime_key": "at"}, {"datetime_key": "gone"}]),
)


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Expressions over expressions."""
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda name, of: {name: of}, st.sampled_from(["mult", "sum", "max", "min"]), several),
        st.builds(lambda name, of: {name: of}, st.sampled_from(["neg", "abs", "sqrt", "exp", "log10", "ln", "acosh"]), inner),
        st.builds(lambda a, b, c: {"div": {"left": a, "right": b} | c}, inner, inner, optional("by_zero_default", NUMBER)),
        st.builds(lambda a, b: {"pow": {"base": a, "exponent": b}}, inner, inner),
        st.builds(
            lambda name, x, target, scale, midpoint: {name: {"x": x} | target | scale | midpoint},
            st.sampled_from(["lin_decay", "exp_decay", "gauss_decay"]),
            inner,
            optional("target", inner),
            optional("scale", st.floats(0.5, 1e5)),
            optional("midpoint", st.floats(0.0625, 0.9375)),
        ),
    )


def optional(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: values})


@given(
    st.recursive(LEAVES, grown, max_leaves=8),
    st.lists(st.one_of(st.none(), NUMBER), max_size=3),
    st.fixed_dictionaries({}, optional={"gone": NUMBER, "home": st.just(BERLIN), "$score": NUMBER, "$score[1]": NUMBER}),
)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_the_client_gives_the_same_scores(formula: Any, scores: list[float | None], defaults: Any) -> None:
    expected = oracle(formula, scores, defaults)
    if expected is None:
        with pytest.raises(FormulaError):
            score(formula, *scores, defaults=defaults)
    elif abs(expected) < 1e30:
        assert score(formula, *scores, defaults=defaults) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def oracle(formula: Any, scores: list[float | None], defaults: Any) -> float | None:
    """The client's value; None where it has none."""
    parsed = models.FormulaQuery(formula=formula).formula
    found = [{} if one is None else {7: one} for one in scores]
    try:
        value = evaluate_expression(parsed, 7, found, PAYLOAD, {"image": True}, parse_defaults(defaults))  # type: ignore
    except (ValueError, AttributeError, OverflowError):
        return None
    return value if math.isfinite(value) else None
