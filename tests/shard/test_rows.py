"""The table of rows: views never change, whatever is put, renewed or removed after them, and few rows take little memory."""

from __future__ import annotations

import pytest
from pyroaring import BitMap

from journal.ids import encode_id
from shard.rows import CHUNK_ROWS, FIRST_ROWS, RowTable

COUNT = CHUNK_ROWS + 3 * FIRST_ROWS


def test_views_keep_their_rows_while_chunks_grow() -> None:
    table = RowTable()
    views = []
    for row in range(COUNT):
        table.put(row, encode_id(row), row + 1)
        if row.bit_count() == 1 or row == COUNT - 1:
            views.append((row, table.view()))
    table.renew([(row, 7) for row in range(COUNT)])
    for last, view in views:
        ids, versions = view.known(range(last + 1))
        assert ids == [encode_id(row) for row in range(last + 1)]
        assert versions == list(range(1, last + 2))
    assert set(table.view().known(range(COUNT))[1]) == {7}


def test_memory_follows_the_number_of_rows() -> None:
    table = RowTable()
    table.put(0, encode_id(0), 1)
    first = table.size_bytes()
    assert first < 2 << 10
    for row in range(1, 1000):
        table.put(row, encode_id(row), 1)
    assert table.size_bytes() == first * 1024 // FIRST_ROWS


def test_a_chunk_of_a_checkpoint_grows_on() -> None:
    """It may be one that was not full."""
    table = RowTable()
    table.put(0, encode_id(0), 5)
    again = RowTable()
    for number, chunk in table.view().chunks():
        again.restore(number, bytearray(chunk))
    again.keep(BitMap([0]))
    again.put(CHUNK_ROWS - 1, encode_id(1), 6)
    assert again.view().known([0, CHUNK_ROWS - 1]) == ([encode_id(0), encode_id(1)], [5, 6])
    for wrong in (0, 1, CHUNK_ROWS * 27):
        with pytest.raises(ValueError, match="a chunk of"):
            again.restore(0, bytearray(wrong))
