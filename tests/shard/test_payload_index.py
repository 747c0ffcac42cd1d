"""The payload index answers exactly, between its sorts and beyond what a float can hold (I10, V12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shard.payload_index
from shard.payload_index import Ordered

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
        yield


@given(STEPS)
@settings(max_examples=500, deadline=None)
def test_ranges_are_those_of_a_plain_search(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    ordered, rows = Ordered(), {}
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
