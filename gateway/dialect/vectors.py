"""Converts vectors of request bodies to arrays: lists of numbers, lists of lists, sparse objects, base64 of float32.

Vectors stay raw in parsed bodies, so that their numbers are parsed directly into an array, without Python objects.
"""

from __future__ import annotations

import re
import threading
from binascii import a2b_base64
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import simdjson

from gateway.http.errors import BadRequest
from journal.records import SPARSE, Vector, Vectors
from payload.errors import BoundError

T = TypeVar("T")

_NESTED = re.compile(rb"\[\s*\[")
_threads = threading.local()  # a simdjson parser owns its latest result, so each thread needs its own


class SparseBody(msgspec.Struct, forbid_unknown_fields=True):
    """A sparse vector."""

    indices: list[int]
    values: list[float]


class Packed(bytes):
    """A raw part of a msgpack body."""


_MAPS = frozenset(bytes([head]) for head in (*range(0x80, 0x90), 0xDE, 0xDF))
"""First bytes of a map in msgpack."""


def raw_of(part: msgspec.Raw | msgspec.UnsetType, packed: bool) -> bytes:
    """A raw part of a body, of type Packed if it is msgpack; empty when it is missing."""
    data = b"" if isinstance(part, msgspec.UnsetType) else bytes(part)
    return Packed(data) if packed else data


def object_of(raw: bytes, kind: type[T]) -> T | None:
    """A raw part decoded as an object of that type; None when it is not an object."""
    return decoded(raw, kind) if is_object(raw) else None


def is_object(raw: bytes) -> bool:
    """Whether a raw part is an object."""
    if isinstance(raw, Packed):
        return raw[:1] in _MAPS
    return raw[:1] == b"{"


def decoded(raw: bytes, kind: type[T]) -> T:
    """A raw part decoded as a value of that type. Raises msgspec.ValidationError."""
    return msgspec.msgpack.decode(raw, type=kind) if isinstance(raw, Packed) else msgspec.json.decode(raw, type=kind)


def vector_of(raw: bytes, place: str) -> Vector:
    """The vector in a raw part of a body; `place` names the part in errors. Raises BadRequest."""
    if isinstance(raw, Packed):
        return _of_plain(msgspec.msgpack.decode(raw), place)
    match raw[:1]:
        case b"[":
            return _of_list(raw, place)
        case b"{":
            return _of_object(raw, place)
        case b'"':
            return of_base64(msgspec.json.decode(raw), place)
    raise BadRequest(f"{place}: not a vector: {shown(raw)}")


def shown(raw: bytes) -> str:
    """The beginning of a part of a JSON body, for an error text."""
    return raw[:32].decode(errors="replace")


def of_base64(text: str, place: str) -> Vectors:
    """A vector from base64 of little-endian float32. Raises BadRequest."""
    try:
        return of_bytes(a2b_base64(text, strict_mode=True), place)
    except ValueError as error:
        raise BadRequest(f"{place}: not base64: {text[:32]!r}") from error


def of_bytes(data: bytes, place: str) -> Vectors:
    """A vector from little-endian float32. Shape (size,). Raises BadRequest."""
    if len(data) % 4 or not data:
        raise BadRequest(f"{place}: {len(data)} bytes are not a vector of float32")
    return np.frombuffer(data, "<f4")


def sparse_of(body: SparseBody, place: str) -> Vector:
    """A sparse vector with ascending indices. Raises BadRequest."""
    if len(body.indices) != len(body.values):
        raise BoundError(f"{place}: {len(body.indices)} indices and {len(body.values)} values must be as many")
    if any(not 0 <= index < 2**32 for index in body.indices):
        raise BadRequest(f"{place}.indices: must be between 0 and {2**32 - 1}")
    vector = np.empty(len(body.indices), SPARSE)
    order = np.argsort(np.array(body.indices, np.int64), kind="stable")
    vector["index"], vector["value"] = np.array(body.indices, np.int64)[order], float32(body.values)[order]
    if len(vector) and not (np.diff(vector["index"].astype(np.int64)) > 0).all():
        raise BoundError(f"{place}.indices: must be unique")
    return vector


def float32(numbers: Any) -> Vectors:
    """The numbers as float32; those that are too large become infinite and are refused later."""
    with np.errstate(over="ignore"):
        return np.array(numbers).astype(np.float32) if isinstance(numbers, np.ndarray) else np.array(numbers, np.float32)


def _of_list(raw: bytes, place: str) -> Vector:
    nested = _NESTED.match(raw) is not None
    try:
        flat, lengths = _numbers(raw, nested)
    except (ValueError, TypeError, RuntimeError):
        _threads.parser = None  # the error may hold references into the parser
        flat, lengths = _long_numbers(raw, nested, place)
    if not len(flat):
        raise BoundError(f"{place}: must not be empty")
    if not nested:
        return flat
    if len(set(lengths)) > 1:
        raise BoundError(f"{place}: vectors of one multi-vector have different dimensions: {sorted(set(lengths))[:8]}")
    return flat.reshape(len(lengths), -1)


def _long_numbers(raw: bytes, nested: bool, place: str) -> tuple[Vectors, list[int]]:
    """As `_numbers`, also for integers beyond 64 bits, which the faster parser does not take. Raises BadRequest."""
    try:
        rows = msgspec.json.decode(raw, type=list[list[float]]) if nested else [msgspec.json.decode(raw, type=list[float])]
    except msgspec.MsgspecError:
        raise BadRequest(f"{place}: not a list of numbers, nor of lists of numbers: {shown(raw)}") from None
    return float32(np.array([number for row in rows for number in row])), [len(row) for row in rows] if nested else []


def _numbers(raw: bytes, nested: bool) -> tuple[Vectors, list[int]]:
    """All numbers of a list, or of a list of lists with their lengths."""
    parser: simdjson.Parser | None = getattr(_threads, "parser", None)
    if parser is None:
        parser = _threads.parser = simdjson.Parser()
    parsed = cast(simdjson.Array, parser.parse(raw))
    lengths = [len(cast(simdjson.Array, inner)) for inner in parsed] if nested else []
    if raw.count(b"[") != 1 + len(lengths):
        raise ValueError("lists and numbers are mixed")
    with np.errstate(over="ignore"):
        return np.frombuffer(parsed.as_buffer(of_type="d"), np.float64).astype(np.float32), lengths


def _of_object(raw: bytes, place: str) -> Vector:
    try:
        return sparse_of(msgspec.json.decode(raw, type=SparseBody), place)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{place}: not a sparse vector: {error}") from error


def _of_plain(value: Any, place: str) -> Vector:
    """The vector from a decoded msgpack value."""
    if isinstance(value, bytes):
        return of_bytes(value, place)
    if isinstance(value, list):
        return _of_plain_list(value, place)
    try:
        return sparse_of(msgspec.convert(value, SparseBody), place)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{place}: not a vector: {error}") from error


def _of_plain_list(value: list[Any], place: str) -> Vector:
    rows = [of_bytes(row, f"{place}[{at}]") if isinstance(row, bytes) else row for at, row in enumerate(value)]
    if value in ([], [[]]):
        raise BoundError(f"{place}: must not be empty")
    try:
        array = np.array(rows)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu" or array.ndim > 2 or not array.size:
        raise BadRequest(f"{place}: not a list of numbers, nor of lists of numbers that are equally long")
    return float32(array)
