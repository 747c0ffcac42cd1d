"""What every replica decides alike about a record: may it be applied, and at which point in the order of all writes (I4, I6).

Pure functions of what is in the log. `Version` is the total order in which the join of `shard.join` decides (I5).
"""

from __future__ import annotations

from typing import NamedTuple

from journal.hlc import millis_of, stamp_at


class Version(NamedTuple):
    """A record's place in the order of all writes to a shard. Equal stamps are ordered by where the log holds them."""

    stamp: int
    tier: int
    partition: int
    offset: int


NEVER = Version(-1, -1, -1, -1)
"""Below every version."""


def drift_error(hlc: int, appended_ms: int, max_drift_ms: int) -> str | None:
    """Why a record with this clock, appended at this time of the log, must not be applied; None when it may be (I6)."""
    ahead_ms = millis_of(hlc) - appended_ms
    if ahead_ms > max_drift_ms:
        return f"hlc is {ahead_ms} ms ahead of its append time, the bound is {max_drift_ms} ms"
    if hlc < 0:
        return f"hlc {hlc} is negative"
    return None


def next_stamp(hlc: int, previous: int, appended_ms: int, max_lateness_ms: int) -> int:
    """The stamp of the record after the one stamped `previous` of the same shard in the same partition (I4)."""
    return max(hlc, previous + 1, stamp_at(appended_ms - max_lateness_ms))
