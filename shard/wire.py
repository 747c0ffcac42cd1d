"""Encodes requests and results of replicas: msgpack, with vectors as raw bytes and filters and formulas as their JSON text."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import numpy as np

from journal.records import SPARSE
from shard.filters.where import Where
from shard.ranking.formula import Formula

T = TypeVar("T")

_SPARSE_SHAPE = [-1]


def encode(value: Any) -> bytes:
    """Encodes a request, a result, or a tuple of their parts."""
    return msgspec.msgpack.encode(value, enc_hook=_encoded)


def decode(data: bytes, kind: type[T]) -> T:
    """Decodes the bytes of `encode`. Raises msgspec.ValidationError, FilterError or FormulaError."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_decoded)


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (_SPARSE_SHAPE if value.dtype == SPARSE else value.shape, value.tobytes())
    if isinstance(value, Where | Formula):
        return value.text
    raise NotImplementedError(f"{type(value).__name__} cannot be encoded")


def _decoded(kind: Any, value: Any) -> Any:
    if kind is Where:
        return Where(value)
    if kind is Formula:
        return Formula(value)
    shape, data = value
    return np.frombuffer(data, SPARSE) if shape == _SPARSE_SHAPE else np.frombuffer(data, np.float32).reshape(shape)
