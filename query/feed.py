"""The change feed of a collection: one order over all its shards, up to the least closed stamp of them (N4).

A place in the feed is a version and a point id. It is the same for all shards, since versions order all changes, and a point
belongs to one shard. Below the closed stamp nothing can come in between any more (I7), so what was told is never contradicted.

A feed may begin with the present state: the points as of a closed stamp in the order of their ids, and then the changes after it.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from journal.ids import decode_id
from journal.records import Vector
from journal.stamps import MAX_VERSION, Version, last_version, stamp_of
from journal.token import LOG_CHARS, base36
from query import points
from query.pinned import Pinned
from shard.filters.where import Where
from shard.past import PastGone
from shard.replica import Changes, Cursor, PayloadPart, States

FIRST_STEP, STEP_CHANGES = 20, 500
"""So many changes are read from each shard first, and later at a time, if they are small enough."""

PAGE_BYTES = 8 << 20
"""The payloads and vectors of a page have so many bytes, and those of its first step, which may be more."""

PAGE_STEPS = 10
"""A page takes so many steps at most: of a filter that few changes pass, it may have few or none, and the next place."""

MAX_TOKEN_CHARS = 1024

Kind = Literal["insert", "update", "delete", "snapshot"]
Vectors = bool | Sequence[str]


class Place(NamedTuple):
    """A place in the feed: after a change. With `initial` it is within the state as of the stamp of the cursor's version, after
    the point with the cursor's id."""

    cursor: Cursor
    initial: bool = False

    @property
    def stamp(self) -> int:
        return stamp_of(self.cursor.version)

    def text(self, log: str, collection: int) -> str:
        """The place as text, for the feed of the collection with this id, in the log of this name."""
        id_ = urlsafe_b64encode(self.cursor.id).decode().rstrip("=")
        phase = "i" if self.initial else "c"
        return f"f.{log}.{base36(collection)}.{phase}.{base36(self.cursor.version)}.{id_}"


_TEXT = re.compile(rf"f\.([0-9a-z]{{{LOG_CHARS}}})\.([0-9a-z]{{1,13}})\.([ci])\.([0-9a-z]{{1,13}})\.([0-9A-Za-z_-]*)", re.ASCII)


def is_place(text: str) -> bool:
    """Whether a text is meant to be that of a place."""
    return text.startswith("f.")


def parse_place(text: str, log: str, collection: int) -> Place:
    """The place that a text names. Raises ValueError, also for one of another log or collection."""
    match = _TEXT.fullmatch(text) if len(text) <= MAX_TOKEN_CHARS else None
    if match is None or (version := int(match[4], 36)) > MAX_VERSION:
        raise ValueError(f"not a place in a feed: {text[:64]!r}")
    if match[1] != log:
        raise ValueError(f"a place in the feed of another log, or of an earlier one: {match[1]}, this one is {log}")
    if int(match[2], 36) != collection:
        raise ValueError("a place in the feed of another collection, or of an earlier one of this name")
    try:
        id_ = urlsafe_b64decode(match[5] + "=" * (-len(match[5]) % 4))
        if id_:
            decode_id(id_)
    except ValueError:
        raise ValueError(f"not a place in a feed: {text[:64]!r}") from None
    return Place(Cursor(version, id_), match[3] == "i")


def after(stamp: int) -> Place:
    """The place after all changes up to a stamp."""
    return Place(Cursor(last_version(stamp) + 1))


class State(NamedTuple):
    """What a point was before or after a change: its payload as JSON, empty for none, and the vectors that were asked for."""

    payload: bytes
    vectors: dict[str, Vector]

    @property
    def size_bytes(self) -> int:
        return len(self.payload) + sum(vector.nbytes for vector in self.vectors.values())


class Change(NamedTuple):
    """One change of one point; `before` and `after` are None where the point did not exist.

    `keys` and `names`: the payload keys and the vectors that changed. A `snapshot` tells a point of the initial state.
    """

    place: Place
    id: bytes
    version: Version
    kind: Kind
    keys: list[str]
    names: list[str]
    before: State | None
    after: State | None

    @property
    def size_bytes(self) -> int:
        return sum(state.size_bytes for state in (self.before, self.after) if state is not None)


