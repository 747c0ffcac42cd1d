"""One request in the gateway: the parsed request, which is immutable, and the metadata of its answer."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from catalog.collection import Consistency
from gateway.as_of import Instant
from journal.log import Positions
from journal.token import Token, merge
from journal.writer import Origin
from shard.ranking.execution import Steps

_DIGITS = re.compile("[0-9]{1,20}")


def number_of(text: str) -> int | None:
    """The number that a text of up to 20 ASCII digits means; None for any other text. `int` would take many more."""
    return int(text) if _DIGITS.fullmatch(text) else None


class ApiRequest(msgspec.Struct, frozen=True, eq=False):
    """A parsed request.

    `body` is the parsed body; None for a route without one, or for a large body that the handler parses itself from `content`.
    `packed`: the body is msgpack. `token` is the position that the client has seen, `tier` the QoS tier of its writes. `as_of` is
    the past instant that the client asks for, as it named it; empty for the present. `stream`: the `BodyStream` of a
    route that reads the body itself.
    """

    path: Mapping[str, str]
    params: Any
    body: Any
    content: bytes
    packed: bool
    origin: Origin
    token: Token
    tier: int
    api_key: str = ""
    as_of: str = ""
    stream: Any = None

    @property
    def timeout_s(self) -> float | None:
        """The timeout given by the client; None without one."""
        return getattr(self.params, "timeout", None)


class FileAnswer(NamedTuple):
    """An answer that is a file, to be saved as `name`. One that is `temporary` is removed."""

    path: Path
    name: str
    temporary: bool = False


class Response:
    """The metadata of an answer, beside its result; set by the services during the request."""

    __slots__ = (
        "accepted",
        "acknowledged_s",
        "as_of",
        "ignored",
        "is_large",
        "level",
        "note",
        "replaces_cookie",
        "served",
        "steps",
        "waited_s",
        "wrote",
    )

    def __init__(self, ignored: list[str], explain: bool) -> None:
        self.ignored = ignored
        """Parameters and fields that were accepted without effect."""
        self.steps: Steps | None = [] if explain else None
        """The trace of the execution, if the client requested it."""
        self.wrote: Token | None = None
        self.served: Positions | None = None
        """The next offsets of a read: it has seen everything below them."""
        self.level: Consistency | None = None
        self.waited_s = 0.0
        self.replaces_cookie = False
        """Whether the client's position cookie is of another log."""
        self.note = ""
        """Added to the `X-Vecraft-Sync` header of a read."""
        self.acknowledged_s: float | None = None
        self.as_of: Instant | None = None
        """The past instant that was read."""
        self.accepted = False
        """Whether the work goes on after the answer, which is 202 then and has no result."""
        self.is_large = False
        """Whether the answer takes long to encode."""

    def seed(self) -> int:
        """A seed for a random choice: by chance, or, in a read of the past, always the same for an instant."""
        return random.getrandbits(32) if self.as_of is None else self.as_of.stamp & 0xFFFFFFFF

    def wrote_more(self, token: Token) -> None:
        """Records the positions of a write; a request may write several times."""
        self.wrote = token if self.wrote is None else merge([self.wrote, token])

    def saw(self, positions: Positions, level: Consistency, waited_s: float) -> None:
        """Records the positions of a read."""
        self.served = positions if self.served is None else self.served | positions
        self.level = level
        self.waited_s += waited_s
