"""Handlers of searches: by vector, by examples, in stages, in groups, one or many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
import orjson

from gateway.admission.limits import GROUP_SIZE, NEIGHBOURS, SAMPLE, check_read
from gateway.dialect.answers import hit_answers, part_of, point_answer, vectors_of
from gateway.dialect.bodies import Shown, WithPayload, WithVector
from gateway.dialect.documents import Document, document_of, given_vector_of
from gateway.dialect.queries import (
    Translator,
    check_idf,
    corpus_of,
    is_repeatable,
    limit_of,
    lookups_of,
    nearest,
    params_of,
    window,
)
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
from gateway.dialect.vectors import object_of, raw_of
from gateway.dumping import dumped
from gateway.http.errors import BadRequest, Unavailable
from gateway.inference.bm25 import is_bm25
from gateway.reads import QUICK_POINTS
from gateway.request import ApiRequest, Response
from gateway.result_cache import digest_of
from gateway.services import Services
from journal.ids import decode_id, encode_id
from journal.records import Vector
from query.groups import Group, grouped
from query.matrix import Matrix, matrix
from query.pinned import Pinned
from query.points import Point, retrieve
from query.search import page
from query.stages import Query, Stage
from shard.contract import name_error
from shard.ranking.execution import step
from shard.ranking.rankings import Sample
from shard.replica import RankedPoints

T = TypeVar("T")
Answer = dict[str, Any]
SimpleSearch = SearchBody | SearchGroupsBody | RecommendBody | RecommendGroupsBody | DiscoverBody


async def query_points(request: ApiRequest, response: Response, services: Services) -> Any:
    """The first points of a query; without a query, points in the order of their ids."""
    searching = await _begun(request, response, services)
    return await searching.remembered(searching.query_answer)


async def query_batch(request: ApiRequest, response: Response, services: Services) -> list[Answer]:
    """Several queries at once."""
    body: QueryBatchBody = request.body
    searching = await _begun(request, response, services)
    return [{"points": await searching.in_turn(searching.query(one))} for one in body.searches]


async def query_groups(request: ApiRequest, response: Response, services: Services) -> Answer:
    """The best hits of a query in groups by a payload value."""
    body: QueryGroupsBody = request.body
    searching = await _begun(request, response, services)
    translator = await searching.translator(lookups_of(body))
    return await searching.grouped(await translator.stage(body, 1), body)


async def search_points(request: ApiRequest, response: Response, services: Services) -> Any:
    """The points closest to a vector."""
    searching = await _begun(request, response, services)
    return await searching.remembered(partial(searching.search, request.body))


async def search_named(request: ApiRequest, response: Response, services: Services) -> list[Answer]:
    """The points closest to a vector, of the collection named in the body."""
    body: CollectionSearchBody = request.body
    searching = await _begun(request, response, services, body.collection)
    return await searching.search(body)


async def search_batch(request: ApiRequest, response: Response, services: Services) -> list[list[Answer]]:
    """Several searches at once."""
    body: SearchBatchBody = request.body
    searching = await _begun(request, response, services)
    return [await searching.in_turn(searching.search(one)) for one in body.searches]


async def search_groups(request: ApiRequest, response: Response, services: Services) -> Answer:
    """The points closest to a vector in groups by a payload value."""
    body: SearchGroupsBody = request.body
    searching = await _begun(request, response, services)
    return await searching.grouped(await searching.stage(await searching.by_vector(body.vector), body, 1), body)


async def recommend(request: ApiRequest, response: Response, services: Services) -> list[Answer]:
    """Points like the positive examples and unlike the negative ones."""
    return await (await _begun(request, response, services)).recommend(request.body)


async def recommend_batch(request: ApiRequest, response: Response, services: Services) -> list[list[Answer]]:
    """Several recommendations at once."""
    body: RecommendBatchBody = request.body
    searching = await _begun(request, response, services)
    return [await searching.in_turn(searching.recommend(one)) for one in body.searches]


async def recommend_groups(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Recommendations in groups by a payload value."""
    body: RecommendGroupsBody = request.body
    searching = await _begun(request, response, services)
    query, exclude = await searching.of_examples(body)
    return await searching.grouped(await searching.stage(query, body, 1, exclude), body)


