"""Points and hits in the form of the dialect."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.bodies import PayloadSelector, WithPayload, WithVector
from journal.ids import decode_id
from shard.payload import split_path
from shard.shard import Shard
from shard.store import Row

external_id = decode_id


def point_answer(row: Row, shard: Shard, with_payload: WithPayload, with_vector: WithVector) -> dict[str, Any]:
    """A point: its id, and what the selectors ask for."""
    answer: dict[str, Any] = {"id": external_id(row.id)}
    if with_payload is True:
        answer["payload"] = orjson.Fragment(row.payload or b"{}")
    elif with_payload is not None and with_payload is not False:
        answer["payload"] = selected_payload(orjson.loads(row.payload) if row.payload else {}, with_payload)
    if with_vector:
        answer["vector"] = _vectors(shard, row.row, with_vector)
    return answer


def hit_answer(row: Row, shard: Shard, score: float, with_payload: WithPayload, with_vector: WithVector) -> dict[str, Any]:
    """A point with its score; the version is the stamp of the latest write to it."""
    answer = {"id": external_id(row.id), "version": row.stamp, "score": score}
    if with_payload or with_vector:
        answer |= point_answer(row, shard, with_payload, with_vector)
    return answer


def selected_payload(payload: dict[str, Any], selector: list[str] | PayloadSelector) -> dict[str, Any]:
    """The part of a payload that a selector names, by paths."""
    if isinstance(selector, PayloadSelector):
        if selector.exclude is not None:
            rest: dict[str, Any] = _without(payload, [split_path(path) for path in selector.exclude])
            return rest
        selector = selector.include or []
    kept: dict[str, Any] = _only(payload, [split_path(path) for path in selector])
    return kept


def _only(node: Any, paths: list[list[str]]) -> Any:
    if any(not path for path in paths):
        return node
    if isinstance(node, list):
        inner = [path[1:] for path in paths if path[0] == "[]"]
        return [_only(item, inner) for item in node] if inner else []
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        inner = [path[1:] for path in paths if path[0] == key]
        if inner and (isinstance(value, dict | list) or [] in inner):
            kept[key] = _only(value, inner)
    return kept


def _without(node: Any, paths: list[list[str]]) -> Any:
    if isinstance(node, list):
        inner = [path[1:] for path in paths if path and path[0] == "[]"]
        return [_without(item, inner) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        inner = [path[1:] for path in paths if path and path[0] == key]
        if [] not in inner:
            kept[key] = _without(value, inner) if inner else value
    return kept


def _vectors(shard: Shard, row: int, wanted: WithVector) -> Any:
    """The stored vectors: a list for the unnamed one, an object by name otherwise."""
    names = wanted if isinstance(wanted, list) else None
    found = {name: vector.tolist() for name, vector in shard.store.vectors(row).items() if names is None or name in names}
    return found[""] if set(found) == {""} else found
