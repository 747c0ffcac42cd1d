"""Folds catalog commands, in log order, into the catalog. One thread applies commands; any thread reads the current view."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import msgspec

from catalog import ingest, subscriptions
from catalog.collection import (
    MAX_FIELDS,
    MAX_NAME_CHARS,
    MAX_REMOVED_VECTORS,
    MAX_TAGS,
    Collection,
    CollectionConfig,
    NewVector,
    RemovedVector,
    check_homes,
    check_name,
)
from catalog.commands import CommandOffsets, CommandTimes
from catalog.errors import InvalidConfig
from catalog.history import CatalogHistory
from catalog.ingest import DEFAULT_SOURCES, IngestSource, SourceConfig
from catalog.subscriptions import Subscription, SubscriptionConfig
from journal.error_texts import reason_of
from journal.records import (
    AliasAction,
    CatalogOperation,
    ChangeAliases,
    ControlIngest,
    CreateCollection,
    CreatePayloadIndex,
    CreateVector,
    DeleteCollection,
    DeleteIngestSource,
    DeletePayloadIndex,
    DeleteSubscription,
    DeleteTag,
    DeleteVector,
    MoveIngest,
    MoveSubscription,
    ParkEvents,
    PutIngestSource,
    PutSubscription,
    PutTag,
    UnparkEvents,
    UpdateCollection,
)
from journal.topics import TIER_PARTITIONS, TIERS
from payload.paths import steps_of
from payload.schema import FieldSchema

DAY_MS = 24 * 3600 * 1000

MAX_OUTCOMES = 1_000
"""Number of outcomes kept for the writers of commands; the oldest are dropped."""

UPDATABLE = (
    "hnsw",
    "consistency",
    "quantization",
    "strict_mode",
    "metadata",
    "kept",
    "vectors",
    "sparse_vectors",
    "history_retention_s",
    "ttl_s",
)
"""Settings whose change does not affect how existing records are interpreted."""


class OutcomeKind(Enum):
    """The result of a command."""

    DONE = "done"
    UNCHANGED = "unchanged"
    EXISTS = "exists"
    NOT_FOUND = "not found"
    INVALID = "invalid"


class Outcome(NamedTuple):
    """The result of a command, and a text for its author."""

    kind: OutcomeKind
    text: str = ""


class CatalogView(NamedTuple):
    """The catalog at a position (a next offset of the system topic). Immutable; safe to share between threads."""

    position: int = 0
    collections: Mapping[str, Collection] = {}
    aliases: Mapping[str, str] = {}
    by_id: Mapping[int, Collection] = {}
    sources: Mapping[str, IngestSource] = DEFAULT_SOURCES
    subscriptions: Mapping[str, Subscription] = {}

    def find(self, name: str) -> Collection | None:
        """The collection with this name or alias."""
        return self.collections.get(self.aliases.get(name, name))


class Catalog:
    """The current view, and the outcomes of recent commands.

    A command whose idempotency key was applied within the last `window_ms`, by append times, changes nothing and gets the first
    outcome.
    """

    def __init__(self, window_ms: int = DAY_MS) -> None:
        self.view = CatalogView()
        self._window_ms = window_ms
        self._keys: OrderedDict[str, tuple[int, Outcome]] = OrderedDict()
        self._outcomes: OrderedDict[int, Outcome] = OrderedDict()
        self._times = CommandTimes()
        self._created = CommandOffsets()
        self._moves = CommandOffsets()
        self.history = CatalogHistory()

    def apply(self, offset: int, time_ms: int, operation: CatalogOperation | None, key: str = "", hlc: int = 0) -> Outcome:
        """Applies the command at `offset` of the system topic. `operation` is None for a record without a valid command."""
        view = self.view
        if (earlier := self._earlier(key, time_ms)) is not None:
            outcome = earlier
        else:
            view, outcome = _outcome(view, offset, time_ms, operation)
            if key:
                self._keys[key] = (time_ms, outcome)
        self.history.next_stamp(hlc)
        self.history.note((self.view.collections, view.collections), (self.view.aliases, view.aliases))
        self._times.add(offset, time_ms)
        self._outcomes[offset] = outcome
        if len(self._outcomes) > MAX_OUTCOMES:
            self._outcomes.popitem(last=False)
        if offset in view.by_id:
            self._created.add(offset)
        if isinstance(operation, MoveIngest) and outcome.kind is OutcomeKind.DONE and view is not self.view:
            self._moves.add(offset)
        self.view = view._replace(position=offset + 1)
        return outcome

    def _earlier(self, key: str, time_ms: int) -> Outcome | None:
        """The outcome of an earlier command with this key. Forgets keys whose window is over."""
        while self._keys and next(iter(self._keys.values()))[0] <= time_ms - self._window_ms:
            self._keys.popitem(last=False)
        known = self._keys.get(key)
        return None if known is None or known[0] <= time_ms - self._window_ms else known[1]

    def created(self, collection_id: int) -> bool:
        """Whether a collection with this id was ever created, even if it was deleted later."""
        return collection_id in self._created

    def is_epoch(self, epoch: int) -> bool:
        """Whether records of the ingest may have this epoch: 0, or the position of a command that moved a source."""
        return epoch == 0 or epoch - 1 in self._moves

    def outcome(self, offset: int) -> Outcome | None:
        """The outcome of the command at `offset`; None when it is unknown or was dropped."""
        return self._outcomes.get(offset)

    def known_at_ms(self, position: int) -> int:
        """The append time of the last command below `position`; 0 for none. The catalog must have reached `position`."""
        return self._times.below_ms(position)


def choose_homes(view: CatalogView, shard_number: int) -> list[list[int]]:
    """Home partitions for new shards: in every tier, the partition with the fewest shards (V5)."""
    load = [[0] * count for count in TIER_PARTITIONS]
    for collection in view.collections.values():
        for home in collection.homes:
            for tier in TIERS:
                load[tier][home[tier]] += 1
    homes = []
    for _ in range(shard_number):
        home = [tier_load.index(min(tier_load)) for tier_load in load]
        for tier in TIERS:
            load[tier][home[tier]] += 1
        homes.append(home)
    return homes


_Step = tuple[CatalogView, Outcome]


def _outcome(view: CatalogView, offset: int, time_ms: int, operation: CatalogOperation | None) -> _Step:
    if operation is None:
        return view, Outcome(OutcomeKind.INVALID, "not a catalog command")
    try:
        return _fold(view, offset, time_ms, operation)
    except (InvalidConfig, msgspec.MsgspecError, ValueError, RecursionError) as error:
        return view, Outcome(OutcomeKind.INVALID, reason_of(error))


def _fold(view: CatalogView, offset: int, time_ms: int, operation: CatalogOperation) -> _Step:
    match operation:
        case CreateCollection():
            return _create(view, offset, time_ms, operation)
        case UpdateCollection():
            return _update(view, operation)
        case DeleteCollection():
            return _delete(view, operation)
        case ChangeAliases():
            return _change_aliases(view, operation)
        case CreatePayloadIndex():
            return _create_index(view, operation)
        case DeletePayloadIndex():
            return _delete_index(view, operation)
        case CreateVector():
            return _create_vector(view, operation, offset + 1)
        case DeleteVector():
            return _delete_vector(view, operation, offset + 1)
        case PutIngestSource():
            return _put_source(view, operation, offset + 1)
        case DeleteIngestSource():
            return _delete_source(view, operation)
        case ControlIngest() | MoveIngest():
            return _change_source(view, operation, offset + 1, time_ms)
        case PutTag():
            return _put_tag(view, operation)
        case DeleteTag():
            return _delete_tag(view, operation)
        case PutSubscription():
            return _put_subscription(view, operation, offset + 1)
        case DeleteSubscription():
            return _delete_subscription(view, operation)
        case MoveSubscription() | ParkEvents() | UnparkEvents():
            return _change_subscription(view, operation, time_ms)


def _create(view: CatalogView, offset: int, time_ms: int, command: CreateCollection) -> _Step:
    check_name("collection", command.name)
    if command.name in view.aliases:
        return view, Outcome(OutcomeKind.EXISTS, f"Alias `{command.name}` already exists!")
    if command.name in view.collections:
        return view, Outcome(OutcomeKind.EXISTS, f"Collection `{command.name}` already exists!")
    config = msgspec.json.decode(command.config, type=CollectionConfig)
    config.validate()
    check_homes(command.homes, config.shard_number)
    return _with(view, Collection(command.name, offset, config, command.homes, created_ms=time_ms)), Outcome(OutcomeKind.DONE)


def _update(view: CatalogView, command: UpdateCollection) -> _Step:
    if not (collection := view.find(command.name)):
        return view, _no_collection(command.name)
    changes = msgspec.json.decode(command.changes, type=dict[str, object])
    if unknown := set(changes) - set(UPDATABLE):
        raise InvalidConfig(f"{', '.join(sorted(unknown))} cannot be updated, only {', '.join(UPDATABLE)}")
    config = msgspec.convert(msgspec.to_builtins(collection.config) | changes, CollectionConfig)
    config.validate()
    if _fixed_part(config) != _fixed_part(collection.config):
        raise InvalidConfig("size, distance, kind and modifier of vectors cannot be updated, nor vectors added or removed")
    return _with(view, msgspec.structs.replace(collection, config=config)), Outcome(OutcomeKind.DONE)


def _fixed_part(config: CollectionConfig) -> object:
    """The settings against which records in the log were checked; they must not change."""
    dense = {name: (params.size, params.distance, params.multi, params.datatype) for name, params in config.vectors.items()}
    return dense, {name: params.idf for name, params in config.sparse_vectors.items()}


def _delete(view: CatalogView, command: DeleteCollection) -> _Step:
    if not (collection := view.collections.get(command.name)):  # an alias cannot be used here
        return view, _no_collection(command.name, OutcomeKind.UNCHANGED)
    collections = {name: c for name, c in view.collections.items() if name != collection.name}
    by_id = {id_: c for id_, c in view.by_id.items() if id_ != collection.id}
    aliases = {alias: name for alias, name in view.aliases.items() if name != collection.name}
    return view._replace(collections=collections, by_id=by_id, aliases=aliases), Outcome(OutcomeKind.DONE)


def _change_aliases(view: CatalogView, command: ChangeAliases) -> _Step:
    aliases = dict(view.aliases)
    for action in command.actions:
        if error := _alias_error(view, aliases, action):
            return view, error
        if action.rename_to is not None:
            aliases[action.rename_to] = aliases.pop(action.alias)
        elif action.collection is None:
            aliases.pop(action.alias, None)
        else:
            aliases[action.alias] = aliases.get(action.collection, action.collection)
    return view._replace(aliases=aliases), Outcome(OutcomeKind.DONE)


def _alias_error(view: CatalogView, aliases: Mapping[str, str], action: AliasAction) -> Outcome | None:
    created = action.rename_to if action.collection is None else action.alias
    if created is not None:
        check_name("alias", created)
        if created in view.collections:
            return Outcome(OutcomeKind.EXISTS, f"Collection `{created}` already exists!")
    if action.rename_to is not None and action.alias not in aliases:
        return Outcome(OutcomeKind.NOT_FOUND, f"Not found: Alias {action.alias} does not exist!")
    if action.collection is not None and aliases.get(action.collection, action.collection) not in view.collections:
        return _no_collection(action.collection)
    return None


def _create_index(view: CatalogView, command: CreatePayloadIndex) -> _Step:
    if not (collection := view.find(command.collection)):
        return view, _no_collection(command.collection)
    if not 0 < len(command.field) <= MAX_NAME_CHARS:
        raise InvalidConfig(f"field_name has {len(command.field)} characters, must have 1 to {MAX_NAME_CHARS}")
    if len(collection.fields) >= MAX_FIELDS and command.field not in collection.fields:
        raise InvalidConfig(f"collection has {len(collection.fields)} payload indexes, the bound is {MAX_FIELDS}")
    steps_of(command.field)
    schema = msgspec.json.decode(command.schema, type=FieldSchema)
    return _with(view, msgspec.structs.replace(collection, fields=collection.fields | {command.field: schema})), Outcome(
        OutcomeKind.DONE
    )


def _delete_index(view: CatalogView, command: DeletePayloadIndex) -> _Step:
    if not (collection := view.find(command.collection)):
        return view, _no_collection(command.collection)
    fields = {name: schema for name, schema in collection.fields.items() if name != command.field}
    return _with(view, msgspec.structs.replace(collection, fields=fields)), Outcome(OutcomeKind.DONE)


def _create_vector(view: CatalogView, command: CreateVector, position: int) -> _Step:
    if not (collection := view.find(command.collection)):
        return view, _no_collection(command.collection)
    config = collection.config
    new = msgspec.json.decode(command.params, type=NewVector)
    if (new.dense is None) == (new.sparse is None):
        raise InvalidConfig(f"vector {command.name!r} must be either dense or sparse")
    vectors = _vectors_of(config)
    if command.name in vectors:
        same = _fixed_part(config.with_vectors({"": new})) == _fixed_part(config.with_vectors({"": vectors[command.name]}))
        if same:
            return view, Outcome(OutcomeKind.UNCHANGED)
        raise InvalidConfig(f"vector {command.name!r} already exists with other parameters")
    changed = config.with_vectors(vectors | {command.name: new})
    changed.validate()
    since = collection.since | {command.name: position}
    return _with(view, msgspec.structs.replace(collection, config=changed, since=since)), Outcome(OutcomeKind.DONE)


def _delete_vector(view: CatalogView, command: DeleteVector, position: int) -> _Step:
    if not (collection := view.find(command.collection)):
        return view, _no_collection(command.collection)
    vectors = _vectors_of(collection.config)
    if command.name not in vectors:
        raise InvalidConfig(f"Not existing vector name error: {command.name}")
    if len(collection.removed) >= MAX_REMOVED_VECTORS:
        raise InvalidConfig(f"{len(collection.removed)} vectors were removed from the collection, which is the bound")
    removed = RemovedVector(command.name, vectors.pop(command.name), collection.since.get(command.name, 0), position)
    changed = msgspec.structs.replace(
        collection,
        config=collection.config.with_vectors(vectors),
        since={name: at for name, at in collection.since.items() if name != command.name},
        removed=[*collection.removed, removed],
    )
    return _with(view, changed), Outcome(OutcomeKind.DONE)


def _vectors_of(config: CollectionConfig) -> dict[str, NewVector]:
    return {name: config.vector(name) for name in (*config.vectors, *config.sparse_vectors)}


def _put_tag(view: CatalogView, command: PutTag) -> _Step:
    if not (collection := view.find(command.collection)):
        return view, _no_collection(command.collection)
    check_name("tag", command.name)
    if len(collection.tags) >= MAX_TAGS and command.name not in collection.tags:
        raise InvalidConfig(f"collection has {len(collection.tags)} tags, the bound is {MAX_TAGS}")
    if collection.tags.get(command.name) == command.stamp:
        return view, Outcome(OutcomeKind.UNCHANGED)
    tagged = msgspec.structs.replace(collection, tags=collection.tags | {command.name: command.stamp})
    return _with(view, tagged), Outcome(OutcomeKind.DONE)


def _delete_tag(view: CatalogView, command: DeleteTag) -> _Step:
    if not (collection := view.find(command.collection)):
        return view, _no_collection(command.collection)
    if command.name not in collection.tags:
        return view, Outcome(OutcomeKind.NOT_FOUND, f"Not found: tag {command.name[:64]!r} doesn't exist")
    tags = {name: stamp for name, stamp in collection.tags.items() if name != command.name}
    return _with(view, msgspec.structs.replace(collection, tags=tags)), Outcome(OutcomeKind.DONE)


def _put_source(view: CatalogView, command: PutIngestSource, position: int) -> _Step:
    config = msgspec.json.decode(command.config, type=SourceConfig)
    source = ingest.put(view.sources, command.name, config, position)
    if view.find(config.collection) is None:
        return view, _no_collection(config.collection)
    return _with_source(view, source)


def _delete_source(view: CatalogView, command: DeleteIngestSource) -> _Step:
    ingest.check_source_name(command.name)
    if command.name not in view.sources:
        return view, _no_source(command.name)
    sources = {name: source for name, source in view.sources.items() if name != command.name}
    return view._replace(sources=sources), Outcome(OutcomeKind.DONE)


def _change_source(view: CatalogView, command: ControlIngest | MoveIngest, position: int, time_ms: int) -> _Step:
    if (source := view.sources.get(command.name)) is None:
        return view, _no_source(command.name)
    if isinstance(command, MoveIngest):
        return _with_source(view, ingest.moved(source, command, position))
    return _with_source(view, ingest.controlled(source, command, position, time_ms))


def _with_source(view: CatalogView, source: IngestSource) -> _Step:
    if view.sources.get(source.name) == source:
        return view, Outcome(OutcomeKind.UNCHANGED)
    return view._replace(sources={**view.sources, source.name: source}), Outcome(OutcomeKind.DONE)


def _no_source(name: str) -> Outcome:
    return Outcome(OutcomeKind.NOT_FOUND, f"Not found: ingest source `{name}` doesn't exist!")


def _put_subscription(view: CatalogView, command: PutSubscription, position: int) -> _Step:
    config = msgspec.json.decode(command.config, type=SubscriptionConfig)
    subscription = subscriptions.put(view.subscriptions, command.name, config, position)
    if config.of not in view.by_id:
        return view, _no_collection(config.collection)
    return _with_subscription(view, subscription)


def _delete_subscription(view: CatalogView, command: DeleteSubscription) -> _Step:
    if command.name not in view.subscriptions:
        return view, _no_subscription(command.name)
    left = {name: subscription for name, subscription in view.subscriptions.items() if name != command.name}
    return view._replace(subscriptions=left), Outcome(OutcomeKind.DONE)


def _change_subscription(view: CatalogView, command: MoveSubscription | ParkEvents | UnparkEvents, time_ms: int) -> _Step:
    subscription = view.subscriptions.get(command.name)
    if subscription is None or subscription.id != command.subscription:
        return view, _no_subscription(command.name)
    match command:
        case MoveSubscription():
            return _with_subscription(view, subscriptions.moved(subscription, command.version))
        case ParkEvents():
            return _with_subscription(view, subscriptions.parked(subscription, command.events, time_ms))
    return _with_subscription(view, subscriptions.unparked(subscription, command.events))


def _with_subscription(view: CatalogView, subscription: Subscription) -> _Step:
    if view.subscriptions.get(subscription.name) == subscription:
        return view, Outcome(OutcomeKind.UNCHANGED)
    return view._replace(subscriptions={**view.subscriptions, subscription.name: subscription}), Outcome(OutcomeKind.DONE)


def _no_subscription(name: str) -> Outcome:
    return Outcome(OutcomeKind.NOT_FOUND, f"Not found: subscription `{name}` doesn't exist!")


def _with(view: CatalogView, collection: Collection) -> CatalogView:
    return view._replace(
        collections={**view.collections, collection.name: collection}, by_id={**view.by_id, collection.id: collection}
    )


def _no_collection(name: str, kind: OutcomeKind = OutcomeKind.NOT_FOUND) -> Outcome:
    return Outcome(kind, f"Not found: Collection `{name}` doesn't exist!")
