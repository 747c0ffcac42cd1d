"""The same data and the same questions, to this server and to the in-memory mode of the dialect's own client (V11, V12, N6)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

COUNT = 120
SIZE = 8
DENSE = {"cos": "Cosine", "dot": "Dot", "euclid": "Euclid", "manhattan": "Manhattan"}
MULTI = {"many": "Cosine", "far": "Euclid"}
SPARSE = ["sparse", "rare"]
INDEXES = {
    "n": "integer",
    "f": "float",
    "tag": "keyword",
    "tags": "keyword",
    "flag": "bool",
    "at": "datetime",
    "place": "geo",
    "text": "text",
    "uuid": "uuid",
    "parts[].size": "integer",
}
ALL, OTHER = "congruent", "congruent-other"
WORDS = ["red", "green", "blue", "stone", "river", "cloud", "iron"]

Answer = Any
Ask = Callable[[QdrantClient], Answer]


# The data.


def dense(random: np.random.Generator) -> list[float]:
    return [float(x) for x in random.normal(size=SIZE).astype(np.float32)]


def multi(random: np.random.Generator) -> list[list[float]]:
    return [[float(x) for x in row] for row in random.normal(size=(random.integers(1, 5), 4)).astype(np.float32)]


def sparse(random: np.random.Generator, most: int = 12) -> models.SparseVector:
    indices = random.choice(40, random.integers(1, most), replace=False).tolist()
    return models.SparseVector(indices=indices, values=random.uniform(0.1, 2, len(indices)).astype(np.float32).tolist())


def vectors(random: np.random.Generator) -> dict[str, Any]:
    """Some vectors of each point are missing."""
    every = {name: dense(random) for name in DENSE} | {name: multi(random) for name in MULTI}
    every |= {name: sparse(random) for name in SPARSE}
    return {name: vector for name, vector in every.items() if random.random() < 0.9}


def payload(random: np.random.Generator, number: int) -> dict[str, Any]:
    found = {
        "n": number % 50,
        "f": float(np.float32(random.normal())),
        "tag": "abcde"[random.integers(5)],
        "tags": [str(tag) for tag in random.choice(["x", "y", "z", "w"], random.integers(0, 4), replace=False)],
        "flag": bool(random.integers(2)),
        "at": f"2024-0{random.integers(1, 10)}-{random.integers(10, 29)}T{random.integers(10, 24)}:30:00Z",
        "place": {"lon": float(random.uniform(-10, 10)), "lat": float(random.uniform(40, 60))},
        "text": " ".join(random.choice(WORDS, 4)),
        "uuid": str(UUID(int=int(random.integers(6)))),
        "parts": [{"size": int(random.integers(5)), "kind": "pq"[random.integers(2)]} for _ in range(random.integers(0, 3))],
        "deep": {"er": {"value": number % 7}, "list": [[number % 3], number % 4]},
        "maybe": [None, [], [None, 1], "here"][number % 4],
        "odd": [True, number % 3, "text", 1.5][number % 4],
        "group": [number % 6, f"g{number % 3}", [number % 2, "both"], 2.5][number % 4],
    }
    return {key: value for key, value in found.items() if random.random() < 0.9}


def ids() -> list[int | str]:
    return [number if number % 3 else str(UUID(int=number * 7919)) for number in range(1, COUNT + 1)]


def points(seed: int = 0) -> list[models.PointStruct]:
    random = np.random.default_rng(seed)
    return [
        models.PointStruct(id=id_, vector=vectors(random), payload=payload(random, number)) for number, id_ in enumerate(ids())
    ]


def create(client: QdrantClient, name: str, shards: int = 2) -> None:
    max_sim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    config = {name: models.VectorParams(size=SIZE, distance=models.Distance(kind)) for name, kind in DENSE.items()}
    config |= {
        name: models.VectorParams(size=4, distance=models.Distance(kind), multivector_config=max_sim)
        for name, kind in MULTI.items()
    }
    sparse_config = {
        "sparse": models.SparseVectorParams(),
        "rare": models.SparseVectorParams(modifier=models.Modifier.IDF),
    }
    client.create_collection(name, vectors_config=config, sparse_vectors_config=sparse_config, shard_number=shards)


def fill(client: QdrantClient, name: str, seed: int = 0) -> None:
    create(client, name)
    client.upsert(name, points(seed))


@pytest.fixture(scope="module")
def both(node_url: str) -> Iterator[list[QdrantClient]]:
    """This server and the reference, with the same data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clients = [QdrantClient(url=node_url, timeout=30), QdrantClient(":memory:")]
        for client in clients:
            fill(client, ALL)
            fill(client, OTHER, seed=1)
        for field, kind in INDEXES.items():
            clients[0].create_payload_index(ALL, field, kind)
        yield clients
        for client in clients:
            client.delete_collection(ALL)
            client.delete_collection(OTHER)
            client.close()


