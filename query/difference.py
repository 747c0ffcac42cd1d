"""What differs between two moments of a collection: the points that were created, changed and deleted between them (N8)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

import orjson

from journal.records import Vector
from query.pinned import Pinned
from query.points import Point, matching, retrieve
from shard.filters.where import Where
from shard.replica import PayloadPart

POINTS_PER_STEP = 250
"""Points that are read and compared at a time."""


class Difference(NamedTuple):
    """A point at the earlier and at the later moment; None where it did not exist."""

    id: bytes
    before: Point | None
    after: Point | None

    def payload_keys(self) -> list[str]:
        """The payload keys whose values differ, or that only one of the two has."""
        old, new = (orjson.loads(point.payload) if point is not None and point.payload else {} for point in self[1:])
        both = old.keys() & new.keys()
        return [key for key in {**old, **new} if key not in both or orjson.dumps(old[key]) != orjson.dumps(new[key])]

    def vector_names(self) -> list[str]:
        """The vectors that differ, or that only one of the two has."""
        old, new = ({} if point is None else point.vectors for point in self[1:])
        return [name for name in {**old, **new} if name not in old or name not in new or not _equal(old[name], new[name])]


async def differences(
    before: Pinned, after: Pinned, where: Where | None = None, among: Sequence[bytes] | None = None
) -> AsyncIterator[list[Difference]]:
    """The points that differ between two moments of one collection, in the order of their ids, some at a time.

    `where`: of points that pass the filter at one of the moments. `among` limits it to these ids. A point that was written anew
    with equal content does not differ.
    """
    candidates = among
    if where is not None:
        ids = [(await matching(pinned, where, among))[0] for pinned in (before, after)]
        candidates = sorted({*ids[0], *ids[1]})
    old, new = [dict(zip(*await matching(pinned, None, candidates), strict=True)) for pinned in (before, after)]
    changed = await after.run(len(old) + len(new), partial(_changed, old, new))
    for start in range(0, len(changed), POINTS_PER_STEP):
        step = changed[start : start + POINTS_PER_STEP]
        states = [{point.id: point for point in await retrieve(pinned, step, PayloadPart(), True)} for pinned in (before, after)]
        found = [Difference(id_, states[0].get(id_), states[1].get(id_)) for id_ in step]
        yield await after.run(len(found), partial(_differing, found))
        await after.give_way()


def _changed(old: dict[bytes, int], new: dict[bytes, int]) -> list[bytes]:
    return sorted(id_ for id_ in {**old, **new} if old.get(id_) != new.get(id_))


def _differing(found: Sequence[Difference]) -> list[Difference]:
    return [one for one in found if one.before is None or one.after is None or one.payload_keys() or one.vector_names()]


def _equal(left: Vector, right: Vector) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()
