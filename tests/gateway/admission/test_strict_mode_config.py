"""Strict mode: what the limits themselves may be."""

from __future__ import annotations

import msgspec
import pytest
from qdrant_client import models

from catalog.errors import InvalidConfig
from catalog.strict_mode import MultivectorLimit, SparseLimit, StrictMode
from gateway.admission.strict_mode import StrictModeBody


def test_the_fields_are_those_of_the_dialect() -> None:
    assert set(StrictMode.__struct_fields__) == set(models.StrictModeConfig.model_fields)
    assert set(MultivectorLimit.__struct_fields__) == set(models.StrictModeMultivector.model_fields)
    assert set(SparseLimit.__struct_fields__) == set(models.StrictModeSparse.model_fields)


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        *[
            (field, 1, 2**63 - 1)
            for field in ("max_query_limit", "max_timeout", "max_points_count", "read_rate_limit", "write_rate_limit")
        ],
        *[
            (field, 0, 2**63 - 1)
            for field in (
                "search_max_hnsw_ef",
                "search_max_oversampling",
                "search_max_batchsize",
                "upsert_max_batchsize",
                "max_collection_vector_size_bytes",
                "max_collection_payload_size_bytes",
                "filter_max_conditions",
                "condition_max_size",
                "max_payload_index_count",
            )
        ],
        ("max_resident_memory_percent", 1, 100),
    ],
)
def test_a_limit_has_bounds_of_its_own(field: str, low: int, high: int) -> None:
    for fine in (low, high):
        StrictMode(**{field: fine}).validate()
    for wrong in (low - 1, high + 1):
        with pytest.raises(InvalidConfig, match=f"strict_mode_config: {field} is {wrong}, must be between {low} and {high}"):
            StrictMode(**{field: wrong}).validate()


@pytest.mark.parametrize(
    ("strict", "said"),
    [
        (StrictMode(multivector_config={"a": MultivectorLimit(0)}), "multivector_config.a.max_vectors is 0, must be between 1"),
        (StrictMode(sparse_config={"a": SparseLimit(0)}), "sparse_config.a.max_length is 0, must be between 1"),
        (
            StrictMode(sparse_config={str(n): SparseLimit() for n in range(65)}),
            "number of names in sparse_config is 65, must be between 0 and 64",
        ),
    ],
)
def test_limits_by_name_have_bounds_too(strict: StrictMode, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        strict.validate()


def test_a_change_keeps_what_it_does_not_give() -> None:
    before = StrictMode(True, max_query_limit=10, search_allow_exact=True)
    after = before.updated(StrictMode(max_query_limit=20, search_allow_exact=False))
    assert after == StrictMode(True, max_query_limit=20, search_allow_exact=False)
    assert before.updated(StrictMode(enabled=False)) == StrictMode(False, max_query_limit=10, search_allow_exact=True)


def test_the_body_refuses_unknown_fields_and_becomes_limits_that_the_catalog_keeps() -> None:
    sent = b'{"enabled":true,"search_max_oversampling":2,"multivector_config":{"a":{"max_vectors":3}},"sparse_config":null}'
    kept = StrictMode().updated(msgspec.json.decode(sent, type=StrictModeBody))
    assert type(kept) is StrictMode
    assert msgspec.json.decode(msgspec.json.encode(kept), type=StrictMode) == StrictMode(
        True, search_max_oversampling=2.0, multivector_config={"a": MultivectorLimit(3)}
    )
    for unknown in ({"max_limit": 1}, {"multivector_config": {"a": {"max": 1}}}, {"sparse_config": {"a": {"max": 1}}}):
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.convert(unknown, StrictModeBody)
