"""Handlers of searches: by vector, by examples, in stages, in groups, one or many at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from gateway.admission.limits import GROUP_SIZE, NEIGHBOURS, SAMPLE, check_read
from gateway.dialect.answers import dumps, hit_answer, point_answer
from gateway.dialect.bodies import Shown
from gateway.dialect.queries import DEFAULT_LIMIT, Source, Translator, lookups_of, params_of, window
from gateway.dialect.query_bodies import (
    CollectionSearchBody,
    Discover,
    DiscoverBatchBody,
    DiscoverBody,
    Grouped,
    LookupLocation,
    MatrixBody,
    NamedVector,
    QueryBatchBody,
    QueryBody,
    QueryGroupsBody,
    Recommend,
    RecommendBatchBody,
    RecommendBody,
    RecommendGroupsBody,
    SearchBatchBody,
    SearchBody,
    SearchGroupsBody,
    WithLookup,
)
from gateway.dialect.vectors import object_of
from gateway.http.errors import BadRequest
from gateway.service import Call
from journal.ids import decode_id, encode_id
from query import points
from query.groups import Group, grouped
from query.matrix import Matrix, matrix
from query.reading import where
from query.search import NO_TRACE, is_quick, search
from query.stages import Query, Stage
from shard.contract import name_error
from shard.shard import Shard

Answer = dict[str, Any]


async def query_points(call: Call) -> Any:
    """The points that a query ranks first; without one, points in the order of their ids."""
    source = await _source(call)
    return await _remembered(call, source, partial(_query_answer, call, source))


async def query_batch(call: Call) -> list[Answer]:
    """Several queries at once."""
    body: QueryBatchBody = call.body
    source = await _source(call)
    return [{"points": await _query(call, source, one)} for one in body.searches]


async def query_groups(call: Call) -> Answer:
    """The best hits of a query in groups by a payload value."""
    body: QueryGroupsBody = call.body
    source = await _source(call)
    translator = await _translator(call, source, lookups_of(body))
    stage = translator.stage(body, 1)
    return await _grouped(call, source, stage, body, body)


async def search_points(call: Call) -> Any:
    """The points closest to a vector."""
    source = await _source(call)
    return await _remembered(call, source, partial(_search, call, source, call.body))


async def search_named(call: Call) -> list[Answer]:
    """The points closest to a vector, of the collection named in the body."""
    body: CollectionSearchBody = call.body
    return await _search(call, await _source(call, body.collection), body)


async def search_batch(call: Call) -> list[list[Answer]]:
    """Several searches at once."""
    body: SearchBatchBody = call.body
    source = await _source(call)
    return [await _search(call, source, one) for one in body.searches]


async def search_groups(call: Call) -> Answer:
    """The points closest to a vector in groups by a payload value."""
    body: SearchGroupsBody = call.body
    source = await _source(call)
    translator = Translator(source, {}, call.packed)
    stage = _stage(_by_vector(translator, body.vector), body, 1)
    return await _grouped(call, source, stage, body, body)


async def recommend(call: Call) -> list[Answer]:
    """Points like the positive examples and unlike the negative ones."""
    return await _recommend(call, await _source(call), call.body)


async def recommend_batch(call: Call) -> list[list[Answer]]:
    """Several recommendations at once."""
    body: RecommendBatchBody = call.body
    source = await _source(call)
    return [await _recommend(call, source, one) for one in body.searches]


async def recommend_groups(call: Call) -> Answer:
    """Recommendations in groups by a payload value."""
    body: RecommendGroupsBody = call.body
    source = await _source(call)
    query, exclude = await _of_examples(call, source, body)
    return await _grouped(call, source, _stage(query, body, 1, exclude), body, body)


async def discover(call: Call) -> list[Answer]:
    """Points close to a target, on the positive side of pairs of examples."""
    return await _discover(call, await _source(call), call.body)


async def discover_batch(call: Call) -> list[list[Answer]]:
    """Several discoveries at once."""
    body: DiscoverBatchBody = call.body
    source = await _source(call)
    return [await _discover(call, source, one) for one in body.searches]


async def matrix_pairs(call: Call) -> Answer:
    """How close the points of a random sample are to each other, as pairs."""
    found = await _matrix(call)
    ids = [decode_id(id_) for id_ in found.ids]
    pairs = [
        {"a": ids[at], "b": ids[other], "score": score} for at, nearest in enumerate(found.nearest) for other, score in nearest
    ]
    return {"pairs": pairs}


async def matrix_offsets(call: Call) -> Answer:
    """How close the points of a random sample are to each other, as a sparse matrix."""
    found = await _matrix(call)
    cells = [(at, other, score) for at, nearest in enumerate(found.nearest) for other, score in nearest]
    return {
        "offsets_row": [at for at, _, _ in cells],
        "offsets_col": [other for _, other, _ in cells],
        "scores": [score for _, _, score in cells],
        "ids": [decode_id(id_) for id_ in found.ids],
    }


async def _query_answer(call: Call, source: Source) -> Answer:
    return {"points": await _query(call, source, call.body)}


async def _remembered(call: Call, source: Source, answer: Callable[[], Awaitable[Any]]) -> Any:
    """The answer to the same request on the same views, from the cache or from one that runs now; else makes and keeps it."""
    if call.trace is not NO_TRACE or any(word in call.content for word in _NEVER_KEPT):
        return await answer()
    service = call.service
    key = (type(call.body), call.content, source.collection.id, tuple(shard.view.version for shard in source.shards))
    if (kept := service.results.get(key)) is not None:
        return orjson.Fragment(kept)
    if (running := service.running.get(key)) is not None:
        return orjson.Fragment(await asyncio.shield(running))
    running = service.running[key] = asyncio.get_running_loop().create_future()
    try:
        result = await answer()
        made = await call.in_pool(dumps, result) if call.pooled else dumps(result)
        call.pooled = False  # what is left to do is small
    except BaseException as error:
        running.set_exception(error if isinstance(error, Exception) else ConnectionError("the request was given up"))
        running.exception()  # it is no concern of anyone's when nobody waits
        raise
    finally:
        del service.running[key]
    running.set_result(made)
    service.results.put(key, made)
    return orjson.Fragment(made)


_NEVER_KEPT = (b"sample", b"lookup_from")
"""In bodies of either form: answers that are meant to differ, or that other collections have a share in."""


async def _source(call: Call, name: str | None = None) -> Source:
    """The collection that is searched, when its limits allow the request."""
    source = Source(*await call.read(call.path["collection_name"] if name is None else name))
    check_read(call, source.collection)
    return source


async def _translator(call: Call, source: Source, lookups: set[str]) -> Translator:
    return Translator(source, {name: Source(*await call.read(name)) for name in sorted(lookups)}, call.packed)


async def _query(call: Call, source: Source, body: QueryBody) -> list[Answer]:
    translator = await _translator(call, source, lookups_of(body))
    offset, end = window(body.offset, body.limit)
    return await _hits(call, source.shards, translator.stage(body, end), offset, body)


async def _search(call: Call, source: Source, body: SearchBody) -> list[Answer]:
    offset, end = window(body.offset, body.limit)
    query = _by_vector(Translator(source, {}, call.packed), body.vector)
    return await _hits(call, source.shards, _stage(query, body, end), offset, body)


async def _recommend(call: Call, source: Source, body: RecommendBody) -> list[Answer]:
    offset, end = window(body.offset, body.limit)
    query, exclude = await _of_examples(call, source, body)
    return await _hits(call, source.shards, _stage(query, body, end, exclude), offset, body)


async def _of_examples(call: Call, source: Source, body: RecommendBody | RecommendGroupsBody) -> tuple[Query, frozenset[bytes]]:
    translator = await _translator(call, source, _lookup_name(body.lookup_from))
    return translator.recommend(Recommend(body.positive, body.negative, body.strategy), body.using or "", body.lookup_from)


async def _discover(call: Call, source: Source, body: DiscoverBody) -> list[Answer]:
    offset, end = window(body.offset, body.limit)
    translator = await _translator(call, source, _lookup_name(body.lookup_from))
    using = body.using or ""
    if isinstance(body.target, msgspec.UnsetType) or translator.raw(body.target) in (b"null", b"\xc0"):
        query, exclude = translator.context(body.context or [], using, body.lookup_from)
    else:
        query, exclude = translator.discover(Discover(body.target, body.context), using, body.lookup_from)
    return await _hits(call, source.shards, _stage(query, body, end, exclude), offset, body)


async def _matrix(call: Call) -> Matrix:
    body: MatrixBody = call.body
    source = await _source(call)
    name = body.using or ""
    if error := name_error(source.collection, name):
        raise BadRequest(error)
    sample = SAMPLE if body.sample is None else body.sample
    limit = NEIGHBOURS if body.limit is None else body.limit
    seed = random.getrandbits(32)
    return await call.in_pool(matrix, source.shards, name, where(body.filter), sample, limit, seed)


async def _hits(call: Call, shards: Sequence[Shard], stage: Stage, offset: int, shown: Shown) -> list[Answer]:
    """Runs the stages, on the event loop when that takes no longer than a way through the pool."""
    with_payload, with_vector = shown.payload_selector(False), shown.vector_selector()

    def hits() -> list[Answer]:
        found = search(shards, stage, call.trace, payloads=bool(with_payload))[offset:]
        return [hit_answer(hit, with_payload, with_vector) for hit in found]

    return hits() if is_quick(shards, stage) else await call.in_pool(hits)


async def _grouped(call: Call, source: Source, stage: Stage, body: Grouped, shown: Shown) -> Answer:
    groups = DEFAULT_LIMIT if body.limit is None else body.limit
    size = GROUP_SIZE if body.group_size is None else body.group_size
    found = await call.in_pool(grouped, source.shards, stage, body.group_by, groups, size)
    with_payload, with_vector = shown.payload_selector(False), shown.vector_selector()
    lookup = await _lookup(call, found, body.with_lookup)
    return {
        "groups": [
            {"id": group.id, "hits": [hit_answer(hit, with_payload, with_vector) for hit in group.hits]}
            | lookup.get(group.id, {})
            for group in found
        ]
    }


async def _lookup(call: Call, groups: Sequence[Group], with_lookup: str | WithLookup | None) -> dict[str | int, Answer]:
    """For each group the point of another collection that has the group's value as its id."""
    if with_lookup is None:
        return {}
    wanted = WithLookup(with_lookup) if isinstance(with_lookup, str) else with_lookup
    shown = Shown(with_payload=wanted.with_payload, with_vector=wanted.with_vectors)
    _, shards = await call.read(wanted.collection)
    answers = {}
    for group in groups:
        try:
            found = points.retrieve(shards, [encode_id(group.id)])
        except ValueError:  # no id
            continue
        for point in found:
            shows = shown.payload_selector(True), shown.vector_selector()
            answers[group.id] = {"lookup": point_answer(point.row, point.view, *shows)}
    return answers


def _by_vector(translator: Translator, raw: msgspec.Raw) -> Query:
    """A vector as it is, or as {name, vector}."""
    data = translator.raw(raw)
    named = object_of(data, NamedVector)
    return (
        translator.nearest("", data, "vector")
        if named is None
        else translator.nearest(named.name, translator.raw(named.vector), "vector.vector")
    )


def _stage(
    query: Query,
    body: SearchBody | SearchGroupsBody | RecommendBody | RecommendGroupsBody | DiscoverBody,
    limit: int,
    exclude: frozenset[bytes] = frozenset(),
) -> Stage:
    threshold = None if isinstance(body, DiscoverBody) else body.score_threshold
    return Stage(query, limit, where(body.filter), params_of(body.params), threshold, exclude)


def _lookup_name(lookup: LookupLocation | None) -> set[str]:
    return set() if lookup is None else {lookup.collection}
