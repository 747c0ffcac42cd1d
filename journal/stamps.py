"""Decisions about a record that are the same on every replica: whether it may be applied, its stamp, its version (I4, I6, I7).

Pure functions of data in the log. A `Version` is a place in the total order of writes to one shard, which `shard.join` uses (I5).
"""

from __future__ import annotations

from typing import TypeAlias

from journal.hlc import LAST_COUNTER, millis_of, stamp_at

TIER_BITS = 2

Version: TypeAlias = int
"""A record's place in the total order of writes to one shard: its stamp, then its tier.

Unique for each record of a shard: stamps within a partition increase strictly, and a shard has one home partition in each tier.
"""

NEVER: Version = -1
"""Lower than every version of a record. In a condition: the point does not exist."""


MAX_VERSION: Version = 2**63 - 1


def version_of(stamp: int, tier: int) -> Version:
    """The version of a record with this stamp, read from the shard's home partition in `tier`."""
    return stamp << TIER_BITS | tier


def last_version(stamp: int) -> Version:
    """The highest version that a record with this stamp can have."""
    return version_of(stamp, (1 << TIER_BITS) - 1)


def expiry_of(stamp: int, ttl_ms: int) -> Version:
    """When a point of a record with this stamp expires: at the end of a millisecond, after all writes of it."""
    return last_version(stamp_at(millis_of(stamp) + ttl_ms, LAST_COUNTER))


def stamp_of(version: Version) -> int:
    """The stamp of the record with this version."""
    return version >> TIER_BITS


def tier_of(version: Version) -> int:
    """The tier of the record with this version."""
    return version & (1 << TIER_BITS) - 1


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


def closed_stamp(previous: int, appended_ms: int, max_lateness_ms: int) -> int:
    """No record that follows in the partition gets a stamp at or below it (I7): the bound that `next_stamp` implies.

    `previous` is the stamp of the shard's last record in the partition, `appended_ms` the highest append time so far.
    """
    return max(previous, stamp_at(appended_ms - max_lateness_ms) - 1)
