"""Bodies know every field of the dialect, and no field goes unheeded: it is used, or named as ignored, or refused (N6)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from qdrant_client import models

import gateway
from gateway import bodies, query_bodies
from gateway.bodies import Body
from gateway.routes import ROUTES
from query.filters import Condition

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
    taken = [route.body for route in ROUTES if route.body is not None] + [query_bodies.QueryObject]
    return [part for body in taken for part in parts(body, seen)]


def heeded() -> str:
    """The code that takes requests apart."""
    return "".join(path.read_text() for path in sorted(Path(gateway.__file__).parent.glob("*.py")))


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
