"""How far the replay is behind the log, by partition, and how bad that is (U4, V8).

Entries are counted exactly. Bytes are those entries times the mean size of the records read lately. Time is the age of the
oldest record that is read and not yet applied; while none is read, how long the replay has been seen to stand still.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from journal.log import Entry, Positions, TopicPartition

MEAN_OVER = 0.05
"""Weight of the newest record in the mean size."""

RELEASE = 0.8
"""A state is left once every measure is below this share of its threshold, so that it does not flicker."""


class Lag(NamedTuple):
    """What is in the log and not applied. `buffered` of the bytes are in this process's memory."""

    records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    buffered: int = 0


class LagState(IntEnum):
    """How bad a lag is."""

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
    """The state after seeing `lag`: up at a threshold, down only well below it."""
    reached = [level for level, bound in THRESHOLDS.items() if any(a >= b for a, b in zip(lag, bound, strict=True))]
    held = [level for level, bound in THRESHOLDS.items() if any(a >= RELEASE * b for a, b in zip(lag, bound, strict=True))]
    return max([LagState.NORMAL, *reached, *(level for level in held if level <= state)])


class Measured(NamedTuple):
    """One partition, measured."""

    end: int
    lag: Lag
    state: LagState


class LagMeter:
    """Measures lag. The replaying thread says what it reads and when it is done; any thread measures."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mean_bytes: dict[TopicPartition, float] = {}
        self._reading: dict[TopicPartition, tuple[int, int]] = {}
        self._stands: dict[TopicPartition, tuple[int, int]] = {}
        self._states: dict[TopicPartition, LagState] = {}

    def begin(self, entries: Sequence[Entry]) -> None:
        """Notes what is about to be applied."""
        reading: dict[TopicPartition, tuple[int, int]] = {}
        for partition, _, time_ms, _, value, _ in entries:
            oldest_ms, size = reading.get(partition, (time_ms, 0))
            reading[partition] = (oldest_ms, size + len(value))
            mean = self._mean_bytes.get(partition, len(value))
            self._mean_bytes[partition] = mean + MEAN_OVER * (len(value) - mean)
        self._reading = reading

    def done(self) -> None:
        """Notes that all of it is applied."""
        self._reading = {}

    def measure(self, ends: Positions, applied: Mapping[TopicPartition, int], now_ms: int) -> dict[TopicPartition, Measured]:
        """The lag of each partition of `ends`, by the node's clock."""
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
            self._stands.pop(partition, None)
            return now_ms
        if (reading := self._reading.get(partition)) is not None:
            return reading[0]
        at, since_ms = self._stands.get(partition, (-1, now_ms))
        if at != applied:
            since_ms = now_ms
        self._stands[partition] = (applied, since_ms)
        return since_ms
