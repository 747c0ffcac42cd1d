"""What stands in a record: columns of vectors, and words for people."""

import numpy as np
import pytest

from journal.records import Delete, VectorColumn, describe
from tests.journal.golden.generate import ALL, IDS, SAMPLES, SOME


def test_a_column_gives_back_its_vectors_bit_by_bit() -> None:
    """I10"""
    vectors = np.array([[np.nan, -0.0], [np.inf, 1e-45]], np.float32)
    for given in (vectors, vectors.astype(">f4"), np.asfortranarray(vectors), vectors.astype(np.float64)):
        column = VectorColumn.of("v", given)
        assert column.array().tobytes() == vectors.tobytes()
    assert VectorColumn.of("v", vectors[:0]).array().shape == (0, 2)


def test_a_column_says_which_points_it_belongs_to() -> None:
    """I8"""
    assert list(ALL.indexes(3)) == [0, 1, 2]
    assert list(SOME.indexes(3)) == [2]


@pytest.mark.parametrize(("size", "data"), [(3, bytes(8)), (2, bytes(7)), (0, bytes(8)), (-1, bytes(8))])
def test_a_column_whose_bytes_do_not_divide_is_refused(size: int, data: bytes) -> None:
    """I6"""
    with pytest.raises(ValueError):  # noqa: PT011 (numpy's own texts)
        VectorColumn("v", size, None, data).array()


def test_every_operation_has_a_description() -> None:
    """V3"""
    descriptions = [describe(operation) for operation in SAMPLES]
    assert all(text.startswith(type(operation).__name__) for text, operation in zip(descriptions, SAMPLES, strict=True))
    assert descriptions[1] == "Delete 42, '550e8400-e29b-41d4-a716-446655440000', 'straße'"
    assert describe(Delete(IDS * 2)).endswith(", … 6 points")