# Comparing.


def plain(answer: Answer) -> Answer:
    """An answer without what only one side knows, and without nulls."""
    if hasattr(answer, "model_dump"):
        return plain(answer.model_dump())
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items() if key not in ("version", "shard_key") and value is not None}
    return [plain(item) for item in answer] if isinstance(answer, list | tuple) else answer


def same(ours: Answer, theirs: Answer, place: str = "answer") -> None:
    """Raises where two answers differ by more than rounding; hits of one score may stand in any order."""
    if isinstance(theirs, list) and theirs and isinstance(theirs[0], dict) and "score" in theirs[0]:
        assert [hit["score"] for hit in ours] == pytest.approx([hit["score"] for hit in theirs], rel=1e-4, abs=1e-4), place
        ours, theirs = tied_by_id(ours, theirs), tied_by_id(theirs, theirs)
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), place
        assert ours.keys() == theirs.keys(), place
        for key, value in theirs.items():
            same(ours[key], value, f"{place}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), place
        assert len(ours) == len(theirs), place
        for at, value in enumerate(theirs):
            same(ours[at], value, f"{place}[{at}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4), place
    else:
        assert ours == theirs, place


def tied_by_id(hits: list[Answer], by: list[Answer]) -> list[Answer]:
    """The hits, those of nearly equal scores (as `by` has them) in the order of their ids."""
    runs, run = [], 0
    for at, hit in enumerate(by):
        run += at > 0 and abs(hit["score"] - by[at - 1]["score"]) > 1e-4 * max(1, abs(hit["score"]))
        runs.append(run)
    order = sorted(range(len(hits)), key=lambda at: (runs[at], str(hits[at]["id"])))
    return [hits[at] for at in order]


def compare(clients: list[QdrantClient], ask: Ask) -> Answer:
    """Asks both and raises where they differ; gives the answer."""
    ours, theirs = (plain(ask(client)) for client in clients)
    same(ours, theirs)
    return ours


# Queries.


def field(key: str, **condition: object) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)


def value(key: str, wanted: object) -> models.FieldCondition:
    return field(key, match=models.MatchValue(value=wanted))


def query(query: object = None, using: str | None = None, **kwargs: Any) -> Ask:
    return lambda client: client.query_points(ALL, query=query, using=using, **kwargs)


RANDOM = np.random.default_rng(99)
EVEN = models.Filter(must=[field("n", range=models.Range(gte=5, lt=40))], must_not=[value("tag", "a")])
AT = {name: dense(RANDOM) for name in DENSE} | {name: multi(RANDOM) for name in MULTI}
AT |= {name: sparse(RANDOM, 20) for name in SPARSE}
BACK = {name: dense(RANDOM) for name in DENSE} | {name: multi(RANDOM) for name in MULTI}
BACK |= {name: sparse(RANDOM, 20) for name in SPARSE}
NAMES = list(AT)
IDS = [4, 7, 10, 25, 49]


def having(name: str, number: int) -> list[int | str]:
    """The first points that have a vector, and so can be examples."""
    return [point.id for point in points() if name in point.vector][:number]


def nearest(name: str) -> dict[str, Ask]:
    found = {
        "vector": query(AT[name], name),
        "all": query(AT[name], name, limit=COUNT),
        "offset": query(AT[name], name, limit=5, offset=7),
        "filter": query(AT[name], name, query_filter=EVEN),
        "exact": query(AT[name], name, search_params=models.SearchParams(exact=True)),
        "ef": query(AT[name], name, search_params=models.SearchParams(hnsw_ef=200, indexed_only=True)),
        "by id": query(having(name, 1)[0], name, limit=COUNT),
        "as object": query(models.NearestQuery(nearest=AT[name]), name),
        "payload": query(AT[name], name, with_payload=["tag", "deep.er"], with_vectors=[name]),
        "vectors": query(AT[name], name, with_payload=False, with_vectors=True),
        "looked up": query(having(name, 1)[0], name, lookup_from=models.LookupLocation(collection=ALL, vector=name), limit=COUNT),
    }
    if name in DENSE or name in MULTI:
        found["numpy"] = query(np.array(AT[name], np.float32), name)
    return found


def examples(name: str) -> dict[str, Ask]:
    first, second, third, fourth, fifth, sixth = having(name, 6)
    pairs = [models.ContextPair(positive=third, negative=fourth), models.ContextPair(positive=AT[name], negative=BACK[name])]
    elsewhere = models.LookupLocation(collection=OTHER, vector=name)
    lookup = [point.id for point in points(1) if name in point.vector][:3]
    found = {
        "discover": query(models.DiscoverQuery(discover=models.DiscoverInput(target=second, context=pairs)), name, limit=COUNT),
        "discover by vector": query(
            models.DiscoverQuery(discover=models.DiscoverInput(target=AT[name], context=pairs[:1])), name, query_filter=EVEN
        ),
        "discover alone": query(models.DiscoverQuery(discover=models.DiscoverInput(target=AT[name], context=[])), name),
        "context": query(models.ContextQuery(context=pairs), name, limit=COUNT),
        "discover elsewhere": query(
            models.DiscoverQuery(
                discover=models.DiscoverInput(
                    target=lookup[0], context=[models.ContextPair(positive=lookup[1], negative=lookup[2])]
                )
            ),
            name,
            lookup_from=elsewhere,
            limit=COUNT,
        ),
    }
    for strategy in models.RecommendStrategy:
        for label, positive, negative in (
            ("ids", [first, second], [third]),
            ("vectors", [AT[name]], [BACK[name], fourth]),
            ("positive", [fifth, AT[name]], None),
            ("negative", None, [sixth, BACK[name]]),
        ):
            if label != "negative" or strategy is not models.RecommendStrategy.AVERAGE_VECTOR:
                asked = models.RecommendInput(positive=positive, negative=negative, strategy=strategy)
                found[f"{strategy.value} {label}"] = query(models.RecommendQuery(recommend=asked), name, limit=COUNT)
        asked = models.RecommendInput(positive=lookup[:2], negative=lookup[2:], strategy=strategy)
        found[f"{strategy.value} elsewhere"] = query(
            models.RecommendQuery(recommend=asked), name, lookup_from=elsewhere, query_filter=EVEN
        )
    if name in DENSE:
        judged = [
            models.FeedbackItem(example=item, score=score) for item, score in ((first, 0.9), (BACK[name], 0.2), (third, 0.4))
        ]
        strategy = models.NaiveFeedbackStrategy(naive=models.NaiveFeedbackStrategyParams(a=0.8, b=1.2, c=0.3))
        feedback = models.RelevanceFeedbackInput(target=AT[name], feedback=judged, strategy=strategy)
        found["feedback"] = query(models.RelevanceFeedbackQuery(relevance_feedback=feedback), name, limit=COUNT)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nearest(both: list[QdrantClient], name: str) -> None:
    """Every distance, dense, multi and sparse, by vector and by id (V11, I10)."""
    for label, ask in nearest(name).items():
        try:
            hits = compare(both, ask)["points"]
        except AssertionError as error:
            raise AssertionError(label) from error
        assert hits, label


@pytest.mark.parametrize("name", NAMES)
def test_examples(both: list[QdrantClient], name: str) -> None:
    """Recommend, discover, context and feedback (V11)."""
    for label, ask in examples(name).items():
        try:
            hits = compare(both, ask)["points"]
        except AssertionError as error:
            raise AssertionError(label) from error
        assert hits, label


def prefetch(name: str, limit: int = 20, **kwargs: Any) -> models.Prefetch:
    return models.Prefetch(query=AT[name], using=name, limit=limit, **kwargs)


LISTS = [prefetch("cos"), prefetch("dot", 15), prefetch("sparse", 25), prefetch("many")]
DEEP = [
    models.Prefetch(prefetch=[prefetch("euclid", 60, filter=EVEN)], query=AT["cos"], using="cos", limit=30),
    prefetch("rare", 30, score_threshold=0.5),
]
RRF, DBSF = (models.FusionQuery(fusion=fusion) for fusion in (models.Fusion.RRF, models.Fusion.DBSF))
FORMULA = models.FormulaQuery(
    formula=models.SumExpression(
        sum=[
            "$score",
            models.MultExpression(mult=[0.5, "$score[1]"]),
            models.MultExpression(mult=[0.25, value("tag", "b")]),
            models.GaussDecayExpression(
                gauss_decay=models.DecayParamsExpression(
                    x=models.GeoDistance(
                        geo_distance=models.GeoDistanceParams(origin=models.GeoPoint(lon=0, lat=50), to="place")
                    ),
                    scale=300_000,
                )
            ),
            models.ExpDecayExpression(
                exp_decay=models.DecayParamsExpression(
                    x=models.DatetimeKeyExpression(datetime_key="at"),
                    target=models.DatetimeExpression(datetime="2024-05-01T00:00:00Z"),
                    scale=86400 * 30,
                    midpoint=0.3,
                )
            ),
            models.LinDecayExpression(lin_decay=models.DecayParamsExpression(x="n", target=20, scale=10)),
            models.DivExpression(div=models.DivParams(left="n", right="f", by_zero_default=1.0)),
            models.NegExpression(neg=models.AbsExpression(abs="f")),
            models.SqrtExpression(sqrt="n"),
            models.PowExpression(pow=models.PowParams(base="n", exponent=0.5)),
            models.LnExpression(ln=models.ExpExpression(exp="f")),
            models.Log10Expression(log10=models.SumExpression(sum=["n", 1.0])),
        ]
    ),
    defaults={"n": 3, "f": 0.5, "place": {"lon": 1.0, "lat": 45.0}, "at": "2024-04-01T00:00:00Z", "$score[1]": -1.0},
)

STAGES = {
    "rrf": query(RRF, prefetch=LISTS, limit=COUNT),
    "rrf, k and weights": query(
        models.RrfQuery(rrf=models.Rrf(k=30, weights=[1.0, 0.3, 2.5, 0.01])), prefetch=LISTS, limit=COUNT
    ),
    "rrf, threshold": query(RRF, prefetch=LISTS, score_threshold=0.2, limit=COUNT),
    "rrf, filter": query(RRF, prefetch=LISTS, query_filter=EVEN, limit=COUNT),
    "dbsf": query(DBSF, prefetch=LISTS, limit=COUNT),
    "dbsf, offset": query(DBSF, prefetch=LISTS[:2], limit=5, offset=5),
    "deep rrf": query(RRF, prefetch=DEEP, limit=COUNT),
    "rescored": query(AT["dot"], "dot", prefetch=LISTS, limit=COUNT),
    "rescored, deep": query(AT["far"], "far", prefetch=DEEP, limit=10, offset=2, query_filter=EVEN),
    "rescored by id": query(having("cos", 3)[2], "cos", prefetch=LISTS[0], limit=COUNT),
    "rescored, recommend": query(
        models.RecommendQuery(recommend=models.RecommendInput(positive=having("cos", 2), strategy="best_score")),
        "cos",
        prefetch=[prefetch("sparse", 50)],
    ),
    "formula": query(FORMULA, prefetch=LISTS[:2], limit=COUNT),
    "formula, threshold": query(FORMULA, prefetch=LISTS[:2], limit=COUNT, score_threshold=2.0),
    "formula of fusion": query(
        models.FormulaQuery(formula=models.MultExpression(mult=[2.0, "$score"])),
        prefetch=models.Prefetch(prefetch=LISTS, query=RRF, limit=40),
        limit=COUNT,
    ),
    "by id of a filter": query(None, query_filter=EVEN, limit=COUNT),
    "by id": query(None, limit=7, offset=3),
    "corpus": query(AT["rare"], "rare", search_params=models.SearchParams(idf=models.IdfCorpusParams(corpus=EVEN)), limit=COUNT),
    "all of them": query(RRF, prefetch=[models.Prefetch(filter=EVEN, limit=5), prefetch("cos", 5)], limit=COUNT),
} | {
    f"mmr {name}": query(
        models.NearestQuery(nearest=AT[name], mmr=models.Mmr(diversity=0.4, candidates_limit=30)), name, limit=12, offset=2
    )
    for name in ("cos", "dot", "euclid", "manhattan", "many", "far", "sparse")
}


@pytest.mark.parametrize("label", STAGES)
def test_stages(both: list[QdrantClient], label: str) -> None:
    """Prefetch, fusion, rescoring, formulas, diversity (V12)."""
    assert compare(both, STAGES[label])["points"]


ORDERS = {
    "n": "n",
    "n down": models.OrderBy(key="n", direction=models.Direction.DESC),
    "n from": models.OrderBy(key="n", start_from=20),
    "f down from": models.OrderBy(key="f", direction=models.Direction.DESC, start_from=0.25),
    "moments": models.OrderBy(key="at", start_from="2024-03-05T00:00:00Z"),
    "moments down": models.OrderBy(key="at", direction="desc", start_from="2024-06-05T00:00:00Z"),
    "in arrays": models.OrderBy(key="parts[].size"),
}


@pytest.mark.parametrize("label", ORDERS)
def test_orders(both: list[QdrantClient], label: str) -> None:
    """Order by a payload value, in scrolls, queries and stages; equal values stand in any order (V12)."""
    by = ORDERS[label]
    for filter_ in (None, EVEN):
        scrolls = [client.scroll(ALL, filter_, order_by=by, limit=2 * COUNT)[0] for client in both]
        ours, theirs = ([(r.order_value, str(r.id)) for r in records] for records in scrolls)
        assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs])
        assert sorted(ours) == sorted(theirs)
        queries = [client.query_points(ALL, query=models.OrderByQuery(order_by=by), query_filter=filter_) for client in both]
        values = [[point.order_value for point in answer.points] for answer in queries]
        assert values[0] == [value for value, _ in ours[:10]]
    compare(both, lambda client: client.scroll(ALL, EVEN, order_by=models.OrderBy(key="f"), limit=5, with_payload=["f"]))


