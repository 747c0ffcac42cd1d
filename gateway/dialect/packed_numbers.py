"""Refuses numbers of msgpack bodies that JSON does not have: NaN and infinity. Kept as JSON they would become null."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from gateway.http.errors import BadRequest

_SUSPECTS = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]|\xca[\x7f\xff][\x80-\xff]", re.DOTALL)
"""How NaN and infinity begin as a number of 64 or 32 bits. Binary vectors and texts may have the same bytes by chance."""


def check_numbers(body: bytes) -> None:
    """Raises BadRequest for a number that is not finite. Bodies that are no msgpack are left to the parser."""
    if _SUSPECTS.search(body) is None:
        return
    try:
        content = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return
    if (path := _not_finite(content)) is not None:
        raise BadRequest(f"Format error in MessagePack body: {path.lstrip('.')} is not a finite number, JSON has no such")


def _not_finite(content: Any) -> str | None:
    """The path of the first number that is not finite."""
    waiting = [("", content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path or "the body"
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{at}]", inner) for at, inner in enumerate(value)]
    return None
