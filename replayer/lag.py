"""Replay lag per partition, and its state by thresholds (U4, V8).

Records: exact, from offsets. Bytes: records times the moving average of record sizes. Time: the age of the oldest record that is
read but not applied; if no record is being read, the time since the applied offset last changed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from journal.log import Entry, Positions, TopicPartition

MEAN_OVER = 0.05
"""Weight of the newest record in the moving average of sizes."""

EXIT_SHARE = 0.8
"""Hysteresis: a state is left only when every measure is below this share of its threshold."""


class Lag(NamedTuple):
    """The part of the log that is not applied. `buffered`: bytes that are already read into this process's memory."""

    records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    buffered: int = 0


class LagState(IntEnum):
    """Severity of a lag."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2
    BACK_PRESSURE = 3


THRESHOLDS = {
    LagState.WARNING: Lag(1_000, 5 << 20, 0.2, 100 << 20),
    LagState.CRITICAL: Lag(5_000, 10 << 20, 0.5, 200 << 20),
    LagState.BACK_PRESSURE: Lag(10_000, 25 << 20, 1.0, 500 << 20),
}


def next_state(state: LagState, lag: Lag) -> LagState:
    """The next state: up at a threshold, down only below EXIT_SHARE of it."""
    reached = [level for level, bound in THRESHOLDS.items() if any(a >= b for a, b in zip(lag, bound, strict=True))]
    kept = [level for level, bound in THRESHOLDS.items() if any(a >= EXIT_SHARE * b for a, b in zip(lag, bound, strict=True))]
    return max([LagState.NORMAL, *reached, *(level for level in kept if level <= state)])


class Measured(NamedTuple):
    """End offset, lag and state of one partition."""

    end: int
    lag: Lag
    state: LagState


class LagMeter:
    """Measures lag. The replay thread calls `begin` and `done`; any thread calls `measure`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mean_bytes: dict[TopicPartition, float] = {}
        self._reading: dict[TopicPartition, tuple[int, int]] = {}
        self._stalled: dict[TopicPartition, tuple[int, int]] = {}
        self._states: dict[TopicPartition, LagState] = {}

    def begin(self, entries: Sequence[Entry]) -> None:
        """Records which entries are about to be applied."""
        reading: dict[TopicPartition, tuple[int, int]] = {}
        for partition, _, time_ms, _, value, _ in entries:
            oldest_ms, size = reading.get(partition, (time_ms, 0))
            reading[partition] = (oldest_ms, size + len(value))
            mean = self._mean_bytes.get(partition, len(value))
            self._mean_bytes[partition] = mean + MEAN_OVER * (len(value) - mean)
        self._reading = reading

    def done(self) -> None:
        """Records that these entries are applied."""
        self._reading = {}

    def measure(self, ends: Positions, applied: Mapping[TopicPartition, int], now_ms: int) -> dict[TopicPartition, Measured]:
        """The lag of each partition in `ends`. `now_ms` is the node's clock."""
        with self._lock:
            return {
                partition: self._measured(partition, end, applied.get(partition, 0), now_ms) for partition, end in ends.items()
            }

    def _measured(self, partition: TopicPartition, end: int, applied: int, now_ms: int) -> Measured:
        records = max(0, end - applied)
        since_ms = self._behind_since(partition, records, applied, now_ms)
        lag = Lag(
            records,
            round(records * self._mean_bytes.get(partition, 0.0)),
            max(0, now_ms - since_ms) / 1000,
            self._reading.get(partition, (0, 0))[1],
        )
        state = self._states[partition] = next_state(self._states.get(partition, LagState.NORMAL), lag)
        return Measured(end, lag, state)

    def _behind_since(self, partition: TopicPartition, records: int, applied: int, now_ms: int) -> int:
        if not records:
            self._stalled.pop(partition, None)
            return now_ms
        if (reading := self._reading.get(partition)) is not None:
            return reading[0]
        at, since_ms = self._stalled.get(partition, (-1, now_ms))
        if at != applied:
            since_ms = now_ms
        self._stalled[partition] = (applied, since_ms)
        return since_ms