def test_samples(both: list[QdrantClient]) -> None:
    """Points at random: distinct, of the filter, and not always the same."""
    ask = models.SampleQuery(sample=models.Sample.RANDOM)
    samples = [[point.id for point in both[0].query_points(ALL, query=ask, limit=20).points] for _ in range(5)]
    assert all(len(set(sample)) == 20 for sample in samples)
    assert len({tuple(sample) for sample in samples}) > 1
    chosen = both[0].query_points(ALL, query=ask, query_filter=EVEN, limit=COUNT).points
    assert {point.id for point in chosen} == {point.id for point in both[1].scroll(ALL, EVEN, limit=COUNT)[0]}


def groups(group_by: str, **kwargs: Any) -> Ask:
    return lambda client: client.query_points_groups(ALL, group_by, **kwargs)


GROUPS = {
    "keyword": groups("tag", query=AT["cos"], using="cos", limit=3, group_size=4),
    "array": groups("tags", query=AT["dot"], using="dot", group_size=5, query_filter=EVEN),
    "mixed": groups("group", query=AT["euclid"], using="euclid", limit=20, group_size=2, with_payload=["group"]),
    "inner": groups("parts[].size", query=AT["many"], using="many", limit=9, with_vectors=["cos"]),
    "sparse": groups("n", query=AT["rare"], using="rare", limit=50, group_size=1),
    "fusion": groups("tag", prefetch=LISTS[:2], query=RRF, group_size=20),
    "by id": groups("tag", group_size=2),
    "lookup": groups("n", query=AT["cos"], using="cos", limit=9, with_lookup=OTHER),
    "lookup in parts": groups(
        "n",
        query=AT["cos"],
        using="cos",
        limit=9,
        with_lookup=models.WithLookup(collection=OTHER, with_payload=["tag"], with_vectors=["dot"]),
    ),
    "no payload": groups("tag", query=AT["cos"], using="cos", with_payload=False, score_threshold=0.1),
}


