"""What the reference refuses."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.gateway.dialect.congruence.comparison import Ask
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT, create, points
from tests.gateway.dialect.congruence.questions import AT, LISTS, RRF, prefetch, query

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
