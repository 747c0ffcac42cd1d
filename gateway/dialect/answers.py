"""Points and hits in the form of the dialect."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dialect.bodies import PayloadSelector, WithPayload, WithVector
from journal.ids import decode_id
from journal.records import SPARSE, Vector
from payload.paths import only, steps_of, without
from query.search import Hit
from shard.store import Row
from shard.view import ShardView


def dumps(body: Any) -> bytes:
    """An answer as JSON, vectors and all."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def point_answer(row: Row, view: ShardView, with_payload: WithPayload, with_vector: WithVector) -> dict[str, Any]:
    """A point: its id, and what the selectors ask for."""
    answer: dict[str, Any] = {"id": decode_id(row.id)}
    if with_payload is True:
        answer["payload"] = orjson.Fragment(row.payload or b"{}")
    elif with_payload is not None and with_payload is not False:
        answer["payload"] = selected_payload(orjson.loads(row.payload) if row.payload else {}, with_payload)
    if with_vector:
        answer["vector"] = _vectors(view, row.row, with_vector)
    return answer


def hit_answer(hit: Hit, with_payload: WithPayload, with_vector: WithVector) -> dict[str, Any]:
    """A point with its score; the version is the stamp of the latest write to it."""
    answer: dict[str, Any] = {"id": decode_id(hit.point.id), "version": hit.point.stamp, "score": hit.score}
    if hit.value is not None:
        answer["order_value"] = hit.value
    if with_payload or with_vector:
        answer |= point_answer(hit.point, hit.view, with_payload, with_vector)
    return answer


def selected_payload(payload: dict[str, Any], selector: list[str] | PayloadSelector) -> dict[str, Any]:
    """The part of a payload that a selector names, by paths."""
    part: dict[str, Any]
    if isinstance(selector, PayloadSelector) and selector.exclude is not None:
        part = without(payload, [steps_of(path) for path in selector.exclude])
    else:
        names = selector.include or [] if isinstance(selector, PayloadSelector) else selector
        part = only(payload, [steps_of(path) for path in names])
    return part


def _vectors(view: ShardView, row: int, wanted: WithVector) -> Any:
    """The stored vectors, as arrays: one for the unnamed one, an object by name otherwise."""
    names = wanted if isinstance(wanted, list) else None
    found = {name: _shown(vector) for name, vector in view.rows.vectors(row).items() if names is None or name in names}
    return found[""] if set(found) == {""} else found


def _shown(vector: Vector) -> Any:
    """A list of numbers, a list of lists, or indices and values."""
    if vector.dtype == SPARSE:
        return {"indices": vector["index"].tolist(), "values": vector["value"].tolist()}
    return vector
