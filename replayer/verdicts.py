"""The verdict on a record: is it applied, by every replica or by none (I6)?

Pure functions of the record, the catalog and the limits. What they need of the catalog does not change once the catalog has
reached the position that the record names, so it does not matter how far a replica is beyond it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from catalog.catalog import Catalog
from journal import codec
from journal.log import Entry
from journal.records import CATALOG_OPERATIONS, POINT_OPERATIONS, Ingested, Record
from journal.stamps import drift_error
from journal.topics import Topics, shard_of
from shard.batch import Limits
from shard.contract import contract_error


class Accepted(NamedTuple):
    """Every replica applies it."""

    record: Record


class Dropped(NamedTuple):
    """It is for a collection that is deleted: it changes nothing, whatever it says."""

    record: Record


class Refused(NamedTuple):
    """No replica applies it. `record` is what it holds, as far as that can be read."""

    reason: str
    record: Record | None = None


class NeedsCatalog(NamedTuple):
    """Its writer knew the catalog at `position`, and this catalog is not there yet. See `claim_failed`."""

    record: Record
    position: int
    latest_ms: int


Verdict = Accepted | Dropped | Refused | NeedsCatalog


def judge(entry: Entry, catalog: Catalog, topics: Topics, limits: Limits) -> Verdict:
    """The verdict on an entry of a data topic."""
    record = _decoded(entry, limits)
    if isinstance(record, Refused):
        return record
    operation = record.operation
    if not isinstance(operation, POINT_OPERATIONS):
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
    if breach := contract_error(collection, operation):
        return Refused(breach, record)
    if record.ingested is not None and (breach := _ingested_error(record.ingested, len(operation.ids))):
        return Refused(breach, record)
    if any(shard_of(point_id, len(homes)) != record.shard for point_id in operation.ids):
        return Refused(f"a point does not belong in shard {record.shard}", record)
    return Accepted(record)


def claim_failed(record: Record) -> Refused:
    """The verdict on a record that names a catalog position which was not filled by `NeedsCatalog.latest_ms`, in the log's time.

    A writer knows only what was in the log before it wrote, so its claim is true at once. A claim that comes true later is
    refused as well, or a replica that waited for it would decide otherwise than one that reads it a day later.
    """
    return Refused(f"catalog position {record.catalog_position} did not exist when this was written", record)


def judge_command(entry: Entry, limits: Limits) -> Accepted | Refused:
    """The verdict on an entry of the system topic. What an accepted command comes to is the catalog's to say."""
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


def _ingested_error(ingested: Ingested, count: int) -> str | None:
    """Why a record's account of where its points came from cannot be; None when it can."""
    offsets = ingested.offsets
    if len(offsets) != count or len(ingested.keys) not in (0, count):
        return f"origins are given for {len(offsets)} and keys for {len(ingested.keys)} of {count} points"
    if any(later <= earlier for earlier, later in pairwise([-1, *offsets])):
        return "offsets of origin do not ascend from 0"
    return None
