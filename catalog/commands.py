"""What is kept of every command for good: when the log took it, and whether it created a collection.

Verdicts on records need both for every position of the log's history, also when state is built anew from its first record. The
times are kept as runs of equal ones: 16 bytes for each millisecond in which commands came; created ids as 8 bytes each. That is
the bound: 24 MB for a million collections created one by one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right


class CommandTimes:
    """The log's time of each position of the system topic. A position that holds no command has the time of the next one."""

    def __init__(self) -> None:
        self._length = 0
        self._starts = array("q")
        self._times_ms = array("q")

    def add(self, offset: int, time_ms: int) -> None:
        """Notes the time of the command at `offset`, which is above those before."""
        if not self._times_ms or self._times_ms[-1] != time_ms:  # not "higher": the log's clock may step back with a new leader
            self._starts.append(self._length)
            self._times_ms.append(time_ms)
        self._length = offset + 1

    def below_ms(self, position: int) -> int:
        """The time of the last position below `position` that is noted; 0 for none."""
        if position <= 0 or not self._times_ms:
            return 0
        return self._times_ms[bisect_right(self._starts, min(position, self._length) - 1) - 1]


class CreatedIds:
    """The ids of all collections that were ever created; they ascend."""

    def __init__(self) -> None:
        self._ids = array("q")

    def add(self, collection_id: int) -> None:
        self._ids.append(collection_id)

    def __contains__(self, collection_id: int) -> bool:
        index = bisect_left(self._ids, collection_id)
        return index < len(self._ids) and self._ids[index] == collection_id
