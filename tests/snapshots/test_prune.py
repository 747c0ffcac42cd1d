"""Which snapshots a policy keeps."""

from __future__ import annotations

import pytest

from snapshots.manifest import Manifest, State
from snapshots.prune import DAY_MS, Policy, kept

HOUR_MS = 3600 * 1000
NOW_MS = 100 * DAY_MS + 12 * HOUR_MS


def snapshot(hours_ago: float, state: State = State.COMMITTED) -> Manifest:
    return Manifest(id=f"{hours_ago:g}h", node="node1", state=state, created_ms=int(NOW_MS - hours_ago * HOUR_MS))


@pytest.mark.parametrize(
    ("policy", "hours", "stay"),
    [
        (Policy(2), [1, 2, 3, 4], {1, 2}),
        (Policy(10), [1, 2, 3], {1, 2, 3}),
        (Policy(0), [5, 6], {5}),
        (Policy(1, 3), [1, 2, 13, 20, 37, 40, 61, 90], {1, 13, 37}),
        (Policy(1, 1), [13, 14], {13}),
        (Policy(3, 2), [], set()),
    ],
)
def test_the_latest_stay_and_the_last_of_each_day(policy: Policy, hours: list[float], stay: set[float]) -> None:
    assert kept([snapshot(hour) for hour in hours], policy, NOW_MS) == {f"{hour:g}h" for hour in stay}


def test_what_is_pending_stays_for_a_day_and_counts_for_nothing() -> None:
    pending = [snapshot(0.1, State.PENDING), snapshot(25, State.PENDING)]
    assert kept([*pending, snapshot(1), snapshot(2)], Policy(1), NOW_MS) == {"0.1h", "1h"}
