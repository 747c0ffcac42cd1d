"""Filters of the dialect: their JSON form, their meaning on one point, and the rows that the payload index gives for them.

A condition has two faces. `test` decides one point and is the definition. `select` gives, from the index, a superset of the
rows that pass, and says whether it is exact; what is not exact is tested point by point, so a missing index costs time only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson
from msgspec import UNSET, Struct, UnsetType
from pyroaring import BitMap

from catalog.collection import FieldSchema, FieldType
from catalog.payload import as_micros, as_number, nodes_at, steps_of, tokens, values_at
from journal.ids import ExternalId, encode_id
from shard.shard import Shard, ShardView
from shard.store import Row

MAX_DEPTH = 32

Scalar = str | int | bool
Bound = int | float | str


class FilterError(ValueError):
    """A filter that means nothing. The text names the place and the bound."""


# The JSON form.


class Match(Struct, forbid_unknown_fields=True, rename={"except_": "except"}):
    """One of: a value, any of several, none of several, all words of a text."""

    value: Scalar | UnsetType = UNSET
    any: list[str | int] | UnsetType = UNSET
    except_: list[str | int] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    text_any: UnsetType | None = UNSET
    phrase: UnsetType | None = UNSET


class Range(Struct, forbid_unknown_fields=True):
    """Numbers, or moments as RFC 3339 texts."""

    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None


class ValuesCount(Struct, forbid_unknown_fields=True):
    """How many values a field has."""

    gt: int | None = None
    gte: int | None = None
    lt: int | None = None
    lte: int | None = None


class Key(Struct, forbid_unknown_fields=True):
    """A payload path."""

    key: str


class Nested(Struct, forbid_unknown_fields=True):
    """A filter that one element of an array of objects must pass as a whole."""

    key: str
    filter: Condition


class MinShould(Struct, forbid_unknown_fields=True):
    """At least `min_count` of the conditions."""

    conditions: list[Condition]
    min_count: int


class Condition(Struct, forbid_unknown_fields=True):
    """A condition on a field (`key` with match, range or values_count), on the point itself, or a filter of conditions."""

    key: str | UnsetType = UNSET
    match: Match | None = None
    range: Range | None = None
    values_count: ValuesCount | None = None
    is_empty: Key | bool | None = None
    is_null: Key | bool | None = None
    geo_bounding_box: None = None
    geo_radius: None = None
    geo_polygon: None = None
    has_id: list[ExternalId] | None = None
    has_vector: str | None = None
    nested: Nested | None = None
    must: Condition | list[Condition] | None = None
    should: Condition | list[Condition] | None = None
    must_not: Condition | list[Condition] | None = None
    min_should: MinShould | None = None


_PLAIN_TEXT = FieldSchema(FieldType.TEXT)

# What a test sees, and what an index gives.


class Candidate:
    """A point under test; payload and vector names are read when a condition asks."""

    def __init__(self, row: Row, view: ShardView) -> None:
        self.id = row.id
        self.fields = view.collection.fields
        self._row = row
        self._view = view
        self._payload: Any = None

    @property
    def payload(self) -> Any:
        if self._payload is None:
            self._payload = orjson.loads(self._row.payload) if self._row.payload else {}
        return self._payload

    @property
    def vector_names(self) -> set[str]:
        return set(self._view.rows.vectors(self._row.row))


class Element:
    """An element of an array, under the test of a nested filter."""

    id = b""
    vector_names: frozenset[str] = frozenset()

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.fields: dict[str, FieldSchema] = {}


Subject = Candidate | Element


class Selection(NamedTuple):
    """Rows that may pass; when `exact`, just those that do."""

    rows: BitMap
    exact: bool


class Filter(Protocol):
    """A parsed condition."""

    def test(self, subject: Subject) -> bool:
        """Whether the point passes."""

    def select(self, shard: Shard) -> Selection:
        """The rows that may pass. Called under the shard's lock; gives a bitmap of its own or the shard's, unchanged."""


@dataclass(frozen=True)
class FieldTest:
    """Some value of a field passes `accepts`; `lookup` asks the field's index."""

    key: str
    accepts: Callable[[Any], bool]
    lookup: Callable[[Any], BitMap | None] = field(default=lambda _: None)

    def test(self, subject: Subject) -> bool:
        return any(self.accepts(value) for value in values_at(subject.payload, self.key))

    def select(self, shard: Shard) -> Selection:
        index = shard.payload.fields.get(self.key)
        rows = None if index is None else self.lookup(index)
        return Selection(shard.alive, False) if rows is None else Selection(rows, True)


