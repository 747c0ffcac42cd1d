"""Filters of the dialect: their JSON form, clauses, and the conditions on a point itself. Those on payload are in `fields`.

`subjects` explains the two methods of a condition, `test` and `select`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from msgspec import UNSET, Struct, UnsetType
from pyroaring import BitMap

from journal.ids import ExternalId, encode_id
from payload.paths import nodes_at, steps_of
from shard.deadline import Deadline
from shard.filters import fields
from shard.filters.siphash import siphash
from shard.filters.subjects import (
    Element,
    Filter,
    FilterBoundError,
    FilterError,
    IndexReader,
    Path,
    PayloadTest,
    PinnedRows,
    Selection,
    Subject,
    ViewTest,
)

IDS_PER_STEP = 1_000
"""Ids that are looked up before the deadline is checked again."""

MAX_DEPTH = 32


# The JSON form.


class Key(Struct, forbid_unknown_fields=True):
    """A payload path."""

    key: str


class Slice(Struct, forbid_unknown_fields=True):
    """Part `index` of `total` parts of the points, by a hash of their ids; stable over time."""

    total: int
    index: int


class Nested(Struct, forbid_unknown_fields=True):
    """A filter that one element of an array of objects must pass as a whole."""

    key: str
    filter: Condition


class MinShould(Struct, forbid_unknown_fields=True):
    """At least `min_count` of the conditions."""

    conditions: list[Condition]
    min_count: int


class Condition(Struct, forbid_unknown_fields=True):
    """A condition on a field (`key` with one of the conditions below it), on the point itself, or a filter of conditions."""

    key: str | UnsetType = UNSET
    match: fields.Match | None = None
    range: fields.Range | None = None
    values_count: fields.ValuesCount | None = None
    is_empty: Key | bool | None = None
    is_null: Key | bool | None = None
    geo_bounding_box: fields.GeoBoundingBox | None = None
    geo_radius: fields.GeoRadius | None = None
    geo_polygon: fields.GeoPolygon | None = None
    has_id: list[ExternalId] | None = None
    has_vector: str | None = None
    slice: Slice | None = None
    nested: Nested | None = None
    must: Condition | list[Condition] | None = None
    should: Condition | list[Condition] | None = None
    must_not: Condition | list[Condition] | None = None
    min_should: MinShould | None = None


_CLAUSES = {"must", "should", "must_not", "min_should"}
_ON_FIELDS = ("match", "range", "values_count", "is_empty", "is_null", "geo_bounding_box", "geo_radius", "geo_polygon")


# Evaluation.


@dataclass(frozen=True)
class IdTest:
    """The point has one of these ids."""

    ids: frozenset[bytes]

    def test(self, subject: Subject) -> bool:
        return subject.id in self.ids

    def select(self, indexes: IndexReader) -> Selection:
        return Selection(indexes.rows_of(self), True)

    def view_tests(self) -> Iterable[ViewTest]:
        return (self,)

    def rows(self, view: PinnedRows, deadline: Deadline) -> BitMap:
        ids, rows = sorted(self.ids), BitMap()
        for start in range(0, len(ids), IDS_PER_STEP):
            deadline.check()
            rows.update(point.row for point in view.find(ids[start : start + IDS_PER_STEP]))
        return rows


@dataclass(frozen=True)
class VectorTest:
    """The point has a vector of this name."""

    name: str

    def test(self, subject: Subject) -> bool:
        return self.name in subject.vector_names

    def select(self, indexes: IndexReader) -> Selection:
        return Selection(indexes.rows_of(self), True)

    def view_tests(self) -> Iterable[ViewTest]:
        return (self,)

    def rows(self, view: PinnedRows, deadline: Deadline) -> BitMap:
        vectors = view.vectors.get(self.name)
        return BitMap() if vectors is None else vectors.all_rows()


@dataclass(frozen=True)
class SliceTest(PayloadTest):
    """The point's id is in a slice of all ids; an element of an array is in no slice."""

    total: int
    index: int

    def test(self, subject: Subject) -> bool:
        if not subject.id:
            return False
        number = subject.id[0] == 0  # see journal.ids: such an id is a number, hashed from its lowest byte
        data = subject.id[:0:-1] if number else subject.id[1:]
        return siphash(data) % self.total == self.index

    def select(self, indexes: IndexReader) -> Selection:
        return Selection(indexes.alive, False)


