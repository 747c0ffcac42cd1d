"""A filter as a value: its text, which can be sent and compared, and what it means, compiled once for equal texts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from shard.filters.conditions import Condition, parse_filter
from shard.filters.subjects import Filter

T = TypeVar("T")

CACHE_BYTES = 4 << 20
"""Texts whose compiled form is kept, in all; a longer text than a sixteenth of it is compiled each time."""


class Compiled(Generic[T]):
    """What texts were compiled to, the least recently used leave. Thread-safe."""

    def __init__(self, compile_: Callable[[bytes], T]) -> None:
        self._compile = compile_
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, T] = OrderedDict()
        self._size_bytes = 0

    def of(self, text: bytes) -> T:
        """The compiled form of a text. Raises what compiling it raises."""
        with self._lock:
            if (kept := self._kept.get(text)) is not None:
                self._kept.move_to_end(text)
                return kept
        compiled = self._compile(text)
        if len(text) <= CACHE_BYTES // 16:
            with self._lock:
                self._put(text, compiled)
        return compiled

    def _put(self, text: bytes, compiled: T) -> None:
        if text not in self._kept:
            self._size_bytes += len(text)
        self._kept[text] = compiled
        while self._size_bytes > CACHE_BYTES:
            self._size_bytes -= len(self._kept.popitem(last=False)[0])


class Where:
    """A filter. Equal texts mean equal filters."""

    __slots__ = ("filter", "text")

    def __init__(self, text: bytes) -> None:
        """From the JSON text of a condition. Raises FilterError or msgspec.MsgspecError."""
        self.text = text
        self.filter: Filter = _compiled.of(text)

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
_compiled = Compiled(_compile)
