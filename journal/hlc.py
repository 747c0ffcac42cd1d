"""Hybrid logical clock: stamps that follow physical time and never repeat or step back on one writer.

After Kulkarni, Demirbas et al., "Logical Physical Clocks" (2014), and CockroachDB's `pkg/util/hlc`. A stamp is one int: 48 bits
of milliseconds since 1970, 16 bits of counter. Unlike the paper, a full counter carries into the milliseconds.

Channels that the clock crosses: it stamps every record that this process writes (`journal.writer`); it observes every
record that is replayed (`replayer`), every token a client presents and every answer's token (`gateway`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

COUNTER_BITS = 16
MAX_STAMP = 2**63 - 1


def stamp_at(ms: int, counter: int = 0) -> int:
    """The stamp of a millisecond since 1970 and a counter below 65,536."""
    return ms << COUNTER_BITS | counter


def millis_of(stamp: int) -> int:
    """The milliseconds since 1970 that a stamp carries."""
    return stamp >> COUNTER_BITS


class ClockDriftError(Exception):
    """A stamp lies further ahead of physical time than `max_drift_ms` allows. Definite: nothing was stamped or adopted."""


class Clock:
    """A thread-safe hybrid logical clock over `physical`, a source of milliseconds since 1970.

    A source that stands still or jumps back is outrun by counting; the bound holds against the latest physical time ever seen,
    so that a jump back does not stop the writes and a counter cannot run away.
    """

    def __init__(self, physical: Callable[[], int], max_drift_ms: int = 500) -> None:
        self._physical = physical
        self._max_drift_ms = max_drift_ms
        self._lock = threading.Lock()
        self._last = 0
        self._latest_ms = 0
        self.drift_errors = 0

    @property
    def last(self) -> int:
        """The highest stamp given out or observed."""
        return self._last

    def physical_ms(self) -> int:
        """Physical time now, in ms since 1970."""
        return self._physical()

    def drift_ms(self) -> int:
        """How far the clock is ahead of its physical source now, in ms; negative when it is behind (that is usual)."""
        return millis_of(self._last) - self._physical()

    def now(self) -> int:
        """A new stamp, above all that were given out or observed.

        Raises ClockDriftError when counting has outrun the latest physical time by more than the bound.
        """
        with self._lock:
            self._latest_ms = max(self._latest_ms, self._physical())
            stamp = max(self._last + 1, stamp_at(self._latest_ms))
            self._check(stamp)
            self._last = stamp
            return stamp

    def observe(self, stamp: int) -> None:
        """Adopts a stamp from outside. Raises ClockDriftError, adopting nothing, when it is too far ahead."""
        with self._lock:
            self._latest_ms = max(self._latest_ms, self._physical())
            self._check(stamp)
            self._last = max(self._last, stamp)

    def seed(self, stamp: int) -> None:
        """Adopts a stamp that the journal already holds: its log has vouched for it, so no bound applies."""
        with self._lock:
            self._latest_ms = max(self._latest_ms, millis_of(stamp))
            self._last = max(self._last, stamp)

    def _check(self, stamp: int) -> None:
        ahead_ms = millis_of(stamp) - self._latest_ms
        if ahead_ms > self._max_drift_ms:
            self.drift_errors += 1
            raise ClockDriftError(f"stamp {stamp} is {ahead_ms} ms ahead of physical time, the bound is {self._max_drift_ms} ms")