@pytest.mark.parametrize("label", GROUPS)
def test_groups(both: list[QdrantClient], label: str) -> None:
    """The best hits by a payload value, with the points of that id elsewhere (V12)."""
    assert compare(both, GROUPS[label])["groups"]


def test_matrices(both: list[QdrantClient]) -> None:
    """How close random points are: all of a filter when the sample is as large; the pairs agree with the offsets (V12)."""
    few = models.Filter(must=[field("n", range=models.Range(lt=6))])

    def cells(pairs: list[models.SearchMatrixPair]) -> list[tuple[str, float]]:
        return sorted((str(pair.a), round(pair.score, 3)) for pair in pairs)

    for name in NAMES:
        ours, theirs = (client.search_matrix_pairs(ALL, few, sample=COUNT, limit=4, using=name).pairs for client in both)
        assert [a for a, _ in cells(ours)] == [a for a, _ in cells(theirs)]
        assert [score for _, score in cells(ours)] == pytest.approx([score for _, score in cells(theirs)], abs=2e-3)
        offsets = both[0].search_matrix_offsets(ALL, few, sample=COUNT, limit=4, using=name)
        told = zip(offsets.offsets_row, offsets.offsets_col, offsets.scores, strict=True)
        assert [(offsets.ids[a], offsets.ids[b], score) for a, b, score in told] == [(p.a, p.b, p.score) for p in ours]
    sample = both[0].search_matrix_pairs(ALL, sample=7, using="cos").pairs
    assert len({pair.a for pair in sample}) <= 7
    assert {pair.b for pair in sample} <= {pair.a for pair in sample}


