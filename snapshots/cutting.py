"""How far each data partition of the log may be cut: a pure rule (I1, I2).

What is cut off is in no log any more, so nobody may need it: a restored snapshot, the state of this node, the other nodes, nor
who still has to see records that are young, unsettled or not audited. The topic of the catalog is not among the partitions:
every start reads it from its beginning, so it is never cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AnySet
from typing import NamedTuple

from journal.chain import EVERY
from journal.log import Positions, TopicPartition


class ShardKey(NamedTuple):
    """A shard: the id of its collection, and its number."""

    collection: int
    number: int


class Held(NamedTuple):
    """A shard of this node, and up to where it has applied its home partitions; nothing of it counts while it is not served."""

    name: str
    homes: Positions
    is_served: bool = True


class Saved(NamedTuple):
    """A verified snapshot. Every replay that begins with it needs the records from `needed` on, and no earlier one.

    `catalog`: collections that were created at this offset of the catalog or later have no records below `needed`.
    """

    id: str
    needed: Positions
    catalog: int
    shards: AnySet[ShardKey]


class Facts(NamedTuple):
    """All that the rule looks at; positions that are missing are 0, so that what is not known holds the cut back.

    `old`: below it all records are older than the retention; None when the log is kept for ever. `settled`: below it no shard has
    records above the closed stamp of the snapshot. `nodes`: what the other nodes have committed, by name; those that are in
    `beyond` do not count.
    """

    starts: Positions
    ends: Positions
    saved: Saved
    shards: Mapping[ShardKey, Held]
    applied: Positions
    audited: Positions
    settled: Positions
    old: Positions | None
    nodes: Mapping[str, Positions]
    beyond: AnySet[str] = frozenset()


class Cut(NamedTuple):
    """The records from `start` up to `to`, excluded, may go; `reason` says what keeps the rest. None go when both are equal."""

    start: int
    to: int
    reason: str


class _Bound(NamedTuple):
    offset: int
    reason: str


def cuts(facts: Facts) -> dict[TopicPartition, Cut]:
    """How far each partition of `facts.starts` may be cut: to a multiple of EVERY that is below all bounds."""
    return {
        partition: _cut(start, min(_bounds(partition, facts), key=lambda bound: bound.offset))
        for partition, start in facts.starts.items()
    }


def _cut(start: int, bound: _Bound) -> Cut:
    return Cut(start, max(start, bound.offset // EVERY * EVERY), bound.reason)


def _bounds(partition: TopicPartition, facts: Facts) -> Iterator[_Bound]:
    """What must stay, from which offset on. Of equal bounds the first is named."""
    if facts.old is None:
        yield _Bound(0, "the log is kept for ever: --journal-retention-s is not set, and no retention is given")
    else:
        yield _Bound(facts.old.get(partition, 0), "the records after it are younger than the retention")
    saved = facts.saved
    yield _Bound(saved.needed.get(partition, 0), f"snapshot {saved.id} needs the records after it")
    for key, held in facts.shards.items():
        if partition in held.homes:
            yield from _bounds_of_shard(partition, key, held, saved)
    yield _Bound(facts.applied.get(partition, 0), "this node has not applied the records after it")
    for node in sorted(facts.nodes.keys() - facts.beyond):
        yield _Bound(facts.nodes[node].get(partition, 0), f"node {node} has not applied the records after it")
    yield _Bound(facts.settled.get(partition, 0), "records after it may be above the closed stamp of the snapshot")
    yield _Bound(facts.audited.get(partition, 0), "the audit of this node has not read the records after it")
    yield _Bound(facts.ends.get(partition, 0), "the partition ends there")


def _bounds_of_shard(partition: TopicPartition, key: ShardKey, held: Held, saved: Saved) -> Iterator[_Bound]:
    if key.collection < saved.catalog and key not in saved.shards:
        yield _Bound(0, f"snapshot {saved.id} does not hold {held.name}")
    if not held.is_served:
        yield _Bound(0, f"{held.name} is not served by this node")
    yield _Bound(held.homes[partition], f"{held.name} of this node has not applied the records after it")
