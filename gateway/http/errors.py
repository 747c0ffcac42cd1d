"""Errors as HTTP answers: the status of every exception that a handler may raise.

ApiError
├── BadRequest      400   names the field and the bound; nothing was written
├── NotFound        404
├── NotAllowed      405   a call of a cluster, and this is none
├── Conflict        409
├── Gone            410   an instant before what is kept
├── TooLarge        413
├── Invalid         422   what was sent can be read, and breaks a bound or lacks a condition; nothing was written
├── TooManyRequests 429   a rate limit is exceeded; nothing was read or written
├── Unsupported     501   part of the dialect, but not implemented
├── Unavailable     503   retry later
└── InsufficientStorage 507   the request would exceed a limit of memory or files; nothing was written

A BoundError of any floor is an Invalid of the body.
"""

from __future__ import annotations

import math
import re

import msgspec
import orjson

from journal.hlc import ClockDriftError
from journal.log import Definite, Indefinite, Overloaded
from journal.split import PointTooLarge
from payload.errors import BoundError
from query.consistency import NotCaughtUp
from shard.deadline import DeadlineExceeded
from shard.shard import ShardClosed
from shard.shards import ShardUnavailable
from shard.view import IndexNotBuilt
from snapshots.archive import BadArchive
from snapshots.create import SnapshotFailed
from snapshots.cutter import CutRefused
from snapshots.folder import NoArchive
from snapshots.node import NoSnapshot, TooManyTasks
from snapshots.place import PlaceError

RETRY_S = 5.0
"""When a failed snapshot may be tried again."""

# How the parser names a bound that a value breaks. A number below zero is no whole number of the dialect, so it does not fit.
_BOUND = re.compile(r"Expected `\w+` (of length )?([<>]=) (?!0(?: |$))(\S+)(?: - at `\$\.?(.*)`)?")
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


class NotAllowed(ApiError):
    status = 405


class Conflict(ApiError):
    status = 409


class Gone(ApiError):
    status = 410


class TooLarge(ApiError):
    status = 413


class Invalid(ApiError):
    status = 422


class TooManyRequests(ApiError):
    status = 429


class Unsupported(ApiError):
    status = 501


class Unavailable(ApiError):
    status = 503


class InsufficientStorage(ApiError):
    status = 507


def status_of(error: Exception) -> tuple[int, str, float | None]:
    """The HTTP status, the text, and the seconds to wait before a retry, of any exception of a handler.

    The notes of the exception, which say what was done before it, end the text.
    """
    status, text, retry_s = _status_of(error)
    return status, "; ".join([text, *getattr(error, "__notes__", ())]), retry_s


def _status_of(error: Exception) -> tuple[int, str, float | None]:
    match error:
        case ApiError():
            return error.status, str(error), error.retry_after_s
        case PointTooLarge():
            return 400, str(error), None
        case Overloaded():
            return 429, str(error), error.retry_after_s
        case ShardUnavailable():
            return 503, str(error), error.retry_after_s
        case NotCaughtUp() | ShardClosed() | IndexNotBuilt():
            return 503, str(error), 1.0
        case DeadlineExceeded():
            return 408, f"Timeout: {error}", None
        case Definite():
            return 503, f"not written: {error}", 1.0
        case Indefinite():
            return 504, f"it is not known whether this was written, retry with the same Idempotency-Key: {error}", None
        case BoundError():
            return 422, f"Validation error in JSON body: [{error}]", None
        case msgspec.MsgspecError() if (bound := bound_error(error)) is not None:
            return _status_of(bound)
        case msgspec.MsgspecError():
            return 400, f"Format error in JSON body: {_plain(str(error))}", None
        case RecursionError() | orjson.JSONEncodeError():
            return 400, "Format error in JSON body: nested too deep, a number beyond 64 bits, or what JSON does not have", None
        case UnicodeDecodeError():
            return 400, "Format error in JSON body: a text is not UTF-8", None
        case ClockDriftError() | ValueError() | BadArchive():
            return 400, str(error), None
        case NoArchive() | NoSnapshot():
            return 404, f"Not found: {error}", None
        case TooManyTasks():
            return 429, str(error), RETRY_S
        case CutRefused():
            return 409, str(error), None
        case SnapshotFailed() | PlaceError():
            return 503, str(error), RETRY_S
        case _:
            return 500, "internal error: the node's log has it, with the request's id", None


_NO_OPTION = re.compile(r"Object contains unknown field `(\w+)` - at `\$\.field_schema`")


def bound_error(error: Exception) -> BoundError | None:
    """The error of the parser, if it found a value of the right form that breaks a bound; else None."""
    if (option := _NO_OPTION.fullmatch(str(error))) is not None:
        return BoundError(f"field_schema.{option[1]}: is no option of a payload index")
    if (match := _BOUND.fullmatch(str(error))) is None:
        return None
    verb, side = "have" if match[1] else "be", "least" if match[2] == ">=" else "most"
    return BoundError(f"{match[4] or 'body'}: must {verb} at {side} {match[3]}{' elements' if match[1] else ''}")


def _plain(text: str) -> str:
    """The parser's error text; replaced when it would hide that a field is known but not supported."""
    if match := _NULL_ONLY.search(text):
        return f"{match[1]} is not supported (see docs/dialect.md)"
    return "a JSON body is needed" if text.startswith("Input data was truncated") else text


def retry_after(seconds: float) -> str:
    """The value of the `Retry-After` header."""
    return str(max(1, math.ceil(seconds)))