def scroll(filter_: models.Filter | None = None, **kwargs: Any) -> Ask:
    return lambda client: client.scroll(ALL, filter_, **kwargs)


def must(*conditions: object) -> models.Filter:
    return models.Filter(must=list(conditions))


def ring(*places: tuple[float, float]) -> models.GeoLineString:
    return models.GeoLineString(points=[models.GeoPoint(lon=lon, lat=lat) for lon, lat in (*places, places[0])])


CENTER = models.GeoPoint(lon=0, lat=50)
CONDITIONS: dict[str, object] = {
    "value": value("tag", "b"),
    "array": value("tags", "x"),
    "integer": value("n", 7),
    "bool": value("odd", True),
    "deep": value("deep.er.value", 3),
    "list in list": value("deep.list[0][]", 1),
    "list": value("deep.list[1]", 1),
    "any": field("tag", match=models.MatchAny(any=["a", "c"])),
    "any number": field("n", match=models.MatchAny(any=[1, 2, 3])),
    "any of nothing": field("tag", match=models.MatchAny(any=[])),
    "except": field("tags", match=models.MatchExcept(**{"except": ["x", "y"]})),
    "text": field("text", match=models.MatchText(text="red stone")),
    "any word": field("text", match=models.MatchTextAny(text_any="iron cloud")),
    "phrase": field("text", match=models.MatchPhrase(phrase="red stone")),
    "range": field("f", range=models.Range(gt=-0.5, lte=0.5)),
    "moments": field("at", range=models.DatetimeRange(gte="2024-03-01T00:00:00Z", lt="2024-07-01T00:00:00+02:00")),
    "box": field(
        "place",
        geo_bounding_box=models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=-5, lat=55), bottom_right=models.GeoPoint(lon=5, lat=45)
        ),
    ),
    "radius": field("place", geo_radius=models.GeoRadius(center=CENTER, radius=500_000)),
    "polygon": field(
        "place",
        geo_polygon=models.GeoPolygon(
            exterior=ring((-8, 42), (8, 42), (8, 58), (-8, 58)), interiors=[ring((-2, 48), (2, 48), (2, 52))]
        ),
    ),
    "count": field("tags", values_count=models.ValuesCount(gte=2)),
    "count of none": field("tags", values_count=models.ValuesCount(lt=1)),
    "empty": models.IsEmptyCondition(is_empty=models.PayloadField(key="maybe")),
    "null": models.IsNullCondition(is_null=models.PayloadField(key="maybe")),
    "ids": models.HasIdCondition(has_id=[1, 2, str(UUID(int=3 * 7919)), 999]),
    "vector": models.HasVectorCondition(has_vector="rare"),
    "multi": models.HasVectorCondition(has_vector="many"),
    "nested": models.NestedCondition(
        nested=models.Nested(key="parts", filter=must(value("kind", "p"), field("size", range=models.Range(gte=2))))
    ),
    "not nested": models.Filter(
        must_not=[models.NestedCondition(nested=models.Nested(key="parts[]", filter=must(value("kind", "p"))))]
    ),
    "inner": value("parts[].kind", "q"),
    "uuid": value("uuid", str(UUID(int=2))),
    "at least": models.Filter(
        min_should=models.MinShould(conditions=[value("tag", "a"), value("flag", True), value("tags", "w")], min_count=2)
    ),
    "clauses": models.Filter(
        must=[value("flag", True)], should=[value("tag", "a"), value("tag", "b")], must_not=[value("tags", "z")]
    ),
}


