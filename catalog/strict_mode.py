"""Strict mode: a collection's limits for single requests, with the names of the API's `strict_mode_config`.

A limit of None is not set. The limits apply only if `enabled` is true. `gateway/admission/strict_mode.py` enforces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from catalog.errors import InvalidConfig

MAX_NAMES = 64
MAX_LIMIT = 2**63 - 1

_LOWEST = {
    "max_query_limit": 1,
    "max_timeout": 1,
    "search_max_hnsw_ef": 0,
    "search_max_oversampling": 0,
    "search_max_batchsize": 0,
    "upsert_max_batchsize": 0,
    "max_collection_vector_size_bytes": 0,
    "max_collection_payload_size_bytes": 0,
    "max_points_count": 1,
    "read_rate_limit": 1,
    "write_rate_limit": 1,
    "filter_max_conditions": 0,
    "condition_max_size": 0,
    "max_payload_index_count": 0,
    "max_resident_memory_percent": 1,
}
_HIGHEST = {"max_resident_memory_percent": 100}


class MultivectorLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limit of one multi-vector: the number of vectors per point."""

    max_vectors: int | None = None


class SparseLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limit of one sparse vector: the number of values per point."""

    max_length: int | None = None


class StrictMode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A collection's limits. Timeouts in seconds, rates per minute, batch sizes in points or searches."""

    enabled: bool | None = None
    max_query_limit: int | None = None
    max_timeout: int | None = None
    unindexed_filtering_retrieve: bool | None = None
    unindexed_filtering_update: bool | None = None
    search_max_hnsw_ef: int | None = None
    search_allow_exact: bool | None = None
    search_max_oversampling: float | None = None
    search_max_batchsize: int | None = None
    upsert_max_batchsize: int | None = None
    max_collection_vector_size_bytes: int | None = None
    max_collection_payload_size_bytes: int | None = None
    max_points_count: int | None = None
    read_rate_limit: int | None = None
    write_rate_limit: int | None = None
    filter_max_conditions: int | None = None
    condition_max_size: int | None = None
    multivector_config: Mapping[str, MultivectorLimit] | None = None
    sparse_config: Mapping[str, SparseLimit] | None = None
    max_payload_index_count: int | None = None
    max_resident_memory_percent: int | None = None

    def validate(self) -> None:
        """Raises InvalidConfig, which names the field and its bound."""
        for field, low in _LOWEST.items():
            _bound(field, getattr(self, field), low, _HIGHEST.get(field, MAX_LIMIT))
        _check_names("multivector_config", self.multivector_config)
        _check_names("sparse_config", self.sparse_config)
        for name, multivector in (self.multivector_config or {}).items():
            _bound(f"multivector_config.{name}.max_vectors", multivector.max_vectors, 1)
        for name, sparse in (self.sparse_config or {}).items():
            _bound(f"sparse_config.{name}.max_length", sparse.max_length, 1)

    def updated(self, change: StrictMode) -> StrictMode:
        """These limits, overridden by the ones that `change` sets. A None in `change` keeps the old limit."""
        given = {field: value for field in change.__struct_fields__ if (value := getattr(change, field)) is not None}
        return msgspec.structs.replace(self, **given)


def _check_names(field: str, limits: Mapping[str, Any] | None) -> None:
    _bound(f"number of names in {field}", None if limits is None else len(limits), 0, MAX_NAMES)


def _bound(field: str, value: float | None, low: int, high: int = MAX_LIMIT) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidConfig(f"strict_mode_config: {field} is {value}, must be between {low} and {high}")
