"""V8, U4: how far the replay is behind, and the states with their hysteresis."""

from __future__ import annotations

import pytest

from journal.log import Entry, TopicPartition
from replayer.lag import Lag, LagMeter, LagState, next_state

AT = TopicPartition("v.tier1", 0)
NORMAL, WARNING, CRITICAL, BACK_PRESSURE = LagState


@pytest.mark.parametrize(
    ("lag", "state"),
    [
        (Lag(), NORMAL),
        (Lag(records=999), NORMAL),
        (Lag(records=1_000), WARNING),
        (Lag(records=5_000), CRITICAL),
        (Lag(records=10_000), BACK_PRESSURE),
        (Lag(bytes=5 << 20), WARNING),
        (Lag(bytes=10 << 20), CRITICAL),
        (Lag(bytes=25 << 20), BACK_PRESSURE),
        (Lag(seconds=0.2), WARNING),
        (Lag(seconds=0.5), CRITICAL),
        (Lag(seconds=1.0), BACK_PRESSURE),
        (Lag(buffered=100 << 20), WARNING),
        (Lag(buffered=200 << 20), CRITICAL),
        (Lag(buffered=500 << 20), BACK_PRESSURE),
        (Lag(records=1, seconds=0.6), CRITICAL),
    ],
)
def test_thresholds(lag: Lag, state: LagState) -> None:
    """V8: any one measure is enough."""
    assert next_state(NORMAL, lag) is state


def test_a_state_is_left_only_well_below_its_threshold() -> None:
    """V8: so that it does not flicker."""
    state = NORMAL
    seen = []
    for records in (900, 1_000, 850, 799, 850, 12_000, 9_000, 7_999, 4_001, 3_999, 0):
        state = next_state(state, Lag(records=records))
        seen.append(state)
    assert seen == [
        NORMAL, WARNING, WARNING, NORMAL, NORMAL, BACK_PRESSURE, BACK_PRESSURE, CRITICAL, CRITICAL, WARNING, NORMAL
    ]  # fmt: skip


def test_time_is_the_age_of_the_oldest_record_that_is_not_applied() -> None:
    meter = LagMeter()
    entries = [Entry(AT, offset, 1_000 + offset, None, bytes(100), ()) for offset in range(5, 10)]
    meter.begin(entries)
    measured = meter.measure({AT: 20}, {AT: 5}, now_ms=1_305)[AT]
    assert measured.lag == Lag(15, 1_500, 0.3, 500)
    assert (measured.end, measured.state) == (20, WARNING)
    meter.done()
    assert meter.measure({AT: 20}, {AT: 20}, now_ms=9_999)[AT].lag == Lag()


def test_a_replay_that_stands_still_falls_behind_as_time_goes_by() -> None:
    meter = LagMeter()
    assert meter.measure({AT: 1}, {AT: 0}, now_ms=1_000)[AT].lag.seconds == 0
    assert meter.measure({AT: 2}, {AT: 0}, now_ms=3_000)[AT].lag.seconds == 2
    assert meter.measure({AT: 2}, {AT: 1}, now_ms=4_000)[AT].lag.seconds == 0
