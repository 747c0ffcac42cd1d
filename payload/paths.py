"""Paths into payloads, and conversion of payload values to the types in which they are compared."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from sys import getsizeof
from typing import Any
from uuid import UUID

from payload.remembered import remembered

_MOMENT = re.compile(
    r"\s*(\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?)(Z| UTC| ?[+-]\d{2}(?::?\d{2})?)?\s*",
    re.IGNORECASE | re.ASCII,
)
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"|([^.\[\]"]+)')

MAX_PATH_CHARS = 4_096

Step = str | int | None
"""A key, an index, or None for every element of an array."""


class PathError(ValueError):
    """A text is not a valid payload path."""


def split_path(path: str) -> list[Step]:
    """Parses a path into keys, indexes (`[3]`), and None for `[]` (every element). Quoted keys may contain dots and brackets.

    Raises PathError.
    """
    if len(path) > MAX_PATH_CHARS:
        raise PathError(f"key {path[:64]!r}… has {len(path)} characters, the bound is {MAX_PATH_CHARS}")
    steps: list[Step] = []
    at = 0
    while at < len(path):
        if path[at] == "[":
            end = path.find("]", at)
            digits = path[at + 1 : end]
            if end < 0 or not steps or not (digits == "" or (digits.isascii() and digits.isdecimal() and len(digits) < 10)):
                raise PathError(f"key {path[:64]!r} is not a path: bad index at {at}")
            steps.append(int(digits) if digits else None)
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


def _path_bytes(path: str, steps: list[Step]) -> int:
    return getsizeof(path) + getsizeof(steps) + sum(map(getsizeof, steps))


MAX_PATHS_BYTES = 4 << 20

steps_of = remembered(split_path, _path_bytes, MAX_PATHS_BYTES)
"""`split_path` with a cache."""


def nodes_at(payload: Any, path: str) -> list[Any]:
    """The nodes at a path; an array is one node. Several if the path contains `[]`, none if the path does not exist."""
    nodes = [payload]
    for step in steps_of(path):
        if step is None:
            nodes = [item for node in nodes if isinstance(node, list) for item in node]
        elif isinstance(step, int):
            nodes = [node[step] for node in nodes if isinstance(node, list) and step < len(node)]
        else:
            nodes = [node[step] for node in nodes if isinstance(node, dict) and step in node]
        if not nodes:
            break
    return nodes


def values_at(payload: Any, path: str) -> list[Any]:
    """The values that a condition on `path` tests: an array is replaced by its elements."""
    values: list[Any] = []
    for node in nodes_at(payload, path):
        if isinstance(node, list):
            values.extend(node)
        else:
            values.append(node)
    return values


def only(node: Any, paths: list[list[Step]]) -> Any:
    """A copy of a payload with only the values at or below the paths.

    As in the dialect, an index selects no element, and a path that goes on below a value which is no object or array selects it.
    """
    if [] in paths:
        return node
    if isinstance(node, list):
        inner = [path[1:] for path in paths if path[0] is None]
        return [only(item, inner) for item in node] if inner else []
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if inner := [path[1:] for path in paths if path[0] == key]:
            kept[key] = only(value, inner)
    return kept


def removed(node: Any, steps: list[Step]) -> Any:
    """A copy of a payload without the values at a path. `[]` at its end removes all elements of an array, an index none."""
    step, rest = steps[0], steps[1:]
    if isinstance(node, dict):
        if step not in node:
            return node
        return {key: removed(value, rest) if key == step else value for key, value in node.items() if rest or key != step}
    if not isinstance(node, list) or isinstance(step, str):
        return node
    if not rest:
        return [] if step is None else node
    return [removed(item, rest) if step in (None, at) else item for at, item in enumerate(node)]


def without(node: Any, paths: list[list[Step]]) -> Any:
    """A copy of a payload without the values at or below the paths, for an answer: an index selects no element."""
    if isinstance(node, list):
        inner = [path[1:] for path in paths if path[0] is None]
        return [] if [] in inner else [without(item, inner) for item in node] if inner else node
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        inner = [path[1:] for path in paths if path[0] == key]
        if [] not in inner:
            kept[key] = without(value, inner) if inner else value
    return kept


def merged(node: Any, steps: list[Step], fields: dict[str, Any], replace: bool = False) -> Any:
    """A copy of a payload with `fields` merged into the object at a path (null removes a key), or replacing it (`replace`).

    Creates missing objects on the path, and replaces values of another type on it. Does not create array elements.
    """
    if not steps:
        old = {} if replace or not isinstance(node, dict) else node
        return {key: value for key, value in (old | fields).items() if value is not None}
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        old = node if isinstance(node, dict) else {}
        return old | {step: merged(old.get(step), rest, fields, replace)}
    items = node if isinstance(node, list) else []
    return [merged(item, rest, fields, replace) if step in (None, at) else item for at, item in enumerate(items)]


def as_number(value: Any) -> float | int | None:
    """The value if it is a number (not a bool), else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_micros(value: Any) -> int | None:
    """Parses an RFC 3339 or ISO 8601 timestamp to microseconds since 1970; UTC if it has no offset. None when invalid.

    A leap second (`23:59:60`) is as many microseconds as the second after it.
    """
    if not isinstance(value, str) or not (match := _MOMENT.fullmatch(value)) or (match[2] and ":" not in match[1]):
        return None
    offset = (match[2] or "").strip().upper()
    text = match[1].upper()
    is_leap = text[14:19] == "59:60"
    try:
        moment = datetime.fromisoformat((f"{text[:17]}59{text[19:]}" if is_leap else text) + ("" if offset == "UTC" else offset))
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds + is_leap) * 1_000_000 + since.microseconds


def as_uuid(value: Any) -> str | None:
    """The canonical form of a UUID text; None when it is not a UUID."""
    if not isinstance(value, str):
        return None
    try:
        return str(UUID(value))
    except ValueError:
        return None