class Page(NamedTuple):
    """A part of the feed, and the place after it. `is_last`: everything up to the closed stamp was looked at."""

    changes: list[Change]
    next: Place
    is_last: bool


async def changes(
    pinned: Pinned, start: Place, closed: int, limit: int, where: Where | None = None, vectors: Vectors = False
) -> Page:
    """The changes after `start` up to the stamp `closed`, at most `limit`, with the states before and after them.

    `closed` must be closed in all shards, and have been so before they were pinned. `where`: of points that pass the filter
    before or after. Raises PastGone when some are not kept any more.
    """
    until, cursor = last_version(closed), start.cursor
    found: list[Change] = []
    size = steps = 0
    while cursor.version <= until and steps < PAGE_STEPS and (want := _step(limit, len(found), size)):
        parts = await pinned.all_of(lease.changes(cursor, until, want, where, vectors, True) for lease in pinned.leases)
        some = sorted((change for part in parts for change in _each(part)), key=lambda change: change.place)
        ends = [part.reached for part in parts if part.reached is not None]
        if ends:  # after the least of them one shard has not been looked at yet
            some = [change for change in some if change.place.cursor <= min(ends)]
        if len(some) > want:
            some = some[:want]
            cursor = some[-1].place.cursor
        else:
            cursor = min(ends) if ends else after(closed).cursor
        found += some
        size += sum(change.size_bytes for change in some)
        steps += 1
    return Page(found, Place(cursor), cursor.version > until)


def _step(limit: int, found: int, size: int) -> int:
    """How many changes are read next, when `found` of `size` bytes were read; 0 when the page is full."""
    if not found:
        return min(limit, FIRST_STEP)
    return min(limit - found, STEP_CHANGES, max(0, PAGE_BYTES - size) * found // max(1, size))


def _each(part: Changes) -> Iterator[Change]:
    assert part.before is not None
    rows = zip(part.ids, part.versions, part.keys, part.names, _states(part.before), _states(part.after), strict=True)
    for id_, version, keys, names, before, now in rows:
        kind: Kind = "delete" if now is None else "insert" if before is None else "update"
        yield Change(Place(Cursor(version, id_)), id_, version, kind, keys, names, before, now)


def _states(states: States) -> Iterator[State | None]:
    for payload, vectors in zip(states.payloads, states.vectors, strict=True):
        yield None if payload is None else State(payload, vectors)


async def initial(pinned: Pinned, start: Place, limit: int, where: Where | None = None, vectors: Vectors = False) -> Page:
    """The points after `start` of the state as of its stamp, at most `limit`. `pinned` is the collection as of this stamp."""
    assert start.initial
    found: list[Change] = []
    size, version = 0, start.cursor.version
    first: bytes | None = start.cursor.id + b"\0" if start.cursor.id else b""  # the least id after that of the place
    while first is not None and (want := _step(limit, len(found), size)):
        ids, first = await points.scroll(pinned, where, first, want)
        for point in await points.retrieve(pinned, ids, PayloadPart(), vectors):
            place, state = Place(Cursor(version, point.id), initial=True), State(point.payload, point.vectors)
            found.append(Change(place, point.id, point.version, "snapshot", [], [], None, state))
            size += state.size_bytes
    if first is None:
        return Page(found, after(start.stamp), False)
    return Page(found, found[-1].place, False)


async def is_more(pinned: Pinned, closed: int) -> bool:
    """Whether there are changes above the stamp `closed`."""
    cursor = after(closed).cursor
    try:
        parts = await pinned.all_of(lease.changes(cursor, MAX_VERSION, 1) for lease in pinned.leases)
    except PastGone:  # there were some while the collection kept nothing
        return True
    return any(part.ids for part in parts)


async def earliest(pinned: Pinned) -> Place:
    """The earliest place after which all changes are kept, in every shard."""
    place = Place(Cursor(0))
    for _ in pinned.leases:  # each names its own stamp
        try:
            await pinned.all_of(lease.changes(place.cursor, place.cursor.version, 1) for lease in pinned.leases)
        except PastGone as error:
            place = after(error.oldest)
    return place
