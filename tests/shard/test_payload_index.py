"""The payload index answers exactly, between its sorts and beyond what a float can hold (I10, V12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

import shard.postings
import shard.sorted_indexes
from payload.geo import Box, Circle, Coordinates, Polygon
from shard.payload_index import PayloadIndex
from shard.postings import Postings
from shard.sorted_indexes import GeoIndex, RangeIndex, Unsorted

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
        patch.setattr(shard.postings, "RESORT_ROWS", 2)
        patch.setattr(shard.sorted_indexes, "RESORT_ROWS", 2)
        patch.setattr(shard.sorted_indexes, "LOCKED_ROWS", 2)
        patch.setattr(shard.sorted_indexes, "_CHUNK", 3)
        yield


read = PayloadIndex().read


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
                assert set(read(lambda: ordered.between(accepts, float(low), float(high)))) == expected


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
        read(lambda: ordered.between(lambda _: False, None, None))  # sorts when it is time
    pairs = {(value, row) for row, values in rows.items() for value in values}
    kept = [p for p in pairs if start is None or (p[0] <= start if descending else p[0] >= start)]
    assert list(read(ordered.order).ascending(start, descending, BitMap(), [])) == sorted(kept, reverse=descending)


def test_a_walk_is_lazy() -> None:
    ordered = RangeIndex()
    for row in range(1000):
        ordered.add(row, [row % 10])
    walk = read(ordered.order).ascending(3, False, BitMap(), [])
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
            assert set(read(partial(index.within, area))) == {
                row for row, held in rows.items() if any(area.holds(*place) for place in held)
            }


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
        assert set(read(lambda: postings.starting(asked))) == {row for row, texts in held.items() if texts}
        assert set(postings.containing(asked)) == {row for row, texts in rows.items() if any(asked in text for text in texts)}


class Interrupted:
    """A lock that another thread takes each time that it is released: `changes` are then done, one at a time."""

    def __init__(self, changes: Iterator[Callable[[], None]]) -> None:
        self._changes = changes

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        next(self._changes, lambda: None)()


Writes = list[tuple[int, int | None]]
NUMBERED = st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(-3, 3)), max_size=20)


@given(NUMBERED, NUMBERED)
@settings(max_examples=500, deadline=None)
def test_changes_while_an_index_is_sorted_count(
    before: list[tuple[int, int | None]], during: list[tuple[int, int | None]]
) -> None:
    ordered, postings = RangeIndex(), Postings()
    rows: dict[int, int | None] = {}

    def change(row: int, value: int | None) -> None:
        ordered.remove(row)
        postings.remove(row, [str(rows.get(row))])
        if value is not None:
            ordered.add(row, [value])
            postings.add(row, [str(value)])
        rows[row] = value

    for row, value in before:
        change(row, value)
    changes = (partial(change, row, value) for row, value in during)
    lock: Any = Interrupted(changes)
    ordered.sort(lock)
    postings.sort(lock)
    positive = {row for row, value in rows.items() if value is not None and value > 0}
    pairs = sorted((value, row) for row, value in rows.items() if value is not None)
    assert set(read(lambda: ordered.between(lambda value: value > 0, 0.0, None))) == positive
    assert list(read(ordered.order).ascending(None, False, BitMap(), [])) == pairs
    assert set(read(lambda: postings.starting("-"))) == {row for row, value in rows.items() if value is not None and value < 0}


def test_an_index_is_never_sorted_under_the_lock_of_its_readers() -> None:
    """A sort takes 0.8 s for a million values: a reader that found the index unsorted leaves the lock first."""
    payload, ordered = PayloadIndex(), RangeIndex()
    for row in range(10):
        ordered.add(row, [row])
    held = []
    ordered.sort = lambda lock: (held.append(lock.locked()), RangeIndex.sort(ordered, lock))[0]  # type: ignore[method-assign]
    assert len(payload.read(ordered.order).made.rows) == 10
    assert held == [False]
    for row in range(10, 20):
        ordered.add(row, [row])
    with pytest.raises(Unsorted):
        ordered.order()
