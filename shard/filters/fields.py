"""Conditions on the values of one payload field: their JSON forms, their evaluation on a value, and on an index."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType
from pyroaring import BitMap

from payload.geo import MAX_LAT, MAX_LON, Area, Box, Circle, Coordinates, Polygon, as_coordinates
from payload.paths import as_micros, as_number, as_uuid, nodes_at, values_at
from payload.schema import FieldSchema, FieldType
from payload.text import Analyzer, analyzer_of
from shard.filters.subjects import Filter, FilterBoundError, FilterError, IndexReader, Path, PayloadTest, Selection, Subject
from shard.payload_index import FieldIndex

MAX_RING_POINTS = 10_000

Scalar = str | int | bool
Bound = int | float | str


# The JSON forms.


class Match(Struct, forbid_unknown_fields=True, rename={"except_": "except"}):
    """One of: a value, any of several, none of several; all words of a text, any word, a phrase; a prefix, a substring."""

    value: Scalar | UnsetType = UNSET
    any: list[str | int] | UnsetType = UNSET
    except_: list[str | int] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    text_any: str | UnsetType = UNSET
    phrase: str | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    substring: str | UnsetType = UNSET


class Range(Struct, forbid_unknown_fields=True):
    """A range of numbers, or of datetimes as RFC 3339 strings."""

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


class GeoPoint(Struct, forbid_unknown_fields=True):
    """In degrees."""

    lon: float
    lat: float


class GeoBoundingBox(Struct, forbid_unknown_fields=True):
    """Strictly inside a rectangle; it crosses the 180th meridian when its left side is east of its right side."""

    top_left: GeoPoint
    bottom_right: GeoPoint


class GeoRadius(Struct, forbid_unknown_fields=True):
    """Less than `radius` metres from a centre."""

    center: GeoPoint
    radius: float


class GeoLineString(Struct, forbid_unknown_fields=True):
    """A closed ring: at least four points, the last equal to the first."""

    points: list[GeoPoint]


class GeoPolygon(Struct, forbid_unknown_fields=True):
    """Inside a ring or on it, and not inside a hole."""

    exterior: GeoLineString
    interiors: list[GeoLineString] | None = None


# Evaluation.


@dataclass(frozen=True)
class ValueTest(PayloadTest):
    """`accepts` is true for some value of a field; `lookup` evaluates the same on the field's index."""

    path: Path
    accepts: Callable[[Any], bool]
    lookup: Callable[[FieldIndex], BitMap | None] = field(default=lambda _: None)

    def test(self, subject: Subject) -> bool:
        return any(self.accepts(value) for value in values_at(subject.payload, self.path.key))

    def select(self, indexes: IndexReader) -> Selection:
        index = indexes.field(self.path.full_key)
        rows = None if index is None else self.lookup(index)
        return Selection(indexes.alive, False) if rows is None else Selection(rows, True)


@dataclass(frozen=True)
class MatchTest(PayloadTest):
    """Some value of a field equals one of `wanted`, in value and type. A field of type uuid compares UUIDs in any notation."""

    path: Path
    wanted: frozenset[tuple[type, Scalar]]
    uuids: frozenset[str]

    def test(self, subject: Subject) -> bool:
        uuids = self._uuids(subject.fields)
        return any(self._equals(value, uuids) for value in values_at(subject.payload, self.path.key))

    def select(self, indexes: IndexReader) -> Selection:
        index = indexes.field(self.path.full_key)
        rows = None if index is None else index.matching(value for _, value in self.wanted)
        return Selection(indexes.alive, False) if rows is None else Selection(rows, True)

    def _uuids(self, fields: Mapping[str, FieldSchema]) -> frozenset[str]:
        schema = fields.get(self.path.full_key) if self.uuids else None
        return self.uuids if schema is not None and schema.type is FieldType.UUID else frozenset()

    def _equals(self, value: Any, uuids: frozenset[str]) -> bool:
        if not isinstance(value, Scalar):
            return False
        return (type(value), value) in self.wanted or (bool(uuids) and as_uuid(value) in uuids)


@dataclass(frozen=True)
class ExceptTest(MatchTest):
    """Some value of a field that is not null equals none of `wanted`."""

    def test(self, subject: Subject) -> bool:
        uuids = self._uuids(subject.fields)
        values = values_at(subject.payload, self.path.key)
        return any(value is not None and not self._equals(value, uuids) for value in values)

    def select(self, indexes: IndexReader) -> Selection:
        index = indexes.field(self.path.full_key)
        return Selection(indexes.alive if index is None else index.filled, False)


