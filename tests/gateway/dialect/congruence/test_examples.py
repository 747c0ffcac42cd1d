"""Searches by examples: recommend, discover, context and feedback (V11)."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import Ask, compare
from tests.gateway.dialect.congruence.congruent_points import COUNT, DENSE, OTHER, points
from tests.gateway.dialect.congruence.questions import AT, BACK, EVEN, NAMES, having, known, query


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
    if name in DENSE and known("RelevanceFeedbackQuery"):
        judged = [
            models.FeedbackItem(example=item, score=score) for item, score in ((first, 0.9), (BACK[name], 0.2), (third, 0.4))
        ]
        strategy = models.NaiveFeedbackStrategy(naive=models.NaiveFeedbackStrategyParams(a=0.8, b=1.2, c=0.3))
        feedback = models.RelevanceFeedbackInput(target=AT[name], feedback=judged, strategy=strategy)
        found["feedback"] = query(models.RelevanceFeedbackQuery(relevance_feedback=feedback), name, limit=COUNT)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_examples(both: list[QdrantClient], name: str) -> None:
    """Recommend, discover, context and feedback (V11)."""
    for label, ask in examples(name).items():
        try:
            hits = compare(both, ask)["points"]
        except AssertionError as error:
            raise AssertionError(label) from error
        assert hits, label
