"""Position tokens: the positions that a client has written or seen, as short text that it can send back (V10, N2).

Format: `<log>.<hlc>.<topic>-<partition>-<next offset>.…`, numbers in base 36; topic is a tier number, or `s` for the system
topic. `log` tells the log of one cluster, or of one data directory, from every other (`log_name`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from journal.hlc import MAX_STAMP
from journal.log import Positions, TopicPartition
from journal.topics import TIER_PARTITIONS, TIERS, Topics

MAX_TOKEN_CHARS = 1024
LOG_CHARS = 8
_PART = re.compile(r"([0-3s])-([0-9a-z]{1,3})-([0-9a-z]{1,12})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Token(NamedTuple):
    """An HLC stamp and a set of positions."""

    hlc: int
    positions: Mapping[TopicPartition, int]

    def text(self, topics: Topics, log: str) -> str:
        """The token as text, for the log of this name."""
        codes = {topics.tier(tier): str(tier) for tier in TIERS} | {topics.system: "s"}
        parts = [f"{codes[p.topic]}-{base36(p.partition)}-{base36(o)}" for p, o in sorted(self.positions.items())]
        return ".".join([log, base36(self.hlc), *parts])


def log_name(identity: str) -> str:
    """A short name of a log, from the identity of its system topic."""
    return base36(int.from_bytes(blake2b(identity.encode(), digest_size=5).digest(), "big")).rjust(LOG_CHARS, "0")


def parse_token(text: str, topics: Topics, log: str) -> Token:
    """Parses a token. Raises ValueError, also for a token of another log than `log`."""
    if len(text) > MAX_TOKEN_CHARS:
        raise ValueError(f"position token of {len(text)} characters, the bound is {MAX_TOKEN_CHARS}")
    named, _, rest = text.partition(".")
    clock, *parts = rest.split(".")
    positions: Positions = {}
    if not re.fullmatch(rf"[0-9a-z]{{{LOG_CHARS}}}", named):
        raise ValueError(f"not a position token: {text[:64]!r}")
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
    if named != log:
        raise ValueError(f"position token of another log, or of an earlier one: {named}, this one is {log}")
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


def base36(number: int) -> str:
    """A number, 0 or more, in base 36."""
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
