"""What every replica decides alike about a record: whether it is too far ahead, and where it stands in the order."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.hlc import stamp_at
from journal.stamps import NEVER, closed_stamp, drift_error, next_stamp, stamp_of, version_of

LATE_MS = 10_000
stamps = st.integers(0, 2**62)
times = st.integers(0, 2**45)


@given(hlc=stamps, previous=stamps, time_ms=times)
def test_a_stamp_never_contradicts_the_order_of_the_log(hlc: int, previous: int, time_ms: int) -> None:
    """I4: and follows from the log alone."""
    stamp = next_stamp(hlc, previous, time_ms, LATE_MS)
    assert stamp >= hlc
    assert stamp > previous
    assert stamp >= stamp_at(time_ms - LATE_MS)
    assert stamp in (hlc, previous + 1, stamp_at(time_ms - LATE_MS))


@pytest.mark.parametrize(
    ("hlc", "time_ms", "refused"),
    [
        (stamp_at(1500, 2**16 - 1), 1000, False),
        (stamp_at(1501), 1000, True),
        (stamp_at(0), 1000, False),
        (-1, 1000, True),
    ],
)
def test_a_clock_too_far_ahead_of_the_log_is_refused(hlc: int, time_ms: int, refused: bool) -> None:
    """I6"""
    assert bool(drift_error(hlc, time_ms, 500)) is refused


@given(hlc=stamps, previous=stamps, time_ms=times, later_ms=st.integers(0, 10_000))
def test_no_record_follows_at_or_below_a_closed_stamp(hlc: int, previous: int, time_ms: int, later_ms: int) -> None:
    """I7"""
    assert next_stamp(hlc, previous, time_ms + later_ms, LATE_MS) > closed_stamp(previous, time_ms, LATE_MS)


def test_versions_are_ordered_by_stamp_then_tier() -> None:
    """I4: in a shard, stamp and tier tell two records apart."""
    ordered = [NEVER, version_of(0, 0), version_of(7, 0), version_of(7, 3), version_of(8, 0)]
    assert all(one < next_ for one, next_ in pairwise(ordered))
    assert stamp_of(version_of(7, 3)) == 7
