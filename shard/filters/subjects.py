"""The protocols between filters, the subjects that they test, and the indexes.

A condition has two methods. `test` decides one subject (a point, or an element of an array in its payload); it is the definition.
`select` computes from the indexes a superset of the rows that pass, and whether it is exact. An inexact superset is tested point
by point, so a missing index costs only time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple, Protocol

import orjson
from pyroaring import BitMap

from payload.errors import BoundError
from payload.schema import FieldSchema
from shard.deadline import Deadline
from shard.payload_index import FieldIndex
from shard.store import Row
from shard.vectors.index import VectorView


class FilterError(ValueError):
    """An invalid filter. The text names the place and the bound."""


class FilterBoundError(FilterError, BoundError):
    """A filter that can be read, and breaks a bound or lacks a condition."""


class Subject(Protocol):
    """What a condition tests. An element of an array has no id and no vectors."""

    @property
    def id(self) -> bytes: ...

    @property
    def fields(self) -> Mapping[str, FieldSchema]:
        """The schemas of the collection's indexed fields: they decide how texts and UUIDs are compared."""

    @property
    def payload(self) -> Any: ...

    @property
    def vector_names(self) -> Set[str]: ...


class Source(Protocol):
    """The view of a shard, as PointSubject uses it."""

    @property
    def fields(self) -> Mapping[str, FieldSchema]: ...

    def vector_names(self, row: int) -> Set[str]:
        """The names of the vectors that a row has."""


class PointSubject:
    """A point; its payload and vector names are read when a condition needs them."""

    __slots__ = ("_payload", "_row", "_source", "fields", "id")

    def __init__(self, row: Row, source: Source) -> None:
        self.id = row.id
        self.fields = source.fields
        self._row = row
        self._source = source
        self._payload: Any = None

    @property
    def payload(self) -> Any:
        if self._payload is None:
            self._payload = orjson.loads(self._row.payload) if self._row.payload else {}
        return self._payload

    @property
    def vector_names(self) -> Set[str]:
        return self._source.vector_names(self._row.row)


class Element:
    """An element of an array, for a nested filter."""

    id = b""
    vector_names: Set[str] = frozenset()

    def __init__(self, payload: Any, fields: Mapping[str, FieldSchema]) -> None:
        self.payload = payload
        self.fields = fields


class Selection(NamedTuple):
    """Rows that may pass a filter. `exact`: all of them pass."""

    rows: BitMap
    exact: bool


class IndexReader(Protocol):
    """The alive rows of a view and the shard's payload indexes, for `select`."""

    @property
    def alive(self) -> BitMap:
        """All rows of the view."""

    def field(self, path: str) -> FieldIndex | None:
        """The index of a payload field; None without one."""

    def rows_of(self, test: ViewTest) -> BitMap:
        """The rows of the view that pass the test."""


class PinnedRows(Protocol):
    """A view, as `ViewTest` uses it."""

    @property
    def vectors(self) -> Mapping[str, VectorView]: ...

    def find(self, ids: Iterable[bytes]) -> list[Row]:
        """The points with these ids."""


class ViewTest(Protocol):
    """A condition that needs no payload index, only the view. It may take long and is evaluated without the index's lock."""

    def rows(self, view: PinnedRows, deadline: Deadline) -> BitMap:
        """The rows that pass. Raises DeadlineExceeded."""


class Filter(Protocol):
    """A compiled condition."""

    def view_tests(self) -> Iterable[ViewTest]:
        """The conditions in it that need only the view."""

    def test(self, subject: Subject) -> bool:
        """Whether the subject passes."""

    def select(self, indexes: IndexReader) -> Selection:
        """The rows that may pass. The bitmap may belong to an index: the caller must not change it, or keep it without a copy."""


class PayloadTest:
    """The base of conditions on payload values, which need more than the view."""

    def view_tests(self) -> Iterable[ViewTest]:
        return ()


class Path(NamedTuple):
    """The path of a field: `key` from the subject, `full_key` from the payload. They differ inside a nested filter."""

    key: str
    full_key: str
