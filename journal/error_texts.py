"""What refusals say about values and errors that are not the project's own: in words of JSON, not of Python."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

MAX_SHOWN_CHARS = 64


def in_json(value: Any) -> str:
    """The beginning of a value as JSON. What JSON does not have is shown as a text."""
    return msgspec.json.encode(value, enc_hook=str).decode()[:MAX_SHOWN_CHARS]


def reason_of(error: Exception) -> str:
    """The text of an error of reading foreign data. Those of the project's own ValueErrors stay as they are."""
    text = str(error)
    match error:
        case UnicodeError():
            return "a text is not UTF-8"
        case orjson.JSONDecodeError() if "UTF-8" in text:
            return "a text is not UTF-8"
        case RecursionError():
            return "nested too deep"
        case msgspec.DecodeError() if text.startswith("Input data was truncated"):
            return "the JSON ends too early"
        case ValueError() | msgspec.MsgspecError():
            return text
    return "a value is of a kind that has no place here"
