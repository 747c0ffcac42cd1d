"""The compact forms of what is kept of every command answer as the plain ones: I6 needs the same outcome on every replica."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from catalog.commands import CommandOffsets, CommandTimes

GAPS_AND_TIMES = some.lists(some.tuples(some.integers(0, 3), some.integers(0, 5)))


@given(GAPS_AND_TIMES)
def test_times_are_those_of_a_list_with_one_for_each_position(commands: list[tuple[int, int]]) -> None:
    """Also where markers leave gaps, and where the log's clock steps back."""
    times, plain = CommandTimes(), list[int]()
    for gap, time_ms in commands:
        offset = len(plain) + gap
        times.add(offset, time_ms)
        plain.extend([time_ms] * (offset + 1 - len(plain)))
    for position in range(-1, len(plain) + 3):
        expected = plain[min(position, len(plain)) - 1] if position > 0 and plain else 0
        assert times.below_ms(position) == expected


def test_times_take_room_by_the_millisecond_and_not_by_the_command() -> None:
    times = CommandTimes()
    for offset in range(1000):
        times.add(offset, offset // 100)
    assert len(times._starts) == len(times._times_ms) == 10


@given(some.sets(some.integers(0, 50)), some.integers(-1, 51))
def test_created_ids(ids: set[int], asked: int) -> None:
    created = CommandOffsets()
    for collection_id in sorted(ids):
        created.add(collection_id)
    assert (asked in created) == (asked in ids)
