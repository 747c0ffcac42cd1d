"""What is kept of every command forever: its append time, and whether it created a collection or moved the ingest.

Verdicts on records need these for the complete history, for example when state is rebuilt from the first record. Times are stored
as runs of equal values: 16 bytes per millisecond that has a command. Offsets of commands take 8 bytes each. So a million
collections, created one by one, take 24 MB.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right


class CommandTimes:
    """The append time of each offset of the system topic. An offset without a command has the time of the next command."""

    def __init__(self) -> None:
        self._length = 0
        self._starts = array("q")
        self._times_ms = array("q")

    def add(self, offset: int, time_ms: int) -> None:
        """Adds the time of the command at `offset`, which must be higher than all before."""
        if not self._times_ms or self._times_ms[-1] != time_ms:  # `!=`, not `<`: times can step back after a leader election
            self._starts.append(self._length)
            self._times_ms.append(time_ms)
        self._length = offset + 1

    def below_ms(self, position: int) -> int:
        """The append time of the last command below `position`; 0 for none."""
        if position <= 0 or not self._times_ms:
            return 0
        return self._times_ms[bisect_right(self._starts, min(position, self._length) - 1) - 1]


class CommandOffsets:
    """The offsets of all commands of one kind, in ascending order: of those that created a collection, or moved a source."""

    def __init__(self) -> None:
        self._offsets = array("q")

    def add(self, offset: int) -> None:
        self._offsets.append(offset)

    def __contains__(self, offset: int) -> bool:
        index = bisect_left(self._offsets, offset)
        return index < len(self._offsets) and self._offsets[index] == offset
