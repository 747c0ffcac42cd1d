"""Strict mode: vectors of a name, and memory beyond its share."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from catalog.strict_mode import MultivectorLimit, SparseLimit, StrictMode
from gateway.admission import strict_mode
from gateway.admission.strict_mode import InsufficientStorage
from gateway.http.errors import BadRequest, status_of


def test_vectors_of_a_name_have_their_own_bounds() -> None:
    strict = StrictMode(
        True,
        multivector_config={"page": MultivectorLimit(2), "free": MultivectorLimit()},
        sparse_config={"words": SparseLimit(max_length=3)},
    )
    strict_mode.check_vectors(strict, [("page", 2), ("free", 999), ("other", 999)], [("words", 3), ("page", 999)])
    with pytest.raises(BadRequest, match=r"number of vectors in multivector 'page' is 3, must be at most 2 .*page.max_vectors"):
        strict_mode.check_vectors(strict, multivectors=[("page", 1), ("page", 3)])
    with pytest.raises(BadRequest, match=r"length of sparse vector 'words' is 4, must be at most 3 .*words.max_length"):
        strict_mode.check_vectors(strict, sparse=[("words", 4)])


def test_vectors_are_not_looked_at_without_limits() -> None:
    def unread() -> Any:
        raise AssertionError("read")
        yield

    sparse_only = StrictMode(True, sparse_config={"words": SparseLimit(3)})
    strict_mode.check_vectors(sparse_only, multivectors=unread())
    for off in (None, StrictMode(True), StrictMode(sparse_config={"words": SparseLimit(3)})):
        strict_mode.check_vectors(off, unread(), unread())


def test_memory_beyond_its_share_refuses_what_adds_data() -> None:
    strict = StrictMode(True, max_resident_memory_percent=80)
    strict_mode.check_memory(strict, lambda: 80.0)
    with pytest.raises(InsufficientStorage, match=r"resident memory is 80\.1 percent, must be at most 80") as raised:
        strict_mode.check_memory(strict, lambda: 80.1)
    assert status_of(raised.value)[0] == 507

    def unasked() -> NoReturn:
        raise AssertionError("asked")

    for off in (None, StrictMode(True), StrictMode(max_resident_memory_percent=80)):
        strict_mode.check_memory(off, unasked)
