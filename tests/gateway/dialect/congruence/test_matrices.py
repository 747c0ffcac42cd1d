"""How close points are to each other (V12)."""

from __future__ import annotations

import pytest
from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT
from tests.gateway.dialect.congruence.questions import NAMES, field


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
