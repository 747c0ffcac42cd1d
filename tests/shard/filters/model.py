"""What the models of filters have in common: paths and values, read aloud from the dialect's documentation."""

from __future__ import annotations

from typing import Any


def nodes(payload: Any, path: str) -> list[Any]:
    found = [payload]
    for part in path.replace("[]", ".[]").split("."):
        if part == "[]":
            found = [item for node in found if isinstance(node, list) for item in node]
        else:
            found = [node[part] for node in found if isinstance(node, dict) and part in node]
    return found


def values(payload: Any, path: str) -> list[Any]:
    return [value for node in nodes(payload, path) for value in (node if isinstance(node, list) else [node])]


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and left == right
