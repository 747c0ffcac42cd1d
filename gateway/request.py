"""One request on its way through the gateway: what was asked, which never changes, and what the answer says beside its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from catalog.collection import Consistency
from journal.log import Positions
from journal.token import Token, merge
from journal.writer import Origin
from shard.ranking.execution import Steps


class ApiRequest(msgspec.Struct, frozen=True, eq=False):
    """A request as the endpoint understood it.

    `body` is the parsed body, None for a route without one or a large body that the handler reads itself from `content`; `packed`
    says that it was msgpack. `token` is the position that the client has seen, `tier` the QoS tier of its writes.
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

    @property
    def timeout_s(self) -> float | None:
        """How long the client wants to wait, if it says so."""
        return getattr(self.params, "timeout", None)


class Response:
    """What is known of an answer beside its result; services note it here while they work for the handler."""

    __slots__ = ("acknowledged_s", "ignored", "is_large", "level", "note", "served", "steps", "waited_s", "wrote")

    def __init__(self, ignored: list[str], explain: bool) -> None:
        self.ignored = ignored
        """Parameters and fields that were accepted without effect."""
        self.steps: Steps | None = [] if explain else None
        """What was done, when the client asks for it."""
        self.wrote: Token | None = None
        self.served: Positions | None = None
        """What a read has seen: everything below these offsets."""
        self.level: Consistency | None = None
        self.waited_s = 0.0
        self.note = ""
        """What else to say of how a read was synchronised."""
        self.acknowledged_s: float | None = None
        self.is_large = False
        """Whether it takes long to make the answer's bytes."""

    def wrote_more(self, token: Token) -> None:
        """Notes the positions of a write; a request may write several times."""
        self.wrote = token if self.wrote is None else merge([self.wrote, token])

    def saw(self, positions: Positions, level: Consistency, waited_s: float) -> None:
        """Notes what a read has seen."""
        self.served = positions if self.served is None else self.served | positions
        self.level = level
        self.waited_s += waited_s
