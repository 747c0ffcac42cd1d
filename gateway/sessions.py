"""The position that a client has seen: from its header, its cookie, or the last one of its API key (V10)."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from gateway.http.errors import BadRequest, Unavailable
from journal.hlc import Clock, ClockDriftError
from journal.log import JournalError
from journal.token import Token, merge, parse_token
from journal.topics import Topics
from query.consistency import Gate

POSITION_HEADER = "x-vecraft-position"
POSITION_COOKIE = "vecraft_position"
_COOKIE = re.compile(POSITION_COOKIE + r"=([0-9a-z.\-]+)")

MAX_SESSIONS = 10_000
"""API keys whose last position is stored; the least recently used are evicted."""


class Sessions:
    """The last position of each API key, for clients that send neither the position header nor the cookie."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, Token] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, api_key: str) -> Token | None:
        return self._tokens.get(_digest(api_key))

    def advance(self, api_key: str, token: Token) -> None:
        key = _digest(api_key)
        with self._lock:
            known = self._tokens.pop(key, None)
            self._tokens[key] = token if known is None else merge([known, token])
            if len(self._tokens) > MAX_SESSIONS:
                self._tokens.popitem(last=False)


class Seen(NamedTuple):
    """What a client has seen. `is_stale`: its cookie is of another log, and the answer must replace it."""

    token: Token
    is_stale: bool = False


NOTHING = Seen(Token(0, {}))


async def seen_by(
    headers: Mapping[str, str], sessions: Sessions, gate: Gate, clock: Clock, topics: Topics, log_name: str
) -> Seen:
    """The position of a client. Advances the clock to it.

    Raises BadRequest for a position header that is no token of this log, or is beyond its end. A cookie is sent without the
    client's doing, so such a one is passed over.
    """
    if text := headers.get(POSITION_HEADER):
        if not log_name:
            raise Unavailable("this node is opening its state", retry_after_s=1.0)
        return Seen(await _checked(text, gate, clock, topics, log_name))
    if (cookie := headers.get("cookie")) and (match := _COOKIE.search(cookie)):
        try:
            return Seen(await _checked(match[1], gate, clock, topics, log_name))
        except (ValueError, BadRequest, ClockDriftError):
            return Seen(NOTHING.token, is_stale=bool(log_name))
    if (api_key := headers.get("api-key")) and (known := sessions.get(api_key)):
        return Seen(known)
    return NOTHING


async def _checked(text: str, gate: Gate, clock: Clock, topics: Topics, log_name: str) -> Token:
    token = parse_token(text, topics, log_name)
    try:
        if not await gate.holds(token.positions):
            raise BadRequest("position token beyond the end of this log")
    except JournalError as error:
        raise Unavailable(f"the log cannot be asked whether it has this position: {error}", retry_after_s=1.0) from error
    clock.observe(token.hlc)
    return token


def _digest(api_key: str) -> str:
    """A short digest, so that the key itself is not stored."""
    return blake2b(api_key.encode("latin-1"), digest_size=16).hexdigest()
