"""Hybrid logical clock: stamps that follow physical time and strictly increase on one writer.

After Kulkarni, Demirbas et al., "Logical Physical Clocks" (2014), and CockroachDB's `pkg/util/hlc`. A stamp is one int: 48 bits
of milliseconds since 1970, 16 bits of counter. Unlike the paper, a full counter carries into the milliseconds.

Where the clock is used: `journal.writer` stamps every record that this process writes; `replayer` seeds the clock with
every applied record; `gateway` observes every token that a client sends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

COUNTER_BITS = 16
MAX_STAMP = 2**63 - 1
LAST_COUNTER = (1 << COUNTER_BITS) - 1


def stamp_at(ms: int, counter: int = 0) -> int:
    """The stamp for `ms` since 1970 and a counter below 65,536."""
    return ms << COUNTER_BITS | counter


def millis_of(stamp: int) -> int:
    """The physical part of a stamp, in ms since 1970."""
    return stamp >> COUNTER_BITS


def text_of(ms: int) -> str:
    """A time as RFC 3339, in UTC, to the millisecond."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ClockDriftError(Exception):
    """A stamp is more than `max_drift_ms` ahead of physical time. The clock has not changed, and no stamp was issued."""


class Clock:
    """A thread-safe hybrid logical clock over `physical`, a source of milliseconds since 1970.

    When the source stops or jumps back, the counter keeps the stamps increasing. The drift bound is relative to the latest
    physical time seen so far, so a jump back does not block writes, and the counter still has a bound.
    """

    def __init__(self, physical: Callable[[], int], max_drift_ms: int = 500) -> None:
        self._physical = physical
        self._max_drift_ms = max_drift_ms
        self._lock = threading.Lock()
        self._last = 0
        self._latest_ms = 0
        self.drift_errors = 0
        self._skew_ms = {"written": 0, "read": 0}

    @property
    def max_drift_ms(self) -> int:
        """The bound of the drift."""
        return self._max_drift_ms

    @property
    def skew_ms(self) -> int:
        """How far the log's clock is ahead of physical time here, at least; negative when it is behind, 0 when nothing shows it.

        From the latest record written and the latest read: what the time between sending and acknowledgement explains is no skew.
        """
        return max(self._skew_ms.values(), key=abs)

    def compare_written(self, sent_ms: int, append_ms: int) -> None:
        """Compares the append time of a record that was sent at `sent_ms` and is acknowledged now."""
        self._skew_ms["written"] = max(0, append_ms - self._physical()) or min(0, append_ms - sent_ms)

    def compare_read(self, append_ms: int) -> None:
        """Compares the append time of a record that is read now: it may be old, but not from the future."""
        self._skew_ms["read"] = max(0, append_ms - self._physical())

    @property
    def last(self) -> int:
        """The highest stamp issued or observed."""
        return self._last

    def physical_ms(self) -> int:
        """Current physical time, in ms since 1970."""
        return self._physical()

    def drift_ms(self) -> int:
        """How far the last stamp is ahead of physical time, in ms; usually negative."""
        return millis_of(self._last) - self._physical()

    def now(self) -> int:
        """A new stamp, higher than every stamp issued or observed.

        Raises ClockDriftError when it would exceed the drift bound.
        """
        with self._lock:
            self._latest_ms = max(self._latest_ms, self._physical())
            stamp = max(self._last + 1, stamp_at(self._latest_ms))
            self._check(stamp)
            self._last = stamp
            return stamp

    def observe(self, stamp: int) -> None:
        """Advances the clock to a stamp from outside. Raises ClockDriftError, without advancing, when it is too far ahead."""
        with self._lock:
            self._latest_ms = max(self._latest_ms, self._physical())
            self._check(stamp)
            self._last = max(self._last, stamp)

    def seed(self, stamp: int) -> None:
        """Advances the clock to a stamp that is already in the journal. Its drift was checked there, so no bound applies."""
        with self._lock:
            self._latest_ms = max(self._latest_ms, millis_of(stamp))
            self._last = max(self._last, stamp)

    def _check(self, stamp: int) -> None:
        ahead_ms = millis_of(stamp) - self._latest_ms
        if ahead_ms > self._max_drift_ms:
            self.drift_errors += 1
            raise ClockDriftError(f"stamp {stamp} is {ahead_ms} ms ahead of physical time, the bound is {self._max_drift_ms} ms")
