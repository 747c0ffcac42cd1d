"""Points in the order of a payload value, and points at random (V12)."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import compare
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT
from tests.gateway.dialect.congruence.questions import EVEN

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