@dataclass(frozen=True)
class NestedTest:
    """Some element of an array of objects passes a filter as a whole."""

    key: str
    filter: Filter

    def test(self, subject: Subject) -> bool:
        arrays = [node for node in nodes_at(subject.payload, self.key) if isinstance(node, list)]
        elements = [element for array in arrays for element in array if isinstance(element, dict)]
        return any(self.filter.test(Element(element, subject.fields)) for element in elements)

    def select(self, indexes: IndexReader) -> Selection:
        return Selection(self.filter.select(indexes).rows, False)

    def view_tests(self) -> Iterable[ViewTest]:
        return self.filter.view_tests()


@dataclass(frozen=True)
class Clauses:
    """All of `must`, none of `must_not`, one of `should`, `min_count` of `min_should`.

    `nested`: the subjects are elements of an array. An index only tells that some element passes, so `must_not` removes no row.
    """

    must: Sequence[Filter] = ()
    should: Sequence[Filter] = ()
    must_not: Sequence[Filter] = ()
    min_should: Sequence[Filter] = ()
    min_count: int = 0
    nested: bool = False

    def test(self, subject: Subject) -> bool:
        return (
            all(condition.test(subject) for condition in self.must)
            and not any(condition.test(subject) for condition in self.must_not)
            and (not self.should or any(condition.test(subject) for condition in self.should))
            and sum(condition.test(subject) for condition in self.min_should) >= self.min_count
        )

    def select(self, indexes: IndexReader) -> Selection:
        rows, exact = BitMap(indexes.alive), True
        for selection in [condition.select(indexes) for condition in self.must]:
            rows &= selection.rows
            exact &= selection.exact
        if self.should:
            selections = [condition.select(indexes) for condition in self.should]
            rows &= BitMap.union(*(selection.rows for selection in selections))
            exact &= all(selection.exact for selection in selections)
        for selection in [condition.select(indexes) for condition in self.must_not]:
            if selection.exact and not self.nested:
                rows -= selection.rows
            exact &= selection.exact
        if self.min_count > 0:
            selections = [condition.select(indexes) for condition in self.min_should]
            rows &= _in_at_least(self.min_count, [selection.rows for selection in selections])
            exact &= all(selection.exact for selection in selections)
        return Selection(rows, exact)

    def view_tests(self) -> Iterable[ViewTest]:
        inner = (*self.must, *self.should, *self.must_not, *self.min_should)
        return chain.from_iterable(condition.view_tests() for condition in inner)


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
    """The compiled filter of a condition. Raises FilterError."""
    return None if condition is None else _parse(condition, "filter", 1, "")


def _parse(condition: Condition, label: str, depth: int, within: str) -> Filter:
    """`within`: the path prefix, with its dot, of the array elements that the condition applies to; empty for the payload."""
    if depth > MAX_DEPTH:
        raise FilterBoundError(f"{label[:40]}…: filter is nested deeper than {MAX_DEPTH}")
    given = {
        name
        for name in condition.__struct_fields__
        if name != "key" and getattr(condition, name) is not None and getattr(condition, name) is not UNSET
    }
    if condition.key is not UNSET:
        if len(given) != 1 or not given <= {*_ON_FIELDS}:
            raise FilterBoundError(f"{label}: a condition with key needs exactly one of {', '.join(_ON_FIELDS)}")
        return _parse_field(condition, _path(condition.key, label, within), label)
    if given <= _CLAUSES:
        return _parse_clauses(condition, label, depth, within)
    if len(given) > 1:
        raise FilterError(f"{label}: {' and '.join(sorted(given))} cannot stand in one condition")
    return _parse_single(condition, label, depth, within)


