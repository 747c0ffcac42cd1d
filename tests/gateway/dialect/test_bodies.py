"""Bodies know every field of the dialect, and no field goes unheeded: it is used, or named as ignored, or refused (N6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from uuid import uuid4

import httpx
import msgspec
import pytest
from qdrant_client import models

import gateway
from gateway.dialect import bodies, query_bodies
from gateway.dialect.bodies import Body
from gateway.dialect.documents import Document
from gateway.http.routes import ROUTES
from gateway.inference.bm25 import Bm25Options
from shard.filters.conditions import Condition
from tests.conftest import result

MODELS = {
    "CreateCollection": bodies.CreateCollectionBody,
    "UpdateCollection": bodies.UpdateCollectionBody,
    "VectorParams": bodies.VectorParamsBody,
    "VectorParamsDiff": bodies.VectorParamsDiff,
    "SparseVectorParams": bodies.SparseParamsBody,
    "SparseIndexParams": bodies.SparseIndexBody,
    "HnswConfigDiff": bodies.HnswBody,
    "OptimizersConfigDiff": bodies.OptimizersBody,
    "WalConfigDiff": bodies.WalBody,
    "CollectionParamsDiff": bodies.CollectionParamsBody,
    "ScalarQuantizationConfig": bodies.ScalarBody,
    "ProductQuantizationConfig": bodies.ProductBody,
    "BinaryQuantizationConfig": bodies.BinaryBody,
    "StrictModeConfig": bodies.StrictModeBody,
    "PointStruct": bodies.PointBody,
    "PointsList": bodies.UpsertBody,
    "PointsBatch": bodies.UpsertBody,
    "Batch": bodies.PointsBatch,
    "PointRequest": bodies.RetrieveBody,
    "FilterSelector": bodies.PointsSelector,
    "PointIdsList": bodies.PointsSelector,
    "SetPayload": bodies.SetPayloadBody,
    "DeletePayload": bodies.DeletePayloadBody,
    "UpdateVectors": bodies.UpdateVectorsBody,
    "DeleteVectors": bodies.DeleteVectorsBody,
    "ScrollRequest": bodies.ScrollBody,
    "CountRequest": bodies.CountBody,
    "FacetRequest": bodies.FacetBody,
    "OrderBy": bodies.OrderByBody,
    "CreateFieldIndex": bodies.CreateIndexBody,
    **{
        f"{kind}IndexParams": bodies.FieldParams
        for kind in ("Keyword", "Integer", "Float", "Bool", "Datetime", "Uuid", "Geo", "Text")
    },
    "SearchParams": query_bodies.SearchParams,
    "QuantizationSearchParams": query_bodies.QuantizationParams,
    "AcornSearchParams": query_bodies.Acorn,
    "IdfCorpusParams": query_bodies.IdfCorpus,
    "LookupLocation": query_bodies.LookupLocation,
    "QueryRequest": query_bodies.QueryBody,
    "QueryGroupsRequest": query_bodies.QueryGroupsBody,
    "Prefetch": query_bodies.Prefetch,
    "Mmr": query_bodies.Mmr,
    "RecommendInput": query_bodies.Recommend,
    "DiscoverInput": query_bodies.Discover,
    "ContextPair": query_bodies.ContextPair,
    "Rrf": query_bodies.Rrf,
    "RelevanceFeedbackInput": query_bodies.RelevanceFeedback,
    "FeedbackItem": query_bodies.JudgedExample,
    "NaiveFeedbackStrategyParams": query_bodies.NaiveFeedback,
    "WithLookup": query_bodies.WithLookup,
    "SearchMatrixRequest": query_bodies.MatrixBody,
    **{
        f"{kind}Query": query_bodies.QueryObject
        for kind in ("Nearest", "Recommend", "Discover", "Context", "OrderBy", "Fusion", "Rrf", "Formula", "Sample", "Text")
    },
    "RelevanceFeedbackQuery": query_bodies.QueryObject,
    "Document": Document,
    "Bm25Config": Bm25Options,
    "Filter": Condition,
    "FieldCondition": Condition,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_field_of_the_dialect_is_known(name: str) -> None:
    fields = {field.alias or key for key, field in getattr(models, name).model_fields.items()}
    assert fields <= set(MODELS[name].__struct_encode_fields__), "a field that the client may send would be unknown"


def parts(kind: Any, seen: set[type]) -> Iterator[type[Body]]:
    """The bodies within a type."""
    if isinstance(kind, type) and issubclass(kind, Body):
        if kind not in seen:
            seen.add(kind)
            yield kind
            for field in msgspec.structs.fields(kind):
                yield from parts(field.type, seen)
    elif get_origin(kind) is not Literal:
        for inner in get_args(kind):
            yield from parts(inner, seen)


def all_bodies() -> list[type[Body]]:
    seen: set[type] = set()
    taken = [route.body for route in ROUTES if route.body is not None] + [query_bodies.QueryObject, Document, Bm25Options]
    return [part for body in taken for part in parts(body, seen)]


def heeded() -> str:
    """The code that takes requests apart."""
    return "".join(path.read_text() for path in sorted(Path(gateway.__file__).parent.rglob("*.py")))


WITHIN_HINTS = (bodies.SparseIndexBody, bodies.OptimizersBody, bodies.WalBody, bodies.PlaceBody, query_bodies.Acorn)
"""Parts that are only found where the whole is named as ignored."""

WITHOUT_CHOICE = {
    (bodies.ScalarBody, "type"),  # there is one
    (bodies.MultivectorBody, "comparator"),
    (bodies.CreateCollectionBody, "sharding_method"),
    (bodies.CreateCollectionBody, "replication_factor"),
    (bodies.CreateCollectionBody, "write_consistency_factor"),
    (bodies.CollectionParamsBody, "replication_factor"),
    (bodies.CollectionParamsBody, "write_consistency_factor"),
    (bodies.CountBody, "exact"),  # always true
    (bodies.FacetBody, "exact"),
}


@pytest.mark.parametrize("body", all_bodies(), ids=lambda body: body.__name__)
def test_every_field_is_used_or_named_or_refused(body: type[Body]) -> None:
    code = heeded()
    assert {*body.hints} <= {*body.__struct_fields__}
    if body in WITHIN_HINTS:
        return
    for field in msgspec.structs.fields(body):
        if field.type is type(None) or field.name in body.hints or (body, field.name) in WITHOUT_CHOICE:
            continue
        assert re.search(rf'\.{field.name}\b|"{field.name}"|\b{field.name}=\w', code), f"{body.__name__}.{field.name}"


CREATED = {
    "vectors": {"x": {"size": 4, "distance": "Dot", "on_disk": True, "hnsw_config": {"payload_m": 4}}},
    "sparse_vectors": {"s": {"index": {"on_disk": True}}},
    "quantization_config": {"scalar": {"type": "int8", "always_ram": True}},
    "optimizers_config": {"indexing_threshold": 1},
}


def test_what_changes_nothing_is_named(http: httpx.Client) -> None:
    """Wherever in a body it stands; also parameters of the query string that mean nothing here."""

    def ignored(response: httpx.Response) -> set[str]:
        assert response.status_code == 200, response.text
        return set(response.headers.get("x-vecraft-ignored", "").split(", "))

    path = f"/collections/hints-{uuid4().hex[:8]}"
    assert ignored(http.put(path, json=CREATED)) == {"payload_m", "index", "optimizers_config"}
    index = {"field_name": "t", "field_schema": {"type": "keyword", "is_tenant": True}}
    assert ignored(http.put(f"{path}/index", json=index)) == {"is_tenant"}
    query = {"query": [1, 2, 3, 4], "using": "x", "params": {"exact": True, "indexed_only": True}}
    deep = {"prefetch": {"prefetch": [query], "query": [1, 2, 3, 4], "using": "x"}, "query": {"fusion": "rrf"}}
    assert ignored(http.post(f"{path}/points/query", json=query)) == {"indexed_only"}
    assert ignored(http.post(f"{path}/points/query/batch", json={"searches": [query]})) == {"indexed_only"}
    assert ignored(http.get(f"{path}?made_up=1")) == {"made_up"}
    assert ignored(http.post(f"{path}/points/query", json=deep)) == {"indexed_only"}
    result(http.delete(path))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"query": [1, 2, 3, 4], "shard_key": "a"}, "shard_key is not supported"),
        ({"query": {"text": "words"}}, "text is not supported"),
        ({"query": [1, 2, 3, 4], "made_up": 1}, "made_up"),
        ({"query": {"nearest": {"text": "words", "model": "m"}}}, "'m' is not offered"),
        ({"prefetch": {"query": [1], "lookup_from": {"collection": "c", "shard_key": "a"}}}, "shard_key is not supported"),
    ],
)
def test_what_is_not_there_is_refused_by_name(http: httpx.Client, name: str, body: Any, said: str) -> None:
    response = http.post(f"/collections/{name}/points/query", json=body)
    assert response.status_code == 400
    assert said in response.json()["status"]["error"]
