"""Values in payloads: paths of the dialect, and the forms in which values are compared."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

_WORD = re.compile(r"\w+")
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)')


class PathError(ValueError):
    """Not a path into a payload."""


def split_path(path: str) -> list[str]:
    """The steps of a path: keys, and `[]` for every element of an array or `[3]` for one. Quoted keys may hold dots.

    Raises PathError.
    """
    steps: list[str] = []
    at = 0
    while at < len(path):
        if path[at] == "[":
            end = path.find("]", at)
            if end < 0 or not steps or not (path[at + 1 : end].isdigit() or end == at + 1):
                raise PathError(f"key {path[:64]!r} is not a path: bad index at {at}")
            steps.append(path[at : end + 1])
            at = end + 1
            continue
        if steps:
            if path[at] != ".":
                raise PathError(f"key {path[:64]!r} is not a path: expected a dot at {at}")
            at += 1
        if not (match := _KEY.match(path, at)):
            raise PathError(f"key {path[:64]!r} is not a path: expected a name at {at}")
        steps.append(match[1] if match[2] is None else match[2])
        at = match.end()
    if not steps:
        raise PathError("key is empty")
    return steps


_paths: dict[str, list[str]] = {}
MAX_CACHED_PATHS = 10_000


def steps_of(path: str) -> list[str]:
    """`split_path`, remembered."""
    steps = _paths.get(path)
    if steps is None:
        steps = split_path(path)
        if len(_paths) >= MAX_CACHED_PATHS:
            _paths.clear()
        _paths[path] = steps
    return steps


def nodes_at(payload: Any, path: str) -> list[Any]:
    """What stands at a path, arrays as arrays; more than one where the path runs through `[]`, none where it leads nowhere."""
    nodes = [payload]
    for step in steps_of(path):
        if step == "[]":
            nodes = [item for node in nodes if isinstance(node, list) for item in node]
        elif step[0] == "[" and step[-1] == "]" and step[1:-1].isdigit():
            index = int(step[1:-1])
            nodes = [node[index] for node in nodes if isinstance(node, list) and index < len(node)]
        else:
            nodes = [node[step] for node in nodes if isinstance(node, dict) and step in node]
        if not nodes:
            break
    return nodes


def values_at(payload: Any, path: str) -> list[Any]:
    """The values a condition on `path` looks at: an array counts as each of its elements."""
    values: list[Any] = []
    for node in nodes_at(payload, path):
        if isinstance(node, list):
            values.extend(node)
        else:
            values.append(node)
    return values


def as_number(value: Any) -> float | int | None:
    """The value when it is a number, else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_micros(value: Any) -> int | None:
    """Microseconds since 1970 of an RFC 3339 or ISO 8601 text, UTC unless it says otherwise; None when it is no such text."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def as_uuid(value: Any) -> str | None:
    """The canonical form of a UUID text, else None."""
    if not isinstance(value, str):
        return None
    try:
        return str(UUID(value))
    except ValueError:
        return None


def tokens(text: str, lowercase: bool = True, min_chars: int = 1, max_chars: int = 255) -> list[str]:
    """The words of a text: runs of letters, digits and underscores."""
    words = _WORD.findall(text.lower() if lowercase else text)
    return [word for word in words if min_chars <= len(word) <= max_chars]
