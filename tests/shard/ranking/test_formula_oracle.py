"""Score formulas: the client's own evaluation, in its local mode, as an oracle."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.hybrid.formula import evaluate_expression, parse_defaults

from shard.ranking.formula import FormulaError
from tests.shard.ranking.scored_point import BERLIN, LEAF, LONDON, PAYLOAD, score

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