async def discover(request: ApiRequest, response: Response, services: Services) -> list[Answer]:
    """Points close to a target, on the positive side of pairs of examples."""
    return await (await _begun(request, response, services)).discover(request.body)


async def discover_batch(request: ApiRequest, response: Response, services: Services) -> list[list[Answer]]:
    """Several discoveries at once."""
    body: DiscoverBatchBody = request.body
    searching = await _begun(request, response, services)
    return [await searching.in_turn(searching.discover(one)) for one in body.searches]


async def matrix_pairs(request: ApiRequest, response: Response, services: Services) -> Answer:
    """How close the points of a random sample are to each other, as pairs."""
    sampled = await _matrix(request, response, services)
    ids = [decode_id(id_) for id_ in sampled.ids]
    pairs = [
        {"a": ids[at], "b": ids[other], "score": score} for at, nearest in enumerate(sampled.nearest) for other, score in nearest
    ]
    return {"pairs": pairs}


async def matrix_offsets(request: ApiRequest, response: Response, services: Services) -> Answer:
    """How close the points of a random sample are to each other, as a sparse matrix."""
    sampled = await _matrix(request, response, services)
    cells = [(at, other, score) for at, nearest in enumerate(sampled.nearest) for other, score in nearest]
    return {
        "offsets_row": [at for at, _, _ in cells],
        "offsets_col": [other for _, other, _ in cells],
        "scores": [score for _, _, score in cells],
        "ids": [decode_id(id_) for id_ in sampled.ids],
    }


async def _matrix(request: ApiRequest, response: Response, services: Services) -> Matrix:
    body: MatrixBody = request.body
    pinned = (await _begun(request, response, services)).pinned
    name = body.using or ""
    if error := name_error(pinned.collection, name):
        raise BadRequest(error)
    sample, limit = (
        limit_of(default if given is None else given) for given, default in ((body.sample, SAMPLE), (body.limit, NEIGHBOURS))
    )
    made = await matrix(pinned, name, body.filter, sample, limit, response.seed())
    services.reads.check_answer(sum(map(len, made.nearest)), "sample")
    return made


async def _begun(request: ApiRequest, response: Response, services: Services, name: str | None = None) -> _Searching:
    """Pins the collection of the path, or of the given name, and checks its limits."""
    pinned = await services.reads.pin(request, response, request.path["collection_name"] if name is None else name)
    check_read(request, services.rates, pinned.collection)
    if response.steps is not None:
        response.steps.append({"step": "view", "shards": len(pinned.leases), "ms": round(1000 * response.waited_s, 3)})
    return _Searching(request, response, services, pinned)