def test_filters(both: list[QdrantClient]) -> None:
    """Every kind of condition, in scrolls, counts, queries and facets (V11, I10)."""
    for label, condition in CONDITIONS.items():
        filter_ = condition if isinstance(condition, models.Filter) else must(condition)
        inverse = models.Filter(must_not=[condition])
        for wanted in (filter_, inverse):
            try:
                compare(both, scroll(wanted, limit=COUNT))
                compare(both, lambda client: client.count(ALL, wanted))  # noqa: B023
                compare(both, query(AT["cos"], "cos", query_filter=wanted, with_payload=False))
                compare(both, lambda client: client.facet(ALL, "tag", facet_filter=wanted))  # noqa: B023
            except AssertionError as error:
                raise AssertionError(label) from error


READS: dict[str, Ask] = {
    "page": scroll(limit=10, with_vectors=True),
    "next page": scroll(limit=10, offset=55),
    "from a uuid": scroll(limit=10, offset=str(UUID(int=60 * 7919))),
    "past all": scroll(offset="ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "parts": scroll(limit=COUNT, with_payload=["deep.list[]", "parts[].size", "tags"], with_vectors=["dot", "sparse"]),
    "include": scroll(limit=COUNT, with_payload=models.PayloadSelectorInclude(include=["deep.er", "n"])),
    "exclude": scroll(limit=COUNT, with_payload=models.PayloadSelectorExclude(exclude=["deep.er", "parts[].kind", "text"])),
    "nothing": scroll(limit=COUNT, with_payload=[]),
    "retrieve": lambda client: client.retrieve(ALL, [7, 5, 999, 1, str(UUID(int=3 * 7919))], with_vectors=True),
    "retrieve parts": lambda client: client.retrieve(ALL, [1, 2], with_payload=["tag"], with_vectors=["far"]),
    "count": lambda client: client.count(ALL),
    "count roughly": lambda client: client.count(ALL, EVEN, exact=False),
    "facet keyword": lambda client: client.facet(ALL, "tag"),
    "facet array": lambda client: client.facet(ALL, "tags", limit=2),
    "facet integer": lambda client: client.facet(ALL, "n", facet_filter=EVEN, limit=100),
    "facet bool": lambda client: client.facet(ALL, "flag"),
    "facet uuid": lambda client: client.facet(ALL, "uuid", exact=True),
    "facet inner": lambda client: client.facet(ALL, "parts[].size"),
    "batch": lambda client: client.query_batch_points(
        ALL,
        [
            models.QueryRequest(query=AT["cos"], using="cos", limit=3, with_payload=True),
            models.QueryRequest(query=AT["rare"], using="rare", filter=EVEN, limit=5, with_vector=["cos"]),
            models.QueryRequest(prefetch=LISTS, query=RRF, limit=4, offset=1),
            models.QueryRequest(query=having("many", 1)[0], using="many", limit=5, score_threshold=0.5),
        ],
    ),
} | {
    f"threshold {name}": query(AT[name], name, score_threshold=least, limit=COUNT)
    for name, least in {"cos": 0.2, "dot": 1.0, "euclid": 4.0, "manhattan": 8.0, "many": 1.0, "far": 5.0, "sparse": 3.0}.items()
}


@pytest.mark.parametrize("label", READS)
def test_reads(both: list[QdrantClient], label: str) -> None:
    """Pages, points, selectors, counts, facets, batches, thresholds (V11)."""
    compare(both, READS[label])


# Changes.


def struct(id_: int | str, **payload: Any) -> models.PointStruct:
    return models.PointStruct(
        id=id_,
        vector={"cos": [float(id_) + 1] * SIZE, "sparse": models.SparseVector(indices=[1, 7], values=[1, 2])},
        payload=payload,
    )


def batched(*operations: object) -> Callable[[QdrantClient, str], Answer]:
    return lambda client, name: client.batch_update_points(name, list(operations))


NEVER = value("tag", "never")
SOME = models.FilterSelector(filter=must(value("tag", "a")))
CHANGES: dict[str, Callable[[QdrantClient, str], Answer]] = {
    "upsert": lambda client, name: client.upsert(name, [struct(1, tag="new"), struct(1000)]),
    "batch form": lambda client, name: client.upsert(
        name,
        models.Batch(
            ids=[2, 1001],
            vectors={"dot": [[1.0] * SIZE, [2.0] * SIZE], "many": [[[1, 0, 0, 0]], [[0, 1, 0, 0], [0, 0, 1, 0]]]},
            payloads=[{"a": 1}, {}],
        ),
    ),
    "upsert where": lambda client, name: client.upsert(name, [struct(i, x=i) for i in range(1, 30)], update_filter=EVEN),
    "insert only": lambda client, name: client.upsert(name, [struct(1), struct(2000)], update_mode=models.UpdateMode.INSERT_ONLY),
    "update only": lambda client, name: client.upsert(
        name, [struct(4, x=1), struct(2001)], update_mode=models.UpdateMode.UPDATE_ONLY
    ),
    "set": lambda client, name: client.set_payload(name, {"tag": "set", "new": {"a": [1, None]}}, points=[1, 2, 4]),
    "set nulls": lambda client, name: client.set_payload(name, {"tag": None, "maybe": {"x": None}}, points=[1, 2, 4]),
    "set deep": lambda client, name: client.set_payload(name, {"er": {"other": 1}}, points=[1, 2, 4], key="deep"),
    "set deeper": lambda client, name: client.set_payload(name, {"new": 1}, points=[1, 2, 4], key="deep.er"),
    "set absent": lambda client, name: client.set_payload(name, {"new": 1}, points=[1, 2], key="not.there"),
    "set in arrays": lambda client, name: client.set_payload(name, {"size": 77}, points=ids()[:20], key="parts[]"),
    "set at an index": lambda client, name: client.set_payload(name, {"size": 78}, points=ids()[:20], key="parts[0]"),
    "set where": lambda client, name: client.set_payload(name, {"seen": True}, points=SOME),
    "overwrite": lambda client, name: client.overwrite_payload(name, {"only": 1}, points=[1, 2]),
    "overwrite where": lambda client, name: client.overwrite_payload(name, {"only": 2}, points=SOME),
    "delete keys": lambda client, name: client.delete_payload(
        name, ["tag", "deep.er", "parts[].kind", "none"], points=ids()[:30]
    ),
    "delete keys where": lambda client, name: client.delete_payload(name, ["n"], points=SOME),
    "clear": lambda client, name: client.clear_payload(name, points_selector=[1, 2]),
    "clear where": lambda client, name: client.clear_payload(name, points_selector=SOME),
    "update vectors": lambda client, name: client.update_vectors(
        name,
        [
            models.PointVectors(id=1, vector={"cos": [3.0] + [4.0] * (SIZE - 1), "rare": AT["rare"]}),
            models.PointVectors(id=2, vector={"many": [[3.0, 4, 0, 0], [0, 0, 0, 2]]}),
        ],
    ),
    "update vectors where": lambda client, name: client.update_vectors(
        name, [models.PointVectors(id=i, vector={"dot": [float(i)] * SIZE}) for i in (1, 2, 4, 7, 8, 10, 11)], update_filter=EVEN
    ),
    "upsert where nothing is": lambda client, name: client.upsert(
        name, [models.PointStruct(id=1, vector={"many": [[1, 2, 3, 4]], "sparse": AT["sparse"]})], update_filter=must(NEVER)
    ),
    "update vectors where nothing is": lambda client, name: client.update_vectors(
        name,
        [models.PointVectors(id=1, vector={"many": [[1.0, 2, 3, 4]], "cos": AT["cos"]})],
        update_filter=must(NEVER),
    ),
    "delete vectors": lambda client, name: client.delete_vectors(name, ["cos", "many", "rare"], points=[1, 2]),
    "delete vectors where": lambda client, name: client.delete_vectors(name, ["dot"], points=SOME.filter),
    "delete": lambda client, name: client.delete(name, [1, 2, 5000]),
    "delete where": lambda client, name: client.delete(name, SOME),
    "several": batched(
        models.UpsertOperation(upsert=models.PointsList(points=[struct(3000, tag="a"), struct(4, tag="b")])),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload={"s": 1}, filter=SOME.filter)),
        models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"o": 1}, points=[2])),
        models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["s"], points=[3000])),
        models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[5])),
        models.UpdateVectorsOperation(
            update_vectors=models.UpdateVectors(points=[models.PointVectors(id=4, vector={"far": [[1.0, 2, 3, 4]]})])
        ),
        models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(points=[4], vector=["cos"])),
        models.DeleteOperation(delete=models.FilterSelector(filter=must(value("tag", "c")))),
    ),
}