@dataclass(frozen=True)
class TextTest:
    """All words of a text, cut by the field's text index or, without one, by its defaults."""

    key: str
    text: str

    def test(self, subject: Subject) -> bool:
        texts = [value for value in values_at(subject.payload, self.key) if isinstance(value, str)]
        schema = subject.fields.get(self.key)
        schema = schema if schema is not None and schema.type is FieldType.TEXT else _PLAIN_TEXT
        options = (schema.lowercase, schema.min_token_len, schema.max_token_len)
        wanted = set(tokens(self.text, *options))
        return bool(wanted) and wanted <= {token for text in texts for token in tokens(text, *options)}

    def select(self, shard: Shard) -> Selection:
        index = shard.payload.fields.get(self.key)
        rows = None if index is None else index.text(self.text)
        return Selection(shard.alive, False) if rows is None else Selection(rows, True)


@dataclass(frozen=True)
class NodeTest:
    """A test on what stands at a path as a whole; `missing` is its answer where nothing does."""

    key: str
    accepts: Callable[[Any], bool]
    missing: bool
    every: bool = False

    def test(self, subject: Subject) -> bool:
        nodes = nodes_at(subject.payload, self.key)
        if not nodes:
            return self.missing
        return (all if self.every else any)(self.accepts(node) for node in nodes)

    def select(self, shard: Shard) -> Selection:
        return Selection(shard.alive, False)


@dataclass(frozen=True)
class IdTest:
    """The point is one of these."""

    ids: frozenset[bytes]

    def test(self, subject: Subject) -> bool:
        return subject.id in self.ids

    def select(self, shard: Shard) -> Selection:
        return Selection(BitMap(row.row for row in shard.view.rows.find(sorted(self.ids))), True)


@dataclass(frozen=True)
class VectorTest:
    """The point has a vector of this name."""

    name: str

    def test(self, subject: Subject) -> bool:
        return self.name in subject.vector_names

    def select(self, shard: Shard) -> Selection:
        vectors = shard.view.vectors.get(self.name)
        return Selection(BitMap() if vectors is None else vectors.all_rows(), True)


@dataclass(frozen=True)
class NestedTest:
    """Some element of an array of objects passes a filter as a whole."""

    key: str
    filter: Filter

    def test(self, subject: Subject) -> bool:
        arrays = [node for node in nodes_at(subject.payload, self.key) if isinstance(node, list)]
        elements = [element for array in arrays for element in array if isinstance(element, dict)]
        return any(self.filter.test(Element(element)) for element in elements)

    def select(self, shard: Shard) -> Selection:
        return Selection(shard.alive, False)


@dataclass(frozen=True)
class Clauses:
    """All of `must`, none of `must_not`, one of `should`, `min_count` of `min_should`."""

    must: Sequence[Filter] = ()
    should: Sequence[Filter] = ()
    must_not: Sequence[Filter] = ()
    min_should: Sequence[Filter] = ()
    min_count: int = 0

    def test(self, subject: Subject) -> bool:
        return (
            all(condition.test(subject) for condition in self.must)
            and not any(condition.test(subject) for condition in self.must_not)
            and (not self.should or any(condition.test(subject) for condition in self.should))
            and sum(condition.test(subject) for condition in self.min_should) >= self.min_count
        )

    def select(self, shard: Shard) -> Selection:
        rows, exact = BitMap(shard.alive), True
        for selection in [condition.select(shard) for condition in self.must]:
            rows &= selection.rows
            exact &= selection.exact
        if self.should:
            selections = [condition.select(shard) for condition in self.should]
            rows &= BitMap.union(*(selection.rows for selection in selections))
            exact &= all(selection.exact for selection in selections)
        for selection in [condition.select(shard) for condition in self.must_not]:
            if selection.exact:
                rows -= selection.rows
            exact &= selection.exact
        if self.min_count > 0:
            selections = [condition.select(shard) for condition in self.min_should]
            rows &= _in_at_least(self.min_count, [selection.rows for selection in selections])
            exact &= all(selection.exact for selection in selections)
        return Selection(rows, exact)


