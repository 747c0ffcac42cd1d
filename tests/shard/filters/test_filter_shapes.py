"""Filters of every shape over payloads of every kind: the indexes' answer, the answer without them and a plain model are equal,
after writes, edits and deletes alike (I10, V12)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.topics import Topics
from shard.batch import Limits
from shard.shard import Shard
from tests.shard.filters.dice import COUNT, INDEXES, Dice
from tests.shard.filters.pair import Pair


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Shard]]:
    made = []
    for number, fields in enumerate(({}, INDEXES)):
        collection = Collection("c", 0, CollectionConfig(vectors={"": VectorParams(2, Distance.DOT)}), [[0, 0, 0, 0]], fields)
        made.append(Shard(tmp_path_factory.mktemp("shard") / str(number), collection, 0, Topics(), Limits(), lambda task: None))
    yield made
    for one in made:
        one.close()


@given(st.integers(0, 2**32))
@settings(max_examples=75, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_indexed_unindexed_and_model_agree(shards: list[Shard], seed: int) -> None:
    """A smaller seed is no simpler case, so none is looked for."""
    dice, pair = Dice(seed), Pair(shards)
    filters = [dice.filter() for _ in range(25)]
    pair.upsert({number: dice.payload() for number in range(COUNT)})
    pair.remember()
    pair.check(filters[:15])
    for _ in range(3):
        pair.edit(dice.random.randrange(COUNT), dice.payload(), replace=dice.one_of([True, False]))
    pair.delete(dice.some(lambda: dice.random.randrange(COUNT), 3))
    pair.remember()
    pair.check(filters[:20])
    pair.upsert({number: dice.payload() for number in range(dice.random.randint(1, 3))})
    pair.check(filters)
    pair.check_before(filters)


def test_an_index_made_later_answers_the_same(shards: list[Shard]) -> None:
    """A field index that is built over what is stored gives what one that grew with it gives (I10)."""
    pair = Pair(shards)
    pair.upsert({n: {"word": ["red", None], "text": "a red house", "geo": {"lon": n, "lat": 0}} for n in range(COUNT)})
    with_indexes = pair.shards[1].collection
    for one in pair.shards:
        one.configure(msgspec.structs.replace(with_indexes, fields={}))
    asked = [{"key": "word", "is_null": True}, {"key": "text", "match": {"phrase": "red house"}}]
    asked.append({"key": "geo", "geo_radius": {"center": {"lon": 2, "lat": 0}, "radius": 120_000}})
    pair.check(asked)
    pair.shards[1].configure(with_indexes)
    pair.check(asked)
