"""How long a read may work. Whatever works in proportion to the data asks now and then, and stops when the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable


class DeadlineExceeded(Exception):
    """The time of a read is over. Nothing of its answer is there."""


class Deadline:
    """The moment that is `seconds` after its making."""

    __slots__ = ("_at_s", "_clock", "_seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._at_s = clock() + seconds

    def again(self) -> Deadline:
        """As many seconds from now on."""
        return Deadline(self._seconds, self._clock)

    def check(self) -> None:
        """Raises DeadlineExceeded when the moment is past."""
        if self._clock() > self._at_s:
            raise self.exceeded()

    def exceeded(self) -> DeadlineExceeded:
        """What to raise when the moment is past."""
        return DeadlineExceeded(f"not answered within {self._seconds:g} s; a larger `timeout` gives it longer")

    def remaining_s(self) -> float:
        """Seconds until the moment; 0 when it is past."""
        return max(0.0, self._at_s - self._clock())


NEVER = Deadline(float("inf"))
