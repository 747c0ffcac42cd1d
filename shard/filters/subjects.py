"""What a filter looks at: a point, or an element of an array in it; and what it takes from an index.

A condition has two faces. `test` decides one subject and is the definition. `select` gives, from the indexes, a superset of the
rows that pass, and says whether it is exact; what is not exact is tested point by point, so a missing index costs time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple, Protocol

import orjson
from pyroaring import BitMap

from payload.schema import FieldSchema
from shard.payload_index import FieldIndex
from shard.store import Row
from shard.vectors.index import View


class FilterError(ValueError):
    """A filter that means nothing. The text names the place and the bound."""


class Subject(Protocol):
    """What is under test. An element of an array has no id and no vectors."""

    @property
    def id(self) -> bytes: ...

    @property
    def fields(self) -> Mapping[str, FieldSchema]:
        """The schemas of the collection's indexed fields: texts and UUIDs are compared as these say."""

    @property
    def payload(self) -> Any: ...

    @property
    def vector_names(self) -> Set[str]: ...


class Source(Protocol):
    """Where a point under test comes from: the view of a shard."""

    @property
    def fields(self) -> Mapping[str, FieldSchema]: ...

    def vector_names(self, row: int) -> Set[str]:
        """The names of the vectors that a row has."""


class PointSubject:
    """A point under test; payload and vector names are read when a condition asks."""

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
    """An element of an array, under the test of a nested filter."""

    id = b""
    vector_names: Set[str] = frozenset()

    def __init__(self, payload: Any, fields: Mapping[str, FieldSchema]) -> None:
        self.payload = payload
        self.fields = fields


class Selection(NamedTuple):
    """Rows that may pass; when `exact`, just those that do."""

    rows: BitMap
    exact: bool


class Indexes(Protocol):
    """What `select` may ask: the rows of a view, and the shard's indexes over them."""

    @property
    def alive(self) -> BitMap:
        """All rows."""

    def field(self, path: str) -> FieldIndex | None:
        """The index of a payload field, when there is one."""

    def rows_of(self, test: ViewTest) -> BitMap:
        """The rows of a view that pass such a test."""


class PinnedRows(Protocol):
    """What a `ViewTest` asks of a view."""

    @property
    def vectors(self) -> Mapping[str, View]: ...

    def find(self, ids: Iterable[bytes]) -> list[Row]:
        """The points with these ids."""


class ViewTest(Protocol):
    """A condition that the view alone decides, without the payload index; this may take long, so it is done without the lock."""

    def rows(self, view: PinnedRows) -> BitMap:
        """The rows that pass."""


class Filter(Protocol):
    """A compiled condition."""

    def view_tests(self) -> Iterable[ViewTest]:
        """The conditions in it that the view alone decides."""

    def test(self, subject: Subject) -> bool:
        """Whether the subject passes."""

    def select(self, indexes: Indexes) -> Selection:
        """The rows that may pass. The bitmap may be one of the indexes' own: it must not be changed, and is copied to be kept."""


class PayloadTest:
    """What conditions on payload values have in common: the view alone decides none of them."""

    def view_tests(self) -> Iterable[ViewTest]:
        return ()


class Path(NamedTuple):
    """Where a field stands: `key` from the subject on, `place` from the payload on; they differ within a nested filter."""

    key: str
    place: str
