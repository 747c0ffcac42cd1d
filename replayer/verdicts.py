"""The verdict on a record: applied by every replica, or by none (I6).

Pure functions of the record, the catalog and the limits. They use only facts of the catalog that are fixed once it has reached
the position that the record names. So the verdict is the same on a replica whose catalog is further ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from catalog.catalog import Catalog
from journal import codec
from journal.log import Entry
from journal.records import (
    CATALOG_OPERATIONS,
    POINT_OPERATIONS,
    SHARD_OPERATIONS,
    Ingested,
    PatchVectors,
    Record,
    UnsetVectors,
    Upsert,
)
from journal.stamps import drift_error
from journal.topics import Topics, shard_of
from shard.batch import Limits
from shard.contract import contract_error


class Accepted(NamedTuple):
    """Every replica applies the record. It has the keys of vectors in the place of their names; see `Collection.vector_keys`."""

    record: Record


class Dropped(NamedTuple):
    """The record is for a deleted collection and has no effect."""

    record: Record


class Refused(NamedTuple):
    """No replica applies it. `record` is None when it could not be decoded."""

    reason: str
    record: Record | None = None


class NeedsCatalog(NamedTuple):
    """The record names the catalog position `position`, which this catalog has not reached. It may wait until `latest_ms`, in
    append time; then see `claim_failed`.
    """

    record: Record
    position: int
    latest_ms: int


class NeedsIngest(NamedTuple):
    """The record claims source offsets that the ingest topic may still get; see `replayer.ingest.claims`."""

    record: Record
    entry: Entry


MAX_LOG_CHARS = 512
"""Bound of the name of a log of origin; the names of topics have up to 249 characters."""

Verdict = Accepted | Dropped | Refused | NeedsCatalog | NeedsIngest


def judge(entry: Entry, catalog: Catalog, topics: Topics, limits: Limits) -> Verdict:
    """The verdict on an entry of a data topic."""
    record = _decoded(entry, limits)
    if isinstance(record, Refused):
        return record
    operation = record.operation
    if not isinstance(operation, SHARD_OPERATIONS):
        return Refused(_stray(entry, record), record)
    position = record.catalog_position
    if not 0 <= record.collection < position:
        return Refused(f"collection {record.collection} cannot be known at catalog position {position}", record)
    latest_ms = entry.time_ms + limits.max_lateness_ms
    if catalog.view.position < position:
        return NeedsCatalog(record, position, latest_ms)
    if catalog.known_at_ms(position) > latest_ms:
        return claim_failed(record)
    collection = catalog.view.by_id.get(record.collection)
    if collection is None:
        if catalog.created(record.collection):
            return Dropped(record)
        return Refused(f"collection {record.collection} does not exist at catalog position {position}", record)
    tier, homes = topics.tier_of(entry.partition.topic), collection.homes
    if not 0 <= record.shard < len(homes) or homes[record.shard][tier] != entry.partition.partition:
        return Refused(f"shard {record.shard} of collection {collection.name!r} is not at home in this partition", record)
    if not isinstance(operation, POINT_OPERATIONS):
        is_plain = record.ingested is None and record.expected is None
        return (
            Accepted(record)
            if is_plain
            else Refused(f"{type(operation).__name__} has no points with origins or conditions", record)
        )
    known = collection.known_at(position)
    if breach := contract_error(known, operation):
        return Refused(breach, record)
    if record.ingested is not None and (breach := _ingested_error(record.ingested, len(operation.ids))):
        return Refused(breach, record)
    if record.ingested is not None and not (record.ingested.epoch <= position and catalog.is_epoch(record.ingested.epoch)):
        return Refused(f"no source was moved at catalog position {record.ingested.epoch}, which is given as its epoch", record)
    if record.expected is not None and (breach := _condition_error(record, operation.ids)):
        return Refused(breach, record)
    if any(shard_of(point_id, len(homes)) != record.shard for point_id in operation.ids):
        return Refused(f"a point does not belong in shard {record.shard}", record)
    return Accepted(_with_keys(record, known.vector_keys()) if collection.since or collection.removed else record)


def _with_keys(record: Record, keys: Mapping[str, str]) -> Record:
    """The record with the keys of the vectors that its writer knew in the place of their names."""
    operation = record.operation
    match operation:
        case Upsert() | PatchVectors():
            columns = [msgspec.structs.replace(column, name=keys[column.name]) for column in operation.vectors]
            operation = msgspec.structs.replace(operation, vectors=columns)
        case UnsetVectors():
            operation = msgspec.structs.replace(operation, names=[keys[name] for name in operation.names])
    return msgspec.structs.replace(record, operation=operation)


def claim_failed(record: Record) -> Refused:
    """The verdict on a record that names a catalog position which was not written by `NeedsCatalog.latest_ms`, in append time.

    A correct writer names a position that exists before it writes. A position that is written after the deadline is refused too:
    otherwise a replica that waited would decide differently from one that replays the record later.
    """
    return Refused(f"catalog position {record.catalog_position} did not exist when this was written", record)


def judge_command(entry: Entry, limits: Limits) -> Accepted | Refused:
    """The verdict on an entry of the system topic. The catalog decides the outcome of an accepted command."""
    record = _decoded(entry, limits)
    if isinstance(record, Refused):
        return record
    return Accepted(record) if isinstance(record.operation, CATALOG_OPERATIONS) else Refused(_stray(entry, record), record)


def _decoded(entry: Entry, limits: Limits) -> Record | Refused:
    try:
        record = codec.decode(entry.value)
    except codec.DecodeError as error:
        return Refused(str(error))
    if drift := drift_error(record.hlc, entry.time_ms, limits.max_drift_ms):
        return Refused(drift, record)
    return record


def _stray(entry: Entry, record: Record) -> str:
    return f"{type(record.operation).__name__} does not belong in {entry.partition.topic}"


def _condition_error(record: Record, ids: Sequence[bytes]) -> str | None:
    """Why the conditions of a record are invalid; None when they are valid."""
    if record.ingested is not None:
        return "ingested points have no conditions"
    if len(record.expected or ()) != len(ids):
        return f"conditions are given for {len(record.expected or ())} of {len(ids)} points"
    if len(set(ids)) < len(ids):
        return "a record with conditions names a point twice"
    return None


def _ingested_error(ingested: Ingested, count: int) -> str | None:
    """Why the source offsets and keys of a record are invalid; None when they are valid."""
    if len(ingested.log) > MAX_LOG_CHARS:
        return f"the log of origin has a name of {len(ingested.log)} characters, the bound is {MAX_LOG_CHARS}"
    offsets = ingested.offsets
    if len(offsets) != count or len(ingested.keys) not in (0, count):
        return f"origins are given for {len(offsets)} and keys for {len(ingested.keys)} of {count} points"
    if any(later <= earlier for earlier, later in pairwise([-1, *offsets])):
        return "offsets of origin do not ascend from 0"
    return None
