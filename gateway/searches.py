"""Handlers of searches: by vector, by the vector of a point, one or many at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from catalog.collection import Collection
from gateway.answers import hit_answer
from gateway.bodies import (
    CollectionSearchBody,
    NamedVector,
    Nearest,
    QueryBatchBody,
    QueryBody,
    SearchBatchBody,
    SearchBody,
    SearchParams,
)
from gateway.errors import BadRequest, NotFound
from gateway.service import Call
from gateway.upserts import float32
from journal.ids import ExternalId, encode_id
from journal.records import Vectors
from query import points
from query.filters import parse_filter
from query.search import EF_SEARCH, MAX_LIMIT, VectorQuery, is_quick, prepare, search
from shard.contract import vector_error
from shard.shard import Shard

DEFAULT_LIMIT = 10


class _Wanted(NamedTuple):
    """A search, and what its answer shows."""

    query: VectorQuery
    offset: int
    body: SearchBody | QueryBody


async def search_points(call: Call) -> list[dict[str, Any]]:
    """The points closest to a vector."""
    collection, shards = await call.read(call.path["collection_name"])
    return await _run(call, shards, _of_search(collection, call.body))


async def search_named(call: Call) -> list[dict[str, Any]]:
    """The points closest to a vector, of the collection named in the body."""
    body: CollectionSearchBody = call.body
    collection, shards = await call.read(body.collection)
    return await _run(call, shards, _of_search(collection, body))


async def search_batch(call: Call) -> list[list[dict[str, Any]]]:
    """Several searches at once."""
    body: SearchBatchBody = call.body
    collection, shards = await call.read(call.path["collection_name"])
    wanted = [_of_search(collection, search_body) for search_body in body.searches]
    return [await _run(call, shards, one) for one in wanted]


async def query_points(call: Call) -> dict[str, Any]:
    """The points closest to a vector or to another point; without a query, points in the order of their ids."""
    collection, shards = await call.read(call.path["collection_name"])
    return await _query(call, collection, shards, call.body)


async def query_batch(call: Call) -> list[dict[str, Any]]:
    """Several queries at once."""
    body: QueryBatchBody = call.body
    collection, shards = await call.read(call.path["collection_name"])
    return [await _query(call, collection, shards, one) for one in body.searches]


async def _query(call: Call, collection: Collection, shards: list[Shard], body: QueryBody) -> dict[str, Any]:
    if body.query is None:
        return {"points": await _listed(call, shards, body)}
    target = body.query.nearest if isinstance(body.query, Nearest) else body.query
    name = body.using or ""
    if isinstance(target, list):
        vector, exclude = float32(target), frozenset[bytes]()
    else:
        vector, exclude = _vector_of_point(collection, shards, name, target)
    return {"points": await _run(call, shards, _wanted(collection, name, vector, body, exclude))}


async def _listed(call: Call, shards: list[Shard], body: QueryBody) -> list[dict[str, Any]]:
    """Points in the order of their ids, for a query that asks for nothing."""
    offset, end = _window(body)
    found, _ = await call.in_pool(points.scroll, shards, parse_filter(body.filter), b"", end)
    return [
        hit_answer(point.row, point.view, 0.0, body.payload_selector(False), body.vector_selector()) for point in found[offset:]
    ]


async def _run(call: Call, shards: list[Shard], wanted: _Wanted) -> list[dict[str, Any]]:
    with_payload, with_vector = wanted.body.payload_selector(False), wanted.body.vector_selector()

    def hits() -> list[dict[str, Any]]:
        found = search(shards, wanted.query)[wanted.offset :]
        return [hit_answer(hit.point, hit.view, hit.score, with_payload, with_vector) for hit in found]

    return hits() if is_quick(shards, wanted.query) else await call.in_pool(hits)


def _of_search(collection: Collection, body: SearchBody) -> _Wanted:
    name, given = (body.vector.name, body.vector.vector) if isinstance(body.vector, NamedVector) else ("", body.vector)
    return _wanted(collection, name, float32(given), body, frozenset())


def _wanted(
    collection: Collection, name: str, vector: Vectors, body: SearchBody | QueryBody, exclude: frozenset[bytes]
) -> _Wanted:
    params = body.params or SearchParams()
    offset, end = _window(body)
    query = VectorQuery(
        name,
        prepare(collection, name, vector),
        end,
        parse_filter(body.filter),
        params.hnsw_ef or EF_SEARCH,
        bool(params.exact),
        body.score_threshold,
        exclude,
    )
    return _Wanted(query, offset, body)


def _window(body: SearchBody | QueryBody) -> tuple[int, int]:
    """Offset, and offset and limit together."""
    offset = body.offset or 0
    end = offset + (DEFAULT_LIMIT if body.limit is None else body.limit)
    if end > MAX_LIMIT:
        raise BadRequest(f"limit and offset together are {end}, must be at most {MAX_LIMIT}")
    return offset, end


def _vector_of_point(
    collection: Collection, shards: list[Shard], name: str, point_id: ExternalId
) -> tuple[Vectors, frozenset[bytes]]:
    """The vector of a point to search by, and the point itself, which the answer leaves out."""
    if name not in collection.config.vectors:
        raise BadRequest(vector_error(collection, name, 0) or "")
    encoded = encode_id(point_id)
    found = points.retrieve(shards, [encoded])
    if not found:
        raise NotFound(f"Not found: No point with id {point_id} found")
    vectors = found[0].view.rows.vectors(found[0].row.row)
    if name not in vectors:
        raise BadRequest(f"Wrong input: point {point_id} has no vector {name!r}")
    return vectors[name], frozenset({encoded})
