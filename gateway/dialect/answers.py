"""Points and hits in the form of the dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from catalog.collection import Collection
from gateway.dialect.bodies import PayloadSelector, Shown, WithPayload, WithVector
from gateway.http.errors import BadRequest
from journal.ids import decode_id
from journal.records import SPARSE, Vector
from journal.stamps import stamp_of
from query.points import Point
from shard.contract import name_error
from shard.replica import PayloadPart, RankedPoints


def dumps(body: Any) -> bytes:
    """Encodes an answer as JSON, including vectors. A float32 is written as the shortest text that is this float32."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def part_of(with_payload: WithPayload) -> PayloadPart | None:
    """The part of payloads to return; None for no payload."""
    match with_payload:
        case bool():
            return PayloadPart() if with_payload else None
        case PayloadSelector(include=include, exclude=exclude):
            return PayloadPart(include, exclude)
    return PayloadPart(list(with_payload))


def vectors_of(shown: Shown, collection: Collection) -> WithVector:
    """The vectors to return. Raises BadRequest for a name that no point of the collection can have."""
    wanted = shown.vector_selector()
    for name in wanted if isinstance(wanted, list) else ():
        if error := name_error(collection, name):
            raise BadRequest(error)
    return wanted


def point_answer(point: Point, with_payload: WithPayload, with_vector: WithVector) -> dict[str, Any]:
    """A point: its id and the requested parts."""
    answer: dict[str, Any] = {"id": decode_id(point.id)}
    _add_parts(answer, point, with_payload, with_vector)
    return answer


def _add_parts(answer: dict[str, Any], point: Point, with_payload: WithPayload, with_vector: WithVector) -> None:
    if with_payload is not False:
        answer["payload"] = orjson.Fragment(point.payload or b"{}")
    if with_vector:
        answer["vector"] = vectors_answer(point.vectors)


def hit_answers(
    ranked: RankedPoints, points: Sequence[Point] | None, with_payload: WithPayload, with_vector: WithVector
) -> list[dict[str, Any]]:
    """Points with their scores, in order; `version` is the stamp of the latest write to a point.

    `points` are the same points with payloads and vectors; None when neither is requested.
    """
    answers = [
        {"id": decode_id(id_), "version": stamp_of(version), "score": score}
        for id_, version, score in zip(ranked.ids, ranked.versions, ranked.scores, strict=True)
    ]
    if ranked.values is not None:
        for answer, value in zip(answers, ranked.values, strict=True):
            answer["order_value"] = value
    if points is not None:
        for answer, point in zip(answers, points, strict=True):
            _add_parts(answer, point, with_payload, with_vector)
    return answers


def vectors_answer(vectors: Mapping[str, Vector]) -> Any:
    """Vectors by name, or just the vector if only the unnamed one is there."""
    shown = {name: _shown(vector) for name, vector in vectors.items()}
    return shown[""] if set(shown) == {""} else shown


def _shown(vector: Vector) -> Any:
    """An array (shape (n,) or (m, n)), or an object of indices and values for a sparse vector."""
    if vector.dtype == SPARSE:
        return {"indices": np.ascontiguousarray(vector["index"]), "values": np.ascontiguousarray(vector["value"])}
    return vector
