"""Strict mode: each limit of a request and of a collection, at and beyond its bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from catalog.strict_mode import StrictMode
from gateway.admission import strict_mode
from gateway.http.errors import BadRequest

Check = Callable[[StrictMode | None, Any], None]


@pytest.mark.parametrize(
    ("limit", "bound", "check", "beyond", "said"),
    [
        ("max_query_limit", 10, strict_mode.check_limit, 11, "limit is 11, must be at most 10"),
        ("max_timeout", 5, strict_mode.check_timeout, 6, "timeout is 6, must be at most 5"),
        ("search_max_hnsw_ef", 64, strict_mode.check_search_params, 65, "params.hnsw_ef is 65, must be at most 64"),
        (
            "search_max_oversampling",
            1.5,
            lambda strict, value: strict_mode.check_search_params(strict, oversampling=value),
            2.0,
            "params.quantization.oversampling is 2.0, must be at most 1.5",
        ),
        ("search_max_batchsize", 3, strict_mode.check_batch, 4, "number of searches is 4, must be at most 3"),
        ("upsert_max_batchsize", 100, strict_mode.check_upsert, 101, "number of points is 101, must be at most 100"),
        (
            "max_points_count",
            5,
            lambda strict, value: strict_mode.check_collection_size(strict, value, 0, 0),
            6,
            "number of points in the collection is 6, must be at most 5",
        ),
        (
            "max_collection_vector_size_bytes",
            1024,
            lambda strict, value: strict_mode.check_collection_size(strict, 0, value, 0),
            1025,
            "size of the collection's vectors in bytes is 1025, must be at most 1024",
        ),
        (
            "max_collection_payload_size_bytes",
            1024,
            lambda strict, value: strict_mode.check_collection_size(strict, 0, 0, value),
            1025,
            "size of the collection's payloads in bytes is 1025, must be at most 1024",
        ),
        ("max_payload_index_count", 2, strict_mode.check_payload_index_count, 3, "number of payload indexes is 3"),
    ],
)
def test_a_limit_takes_its_bound_and_nothing_beyond(limit: str, bound: Any, check: Check, beyond: Any, said: str) -> None:
    strict = StrictMode(enabled=True, **{limit: bound})
    check(strict, bound)
    check(strict, 0)
    with pytest.raises(BadRequest) as raised:
        check(strict, beyond)
    assert str(raised.value).startswith(said)
    assert f"strict_mode_config.{limit}" in str(raised.value)
    for off in (None, StrictMode(enabled=True), StrictMode(**{limit: bound}), StrictMode(enabled=False, **{limit: bound})):
        check(off, beyond)


def test_what_a_request_does_not_give_is_within_any_limit() -> None:
    strict = StrictMode(True, max_query_limit=1, max_timeout=1, search_max_hnsw_ef=0, search_max_oversampling=0)
    strict_mode.check_limit(strict, None)
    strict_mode.check_timeout(strict, None)
    strict_mode.check_search_params(strict)
    strict_mode.check_filter(strict, None, {})


def test_exact_search_is_refused_only_when_it_is_not_allowed() -> None:
    forbids = StrictMode(enabled=True, search_allow_exact=False)
    strict_mode.check_search_params(forbids, exact=False)
    with pytest.raises(BadRequest, match=r"params.exact is true, must be false \(strict_mode_config.search_allow_exact\)"):
        strict_mode.check_search_params(forbids, exact=True)
    for allows in (None, StrictMode(True), StrictMode(True, search_allow_exact=True), StrictMode(search_allow_exact=False)):
        strict_mode.check_search_params(allows, exact=True)
