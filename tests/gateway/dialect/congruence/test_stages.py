"""Queries in stages: prefetch, fusion, rescoring, formulas, diversity (V12)."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import compare
from tests.gateway.dialect.congruence.congruent_points import COUNT
from tests.gateway.dialect.congruence.questions import AT, EVEN, LISTS, RRF, having, known, prefetch, query, value

DBSF = models.FusionQuery(fusion=models.Fusion.DBSF)
DEEP = [
    models.Prefetch(prefetch=[prefetch("euclid", 60, filter=EVEN)], query=AT["cos"], using="cos", limit=30),
    prefetch("rare", 30, score_threshold=0.5),
]


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
        prefetch=models.Prefetch(prefetch=LISTS, query=RRF, limit=COUNT),
        limit=COUNT,
    ),
    "by id of a filter": query(None, query_filter=EVEN, limit=COUNT),
    "by id": query(None, limit=7, offset=3),
    "all of them": query(RRF, prefetch=[models.Prefetch(filter=EVEN, limit=5), prefetch("cos", 5)], limit=COUNT),
}
if known("IdfCorpusParams"):
    corpus = models.SearchParams(idf=models.IdfCorpusParams(corpus=EVEN))
    STAGES["corpus"] = query(AT["rare"], "rare", search_params=corpus, limit=COUNT)
if known("RrfQuery") and "weights" in models.Rrf.model_fields:
    weighted = models.RrfQuery(rrf=models.Rrf(k=30, weights=[1.0, 0.3, 2.5, 0.01]))
    STAGES["rrf, k and weights"] = query(weighted, prefetch=LISTS, limit=COUNT)
if known("Mmr"):
    mmr = models.Mmr(diversity=0.4, candidates_limit=30)
    for diverse in ("cos", "dot", "euclid", "manhattan", "many", "far", "sparse"):
        by_mmr = models.NearestQuery(nearest=AT[diverse], mmr=mmr)
        STAGES[f"mmr {diverse}"] = query(by_mmr, diverse, limit=12, offset=2)


@pytest.mark.parametrize("label", STAGES)
def test_stages(both: list[QdrantClient], label: str) -> None:
    """Prefetch, fusion, rescoring, formulas, diversity (V12)."""
    assert compare(both, STAGES[label])["points"]