def _in_at_least(count: int, sets: Sequence[BitMap]) -> BitMap:
    """The rows in at least `count` of the sets."""
    reached = [BitMap() for _ in range(count)]  # reached[i]: in more than i of the sets seen so far
    for rows in sets:
        for level in range(count - 1, 0, -1):
            reached[level] |= reached[level - 1] & rows
        reached[0] |= rows
    return reached[count - 1]


# From the JSON form to a parsed filter.


def parse_filter(condition: Condition | None) -> Filter | None:
    """The filter of a request; None for none. Raises FilterError."""
    return None if condition is None else _parse(condition, "filter", 1)


def _parse(condition: Condition, path: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"{path[:40]}…: filter is nested deeper than {MAX_DEPTH}")
    given = {
        name
        for name in condition.__struct_fields__
        if name != "key" and getattr(condition, name) is not None and getattr(condition, name) is not UNSET
    }
    clauses = given & {"must", "should", "must_not", "min_should"}
    if condition.key is not UNSET:
        if len(given) != 1 or not given <= {"match", "range", "values_count", "is_empty", "is_null"}:
            raise FilterError(f"{path}: a condition with key needs exactly one of match, range, values_count, is_empty, is_null")
        return _parse_field(condition, condition.key, path)
    if given and clauses == given:
        return _parse_clauses(condition, path, depth)
    if not given:
        return Clauses()
    if len(given) > 1:
        raise FilterError(f"{path}: {' and '.join(sorted(given))} cannot stand in one condition")
    return _parse_single(condition, path, depth)


def _parse_clauses(condition: Condition, path: str, depth: int) -> Filter:
    def parse_all(name: str) -> list[Filter]:
        listed = getattr(condition, name) or []
        listed = listed if isinstance(listed, list) else [listed]
        return [_parse(inner, f"{path}.{name}[{at}]", depth + 1) for at, inner in enumerate(listed)]

    least = condition.min_should
    if least is not None and least.min_count < 1:
        raise FilterError(f"{path}.min_should.min_count is {least.min_count}, must be at least 1")
    inner = [] if least is None else least.conditions
    return Clauses(
        parse_all("must"),
        parse_all("should"),
        parse_all("must_not"),
        [_parse(c, f"{path}.min_should.conditions[{at}]", depth + 1) for at, c in enumerate(inner)],
        0 if least is None else min(least.min_count, len(inner) + 1),
    )


def _parse_single(condition: Condition, path: str, depth: int) -> Filter:
    if isinstance(condition.is_empty, Key):
        return _empty(_key(condition.is_empty.key, path))
    if isinstance(condition.is_null, Key):
        return _null(_key(condition.is_null.key, path))
    if condition.has_id is not None:
        try:
            return IdTest(frozenset(encode_id(point_id) for point_id in condition.has_id))
        except ValueError as error:
            raise FilterError(f"{path}.has_id: {error}") from error
    if condition.has_vector is not None:
        return VectorTest(condition.has_vector)
    if condition.nested is not None:
        inner = _parse(condition.nested.filter, f"{path}.nested.filter", depth + 1)
        return NestedTest(_key(condition.nested.key, path), inner)
    raise FilterError(f"{path}: this condition needs a key")


def _empty(key: str) -> Filter:
    return NodeTest(key, lambda node: node is None or node == [], missing=True, every=True)