@dataclass(frozen=True)
class TextTest(PayloadTest):
    """Some text of a field has all words of a query, any word, or the phrase, by the tokenizer of the field's text index."""

    path: Path
    query: str
    mode: Literal["all", "any", "phrase"]
    _latest: list[tuple[FieldSchema | None, Analyzer, list[str]]] = field(default_factory=list, init=False, compare=False)
    """A cache of one entry: the schema, its analyzer, and the query's words. All points of a shard have the same schema."""

    def test(self, subject: Subject) -> bool:
        texts = [value for value in values_at(subject.payload, self.path.key) if isinstance(value, str)]
        if not texts:
            return False
        analyzer, wanted = self._words(subject.fields.get(self.path.full_key))
        return any(self._holds(analyzer, wanted, text) for text in texts)

    def select(self, indexes: IndexReader) -> Selection:
        index = indexes.field(self.path.full_key)
        if index is None or index.schema.type is not FieldType.TEXT:
            return Selection(indexes.alive, False)
        _, wanted = self._words(index.schema)
        rows, in_one_text = index.any_word(wanted) if self.mode == "any" else index.all_words(wanted)
        return Selection(rows, in_one_text and (self.mode != "phrase" or len(wanted) < 2))

    def _holds(self, analyzer: Analyzer, wanted: list[str], text: str) -> bool:
        if self.mode == "phrase":
            return analyzer.holds_phrase(text, wanted)
        terms = analyzer.terms(text)
        return bool(wanted) and (any if self.mode == "any" else all)(word in terms for word in wanted)

    def _words(self, schema: FieldSchema | None) -> tuple[Analyzer, list[str]]:
        """The analyzer of a field, and the query's words by it."""
        for known, analyzer, wanted in self._latest:
            if known is schema:
                return analyzer, wanted
        analyzer = analyzer_of(schema)
        wanted = analyzer.wanted(self.query)
        self._latest[:] = [(schema, analyzer, wanted)]
        return analyzer, wanted


@dataclass(frozen=True)
class CountTest(PayloadTest):
    """`accepts` is true for the number of values of a field, or for one of the numbers when the path has several nodes."""

    path: Path
    accepts: Callable[[int], bool]

    def test(self, subject: Subject) -> bool:
        nodes = nodes_at(subject.payload, self.path.key)
        return any(self.accepts(_count(node)) for node in nodes) if nodes else self.accepts(0)

    def select(self, indexes: IndexReader) -> Selection:
        return Selection(indexes.alive, False)


@dataclass(frozen=True)
class EmptyTest(PayloadTest):
    """A field is missing, or has only nulls and empty arrays."""

    path: Path

    def test(self, subject: Subject) -> bool:
        return all(node is None or node == [] for node in nodes_at(subject.payload, self.path.key))

    def select(self, indexes: IndexReader) -> Selection:
        index = indexes.field(self.path.full_key)
        if index is None or self.path.key != self.path.full_key:  # the index does not know single elements of an array
            return Selection(indexes.alive, False)
        return Selection(indexes.alive - index.filled, True)


@dataclass(frozen=True)
class NullTest(PayloadTest):
    """A field is null, or is an array that contains null."""

    path: Path

    def test(self, subject: Subject) -> bool:
        return None in values_at(subject.payload, self.path.key)

    def select(self, indexes: IndexReader) -> Selection:
        index = indexes.field(self.path.full_key)
        return Selection(indexes.alive, False) if index is None else Selection(index.nulls, True)


# From the JSON forms to tests.


def parse_match(match: Match, path: Path, label: str) -> Filter:
    """Raises FilterError."""
    given = [name for name in match.__struct_fields__ if getattr(match, name) is not UNSET]
    if len(given) != 1:
        known = ", ".join(match.__struct_encode_fields__)
        raise FilterError(f"{label}: needs exactly one of {known}")
    wanted = getattr(match, given[0])
    match given[0]:
        case "text" | "text_any" | "phrase":
            mode: Literal["all", "any", "phrase"] = "all" if given[0] == "text" else "any" if given[0] == "text_any" else "phrase"
            return TextTest(path, wanted, mode)
        case "prefix":
            starts = lambda value: isinstance(value, str) and value.startswith(wanted)  # noqa: E731
            return ValueTest(path, starts, lambda index: index.starting(wanted))
        case "substring":
            return ValueTest(
                path, lambda value: isinstance(value, str) and wanted in value, lambda index: index.containing(wanted)
            )
    values = [wanted] if given[0] == "value" else wanted
    uuids = frozenset(uuid for value in values if (uuid := as_uuid(value)) is not None)
    test = ExceptTest if given[0] == "except_" else MatchTest
    return test(path, frozenset((type(value), value) for value in values), uuids)


