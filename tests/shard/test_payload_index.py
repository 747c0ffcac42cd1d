"""The payload index answers exactly, between its sorts and beyond what a float can hold (I10, V12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

import shard.payload_index
from payload.geo import Box, Circle, Coordinates, Polygon
from shard.payload_index import GeoIndex, Postings, RangeIndex

NUMBERS = st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.sampled_from([2**53, 2**53 + 1, 2**53 + 2, -(2**60), 1e300]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 8), st.lists(NUMBERS, max_size=3)),
        st.tuples(st.just("take"), st.integers(0, 8)),
        st.tuples(st.just("ask"), NUMBERS, NUMBERS, st.booleans(), st.booleans()),
    ),
    max_size=30,
)


@pytest.fixture(autouse=True)
def often_sorted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard.payload_index, "RESORT_ROWS", 2)
        patch.setattr(shard.payload_index, "_CHUNK", 3)
        yield


@given(STEPS)
@settings(max_examples=500, deadline=None)
def test_ranges_are_those_of_a_plain_search(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    ordered, rows = RangeIndex(), {}
    for step in steps:
        match step:
            case ("put", row, values):
                ordered.remove(row)
                ordered.add(row, values)
                rows[row] = values
            case ("take", row):
                ordered.remove(row)
                rows.pop(row, None)
            case ("ask", low, high, open_low, open_high):

                def accepts(value: float, low: float = low, high: float = high, a: bool = open_low, b: bool = open_high) -> bool:
                    return (value > low if a else value >= low) and (value < high if b else value <= high)

                expected = {row for row, values in rows.items() if any(accepts(value) for value in values)}
                assert set(ordered.between(accepts, float(low), float(high))) == expected


WRITES = st.lists(st.tuples(st.integers(0, 12), st.none() | st.lists(NUMBERS, max_size=3)), max_size=40)


@given(WRITES, st.none() | NUMBERS, st.booleans())
@settings(max_examples=500, deadline=None)
def test_a_walk_gives_every_value_once_in_order_from_its_start_on(
    writes: list[tuple[int, list[float] | None]], start: float | None, descending: bool
) -> None:
    """Also for rows that changed since the sort, and numbers that a float does not tell apart."""
    ordered, rows = RangeIndex(), {}
    for row, values in writes:
        ordered.remove(row)
        ordered.add(row, values or [])
        rows[row] = values or []
        list(ordered.between(lambda _: False, None, None))  # sorts when it is time
    pairs = {(value, row) for row, values in rows.items() for value in values}
    kept = [p for p in pairs if start is None or (p[0] <= start if descending else p[0] >= start)]
    assert list(ordered.order().ascending(start, descending, BitMap(), [])) == sorted(kept, reverse=descending)


def test_a_walk_is_lazy() -> None:
    ordered = RangeIndex()
    for row in range(1000):
        ordered.add(row, [row % 10])
    walk = ordered.order().ascending(3, False, BitMap(), [])
    assert [next(walk) for _ in range(3)] == [(3, 3), (3, 13), (3, 23)]


DEGREES = st.one_of(st.integers(-4, 4), st.floats(-4, 4), st.sampled_from([-180, 180, 179.5, 90, -90, 89.9999999]))
PLACES = st.builds(Coordinates, DEGREES.map(float), DEGREES.filter(lambda degrees: abs(degrees) <= 90).map(float))
TRIANGLE = (Coordinates(-3, -3), Coordinates(3.5, -1), Coordinates(0, 4), Coordinates(-3, -3))
AREAS = st.one_of(
    st.builds(lambda a, b: Box(a.lon, min(a.lat, b.lat), b.lon, max(a.lat, b.lat)), PLACES, PLACES),
    st.builds(Circle, PLACES, st.one_of(st.floats(0, 2.1e7), st.floats(0, 500_000))),
    st.just(Polygon(TRIANGLE)),
    st.just(Polygon(TRIANGLE, ((Coordinates(-1, -1), Coordinates(1, -1), Coordinates(0, 1), Coordinates(-1, -1)),))),
)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.lists(PLACES, max_size=3)), max_size=30), st.lists(AREAS, min_size=1, max_size=5)
)
@settings(max_examples=500, deadline=None)
def test_places_within_an_area_are_those_that_it_holds(writes: list[tuple[int, list[Coordinates]]], areas: list[Box]) -> None:
    index, rows = GeoIndex(), {}
    for row, places in writes:
        index.remove(row)
        index.add(row, places)
        rows[row] = places
        for area in areas:
            assert set(index.within(area)) == {row for row, held in rows.items() if any(area.holds(*place) for place in held)}


@given(
    st.lists(st.tuples(st.integers(0, 8), st.lists(st.text("ab", max_size=3), max_size=2)), max_size=30),
    st.text("ab", max_size=2),
)
@settings(max_examples=300, deadline=None)
def test_beginnings_and_parts_of_texts(writes: list[tuple[int, list[str]]], asked: str) -> None:
    postings, rows = Postings(), {}
    for row, texts in writes:
        postings.remove(row, rows.get(row, []))
        postings.add(row, texts)
        rows[row] = texts
        held = {row: [text for text in texts if text.startswith(asked)] for row, texts in rows.items()}
        assert set(postings.starting(asked)) == {row for row, texts in held.items() if texts}
        assert set(postings.containing(asked)) == {row for row, texts in rows.items() if any(asked in text for text in texts)}
