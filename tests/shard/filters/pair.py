"""The same points in two shards, and the points of each that pass a filter."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import orjson

from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import Delete, PatchPayload, PointOperation, Record, ReplacePayload, Upsert, VectorColumn
from shard.filters.conditions import Condition
from shard.filters.where import where
from shard.shard import Shard
from shard.view import ShardView
from tests.shard.filters.reference import Point, passes


class Pair:
    """The same points twice: in a shard without indexes, and in one with an index of each kind; and as the model has them."""

    def __init__(self, shards: list[Shard]) -> None:
        self.shards = shards
        self.points: dict[int, Point] = {}
        self.before: list[tuple[list[ShardView], dict[int, Point]]] = []
        """Earlier moments: the views of the shards, and the points as they were."""

    def apply(self, operation: PointOperation) -> None:
        partition = TopicPartition("vecraft.tier1", 0)
        for one in self.shards:
            offset = one.progress(partition).offset
            one.apply([(Entry(partition, offset, 1_700_000_000_000, None, b"", ()), Record(hlc=offset, operation=operation))])

    def upsert(self, payloads: dict[int, Any]) -> None:
        with_vector = [at for at, number in enumerate(payloads) if number % 3]
        columns = [VectorColumn.of("", np.ones((len(with_vector), 2), np.float32), with_vector)] if with_vector else []
        self.apply(Upsert([encode_id(n) for n in payloads], columns, [orjson.dumps(payload) for payload in payloads.values()]))
        self.points |= {number: Point(number, payload, number % 3 != 0) for number, payload in payloads.items()}

    def edit(self, number: int, payload: Any, replace: bool) -> None:
        data, point = orjson.dumps(payload), self.points[number]
        self.apply(ReplacePayload([encode_id(number)], data) if replace else PatchPayload([encode_id(number)], data))
        point.payload = payload if replace else point.payload | payload

    def delete(self, numbers: list[int]) -> None:
        self.apply(Delete([encode_id(number) for number in numbers]))
        self.points = {number: point for number, point in self.points.items() if number not in numbers}

    def check(self, filters: list[dict[str, Any]]) -> None:
        for condition in filters:
            expected = {number for number, point in self.points.items() if passes(condition, point)}
            assert [found(one.view, condition) for one in self.shards] == [expected] * len(self.shards), condition

    def remember(self) -> None:
        """Keeps the views of this moment."""
        points = {number: Point(number, point.payload, point.has_vector) for number, point in self.points.items()}
        self.before.append(([one.view for one in self.shards], points))

    def check_before(self, filters: list[dict[str, Any]]) -> None:
        """I13: a view answers as at its moment, although it asks an index that has moved on."""
        for views, points in self.before:
            for condition in filters:
                expected = {number for number, point in points.items() if passes(condition, point)}
                assert [found(view, condition) for view in views] == [expected] * len(views), condition


def found(view: ShardView, condition: dict[str, Any]) -> set[int]:
    """The numbers of the points that pass, as a search finds them: from the index, the rest tested."""
    wanted = where(msgspec.convert(condition, Condition))
    selected = view.select(wanted)
    rows = view.alive if selected is None else selected.rows
    return {int.from_bytes(id_[1:], "big") for id_ in view.ids(rows.to_array().tolist())[0]}
