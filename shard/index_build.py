"""Builds payload indexes beside the writes: first from the rows of a view, then from what changed until the next view, and so on.

The last changes are added under the shard's lock, and the indexes are installed in the same moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyroaring import BitMap

from payload.schema import FieldSchema
from shard.payload_index import FieldIndex, index_payload, unindex_payload
from shard.store import Row
from shard.view import ROWS_PER_STEP, ShardView

if TYPE_CHECKING:
    from shard.shard import Shard

LAST_ROWS = 200
"""Up to this many changed rows are added under the shard's lock."""


class IndexBuild:
    """One build of the indexes of `schemas` in a shard. Run it once, on any thread."""

    def __init__(self, shard: Shard, schemas: dict[str, FieldSchema]) -> None:
        self._shard = shard
        self.schemas = schemas
        self._fields = {name: FieldIndex(schema) for name, schema in schemas.items()}
        self._view: ShardView | None = None
        """The view whose rows are indexed so far."""

    def run(self) -> None:
        """Builds and installs the indexes. Ends early when the shard is closed."""
        while not self._install():
            if (view := self._shard.latest_view) is None:
                return
            self._advance(view)

    def _install(self) -> bool:
        """Adds the last changes and installs the indexes, if these are few. Returns whether the build is over."""
        shard = self._shard
        with shard.lock:
            if (view := shard.latest_view) is None:
                return True
            if self._view is None or len(view.added_since(self._view)) + len(view.removed_since(self._view)) > LAST_ROWS:
                return False
            self._advance(view)
            shard.install(self._fields)
            return True

    def _advance(self, view: ShardView) -> None:
        """Brings the indexes to the state of a later view."""
        added = view.alive
        if self._view is not None:
            for row in _in_steps(self._view, self._view.alive & view.removed_since(self._view)):
                unindex_payload(self._fields, row.row, row.payload)
            added = view.added_since(self._view)
        for row in _in_steps(view, added):
            index_payload(self._fields, row.row, row.payload)
        self._view = view


def _in_steps(view: ShardView, rows: BitMap) -> Iterator[Row]:
    numbers = list(rows)
    for start in range(0, len(numbers), ROWS_PER_STEP):
        yield from view.points(numbers[start : start + ROWS_PER_STEP])
