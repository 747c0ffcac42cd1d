"""A filter as a value: its text, which can be sent and compared, and what it means, compiled once for equal texts."""

from __future__ import annotations

import msgspec

from payload.remembered import remembered
from shard.filters.conditions import Condition, parse_filter
from shard.filters.subjects import Filter

COMPILED_BYTES = 8 << 20
"""What the filters that were compiled lately may take, estimated at eight times their texts."""


class Where:
    """A filter. Equal texts mean equal filters."""

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
    """The filter of a request; None for one that lets everything pass. Raises FilterError."""
    if condition is None or condition == _EVERYTHING:
        return None
    return Where(msgspec.json.encode(condition))


def _compile(text: bytes) -> Filter:
    filter_ = parse_filter(msgspec.json.decode(text, type=Condition))
    assert filter_ is not None
    return filter_


_EVERYTHING = Condition()
_compiled = remembered(_compile, lambda text, _: 8 * len(text), COMPILED_BYTES)