def _parse_clauses(condition: Condition, label: str, depth: int, within: str) -> Filter:
    def parse_all(name: str) -> list[Filter]:
        listed = getattr(condition, name) or []
        listed = listed if isinstance(listed, list) else [listed]
        return [_parse(inner, f"{label}.{name}[{at}]", depth + 1, within) for at, inner in enumerate(listed)]

    least = condition.min_should
    if least is not None and least.min_count < 1:
        raise FilterBoundError(f"{label}.min_should.min_count: is {least.min_count}, must be at least 1")
    inner = least.conditions if least is not None else []
    return Clauses(
        parse_all("must"),
        parse_all("should"),
        parse_all("must_not"),
        [_parse(c, f"{label}.min_should.conditions[{at}]", depth + 1, within) for at, c in enumerate(inner)],
        0 if least is None else min(least.min_count, len(inner) + 1),
        bool(within),
    )


def _parse_single(condition: Condition, label: str, depth: int, within: str) -> Filter:
    if isinstance(condition.is_empty, Key):
        return fields.EmptyTest(_path(condition.is_empty.key, label, within))
    if isinstance(condition.is_null, Key):
        return fields.NullTest(_path(condition.is_null.key, label, within))
    if condition.has_id is not None:
        try:
            return IdTest(frozenset(encode_id(point_id) for point_id in condition.has_id))
        except ValueError as error:
            raise FilterError(f"{label}.has_id: {error}") from error
    if condition.has_vector is not None:
        return VectorTest(condition.has_vector)
    if condition.slice is not None:
        return _parse_slice(condition.slice, f"{label}.slice")
    if condition.nested is not None:
        key, full_key = _path(condition.nested.key.removesuffix("[]"), label, within)
        inner = _parse(condition.nested.filter, f"{label}.nested.filter", depth + 1, f"{full_key}[].")
        return NestedTest(key, inner)
    raise FilterBoundError(f"{label}: this condition needs a key")


def _parse_slice(part: Slice, label: str) -> Filter:
    if not 1 <= part.total < 2**64:
        raise FilterBoundError(f"{label}.total: is {part.total}, must be at least 1")
    if not 0 <= part.index < part.total:
        raise FilterBoundError(f"{label}.index: is {part.index}, must be between 0 and {part.total - 1}")
    return SliceTest(part.total, part.index)


def _parse_field(condition: Condition, path: Path, label: str) -> Filter:
    if condition.match is not None:
        return fields.parse_match(condition.match, path, f"{label}.match")
    if condition.range is not None:
        return fields.parse_range(condition.range, path, f"{label}.range")
    if condition.geo_bounding_box is not None:
        return fields.parse_box(condition.geo_bounding_box, path, f"{label}.geo_bounding_box")
    if condition.geo_radius is not None:
        return fields.parse_radius(condition.geo_radius, path, f"{label}.geo_radius")
    if condition.geo_polygon is not None:
        return fields.parse_polygon(condition.geo_polygon, path, f"{label}.geo_polygon")
    if condition.values_count is not None:
        return fields.CountTest(path, fields.interval(condition.values_count))
    test: Filter = fields.NullTest(path) if condition.is_empty is None else fields.EmptyTest(path)
    wanted = condition.is_null if condition.is_empty is None else condition.is_empty
    if not isinstance(wanted, bool):
        raise FilterError(f"{label}: beside a key, is_empty and is_null are true or false")
    return test if wanted else Clauses(must_not=[test], nested=path.key != path.full_key)


def _path(key: str, label: str, within: str) -> Path:
    try:
        steps_of(key)
    except ValueError as error:
        raise FilterError(f"{label}: {error}") from error
    return Path(key, within + key)