@pytest.mark.parametrize("label", CHANGES)
def test_changes(both: list[QdrantClient], label: str) -> None:
    """Each kind of change, by ids and by filter, leaves the same points, and searches see them (V11, I10)."""
    name = f"changed-{uuid4().hex[:8]}"
    for client in both:
        fill(client, name)
        CHANGES[label](client, name)
    compare(both, lambda client: client.scroll(name, limit=2 * COUNT, with_vectors=True))
    for vector in ("cos", "many", "rare"):
        compare(both, lambda client: client.query_points(name, query=AT[vector], using=vector, limit=2 * COUNT))  # noqa: B023
    for client in both:
        client.delete_collection(name)


WRONG: dict[str, Ask] = {
    "no such collection": lambda client: client.count("nowhere"),
    "no such vector": query(AT["cos"], "none"),
    "wrong size": query([1.0, 2.0], "cos"),
    "no such point": query(99_999, "cos"),
    "point without the vector": query(next(p.id for p in points() if "cos" not in p.vector), "cos"),
    "no positive examples": query(
        models.RecommendQuery(recommend=models.RecommendInput(negative=[1], strategy="average_vector")), "cos"
    ),
    "fusion of nothing": query(RRF),
    "dense for sparse": query(AT["cos"], "sparse"),
    "weights": query(models.RrfQuery(rrf=models.Rrf(weights=[1.0])), prefetch=LISTS),
    "formula without a value": query(
        models.FormulaQuery(formula=models.LnExpression(ln="deep")), prefetch=prefetch("cos"), limit=COUNT
    ),
    "absent points": lambda client: client.set_payload(ALL, {"never": 1}, points=[99_999]),
    "no points": lambda client: client.delete(ALL, []),
    "no points to write": lambda client: client.upsert(ALL, []),
    "no points to change": lambda client: client.set_payload(ALL, {"a": 1}, points=[]),
    "no vectors": lambda client: client.update_vectors(ALL, []),
    "unknown vector": lambda client: client.upsert(ALL, [models.PointStruct(id=1, vector={"none": [1.0]})]),
    "exists already": lambda client: create(client, ALL),
    "offset in order": lambda client: client.scroll(ALL, order_by="n", offset=3),
}


