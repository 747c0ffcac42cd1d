"""The sources of the ingest as a fold of catalog commands: pauses, moves and mappings are the same on every node (U2)."""

from __future__ import annotations

import msgspec
import pytest

from catalog.catalog import Catalog, Outcome, OutcomeKind
from catalog.collection import CollectionConfig, Distance, VectorParams
from catalog.ingest import DEFAULT_SOURCE, MAX_SOURCES, FieldMapping, IngestSource, SourceConfig
from journal.records import (
    CatalogOperation,
    ControlIngest,
    CreateCollection,
    DeleteIngestSource,
    IngestPosition,
    MoveIngest,
    PutIngestSource,
)

CONFIG = msgspec.json.encode(CollectionConfig(vectors={"": VectorParams(4, Distance.DOT)}))
SHOP = SourceConfig("shop.products", "c", "debezium", FieldMapping(vector="embedding"))


class Fold:
    """A catalog with the collection `c`, in which a command comes each 10 ms."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self(CreateCollection("c", CONFIG, [[0, 0, 0, 0]]))

    def __call__(self, command: CatalogOperation) -> Outcome:
        position = self.catalog.view.position
        return self.catalog.apply(position, 10 * position, command)

    def put(self, name: str, config: SourceConfig) -> Outcome:
        return self(PutIngestSource(name, msgspec.json.encode(config)))

    def source(self, name: str = DEFAULT_SOURCE) -> IngestSource:
        return self.catalog.view.sources[name]

    def paused(self, *partitions: int) -> list[int | None]:
        return [self.source().paused_since(partition) for partition in partitions]


def control(action: str, *partitions: int) -> ControlIngest:
    return ControlIngest(DEFAULT_SOURCE, action, list(partitions))


def test_partitions_are_paused_singly_and_all_together() -> None:
    fold = Fold()
    assert fold(control("pause", 0, 2)).kind is OutcomeKind.DONE
    assert fold.paused(0, 1, 2) == [10, None, 10]
    assert fold(control("pause", 0)).kind is OutcomeKind.UNCHANGED
    fold(control("pause"))
    assert fold.paused(0, 1, 2, 900) == [30] * 4, "also those that are added later"
    fold(control("resume", 1))
    fold(control("pause", 1))
    fold(control("resume", 2))
    assert fold.paused(0, 1, 2) == [30, 50, None]
    fold(control("resume"))
    assert fold.paused(0, 1, 2) == [None] * 3
    assert fold(control("resume")).kind is OutcomeKind.UNCHANGED


def test_a_move_is_a_new_epoch_of_its_partitions() -> None:
    fold = Fold()
    fold(MoveIngest(DEFAULT_SOURCE, "log", [IngestPosition(0, 7), IngestPosition(1, 8)]))
    fold(MoveIngest(DEFAULT_SOURCE, "log", [IngestPosition(0, 7)]))
    source = fold.source()
    assert [source.epoch(partition) for partition in (0, 1, 2)] == [3, 2, 0]
    assert [source.moved_to(partition, "log") for partition in (0, 1, 2)] == [7, 8, 0]
    assert source.moved_to(0, "made anew") == 0
    assert [epoch for epoch in range(-1, 6) if fold.catalog.is_epoch(epoch)] == [0, 2, 3]


def test_a_move_that_is_sent_again_is_one_move() -> None:
    """V3: with its idempotency key."""
    fold = Fold()
    move = MoveIngest(DEFAULT_SOURCE, "log", [IngestPosition(0, 7)])
    for offset in (1, 2):
        assert fold.catalog.apply(offset, 0, move, "key").kind is OutcomeKind.DONE
    assert fold.source().epoch(0) == 2
    assert not fold.catalog.is_epoch(3)


def test_a_restart_is_seen_by_all() -> None:
    fold = Fold()
    before = fold.source()
    fold(control("restart"))
    assert fold.source() != before


def test_a_source_keeps_its_state_when_it_is_changed_and_not_when_it_is_created_again() -> None:
    fold = Fold()
    fold.put("shop", SHOP)
    fold(ControlIngest("shop", "pause", []))
    changed = msgspec.structs.replace(SHOP, tier=3)
    fold.put("shop", changed)
    kept = fold.source("shop")
    assert (kept.id, kept.config, kept.paused_since(0)) == (2, changed, 20)
    assert fold.put("shop", changed).kind is OutcomeKind.UNCHANGED
    fold(DeleteIngestSource("shop"))
    assert "shop" not in fold.catalog.view.sources
    fold.put("shop", SHOP)
    again = fold.source("shop")
    assert (again.id, again.paused_since(0)) == (7, None)


BAD = {
    "topic 'a b' must have 1 to 249 characters": ("s", msgspec.structs.replace(SHOP, topic="a b")),
    "topic '..' must have": ("s", msgspec.structs.replace(SHOP, topic="..")),
    "collection name '' must have 1 to 255": ("s", msgspec.structs.replace(SHOP, collection="")),
    "tier 4 must be between 0 and 3": ("s", msgspec.structs.replace(SHOP, tier=4)),
    "mapping.id cannot be given with format debezium": ("s", msgspec.structs.replace(SHOP, mapping=FieldMapping("sku"))),
    "mapping.vector: key 'a[' is not a path": ("s", msgspec.structs.replace(SHOP, mapping=FieldMapping("", "a["))),
    "mapping.vector.image: key is empty": ("s", msgspec.structs.replace(SHOP, mapping=FieldMapping("", {"image": ""}))),
    "mapping.payload.b: key 'a..b' is not a path": (
        "s",
        msgspec.structs.replace(SHOP, mapping=FieldMapping("", "v", {"b": "a..b"})),
    ),
    "mapping.vector has 65 entries, the bound is 64": (
        "s",
        msgspec.structs.replace(SHOP, mapping=FieldMapping("", {str(n): "v" for n in range(65)})),
    ),
    "mapping.payload has 257 entries, the bound is 256": (
        "s",
        msgspec.structs.replace(SHOP, mapping=FieldMapping("", "v", {str(n): "v" for n in range(257)})),
    ),
    "source name 'a/b' must have 1 to 64 characters": ("a/b", SHOP),
    "source 'default' is always there": (DEFAULT_SOURCE, SHOP),
    "topic of source 'shop' is 'shop.products' and cannot be changed": ("shop", msgspec.structs.replace(SHOP, topic="x")),
    "Collection `none` doesn't exist": ("s", msgspec.structs.replace(SHOP, collection="none")),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_source_changes_nothing_and_says_why(text: str) -> None:
    fold = Fold()
    fold.put("shop", SHOP)
    before = fold.catalog.view.sources
    outcome = fold.put(*BAD[text])
    assert text in outcome.text
    assert outcome.kind is (OutcomeKind.NOT_FOUND if "doesn't exist" in text else OutcomeKind.INVALID)
    assert fold.catalog.view.sources is before


@pytest.mark.parametrize(
    "command",
    [
        control("stop"),
        control("pause", 10_000),
        control("pause", -1),
        control("restart", 1),
        MoveIngest(DEFAULT_SOURCE, "log", []),
        MoveIngest(DEFAULT_SOURCE, "log", [IngestPosition(0, -1)]),
        MoveIngest(DEFAULT_SOURCE, "log", [IngestPosition(10_000, 1)]),
        DeleteIngestSource(DEFAULT_SOURCE),
        PutIngestSource("s", b'{"topic": "t", "collection": "c", "unknown": 1}'),
        PutIngestSource("s", b"{"),
    ],
)
def test_a_bad_command_changes_nothing(command: CatalogOperation) -> None:
    fold = Fold()
    before = fold.catalog.view.sources
    assert fold(command).kind is OutcomeKind.INVALID
    assert fold.catalog.view.sources is before
    assert not fold.catalog.is_epoch(fold.catalog.view.position)


@pytest.mark.parametrize("command", [ControlIngest("s", "pause"), DeleteIngestSource("s"), MoveIngest("s", "log", [])])
def test_a_source_that_is_not_there_is_said_to_be(command: CatalogOperation) -> None:
    outcome = Fold()(command)
    assert (outcome.kind, outcome.text) == (OutcomeKind.NOT_FOUND, "Not found: ingest source `s` doesn't exist!")


def test_the_number_of_sources_is_bounded() -> None:
    fold = Fold()
    kinds = [fold.put(f"s{number}", SHOP).kind for number in range(MAX_SOURCES + 1)]
    assert kinds == [OutcomeKind.DONE] * MAX_SOURCES + [OutcomeKind.INVALID]
    assert fold.put("s0", msgspec.structs.replace(SHOP, tier=0)).kind is OutcomeKind.DONE
