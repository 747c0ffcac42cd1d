"""The length of vectors, and whether their numbers are finite."""

from __future__ import annotations

from math import isfinite

import numpy as np
import pytest

from shard.vectors.index import EPSILON, LARGEST, are_finite, normalised, sum_of_squares, unit


@pytest.mark.parametrize("size", [1, 3, 8, 127, 129, 384, 4096])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1, 1e20, 1e34])
def test_one_vector_is_scaled_as_among_others(size: int, scale: float) -> None:
    """A query that is equal to a vector as it was written is equal to what is stored of it, bit by bit."""
    vectors = (np.random.default_rng(size).standard_normal((5, size)) * scale).astype(np.float32)
    vectors[3] = normalised(vectors[:1])[0]  # of unit length already
    vectors[4] = 0
    alone = [unit(vector, sum_of_squares(vector)) for vector in vectors]
    assert np.array_equal(alone, normalised(vectors))
    assert np.array_equal(alone[3:], vectors[3:])
    assert np.allclose(np.linalg.norm(alone[:3], axis=1), 1, atol=2 * EPSILON)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (40_000,)])
def test_large_numbers_are_finite_and_others_are_not(shape: tuple[int, ...]) -> None:
    numbers = np.full(shape, LARGEST, np.float32)
    assert are_finite(numbers)
    assert isfinite(sum_of_squares(numbers))
    for other in (np.nan, np.inf, -np.inf):
        numbers.flat[-1] = other
        assert not are_finite(numbers)
        assert not isfinite(sum_of_squares(numbers))
