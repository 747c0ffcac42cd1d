"""A filter as a value: its JSON text, which can be sent and compared, and its compiled form, cached by text."""

from __future__ import annotations

import msgspec

from payload.remembered import remembered
from shard.filters.conditions import Condition, parse_filter
from shard.filters.subjects import Filter

COMPILED_BYTES = 8 << 20
"""The bound of the cache of compiled filters; a filter is estimated at eight times the size of its text."""


class Where:
    """A filter; equal if the texts are equal."""

    __slots__ = ("filter", "text")

    def __init__(self, text: bytes) -> None:
        """From the JSON text of a condition. Raises FilterError or msgspec.MsgspecError."""
        self.text = text
        self.filter = _compiled(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Where) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def where(condition: Condition | None) -> Where | None:
    """The filter of a request; None when all points pass. Raises FilterError."""
    if condition is None or condition == _EVERYTHING:
        return None
    return Where(msgspec.json.encode(condition))


def _compile(text: bytes) -> Filter:
    filter_ = parse_filter(msgspec.json.decode(text, type=Condition))
    assert filter_ is not None
    return filter_


_EVERYTHING = Condition()
_compiled = remembered(_compile, lambda text, _: 8 * len(text), COMPILED_BYTES)
