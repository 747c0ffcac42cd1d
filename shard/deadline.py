"""The deadline of a read. Every loop whose length depends on the data checks it from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable


class DeadlineExceeded(Exception):
    """The read took longer than its deadline. There is no partial answer."""


class Deadline:
    """`seconds` after it is created, on the given clock."""

    __slots__ = ("_at_s", "_clock", "_seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._at_s = clock() + seconds

    def again(self) -> Deadline:
        """A new deadline, the same number of seconds from now."""
        return Deadline(self._seconds, self._clock)

    def later(self, seconds: float) -> Deadline:
        """This deadline, so many seconds later."""
        deadline = Deadline(self._seconds, self._clock)
        deadline._at_s = self._at_s + seconds
        return deadline

    def check(self) -> None:
        """Raises DeadlineExceeded when the deadline has passed."""
        if self._clock() >= self._at_s:
            raise self.exceeded()

    def exceeded(self) -> DeadlineExceeded:
        """The exception to raise when the deadline has passed."""
        return DeadlineExceeded(f"not answered within {self._seconds:g} s; a larger `timeout` gives it longer")

    def remaining_s(self) -> float:
        """Seconds until the deadline; 0 when it has passed."""
        return max(0.0, self._at_s - self._clock())


NEVER = Deadline(float("inf"))