def parse_range(range_: Range, path: Path, label: str) -> Filter:
    """Raises FilterError."""
    given = {name: bound for name in range_.__struct_fields__ if (bound := getattr(range_, name)) is not None}
    for name, bound in given.items():
        if isinstance(bound, float) and not math.isfinite(bound):
            raise FilterBoundError(f"{label}.{name}: is {bound}, must be a finite number")
    moments = {name: bound for name, bound in given.items() if isinstance(bound, str)}
    if not moments:
        return _parse_numbers(range_, given, path)
    if len(moments) < len(given):
        raise FilterError(f"{label}: numbers and moments cannot be mixed")
    micros = {name: as_micros(bound) for name, bound in moments.items()}
    if wrong := [name for name, value in micros.items() if value is None]:
        raise FilterError(f"{label}.{wrong[0]}: {moments[wrong[0]][:64]!r} is not an RFC 3339 date and time")
    accepts = interval(Range(**micros))
    low, high = _hull(micros)
    return ValueTest(
        path,
        lambda value: (moment := as_micros(value)) is not None and accepts(moment),
        lambda index: index.between(FieldType.DATETIME, accepts, low, high),
    )


def _parse_numbers(range_: Range, given: dict[str, Any], path: Path) -> Filter:
    accepts = interval(range_)

    def accepts_number(value: Any) -> bool:
        return (number := as_number(value)) is not None and accepts(number)

    try:
        low, high = _hull(given)
    except OverflowError:  # an integer larger than any float: the index cannot be searched for it
        return ValueTest(path, accepts_number)
    return ValueTest(path, accepts_number, lambda index: index.between(FieldType.FLOAT, accepts, low, high))


def parse_box(box: GeoBoundingBox, path: Path, label: str) -> Filter:
    """Raises FilterError."""
    first = _place(box.top_left, f"{label}.top_left")
    last = _place(box.bottom_right, f"{label}.bottom_right")
    return _in_area(path, Box(first.lon, last.lat, last.lon, first.lat))


def parse_radius(circle: GeoRadius, path: Path, label: str) -> Filter:
    """Raises FilterError."""
    center = _place(circle.center, f"{label}.center")
    if not 0 <= circle.radius < math.inf:
        raise FilterBoundError(f"{label}.radius: is {circle.radius}, must be at least 0")
    return _in_area(path, Circle(center, circle.radius))


def parse_polygon(polygon: GeoPolygon, path: Path, label: str) -> Filter:
    """Raises FilterError."""
    holes = [_ring(hole, f"{label}.interiors[{at}]") for at, hole in enumerate(polygon.interiors or [])]
    return _in_area(path, Polygon(_ring(polygon.exterior, f"{label}.exterior"), tuple(holes)))


def _in_area(path: Path, area: Area) -> Filter:
    return ValueTest(
        path, lambda value: (place := as_coordinates(value)) is not None and area.holds(*place), lambda index: index.within(area)
    )


def _ring(line: GeoLineString, label: str) -> tuple[Coordinates, ...]:
    places = tuple(_place(point, f"{label}.points[{at}]") for at, point in enumerate(line.points))
    if not 4 <= len(places) <= MAX_RING_POINTS:
        raise FilterBoundError(f"{label}: has {len(places)} points, must have 4 to {MAX_RING_POINTS}")
    if places[0] != places[-1]:
        raise FilterBoundError(f"{label}: the last point must be equal to the first")
    return places


def _place(point: GeoPoint, label: str) -> Coordinates:
    for name, value, bound in (("lon", point.lon, MAX_LON), ("lat", point.lat, MAX_LAT)):
        if not abs(value) <= bound:
            raise FilterBoundError(f"{label}.{name}: is {value}, must be between {-bound:g} and {bound:g}")
    return Coordinates(point.lon, point.lat)


def interval(bounds: Range | ValuesCount) -> Callable[[Any], bool]:
    """Whether a number lies within all bounds that are given."""
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
