"""Position tokens: the positions that a client has written or seen, as short text that it can send back (V10, N2).

Format: `<hlc>.<topic>-<partition>-<next offset>.…` in base 36; topic is a tier number, or `s` for the system topic.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from journal.hlc import MAX_STAMP
from journal.log import Positions, TopicPartition
from journal.topics import TIER_PARTITIONS, TIERS, Topics

MAX_TOKEN_CHARS = 1024
_PART = re.compile(r"([0-3s])-([0-9a-z]{1,3})-([0-9a-z]{1,12})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Token(NamedTuple):
    """An HLC stamp and a set of positions."""

    hlc: int
    positions: Mapping[TopicPartition, int]

    def text(self, topics: Topics) -> str:
        """The token as text."""
        codes = {topics.tier(tier): str(tier) for tier in TIERS} | {topics.system: "s"}
        parts = [f"{codes[p.topic]}-{_base36(p.partition)}-{_base36(o)}" for p, o in sorted(self.positions.items())]
        return ".".join([_base36(self.hlc), *parts])


def parse_token(text: str, topics: Topics) -> Token:
    """Parses a token. Raises ValueError."""
    if len(text) > MAX_TOKEN_CHARS:
        raise ValueError(f"position token of {len(text)} characters, the bound is {MAX_TOKEN_CHARS}")
    clock, *parts = text.split(".")
    positions: Positions = {}
    if not re.fullmatch(r"[0-9a-z]{1,13}", clock) or int(clock, 36) > MAX_STAMP:
        raise ValueError(f"not a position token: {text[:64]!r}")
    for part in parts:
        if not (match := _PART.fullmatch(part)):
            raise ValueError(f"not a position token: {text[:64]!r}")
        code, partition, offset = match.groups()
        topic, count = (topics.system, 1) if code == "s" else (topics.tier(int(code)), TIER_PARTITIONS[int(code)])
        if int(partition, 36) >= count:
            raise ValueError(f"not a position token, {topic} has {count} partitions: {text[:64]!r}")
        positions[TopicPartition(topic, int(partition, 36))] = int(offset, 36)
    return Token(int(clock, 36), positions)


def merge(tokens: Iterable[Token]) -> Token:
    """The smallest token that covers all `tokens`."""
    hlc = 0
    positions: Positions = {}
    for token in tokens:
        hlc = max(hlc, token.hlc)
        advance(positions, token.positions)
    return Token(hlc, positions)


def advance(positions: Positions, to: Mapping[TopicPartition, int]) -> None:
    """Advances `positions`, in place, to at least `to`."""
    for partition, offset in to.items():
        if offset > positions.get(partition, 0):
            positions[partition] = offset


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