@pytest.mark.parametrize("label", WRONG)
def test_what_is_wrong_for_both(both: list[QdrantClient], label: str) -> None:
    """What the reference refuses this server refuses too."""
    for client in both:
        with pytest.raises((UnexpectedResponse, ValueError, KeyError)):
            WRONG[label](client)


# Collections.


def test_collections(both: list[QdrantClient]) -> None:
    """Configuration, aliases and counts as the client sees them (N6)."""
    name, alias = (f"{kind}-{uuid4().hex[:8]}" for kind in ("made", "alias"))
    aliases = [models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))]
    for client in both:
        create(client, name)
        client.upsert(name, points())
        client.update_collection_aliases(aliases)
    compare(both, lambda client: client.get_collection(name).config.params.model_dump(include={"vectors", "sparse_vectors"}))
    compare(both, lambda client: client.get_collection(alias).points_count)
    compare(both, lambda client: client.get_collection_aliases(name))
    compare(both, lambda client: client.count(alias, EVEN))
    compare(both, lambda client: client.collection_exists(name))
    compare(both, lambda client: client.collection_exists("nowhere"))
    renamed = models.RenameAlias(old_alias_name=alias, new_alias_name=f"{alias}-2")
    for client in both:
        client.update_collection_aliases([models.RenameAliasOperation(rename_alias=renamed)])
    compare(both, lambda client: client.collection_exists(f"{alias}-2"))
    compare(both, lambda client: client.delete_collection(name))
    compare(both, lambda client: client.collection_exists(f"{alias}-2"))
    compare(both, lambda client: client.delete_collection(name))
