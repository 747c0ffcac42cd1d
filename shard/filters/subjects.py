"""What a filter looks at: a point, or an element of an array in it; and what it takes from an index.

A condition has two faces. `test` decides one subject and is the definition. `select` gives, from the index, a superset of the
rows that pass, and says whether it is exact; what is not exact is tested point by point, so a missing index costs time only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import orjson
from pyroaring import BitMap

from payload.schema import FieldSchema
from shard.shard import Shard
from shard.store import Row
from shard.view import ShardView


class FilterError(ValueError):
    """A filter that means nothing. The text names the place and the bound."""


class Candidate:
    """A point under test; payload and vector names are read when a condition asks."""

    def __init__(self, row: Row, view: ShardView) -> None:
        self.id = row.id
        self.fields: Mapping[str, FieldSchema] = view.collection.fields
        self._row = row
        self._view = view
        self._payload: Any = None

    @property
    def payload(self) -> Any:
        if self._payload is None:
            self._payload = orjson.loads(self._row.payload) if self._row.payload else {}
        return self._payload

    @property
    def vector_names(self) -> set[str]:
        return set(self._view.rows.vectors(self._row.row))


class Element:
    """An element of an array, under the test of a nested filter. It has no id and no vectors."""

    id = b""
    vector_names: frozenset[str] = frozenset()

    def __init__(self, payload: Any, fields: Mapping[str, FieldSchema]) -> None:
        self.payload = payload
        self.fields = fields


Subject = Candidate | Element


class Selection(NamedTuple):
    """Rows that may pass; when `exact`, just those that do."""

    rows: BitMap
    exact: bool


class Filter(Protocol):
    """A parsed condition."""

    def test(self, subject: Subject) -> bool:
        """Whether the subject passes."""

    def select(self, shard: Shard) -> Selection:
        """The rows that may pass. Called under the shard's lock; gives a bitmap of its own or the shard's, unchanged."""


class Path(NamedTuple):
    """Where a field stands: `key` from the subject on, `place` from the payload on; they differ within a nested filter."""

    key: str
    place: str
