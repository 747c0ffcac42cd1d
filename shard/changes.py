"""What changed in a shard: the states of one point over time, and the changes of all points in order of version (V3, N4).

Both come from the rows, which have every state since `kept_since`: a change is the beginning of a state, or the end of a point.
So a change is final when its stamp is closed (I7), and a record that changed nothing is no change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import orjson

from journal.records import Vector
from journal.stamps import Version, last_version
from shard.filters.subjects import Filter, PointSubject
from shard.past import PastGone
from shard.replica import Changes, Cursor, States
from shard.store import NO_ROW, Row
from shard.view import ShardView


class Change(NamedTuple):
    """The rows of a point before and after a version; NO_ROW where it did not exist."""

    version: Version
    id: bytes
    row: int
    before: int


def history(view: ShardView, point_id: bytes, before: Version, limit: int) -> list[Change]:
    """The changes of a point with versions below `before`, the latest first, at most `limit`."""
    found: list[Change] = []
    later: Row | None = None
    for state in islice(view.states_of(point_id, before), limit + 1):
        if later is not None:  # the state before a change is known now
            follows = later.version == state.end
            found.append(Change(later.version, point_id, later.row, state.row if follows else NO_ROW))
        if state.end < before and (later is None or later.version != state.end):
            found.append(Change(state.end, point_id, NO_ROW, state.row))
        later = state
    if later is not None:
        found.append(Change(later.version, point_id, later.row, NO_ROW))
    return found[:limit]


def changes(view: ShardView, after: Cursor, until: Version, limit: int) -> list[Change]:
    """The changes after a cursor, up to the version `until`, in order of version and id, at most `limit`.

    Raises PastGone when some of them are not kept any more.
    """
    if after.version < last_version(view.past.kept_since) and view.past.kept_since:
        raise PastGone(view.past.kept_since)
    begun, ended = view.changed_between(after.version, until, 2 * limit)  # most changes begin one state and end another
    rows = [row for row, _ in (*begun, *ended)]
    ids = dict(zip(rows, view.ids(rows)[0], strict=True))
    before = {(end, ids[row]): row for row, end in ended}
    found = [Change(version, ids[row], row, before.pop((version, ids[row]), NO_ROW)) for row, version in begun]
    found += [Change(version, id_, NO_ROW, row) for (version, id_), row in before.items()]
    return sorted(change for change in found if (change.version, change.id) > after)[:limit]


def passing(view: ShardView, found: Sequence[Change], filter_: Filter) -> list[Change]:
    """The changes of points that pass a filter before or after."""
    rows = {row for change in found for row in (change.row, change.before) if row != NO_ROW}
    passed = {point.row for point in view.points(sorted(rows)) if filter_.test(PointSubject(point, view))}
    return [change for change in found if change.row in passed or change.before in passed]


def described(
    view: ShardView,
    found: Sequence[Change],
    vectors: bool | Sequence[str],
    with_before: bool,
    offset_of: Callable[[Version], int] | None = None,
) -> Changes:
    """Changes as columns, with the parts that are asked for. `offset_of`: the offset of the record with a version, if wanted."""
    rows = {change.row for change in found} | {change.before for change in found}
    states = {row.row: row for row in view.points(sorted(rows - {NO_ROW}))}
    kept = {row: view.vectors_of(row) for row in states}
    after = [_payload(states, change.row) for change in found]
    before = [_payload(states, change.before) for change in found]
    return Changes(
        [change.id for change in found],
        [change.version for change in found],
        [] if offset_of is None else [offset_of(change.version) for change in found],
        [_changed_keys(old, new) for old, new in zip(before, after, strict=True)],
        [_changed_vectors(kept.get(change.before, {}), kept.get(change.row, {})) for change in found],
        States(after, [_chosen(kept.get(change.row, {}), vectors) for change in found]),
        States(before, [_chosen(kept.get(change.before, {}), vectors) for change in found]) if with_before else None,
    )


def _payload(states: Mapping[int, Row], row: int) -> bytes | None:
    return None if row == NO_ROW else states[row].payload


def _changed_keys(old: bytes | None, new: bytes | None) -> list[str]:
    """The payload keys whose values differ, or that one of the two does not have."""
    before, after = (orjson.loads(payload) if payload else {} for payload in (old, new))
    return [
        key
        for key in before | after
        if orjson.dumps(before.get(key)) != orjson.dumps(after.get(key)) or (key in before) != (key in after)
    ]


def _changed_vectors(old: Mapping[str, Vector], new: Mapping[str, Vector]) -> list[str]:
    return [name for name in {**old, **new} if name not in old or name not in new or old[name].tobytes() != new[name].tobytes()]


def _chosen(vectors: Mapping[str, Vector], names: bool | Sequence[str]) -> dict[str, Vector]:
    return {name: vector for name, vector in vectors.items() if (names if isinstance(names, bool) else name in names)}
