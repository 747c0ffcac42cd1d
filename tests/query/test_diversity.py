"""Maximal marginal relevance: the order by its definition, as far as it is wanted, within the deadline (I11)."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from catalog.collection import Distance
from query.diversity import diversified
from shard.deadline import NEVER, Deadline, DeadlineExceeded


def by_definition(query: np.ndarray, vectors: list[np.ndarray], diversity: float) -> list[int]:
    order: list[int] = []
    while len(order) < len(vectors):
        gains = {
            at: (1 - diversity) * float(vector @ query)
            - diversity * max((float(vector @ vectors[other]) for other in order), default=0.0)
            for at, vector in enumerate(vectors)
            if at not in order
        }
        order.append(max(gains, key=gains.__getitem__))
    return order


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("limit", [1, 7, 30, 50])
def test_the_first_ones_are_those_of_the_definition(diversity: float, limit: int) -> None:
    random = np.random.default_rng(1)
    vectors, query = list(random.standard_normal((30, 8), np.float32)), random.standard_normal(8, np.float32)
    order = diversified(Distance.DOT, query, vectors, diversity, limit, NEVER)
    assert order == by_definition(query, vectors, diversity)[:limit]


def test_no_candidates() -> None:
    assert diversified(Distance.DOT, np.ones(8, np.float32), [], 0.5, 3, NEVER) == []


def test_it_stops_at_the_deadline() -> None:
    """With 10,000 candidates it would work for a minute."""
    seconds = count()
    vectors = list(np.random.default_rng(1).standard_normal((1000, 8), np.float32))
    with pytest.raises(DeadlineExceeded):
        diversified(Distance.DOT, vectors[0], vectors, 0.5, 1000, Deadline(20, lambda: float(next(seconds))))
    assert next(seconds) < 30
