"""The hybrid logical clock: V2 and all of V14."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.hlc import MAX_STAMP, Clock, ClockDriftError, millis_of, stamp_at

DRIFT_MS = 5
FULL = 2**16 - 1


class Physical:
    """A physical clock that shows what it is set to."""

    def __init__(self, ms: int = 1000) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


@given(st.integers(0, 2**47 - 1), st.integers(0, FULL))
def test_a_stamp_holds_milliseconds_and_a_counter_and_sorts_by_both(ms: int, counter: int) -> None:
    """V2"""
    stamp = stamp_at(ms, counter)
    assert millis_of(stamp) == ms
    assert stamp_at(ms) <= stamp < stamp_at(ms + 1)
    assert 0 <= stamp <= MAX_STAMP


near = st.integers(980, 1020)
foreign = st.builds(stamp_at, near, st.sampled_from([0, 1, FULL - 1, FULL]))
steps = st.lists(st.tuples(near, st.none() | foreign), max_size=40)


@given(steps)
def test_stamps_increase_and_stay_within_the_bound_whatever_time_does(steps: list[tuple[int, int | None]]) -> None:
    """V2, V14: each step sets the physical time, then asks for a stamp or observes one from elsewhere."""
    physical = Physical()
    clock = Clock(physical, DRIFT_MS)
    highest = errors = 0
    latest_ms = 0
    for physical.ms, seen in steps:
        latest_ms = max(latest_ms, physical.ms)
        try:
            if seen is None:
                stamp = clock.now()
                assert stamp > highest, "a stamp is above all that were given out or observed"
                assert stamp >= stamp_at(latest_ms)
            else:
                clock.observe(seen)
                stamp = seen
            assert millis_of(stamp) <= latest_ms + DRIFT_MS
            highest = max(highest, stamp)
        except ClockDriftError:
            errors += 1
            refused = highest + 1 if seen is None else seen
            assert millis_of(refused) > latest_ms + DRIFT_MS
        assert (clock.last, clock.drift_errors) == (highest, errors)


@given(st.lists(st.tuples(st.booleans(), st.integers(-DRIFT_MS // 2, DRIFT_MS // 2)), min_size=2, max_size=30))
def test_what_follows_a_message_has_a_higher_stamp_on_any_node(messages: list[tuple[bool, int]]) -> None:
    """V2: two nodes whose clocks disagree within the bound, and send each other their stamps."""
    physical = Physical(), Physical()
    clocks = Clock(physical[0], DRIFT_MS), Clock(physical[1], DRIFT_MS)
    last = 0
    for sender, skew_ms in messages:
        physical[sender].ms = 1000 + skew_ms
        stamp = clocks[sender].now()
        assert stamp > last
        clocks[not sender].observe(stamp)
        last = stamp


@pytest.mark.parametrize("later_ms", [1000, 990, 0], ids=["stands still", "jumps back", "starts over"])
def test_a_clock_without_progress_keeps_counting(later_ms: int) -> None:
    """V14"""
    physical = Physical(1000)
    clock = Clock(physical)
    first = clock.now()
    physical.ms = later_ms
    assert [clock.now() for _ in range(3)] == [first + 1, first + 2, first + 3]
    physical.ms = 2000
    assert clock.now() == stamp_at(2000)


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    """V14"""
    clock = Clock(Physical(1000))
    clock.observe(stamp_at(1000, FULL))
    assert clock.now() == stamp_at(1001, 0)


def test_a_counter_cannot_outrun_the_bound() -> None:
    """V14: when time stands still for ever, the clock stops with an error instead of running away."""
    physical = Physical(1000)
    clock = Clock(physical, DRIFT_MS)
    last = stamp_at(1000 + DRIFT_MS, FULL)
    clock.observe(last)
    for _ in range(2):
        with pytest.raises(ClockDriftError, match=f"bound is {DRIFT_MS} ms"):
            clock.now()
    assert (clock.last, clock.drift_errors) == (last, 2)
    physical.ms += 1
    assert clock.now() == last + 1, "it goes on as soon as time does"


def test_a_stamp_from_too_far_ahead_is_not_adopted() -> None:
    """V14"""
    clock = Clock(Physical(1000), DRIFT_MS)
    clock.observe(stamp_at(1000 + DRIFT_MS, FULL))
    with pytest.raises(ClockDriftError):
        clock.observe(stamp_at(1000 + DRIFT_MS + 1))
    assert clock.last == stamp_at(1000 + DRIFT_MS, FULL)


def test_a_clock_is_seeded_from_the_journal_without_a_bound() -> None:
    """V14: a node whose time was set back starts above what it wrote before, and can write."""
    clock = Clock(Physical(1000), DRIFT_MS)
    clock.seed(stamp_at(60_000, 7))
    assert clock.now() == stamp_at(60_000, 8)
    clock.seed(stamp_at(1))
    assert clock.now() == stamp_at(60_000, 9)
    assert clock.drift_errors == 0


def test_drift_is_measured_against_physical_time() -> None:
    """V14: what the alert watches."""
    physical = Physical(1000)
    clock = Clock(physical)
    clock.now()
    physical.ms = 700
    assert clock.drift_ms() == 300
    physical.ms = 1100
    assert clock.drift_ms() == -100


@pytest.mark.usefixtures("hasty_threads")
def test_threads_never_get_the_same_stamp() -> None:
    """V2"""
    clock = Clock(Physical(1000))
    with ThreadPoolExecutor(8) as threads:
        stamps = [*threads.map(lambda _: [clock.now() for _ in range(500)], range(8))]
    assert len({stamp for each in stamps for stamp in each}) == 8 * 500
    assert all(each == sorted(each) for each in stamps)
