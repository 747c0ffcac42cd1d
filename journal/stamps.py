"""Decisions about a record that are the same on every replica: whether it may be applied, and its stamp (I4, I6).

Pure functions of data in the log. `Version` is the total order of writes that `shard.join` uses (I5).
"""

from __future__ import annotations

from typing import NamedTuple

from journal.hlc import millis_of, stamp_at


class Version(NamedTuple):
    """A record's place in the total order of writes to a shard. Equal stamps are ordered by tier, partition and offset."""

    stamp: int
    tier: int
    partition: int
    offset: int


NEVER = Version(-1, -1, -1, -1)
"""Lower than every version of a record."""


def drift_error(hlc: int, appended_ms: int, max_drift_ms: int) -> str | None:
    """Why a record stamped `hlc` and appended at `appended_ms` must be refused; None when it is within the bound (I6)."""
    ahead_ms = millis_of(hlc) - appended_ms
    if ahead_ms > max_drift_ms:
        return f"hlc is {ahead_ms} ms ahead of its append time, the bound is {max_drift_ms} ms"
    if hlc < 0:
        return f"hlc {hlc} is negative"
    return None


def next_stamp(hlc: int, previous: int, appended_ms: int, max_lateness_ms: int) -> int:
    """The stamp of a record. `previous` is the stamp of the record before it of the same shard and partition (I4)."""
    return max(hlc, previous + 1, stamp_at(appended_ms - max_lateness_ms))
