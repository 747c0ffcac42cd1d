"""A shard stores vectors in their datatype, and the same again after a restart and after a replay (I1)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from catalog.collection import Collection, CollectionConfig, Datatype, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import PatchVectors, PointOperation, Record, Upsert, VectorColumn
from journal.topics import TIERS, Topics
from shard.batch import Limits
from shard.contract import contract_error
from shard.shard import Shard

TOPICS = Topics()
HOME = TopicPartition(TOPICS.tier(1), 0)
COUNT, SIZE = 20, 10
WIDTHS = {Datatype.FLOAT32: 40, Datatype.FLOAT16: 20, Datatype.UINT8: 10, Datatype.TURBO4: 9}
ALL = {
    f"{datatype}-{distance}-{multi}": VectorParams(SIZE, distance, multi=multi, datatype=datatype)
    for datatype in Datatype
    for distance in Distance
    for multi in (False, True)
}


def collection(vectors: dict[str, VectorParams] = ALL) -> Collection:
    return Collection("c", 0, CollectionConfig(vectors), [[0 for _ in TIERS]])


def columns(seed: int) -> list[VectorColumn]:
    chance = np.random.default_rng(seed)
    made = []
    for name, params in ALL.items():
        if params.multi:
            each = [chance.uniform(0, 255, (2, SIZE)).astype(np.float32) for _ in range(COUNT)]
            made.append(VectorColumn.of_each(name, each))
        else:
            made.append(VectorColumn.of(name, chance.uniform(0, 255, (COUNT, SIZE)).astype(np.float32)))
    return made


def records() -> list[tuple[Entry, Record]]:
    """A full write, and a patch of half of the points, which the history keeps."""
    ids = [encode_id(number) for number in range(COUNT)]
    half = [msgspec.structs.replace(column, points=[*range(0, COUNT, 2)]) for column in columns(2)]
    half = [VectorColumn.of_each(c.name, c.each()[: COUNT // 2], c.points) if c.lengths else _first(c) for c in half]
    operations: list[PointOperation] = [Upsert(ids, columns(1), [b"{}"] * COUNT), PatchVectors(ids, half)]
    return [
        (Entry(HOME, at, 1000 + at, None, b"", ()), Record(stamp_at(1000 + at), operation, 0))
        for at, operation in enumerate(operations)
    ]


def _first(column: VectorColumn) -> VectorColumn:
    return VectorColumn.of(column.name, column.array()[: COUNT // 2], column.points)


def opened(folder: Path) -> Shard:
    return Shard(folder, collection(), 0, TOPICS, Limits(), lambda task: None)


def state(shard: Shard) -> list[dict[str, bytes]]:
    rows = shard.view.find([encode_id(number) for number in range(COUNT)])
    return [{name: vector.tobytes() for name, vector in shard.view.vectors_of(row.row).items()} for row in rows]


def test_a_shard_stores_every_datatype_and_gets_the_same_again(tmp_path: Path) -> None:
    for operation in records():
        assert contract_error(collection(), operation[1].operation) is None  # type: ignore[arg-type]
    shard = opened(tmp_path / "one")
    shard.apply(records())
    before = state(shard)
    row = shard.view.find([encode_id(1)])[0].row
    sizes = {name: vector.nbytes for name, vector in shard.store.vectors(row).items()}
    assert sizes == {name: WIDTHS[params.datatype] * (2 if params.multi else 1) for name, params in ALL.items()}
    assert shard.view.vector_bytes(row) == sum(sizes.values())
    read = shard.view.vectors_of(row)
    assert {vector.dtype for vector in read.values()} == {np.dtype(np.float32)}
    written = {column.name: column.array()[1] for column in columns(1)}["uint8-Cosine-False"]
    assert (read["uint8-Cosine-False"] == np.trunc(written)).all()
    scores = {name: view.compare(read[name]) for name, view in shard.view.vectors.items()}
    shard.close()
    again = opened(tmp_path / "one")
    replayed = opened(tmp_path / "two")
    for record in records():  # in batches of one, so that the second is joined into what is stored
        replayed.apply([record])
    for other in (again, replayed):
        assert state(other) == before
        for name, view in other.view.vectors.items():
            assert sorted(view.compare(read[name]).scores) == sorted(scores[name].scores), name
        other.close()


@pytest.mark.parametrize(("distance", "fits"), [(Distance.DOT, False), (Distance.MANHATTAN, False), (Distance.COSINE, True)])
def test_what_float16_cannot_hold_is_refused(distance: Distance, fits: bool) -> None:
    """Unit vectors always fit."""
    mine = collection({"": VectorParams(2, distance, datatype=Datatype.FLOAT16)})
    for value, accepted in ((65_504, True), (-65_505, fits)):
        operation = Upsert([encode_id(1)], [VectorColumn.of("", np.array([[1, value]], np.float32))], [b"{}"])
        error = contract_error(mine, operation)
        assert (error is None) == accepted
        assert error is None or "65504" in error


def test_collections_of_earlier_releases_stay_float32() -> None:
    """They were given a datatype that had no effect."""
    stored = b'{"vectors":{"":{"size":2,"distance":"Dot","kept":{"datatype":"float16"}}}}'
    assert msgspec.json.decode(stored, type=CollectionConfig).vectors[""].datatype is Datatype.FLOAT32
