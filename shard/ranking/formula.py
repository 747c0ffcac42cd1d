"""Score formulas of the dialect: their JSON form, and their evaluation on one point.

An expression is a number, the name of a variable, or an object with one operation or a condition. A condition is 1.0 when it is
true and 0.0 otherwise. `$score[i]` is the point's score in prefetch i, `$score` is `$score[0]`; other names are payload paths.
Products and quotients are lazy: after a factor of zero nothing is evaluated, so nothing there can fail.

Unlike in the reference implementation, the result of every operation must be finite.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from journal.ids import decode_id
from payload.errors import BoundError
from payload.geo import as_coordinates, distance_m
from payload.paths import as_micros, as_number, steps_of, values_at
from payload.remembered import remembered
from shard.filters.conditions import Condition, parse_filter
from shard.filters.fields import GeoPoint
from shard.filters.subjects import PointSubject

MAX_DEPTH = 32
MAX_TERMS = 1000
"""Numbers, variables, operations and conditions in a formula. It is compiled on the event loop, and evaluated for every point."""

COMPILED_BYTES = 4 << 20
"""The bound of the cache of compiled formulas; a formula is estimated at eight times the size of its text."""

_SCORE = re.compile(r"\$score(?:\[(\d{1,9})\])?", re.ASCII)
_FLOAT32 = struct.Struct("<f")


class FormulaError(ValueError):
    """An invalid formula, or one without a value for a point. The text names the place, the bound and the point."""


class FormulaBoundError(FormulaError, BoundError):
    """A formula that can be read, and breaks a bound."""


# The JSON form.


class Division(Struct, forbid_unknown_fields=True):
    """`by_zero_default` is the quotient when `right` is zero."""

    left: Expression
    right: Expression
    by_zero_default: float | None = None


class Power(Struct, forbid_unknown_fields=True):
    base: Expression
    exponent: Expression


class Decay(Struct, forbid_unknown_fields=True):
    """1.0 when `x` equals `target`, `midpoint` when it is `scale` away."""

    x: Expression
    target: Expression | None = None
    scale: float | None = None
    midpoint: float | None = None


class GeoDistance(Struct, forbid_unknown_fields=True):
    """Metres from `origin` to the place at the payload path `to`."""

    origin: GeoPoint
    to: str


class Term(Condition, forbid_unknown_fields=True):
    """An expression as an object: exactly one of these operations, or a condition."""

    mult: list[Expression] | None = None
    sum: list[Expression] | None = None
    max: list[Expression] | None = None
    min: list[Expression] | None = None
    neg: Expression | None = None
    abs: Expression | None = None
    sqrt: Expression | None = None
    exp: Expression | None = None
    log10: Expression | None = None
    ln: Expression | None = None
    acosh: Expression | None = None
    div: Division | None = None
    pow: Power | None = None
    geo_distance: GeoDistance | None = None
    datetime: str | None = None
    datetime_key: str | None = None
    lin_decay: Decay | None = None
    exp_decay: Decay | None = None
    gauss_decay: Decay | None = None


Expression = float | str | Term


class FormulaBody(Struct, forbid_unknown_fields=True):
    """A formula, and the default values of variables."""

    formula: Expression
    defaults: dict[str, Any] | None = None


# From the JSON form to a parsed formula.


class Scope(NamedTuple):
    """The input of an expression: a point, and its score in each prefetch."""

    candidate: PointSubject
    scores: Sequence[float | None]

    @property
    def point(self) -> str:
        """The point, for error texts."""
        return f"point {decode_id(self.candidate.id)}"


Evaluate = Callable[[Scope], float]


@dataclass(frozen=True)
class CompiledFormula:
    """A formula as a function, the payload paths it reads and the conditions in it."""

    evaluate: Evaluate
    keys: frozenset[str]
    conditions: tuple[Condition, ...]

    def score(self, candidate: PointSubject, scores: Sequence[float | None]) -> float:
        """The point's score, rounded to float32; `scores[i]` is its score in prefetch i, None if it is not in that one.

        Raises FormulaError when a variable has no value, or when an operation or the score is not a finite number.
        """
        scope = Scope(candidate, scores)
        value = self.evaluate(scope)
        try:
            rounded: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
        except OverflowError as error:
            raise FormulaError(f"formula is {value:g} for {scope.point}, which is not a finite float32") from error
        return rounded


def parse_formula(body: FormulaBody) -> CompiledFormula:
    """Compiles a formula. Raises FormulaError."""
    parser = _Parser(_parse_defaults(body.defaults or {}))
    evaluate = parser.parse(body.formula, "formula", 1)
    return CompiledFormula(evaluate, frozenset(parser.keys), tuple(parser.conditions))


class Formula:
    """A formula as a value: its JSON text, which can be sent, and its compiled form, cached by text."""

    __slots__ = ("compiled", "text")

    def __init__(self, text: bytes) -> None:
        """From the JSON text of a FormulaBody. Raises FormulaError or msgspec.MsgspecError."""
        self.text = text
        self.compiled = _compiled(text)


def formula_of(body: FormulaBody) -> Formula:
    """The formula of a request. Raises FormulaError."""
    parse_formula(body)  # checks it before it is encoded: JSON has no infinite numbers
    return Formula(msgspec.json.encode(body))


def _compile(text: bytes) -> CompiledFormula:
    return parse_formula(msgspec.json.decode(text, type=FormulaBody))


_compiled = remembered(_compile, lambda text, _: 8 * len(text), COMPILED_BYTES)


def _sum(*values: float) -> float:
    return sum(values)


def _max(*values: float) -> float:
    return max(values)


def _min(*values: float) -> float:
    return min(values)


def _product(*values: float) -> float:
    return math.prod(values)


_FOLDS: dict[str, Callable[..., float]] = {"sum": _sum, "max": _max, "min": _min}
_UNARY: dict[str, Callable[[float], float]] = {
    "neg": operator.neg,
    "abs": abs,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log10": math.log10,
    "ln": math.log,
    "acosh": math.acosh,
}
_DECAYS: dict[str, Callable[[float, float], float]] = {  # by the distance from the target in scales, and the midpoint
    "lin_decay": lambda distance, midpoint: max(0.0, 1.0 - (1.0 - midpoint) * distance),
    "exp_decay": lambda distance, midpoint: midpoint**distance,
    "gauss_decay": lambda distance, midpoint: midpoint ** (distance * distance),
}
_OPERATIONS = frozenset(Term.__struct_fields__) - frozenset(Condition.__struct_fields__)


class _Parser:
    """Compiles expressions to functions, and collects the payload paths and conditions in them."""

    def __init__(self, defaults: Mapping[str | int, Any]) -> None:
        self.keys: set[str] = set()
        self.conditions: list[Condition] = []
        self._defaults = defaults
        self._terms = 0

    def parse(self, expression: Expression, path: str, depth: int) -> Evaluate:
        """The function of an expression. Raises FormulaError."""
        if depth > MAX_DEPTH:
            raise FormulaBoundError(f"{path[:40]}…: formula is nested deeper than {MAX_DEPTH}")
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise FormulaBoundError(f"{path[:40]}…: formula has more than {MAX_TERMS} terms")
        if isinstance(expression, str):
            return self._variable(expression, path)
        if isinstance(expression, float | int):
            return _constant(float(expression), path)
        given = _given(expression)
        if given and not _OPERATIONS.intersection(given):
            return self._condition(expression, path)
        if len(given) != 1:
            raise FormulaError(f"{path}: needs exactly one operation or condition, not {' and '.join(given) or 'none'}")
        return self._operation(given[0], getattr(expression, given[0]), f"{path}.{given[0]}", depth)

    def _operation(self, name: str, operand: Any, path: str, depth: int) -> Evaluate:
        if name in ("mult", "sum", "max", "min"):
            operands = [self.parse(inner, f"{path}[{at}]", depth + 1) for at, inner in enumerate(operand)]
            return _fold(name, operands, path)
        if name in _UNARY:
            return _unary(_UNARY[name], self.parse(operand, path, depth + 1), path)
        match operand:
            case Division(left=left, right=right, by_zero_default=default):
                dividend = self.parse(left, f"{path}.left", depth + 1)
                return _quotient(dividend, self.parse(right, f"{path}.right", depth + 1), default, path)
            case Power(base=base, exponent=exponent):
                raised = self.parse(base, f"{path}.base", depth + 1)
                return _power(raised, self.parse(exponent, f"{path}.exponent", depth + 1), path)
            case Decay():
                return self._decay(name, operand, path, depth)
            case GeoDistance():
                return self._geo_distance(operand, path)
        return self._datetime_key(operand, path) if name == "datetime_key" else _datetime(operand, path)

    def _condition(self, condition: Condition, path: str) -> Evaluate:
        try:
            parsed = parse_filter(condition)
        except ValueError as error:
            kind = FormulaBoundError if isinstance(error, BoundError) else FormulaError
            raise kind(f"{path}{str(error).removeprefix('filter')}") from error
        assert parsed is not None
        self.conditions.append(condition)
        return lambda at: 1.0 if parsed.test(at.candidate) else 0.0

    def _variable(self, name: str, path: str) -> Evaluate:
        variable = _variable_of(name, path)
        if isinstance(variable, int):
            return _score(variable, self._defaults.get(variable, 0.0))
        read = self._read(variable, path)

        def evaluate(at: Scope) -> float:
            value = read(at)
            if (number := as_number(value)) is None:
                raise FormulaError(f"{path}: {variable!r} is {_shown(value)} at {at.point}, must be a number")
            return _apply(float, (number,), path, at)

        return evaluate

    def _datetime_key(self, key: str, path: str) -> Evaluate:
        read = self._read(key, path)

        def evaluate(at: Scope) -> float:
            value = read(at)
            if (micros := as_micros(value)) is None:
                raise FormulaError(f"{path}: {key!r} is {_shown(value)} at {at.point}, must be an RFC 3339 date and time")
            return micros / 1e6

        return evaluate

    def _geo_distance(self, params: GeoDistance, path: str) -> Evaluate:
        origin = as_coordinates({"lon": params.origin.lon, "lat": params.origin.lat})
        if origin is None:
            raise FormulaBoundError(f"{path}.origin: lon must be between -180 and 180, lat between -90 and 90")
        read = self._read(params.to, f"{path}.to")

        def evaluate(at: Scope) -> float:
            value = read(at)
            if (place := as_coordinates(value)) is None:
                raise FormulaError(f"{path}: {params.to!r} is {_shown(value)} at {at.point}, must be a place of lon and lat")
            return distance_m(origin, place)

        return evaluate

    def _decay(self, name: str, params: Decay, path: str, depth: int) -> Evaluate:
        x = self.parse(params.x, f"{path}.x", depth + 1)
        target = _constant(0.0, path) if params.target is None else self.parse(params.target, f"{path}.target", depth + 1)
        scale = 1.0 if params.scale is None else params.scale
        midpoint = 0.5 if params.midpoint is None else params.midpoint
        if not 0 < scale < math.inf:
            raise FormulaBoundError(f"{path}.scale: is {scale:g}, must be above 0")
        if name == "lin_decay" and not 0 <= midpoint <= 1:
            raise FormulaBoundError(f"{path}.midpoint: is {midpoint:g}, must be between 0 and 1")
        if name != "lin_decay" and not 0 < midpoint < 1:
            raise FormulaBoundError(f"{path}.midpoint: is {midpoint:g}, must be above 0 and below 1")
        curve = _DECAYS[name]
        return lambda at: curve(abs(x(at) - target(at)) / scale, midpoint)

    def _read(self, key: str, path: str) -> Callable[[Scope], Any]:
        """Reads the value at a path, or its default. An array of one value counts as the value; null and an empty one as none."""
        _check_key(key, path)
        self.keys.add(key)
        default = self._defaults.get(key)
        spare = default if isinstance(default, list) else [] if default is None else [default]

        def read(at: Scope) -> Any:
            values = [value for value in values_at(at.candidate.payload, key) if value is not None] or spare
            if not values:
                raise FormulaError(f"{path}: {key!r} has no value at {at.point}, and none in defaults")
            return values[0] if len(values) == 1 else values

        return read


def _given(expression: Term) -> list[str]:
    values = ((name, getattr(expression, name)) for name in expression.__struct_fields__)
    return [name for name, value in values if value is not None and value is not UNSET]


def _parse_defaults(defaults: Mapping[str, Any]) -> dict[str | int, Any]:
    """Values by variable; the key of a score is its index, so that `$score` and `$score[0]` are the same."""
    parsed: dict[str | int, Any] = {}
    for name, value in defaults.items():
        variable = _variable_of(name, "defaults")
        if isinstance(variable, int) and as_number(value) is None:
            raise FormulaBoundError(f"defaults.{name}: is {_shown(value)}, must be a number")
        parsed[variable] = value
    return parsed


def _variable_of(name: str, path: str) -> str | int:
    """The index of a score, or a payload path."""
    if not name.startswith("$score"):
        return _check_key(name, path)
    if not (match := _SCORE.fullmatch(name)):
        raise FormulaError(f"{path}: {name[:64]!r} is not a score, must be $score or $score[0], $score[1] and so on")
    return int(match[1] or 0)


def _check_key(key: str, path: str) -> str:
    try:
        steps_of(key)
    except ValueError as error:
        raise FormulaError(f"{path}: {error}") from error
    return key


# The functions.


def _constant(value: float, path: str) -> Evaluate:
    if not math.isfinite(value):
        raise FormulaBoundError(f"{path}: is {value:g}, must be a finite number")
    return lambda _: value


def _score(index: int, default: float) -> Evaluate:
    def evaluate(at: Scope) -> float:
        score = at.scores[index] if index < len(at.scores) else None
        return _apply(float, (default if score is None else score,), f"$score[{index}]", at)

    return evaluate


def _datetime(text: str, path: str) -> Evaluate:
    if (micros := as_micros(text)) is None:
        raise FormulaError(f"{path}: {text[:64]!r} is not an RFC 3339 date and time")
    return _constant(micros / 1e6, path)


def _fold(name: str, operands: Sequence[Evaluate], path: str) -> Evaluate:
    if name == "mult":
        return _lazy_product(operands, path)
    if not operands and name != "sum":
        raise FormulaBoundError(f"{path}: needs at least one expression")
    operation = _FOLDS[name]
    return lambda at: _apply(operation, [operand(at) for operand in operands], path, at)


def _lazy_product(factors: Sequence[Evaluate], path: str) -> Evaluate:
    def evaluate(at: Scope) -> float:
        values = []
        for factor in factors:
            if (value := factor(at)) == 0.0:
                return 0.0
            values.append(value)
        return _apply(_product, values, path, at)

    return evaluate


def _quotient(left: Evaluate, right: Evaluate, by_zero_default: float | None, path: str) -> Evaluate:
    def evaluate(at: Scope) -> float:
        if (dividend := left(at)) == 0.0:
            return 0.0
        divisor = right(at)
        if divisor == 0.0 and by_zero_default is None:
            raise FormulaError(f"{path}: {dividend:g} is divided by zero for {at.point}, and by_zero_default is not given")
        if divisor == 0.0 and by_zero_default is not None:
            return by_zero_default
        return _apply(operator.truediv, (dividend, divisor), path, at)

    return evaluate


def _power(base: Evaluate, exponent: Evaluate, path: str) -> Evaluate:
    return lambda at: _apply(math.pow, (base(at), exponent(at)), path, at)


def _unary(operation: Callable[[float], float], operand: Evaluate, path: str) -> Evaluate:
    return lambda at: _apply(operation, (operand(at),), path, at)


def _apply(operation: Callable[..., float], values: Sequence[float], path: str, at: Scope) -> float:
    """The result of an operation, which must be finite."""
    try:
        result = operation(*values)
    except (ValueError, ArithmeticError):
        result = math.nan
    if not math.isfinite(result):
        shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else _shown(value) for value in values[:4])
        raise FormulaError(f"{path}({shown}{', …' if len(values) > 4 else ''}) is not a finite number for {at.point}")
    return result


def _shown(value: Any) -> str:
    return repr(value)[:64]