@dataclass(slots=True)
class _Searching:
    """The searches of one request in a pinned collection."""

    request: ApiRequest
    response: Response
    services: Services
    pinned: Pinned
    answered: int = 0
    """The points in the answer so far: a batch has one answer."""

    async def remembered(self, answer: Callable[[], Awaitable[Any]]) -> Any:
        """The answer from the cache or from an equal request that is running; otherwise computes and caches it."""
        request, pinned = self.request, self.pinned
        route = f"{type(request.body).__name__} {request.packed} {request.timeout_s}"
        key = digest_of(route, request.content, pinned.collection.id, pinned.versions)
        if key is None or self.response.steps is not None or not is_repeatable(request.body, request.packed):
            return await answer()
        results, running = self.services.results, self.services.running
        if (kept := results.get(key)) is not None:
            return orjson.Fragment(kept)
        if (made_now := running.get(key)) is not None:
            return orjson.Fragment(await asyncio.shield(made_now))
        future = running[key] = asyncio.get_running_loop().create_future()
        try:
            result = await answer()
            made = await dumped(result, self.response, self.services.reads)
        except BaseException as error:
            future.set_exception(
                error if isinstance(error, Exception) else Unavailable("the same request was given up", retry_after_s=1.0)
            )
            future.exception()  # marks the exception as retrieved, so that asyncio does not log it when no request waits
            raise
        finally:
            del running[key]
        future.set_result(made)
        results.put(key, made)
        return orjson.Fragment(made)

    async def in_turn(self, search: Awaitable[T]) -> T:
        """Runs one search of a batch, then yields to other requests on the event loop."""
        answer = await search
        await self.pinned.give_way()
        self.pinned.deadline.check()
        return answer

    def window(self, body: QueryBody | SearchBody | RecommendBody | DiscoverBody) -> tuple[int, int]:
        """The start and the end of the requested hits."""
        return window(body.offset, body.limit, self.services.reads.max_answer_points)

    async def query_answer(self) -> Answer:
        return {"points": await self.query(self.request.body)}

    async def query(self, body: QueryBody) -> list[Answer]:
        translator = await self.translator(lookups_of(body))
        offset, end = self.window(body)
        return await self.hits(await translator.stage(body, end), offset, body)

    async def search(self, body: SearchBody) -> list[Answer]:
        offset, end = self.window(body)
        return await self.hits(await self.stage(await self.by_vector(body.vector), body, end), offset, body)

    async def recommend(self, body: RecommendBody) -> list[Answer]:
        offset, end = self.window(body)
        query, exclude = await self.of_examples(body)
        return await self.hits(await self.stage(query, body, end, exclude), offset, body)

    async def of_examples(self, body: RecommendBody | RecommendGroupsBody) -> tuple[Query, frozenset[bytes]]:
        translator = await self.translator(_lookup_name(body.lookup_from))
        given = Recommend(body.positive, body.negative, body.strategy)
        return await translator.recommend(given, body.using or "", body.lookup_from)

    async def discover(self, body: DiscoverBody) -> list[Answer]:
        offset, end = self.window(body)
        translator = await self.translator(_lookup_name(body.lookup_from))
        using = body.using or ""
        if isinstance(body.target, msgspec.UnsetType) or translator.raw(body.target) in (b"null", b"\xc0"):
            query, exclude = await translator.context(body.context or [], using, body.lookup_from)
        else:
            query, exclude = await translator.discover(Discover(body.target, body.context), using, body.lookup_from)
        return await self.hits(await self.stage(query, body, end, exclude), offset, body)

    async def translator(self, lookups: set[str]) -> Translator:
        """The translator of bodies to stages; `lookups` are other collections of examples."""
        others = {name: await self.services.reads.pin(self.request, self.response, name) for name in sorted(lookups)}
        if others:  # pinning them may have taken time, which does not count as work
            self.pinned.begin(self.pinned.deadline.again())
        where = partial(self.services.reads.where, self.request)
        return Translator(self.pinned, others, self.request.packed, where, self.vectors_of, self.response.seed())

    async def vectors_of(self, documents: Sequence[tuple[Document, str]]) -> list[Vector]:
        """The query vectors of documents, which are given with their places. What models take does not count as work."""
        started_s = time.monotonic()
        vectors = await self.services.inference.vectors(documents, as_query=True, check_time=self.pinned.deadline.check)
        if not all(is_bm25(document) for document, _ in documents):
            self.pinned.begin(self.pinned.deadline.later(time.monotonic() - started_s))
        return vectors

    async def by_vector(self, raw: msgspec.Raw) -> Query:
        """A vector or a document as it is, or as {name, vector}."""
        name, place, data = "", "vector", raw_of(raw, self.request.packed)
        if document_of(data, place) is None and (named := object_of(data, NamedVector)) is not None:
            name, place, data = named.name, "vector.vector", raw_of(named.vector, self.request.packed)
        given = given_vector_of(data, place)
        if isinstance(given, Document):
            (given,) = await self.vectors_of([(given, place)])
        return nearest(self.pinned.collection, name, given)

    async def stage(self, query: Query, body: SimpleSearch, limit: int, exclude: frozenset[bytes] = frozenset()) -> Stage:
        """The stage of a search without inner stages."""
        threshold = None if isinstance(body, DiscoverBody) else body.score_threshold
        reads = self.services.reads
        check_idf(self.pinned.collection, body.params, getattr(query, "name", None))
        wanted = await reads.where(self.request, body.filter)
        corpus = await reads.where(self.request, corpus_of(body.params))
        return Stage(query, limit, wanted, params_of(body.params), threshold, exclude, corpus=corpus)

    async def hits(self, stage: Stage, offset: int, shown: Shown) -> list[Answer]:
        """Executes a stage and returns its points from `offset` on."""
        if isinstance(stage.query, Sample):  # of a random order no part can be left out
            stage, offset = msgspec.structs.replace(stage, limit=stage.limit - offset), 0
        return await self.shown(await page(self.pinned, stage, offset, self.response.steps), shown)

    async def shown(self, ranked: RankedPoints, shown: Shown) -> list[Answer]:
        """Ranked points with their requested parts."""
        with_payload, with_vector = shown.payload_selector(False), vectors_of(shown, self.pinned.collection)
        self.answered += len(ranked.ids)
        self.services.reads.check_answer(self.answered, "limit")
        with step(self.response.steps, "points", points=len(ranked.ids)):
            return await self._shown(ranked, with_payload, with_vector)

    async def _shown(self, ranked: RankedPoints, with_payload: WithPayload, with_vector: WithVector) -> list[Answer]:
        points = None
        if with_payload is not False or with_vector:
            points = await retrieve(self.pinned, ranked.ids, part_of(with_payload), with_vector)
        quick = len(ranked.ids) <= QUICK_POINTS
        self.response.is_large = self.response.is_large or not quick
        if quick:
            return hit_answers(ranked, points, with_payload, with_vector)
        return await self.services.reads.offload(False, partial(hit_answers, ranked, points, with_payload, with_vector))

    async def grouped(self, stage: Stage, body: Grouped) -> Answer:
        groups, size = limit_of(body.limit), limit_of(GROUP_SIZE if body.group_size is None else body.group_size)
        ranked, hit_groups = await grouped(self.pinned, stage, body.group_by, groups, size)
        self.services.reads.check_answer(sum(len(group.hits) for group in hit_groups), "group_size")
        ranked = ranked.since(0, max((hit + 1 for group in hit_groups for hit in group.hits), default=0))
        hits = await self.shown(ranked, body)
        lookup = await self._lookup(hit_groups, body.with_lookup)
        return {
            "groups": [
                {"id": group.id, "hits": [hits[at] for at in group.hits]} | lookup.get(group.id, {}) for group in hit_groups
            ]
        }

    async def _lookup(self, groups: Sequence[Group], with_lookup: str | WithLookup | None) -> Mapping[str | int, Answer]:
        """For each group the point of another collection whose id is the group's value."""
        if with_lookup is None:
            return {}
        wanted = WithLookup(collection=with_lookup) if isinstance(with_lookup, str) else with_lookup
        pinned = await self.services.reads.pin(self.request, self.response, wanted.collection)
        with_payload, with_vector = wanted.payload_selector(True), vectors_of(wanted, pinned.collection)
        ids = {group.id: id_ for group in groups if (id_ := _id_of_group(group)) is not None}
        by_id: dict[bytes, Point] = {
            point.id: point for point in await retrieve(pinned, list(ids.values()), part_of(with_payload), with_vector)
        }
        return {
            group: {"lookup": point_answer(by_id[id_], with_payload, with_vector)} for group, id_ in ids.items() if id_ in by_id
        }


def _id_of_group(group: Group) -> bytes | None:
    """The group's value as a point id; None when it is not a valid id."""
    try:
        return encode_id(group.id)
    except ValueError:
        return None


def _lookup_name(lookup: LookupLocation | None) -> set[str]:
    return set() if lookup is None else {lookup.collection}
