"""The catalog is a fold: outcomes are decided when a command is applied, the same everywhere; the first create wins (V4, V5)."""

from __future__ import annotations

import msgspec
import pytest

from catalog.catalog import MAX_OUTCOMES, Catalog, OutcomeKind, choose_homes
from catalog.collection import CollectionConfig, Consistency, Distance, VectorParams
from journal.records import (
    AliasAction,
    CatalogOperation,
    ChangeAliases,
    CreateCollection,
    CreatePayloadIndex,
    DeleteCollection,
    DeletePayloadIndex,
    UpdateCollection,
)
from payload.schema import FieldSchema, FieldType

CONFIG = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(4, Distance.DOT)}))
HOME = [[0, 0, 0, 0]]


class Fold:
    """A catalog and the next offset."""

    def __init__(self) -> None:
        self.catalog = Catalog()

    def __call__(self, command: CatalogOperation | None) -> OutcomeKind:
        return self.catalog.apply(self.catalog.view.position, 0, command).kind


def test_the_first_create_wins() -> None:
    fold = Fold()
    assert fold(CreateCollection("a", CONFIG, HOME)) is OutcomeKind.DONE
    assert fold(CreateCollection("a", CONFIG, HOME)) is OutcomeKind.EXISTS
    assert fold.catalog.view.collections["a"].id == 0


def test_a_collection_made_anew_has_another_id() -> None:
    fold = Fold()
    for command in (CreateCollection("a", CONFIG, HOME), DeleteCollection("a"), CreateCollection("a", CONFIG, HOME)):
        fold(command)
    assert fold.catalog.view.collections["a"].id == 2
    assert [fold.catalog.created(id_) for id_ in range(4)] == [True, False, True, False]
    assert set(fold.catalog.view.by_id) == {2}


@pytest.mark.parametrize(
    "command",
    [
        CreateCollection("a/b", CONFIG, HOME),
        CreateCollection("", CONFIG, HOME),
        CreateCollection("b", b"{", HOME),
        CreateCollection("b", b'{"vectors": {"": {"size": 0, "distance": "Dot"}}}', HOME),
        CreateCollection("b", CONFIG, []),
        CreateCollection("b", CONFIG, [[9, 9, 9, 9]]),
        UpdateCollection("a", b'{"vectors": {}}'),
        UpdateCollection("a", b'{"hnsw": {"m": 1}}'),
        CreatePayloadIndex("a", "", b'{"type": "keyword"}'),
        CreatePayloadIndex("a", "f", b'{"type": "colour"}'),
        None,
    ],
)
def test_what_cannot_be_changes_nothing(command: CatalogOperation | None) -> None:
    fold = Fold()
    fold(CreateCollection("a", CONFIG, HOME))
    before = fold.catalog.view
    assert fold(command) is OutcomeKind.INVALID
    assert fold.catalog.view == before._replace(position=2)


def test_updates_and_indexes() -> None:
    fold = Fold()
    fold(CreateCollection("a", CONFIG, HOME))
    assert fold(UpdateCollection("a", b'{"consistency": "strong", "hnsw": {"m": 8, "ef_construct": 20}}')) is OutcomeKind.DONE
    assert fold(CreatePayloadIndex("a", "f", msgspec.json.encode(FieldSchema(FieldType.TEXT)))) is OutcomeKind.DONE
    collection = fold.catalog.view.collections["a"]
    assert (collection.config.consistency, collection.config.hnsw.m) == (Consistency.STRONG, 8)
    assert collection.fields == {"f": FieldSchema(FieldType.TEXT)}
    assert fold(DeletePayloadIndex("a", "f")) is OutcomeKind.DONE
    assert fold.catalog.view.collections["a"].fields == {}
    assert fold(UpdateCollection("b", b"{}")) is OutcomeKind.NOT_FOUND
    assert fold(DeleteCollection("b")) is OutcomeKind.UNCHANGED


def test_aliases_change_together_or_not_at_all() -> None:
    fold = Fold()
    fold(CreateCollection("a", CONFIG, HOME))
    fold(CreateCollection("b", CONFIG, HOME))
    assert fold(ChangeAliases([AliasAction("x", "a"), AliasAction("x", rename_to="y")])) is OutcomeKind.DONE
    assert fold.catalog.view.find("y").name == "a"
    assert fold(ChangeAliases([AliasAction("y", "b"), AliasAction("gone", rename_to="z")])) is OutcomeKind.NOT_FOUND
    assert fold.catalog.view.find("y").name == "a", "the first action did not hold either"
    assert fold(ChangeAliases([AliasAction("gone"), AliasAction("w", "b")])) is OutcomeKind.DONE, "nothing to remove is no error"
    assert fold(DeleteCollection("w")) is OutcomeKind.UNCHANGED, "an alias is no collection"
    assert fold(ChangeAliases([AliasAction("a", "b")])) is OutcomeKind.EXISTS
    assert fold(CreateCollection("y", CONFIG, HOME)) is OutcomeKind.EXISTS
    fold(DeleteCollection("a"))
    assert fold.catalog.view.find("y") is None


def test_homes_are_chosen_by_load() -> None:
    """V5: each new shard goes where the fewest are, in every tier."""
    fold = Fold()
    for number in range(12):
        fold(CreateCollection(f"c{number}", CONFIG, choose_homes(fold.catalog.view, 1)))
    for tier, count in enumerate((2, 4, 6, 2)):
        homes = [collection.homes[0][tier] for collection in fold.catalog.view.collections.values()]
        assert {homes.count(partition) for partition in range(count)} == {12 // count}


def test_outcomes_are_kept_within_a_bound() -> None:
    fold = Fold()
    for _ in range(MAX_OUTCOMES + 5):
        fold(DeleteCollection("none"))
    assert fold.catalog.outcome(4) is None
    assert fold.catalog.outcome(5).kind is OutcomeKind.UNCHANGED
