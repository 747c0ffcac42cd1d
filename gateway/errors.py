"""Errors as HTTP answers. Everything a handler raises finds its status here.

ApiError
├── BadRequest      400   names the field and the bound; nothing was written
├── NotFound        404
├── Conflict        409
├── TooLarge        413
└── Unavailable     503   try again after a while
"""

from __future__ import annotations

import math
import re

import msgspec
import orjson

from catalog.collection import InvalidConfig
from journal.hlc import ClockDriftError
from journal.log import Definite, Indefinite, Overloaded
from journal.split import PointTooLarge
from query.consistency import NotCaughtUp

_NULL_ONLY = re.compile(r"Expected `null`, got `\w+` - at `\$\.(.+)`")


class ApiError(Exception):
    """An answer other than success."""

    status = 500

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    status = 400


class NotFound(ApiError):
    status = 404


class Conflict(ApiError):
    status = 409


class TooLarge(ApiError):
    status = 413


class Unavailable(ApiError):
    status = 503


def status_of(error: Exception) -> tuple[int, str, float | None]:
    """HTTP status, text, and seconds to wait before another try, of anything a handler may raise."""
    match error:
        case ApiError():
            return error.status, str(error), error.retry_after_s
        case PointTooLarge():
            return 400, str(error), None
        case Overloaded():
            return 429, str(error), error.retry_after_s
        case NotCaughtUp():
            return 503, str(error), 1.0
        case Definite():
            return 503, f"nothing was written: {error}", 1.0
        case Indefinite():
            return 504, f"it is not known whether this was written, retry with the same Idempotency-Key: {error}", None
        case msgspec.MsgspecError():
            return 400, f"Format error in JSON body: {_plain(str(error))}", None
        case RecursionError() | orjson.JSONEncodeError():
            return 400, "Format error in JSON body: nested too deep, or a number beyond 64 bits", None
        case InvalidConfig() | ClockDriftError() | ValueError():
            return 400, str(error), None
        case _:
            return 500, f"internal error: {type(error).__name__}", None


def _plain(text: str) -> str:
    """The parser's words, where they would not tell that a field is known but not supported."""
    if match := _NULL_ONLY.search(text):
        return f"{match[1]} is not supported (see docs/dialect.md)"
    return "a JSON body is needed" if text.startswith("Input data was truncated") else text


def retry_after(seconds: float) -> str:
    """The value of the header."""
    return str(max(1, math.ceil(seconds)))
