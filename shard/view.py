"""What a read sees of a shard: its state at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pyroaring import BitMap

from catalog.collection import Collection
from shard.rows import RowsView
from shard.store import StoreView
from shard.vectors.index import RowSet, View


class ShardView(NamedTuple):
    """A shard at one moment: what a read sees from beginning to end, whatever is applied meanwhile."""

    collection: Collection
    rows: StoreView
    known: RowsView
    alive: BitMap
    vectors: Mapping[str, View]
    selections: dict[bytes, RowSet]
    """What filters were found to select, by a digest of their text; reads put it here for those that come after."""
    version: int
    """Another one for every view of this process: equal versions mean equal answers."""
