"""The past instant of a read, as a client names it: a time, a stamp, a time ago, a tag, or a position (N1, N2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from catalog.collection import Collection
from gateway.http.errors import BadRequest, NotFound
from journal.hlc import LAST_COUNTER, MAX_STAMP, millis_of, stamp_at, text_of
from journal.log import Positions
from journal.token import parse_token
from journal.topics import Topics
from payload.paths import as_micros

AS_OF_HEADER = "x-vecraft-as-of"

TAG = "tag:"
_AGO = re.compile(r"-([0-9]{1,12})(ms|s|m|h|d)")
_AGO_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_STAMP = re.compile("[0-9]{1,19}")
_FORMS = (
    "an RFC 3339 time, a stamp (a decimal HLC), a time ago such as -5m (units ms, s, m, h, d), tag:<name>, "
    "or the X-Vecraft-Position of an earlier answer"
)


class Instant(NamedTuple):
    """A past instant: everything up to `stamp`, inclusive; or everything below `positions`, if these are given."""

    stamp: int
    positions: Positions | None = None


def parse_as_of(
    text: str,
    now_ms: int,
    last: int,
    topics: Topics,
    log: str,
    find: Callable[[], Collection | None],
    field: str = "as_of",
) -> Instant:
    """The instant that `text` names. Raises BadRequest, also for one in the future, and NotFound for an unknown tag.

    `now_ms` is the time of this node, `last` the highest stamp that it knows. `find` finds the collection, which has the tags.
    Errors name `field`.
    """
    if text.startswith(TAG):
        return Instant(_tagged(text.removeprefix(TAG), find()))
    if (ago := _AGO.fullmatch(text)) is not None:
        return Instant(stamp_at(max(0, now_ms - int(ago[1]) * _AGO_MS[ago[2]]), LAST_COUNTER))
    if _STAMP.fullmatch(text) and int(text) <= MAX_STAMP:
        instant = Instant(int(text))
    elif (micros := as_micros(text)) is not None:
        instant = Instant(stamp_at(max(0, micros // 1000), LAST_COUNTER))
    elif "." in text:
        try:
            token = parse_token(text, topics, log)
        except ValueError as error:
            raise BadRequest(f"{field}: {error}") from error
        instant = Instant(token.hlc, dict(token.positions))
    else:
        raise BadRequest(f"{field}: {text[:64]!r} must be {_FORMS}")
    if instant.stamp > max(stamp_at(now_ms, LAST_COUNTER), last):
        ahead_ms = millis_of(instant.stamp) - now_ms
        raise BadRequest(f"{field}: {text[:64]!r} is {ahead_ms} ms ahead of this node's clock; only the past can be read")
    return instant


def _tagged(name: str, collection: Collection | None) -> int:
    if collection is None or name not in collection.tags:
        raise NotFound(f"Not found: tag {name[:64]!r} doesn't exist")
    return collection.tags[name]


def time_of(stamp: int) -> str:
    """The time of a stamp as text, by RFC 3339, with milliseconds."""
    return text_of(millis_of(stamp))
