"""What payload indexes hold of rows that are gone is given back."""

from __future__ import annotations

import threading
from sys import getsizeof

from pyroaring import BitMap

from shard.fitted import MAX_ROOM, fitted
from shard.postings import Postings
from shard.sorted_indexes import RangeIndex

ROWS = 50_000
LEFT = 1_000


def test_a_dict_that_has_only_grown_stays() -> None:
    held = {}
    for at in range(ROWS):
        held[at] = at
        assert fitted(held) is held


def test_a_dict_whose_entries_are_gone_is_copied() -> None:
    held = dict.fromkeys(range(ROWS))
    for at in range(ROWS - LEFT):
        del held[at]
    less = fitted(held)
    assert less == held
    assert getsizeof(less) < getsizeof(held) / MAX_ROOM


def test_indexes_give_back_what_removed_rows_held() -> None:
    postings, others, numbers = Postings(), Postings(), RangeIndex()
    for row in range(ROWS):
        postings.add(row, [f"key {row}"])
        others.add(row, [f"key {row}"])
        numbers.add(row, [row])
    full = getsizeof(postings._rows), getsizeof(numbers._values)
    for row in range(ROWS - LEFT):
        postings.remove(row, [f"key {row}"])
        numbers.remove(row)
    others.remove_rows(BitMap(range(ROWS - LEFT)))
    assert max(getsizeof(postings._rows), getsizeof(others._rows)) < full[0] / MAX_ROOM
    assert getsizeof(numbers._values) < full[1] / MAX_ROOM
    assert postings.any_of([f"key {ROWS - 1}"]) == BitMap([ROWS - 1])
    numbers.sort(threading.Lock())
    assert numbers.count() == LEFT