def _null(key: str) -> Filter:
    return NodeTest(key, _is_null, missing=False)


def _parse_field(condition: Condition, key: str, path: str) -> Filter:
    key = _key(key, path)
    if condition.match is not None:
        return _parse_match(condition.match, key, f"{path}.match")
    if condition.values_count is not None:
        accepts = _interval(condition.values_count)
        return NodeTest(key, lambda node: accepts(_count(node)), missing=accepts(0))
    for wanted, test in ((condition.is_empty, _empty(key)), (condition.is_null, _null(key))):
        if wanted is not None:
            return test if wanted else Clauses(must_not=[test])
    assert condition.range is not None
    return _parse_range(condition.range, key, f"{path}.range")


def _parse_match(match: Match, key: str, path: str) -> Filter:
    given = [name for name in match.__struct_fields__ if getattr(match, name) not in (UNSET, None)]
    if len(given) != 1:
        raise FilterError(f"{path}: needs exactly one of value, any, except, text")
    if match.text is not UNSET:
        return TextTest(key, match.text)
    if match.except_ is not UNSET:
        excluded = {(type(value), value) for value in match.except_}
        return FieldTest(key, lambda value: value is not None and (not _is_scalar(value) or (type(value), value) not in excluded))
    values: list[Any] = [match.value] if match.value is not UNSET else list(match.any or [])
    wanted = {(type(value), value) for value in values}
    return FieldTest(
        key,
        lambda value: _is_scalar(value) and (type(value), value) in wanted,
        lambda index: index.matching(values),
    )


def _parse_range(range_: Range, key: str, path: str) -> Filter:
    given = {name: bound for name in range_.__struct_fields__ if (bound := getattr(range_, name)) is not None}
    moments = {name: bound for name, bound in given.items() if isinstance(bound, str)}
    if not moments:
        accepts = _interval(range_)

        def accepts_number(value: Any) -> bool:
            return (number := as_number(value)) is not None and accepts(number)

        try:
            low, high = _hull(given)
        except OverflowError:  # an integer beyond any float, which the index cannot place
            return FieldTest(key, accepts_number)
        return FieldTest(key, accepts_number, lambda index: index.between(FieldType.FLOAT, accepts, low, high))
    if len(moments) < len(given):
        raise FilterError(f"{path}: numbers and moments cannot be mixed")
    micros = {name: as_micros(bound) for name, bound in moments.items()}
    if wrong := [name for name, value in micros.items() if value is None]:
        raise FilterError(f"{path}.{wrong[0]}: {moments[wrong[0]][:64]!r} is not an RFC 3339 date and time")
    in_range = _interval(Range(**micros))
    earliest, latest = _hull(micros)
    return FieldTest(
        key,
        lambda value: (moment := as_micros(value)) is not None and in_range(moment),
        lambda index: index.between(FieldType.DATETIME, in_range, earliest, latest),
    )


def _interval(bounds: Range | ValuesCount) -> Callable[[Any], bool]:
    gt, gte, lt, lte = bounds.gt, bounds.gte, bounds.lt, bounds.lte

    def accepts(value: Any) -> bool:
        return (
            (gt is None or value > gt)
            and (gte is None or value >= gte)
            and (lt is None or value < lt)
            and (lte is None or value <= lte)
        )

    return accepts


def _hull(bounds: dict[str, Any]) -> tuple[float | None, float | None]:
    low = [float(bounds[name]) for name in ("gt", "gte") if name in bounds]
    high = [float(bounds[name]) for name in ("lt", "lte") if name in bounds]
    return max(low, default=None), min(high, default=None)


def _count(node: Any) -> int:
    return 0 if node is None else len(node) if isinstance(node, list) else 1


def _is_null(node: Any) -> bool:
    return node is None or (isinstance(node, list) and None in node)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _key(key: str, path: str) -> str:
    try:
        steps_of(key)
    except ValueError as error:
        raise FilterError(f"{path}: {error}") from error
    return key
