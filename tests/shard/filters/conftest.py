"""What the tests of filters share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shard.sorted_indexes

pytest.register_assert_rewrite("tests.shard.filters.pair")


@pytest.fixture(scope="module", autouse=True)
def often_sorted() -> Iterator[None]:
    """So that the few rows of these tests meet both halves of a sorted index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard.sorted_indexes, "RESORT_ROWS", 3)
        yield
