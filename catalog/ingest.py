"""The sources of the ingest: which topics are read and how, and where operators have paused or moved them.

They are a part of the catalog, so that every node reads them alike, also after a restart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from catalog.collection import check_name
from catalog.errors import InvalidConfig
from journal.records import ControlIngest, MoveIngest
from journal.topics import TIERS
from payload.paths import PathError, steps_of

DEFAULT_SOURCE = "default"
"""The name of the source that is always there: the topic for records in the project's own form."""

MAX_SOURCES = 16
"""Number of sources beside the default one. Each is a consumer of its own on every node."""

MAX_PARTITIONS = 10_000
"""Partitions of a source's topic that can be paused and moved are numbered below this."""

MAX_VECTORS, MAX_PAYLOAD_FIELDS = 64, 256
DEFAULT_TIER = 2

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class FieldMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The paths to the parts of a point in a record, in the syntax of payload paths.

    `id`: "" for the key of the record. `vector`: the path of the unnamed vector, or paths by name. `payload`: paths by the key in
    the payload; None for all fields but those of the vectors.
    """

    id: str = ""
    vector: str | dict[str, str] = {}
    payload: dict[str, str] | None = None

    @property
    def vectors(self) -> Mapping[str, str]:
        """The paths of the vectors by name; the unnamed one has the name ""."""
        return {"": self.vector} if isinstance(self.vector, str) else self.vector


class SourceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A topic, the collection that its records change, their format, and the tier that their changes are written to."""

    topic: str
    collection: str
    format: Literal["json", "debezium"] = "json"
    mapping: FieldMapping = FieldMapping()
    tier: int = DEFAULT_TIER

    def validate(self) -> None:
        """Raises InvalidConfig, with a text that names the field and the bound."""
        if not _TOPIC.fullmatch(self.topic) or self.topic in (".", ".."):
            raise InvalidConfig(f"topic {self.topic[:64]!r} must have 1 to 249 characters of A-Z a-z 0-9 . _ -")
        if self.topic.startswith("__"):  # commits of the source itself would be new records there
            raise InvalidConfig(f"topic {self.topic[:64]!r} is one of Kafka's own")
        check_name("collection", self.collection)
        if self.tier not in TIERS:
            raise InvalidConfig(f"tier {self.tier} must be between {TIERS[0]} and {TIERS[-1]}")
        if self.format == "debezium" and self.mapping.id:
            raise InvalidConfig("mapping.id cannot be given with format debezium: the id is the key of the record")
        payload = self.mapping.payload or {}
        for name, count, bound in (
            ("vector", len(self.mapping.vectors), MAX_VECTORS),
            ("payload", len(payload), MAX_PAYLOAD_FIELDS),
        ):
            if count > bound:
                raise InvalidConfig(f"mapping.{name} has {count} entries, the bound is {bound}")
        if self.mapping.id:
            _check_path("mapping.id", self.mapping.id)
        for field, paths in (("mapping.vector", self.mapping.vectors), ("mapping.payload", payload)):
            for name, path in paths.items():
                _check_path(f"{field}.{name[:64]}" if name else field, path)


def _check_path(field: str, path: str) -> None:
    try:
        steps_of(path)
    except PathError as error:
        raise InvalidConfig(f"{field}: {error}") from error


class Move(msgspec.Struct, frozen=True):
    """An operator's move of one partition: it goes on at `offset` of the topic with the identity `log`, under the new epoch."""

    epoch: int
    log: str
    offset: int


class IngestSource(msgspec.Struct, frozen=True):
    """A source as the catalog knows it.

    `id` is the catalog position at which it was created, 0 for the default source: a source that is deleted and created again has
    another one. `config` is None for the default source. `restarted` is the catalog position of the last restart.
    """

    name: str
    id: int = 0
    config: SourceConfig | None = None
    paused_ms: int | None = None
    """Since when all partitions are paused, except those in `resumed`."""
    resumed: frozenset[int] = frozenset()
    paused: Mapping[int, int] = {}
    """Since when single partitions are paused."""
    moves: Mapping[int, Move] = {}
    """The last move of each partition that was ever moved."""
    restarted: int = 0

    def paused_since(self, partition: int) -> int | None:
        """Since when a partition is paused, in ms since 1970 by the log's time; None when it is not."""
        if (since_ms := self.paused.get(partition)) is not None:
            return since_ms
        return None if partition in self.resumed else self.paused_ms

    def epoch(self, partition: int) -> int:
        """The epoch of a partition: the catalog position of its last move, 0 before any."""
        move = self.moves.get(partition)
        return 0 if move is None else move.epoch

    def moved_to(self, partition: int, log: str) -> int:
        """The offset of the last move, in the topic with the identity `log`. 0 for another topic, whose offsets begin anew."""
        move = self.moves.get(partition)
        return move.offset if move is not None and move.log == log else 0


DEFAULT_SOURCES: Mapping[str, IngestSource] = {DEFAULT_SOURCE: IngestSource(DEFAULT_SOURCE)}


def check_source_name(name: str) -> None:
    """Raises InvalidConfig unless `name` is valid for a source that is created or deleted."""
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"source name {name[:64]!r} must have 1 to 64 characters of A-Z a-z 0-9 _ -")
    if name == DEFAULT_SOURCE:
        raise InvalidConfig(f"source {DEFAULT_SOURCE!r} is always there, and cannot be changed or deleted")


def put(sources: Mapping[str, IngestSource], name: str, config: SourceConfig, position: int) -> IngestSource:
    """The source `name` with this configuration: a new one, or the known one with its state. Raises InvalidConfig."""
    check_source_name(name)
    config.validate()
    known = sources.get(name)
    if known is None:
        if len(sources) > MAX_SOURCES:
            raise InvalidConfig(f"there are {len(sources) - 1} sources beside {DEFAULT_SOURCE!r}, the bound is {MAX_SOURCES}")
        return IngestSource(name, position, config)
    if known.config is not None and known.config.topic != config.topic:
        raise InvalidConfig(f"topic of source {name!r} is {known.config.topic!r} and cannot be changed: delete the source first")
    return msgspec.structs.replace(known, config=config)


def controlled(source: IngestSource, command: ControlIngest, position: int, time_ms: int) -> IngestSource:
    """The source after a pause, a resume or a restart. Raises InvalidConfig."""
    _check_partitions(command.partitions)
    match command.action:
        case "pause":
            return _paused(source, command.partitions, time_ms)
        case "resume":
            return _resumed(source, command.partitions)
        case "restart" if not command.partitions:
            return msgspec.structs.replace(source, restarted=position)
        case "restart":
            raise InvalidConfig("restart is for all partitions of a source")
    raise InvalidConfig(f"action {command.action[:32]!r} must be one of pause, resume, restart")


def _paused(source: IngestSource, partitions: Collection[int], time_ms: int) -> IngestSource:
    if not partitions:
        since_ms = source.paused_ms if source.paused_ms is not None else time_ms
        return msgspec.structs.replace(source, paused_ms=since_ms, resumed=frozenset(), paused={})
    new = {partition: time_ms for partition in partitions if source.paused_since(partition) is None}
    return msgspec.structs.replace(source, paused={**source.paused, **new})


def _resumed(source: IngestSource, partitions: Collection[int]) -> IngestSource:
    if not partitions:
        return msgspec.structs.replace(source, paused_ms=None, resumed=frozenset(), paused={})
    resumed = frozenset() if source.paused_ms is None else source.resumed | set(partitions)
    paused = {partition: since_ms for partition, since_ms in source.paused.items() if partition not in partitions}
    return msgspec.structs.replace(source, resumed=resumed, paused=paused)


def moved(source: IngestSource, command: MoveIngest, position: int) -> IngestSource:
    """The source after a move, with `position` as the epoch of the moved partitions. Raises InvalidConfig."""
    _check_partitions([each.partition for each in command.positions])
    if not command.positions or any(each.offset < 0 for each in command.positions):
        raise InvalidConfig("a move needs at least one partition, and offsets of 0 or more")
    moves = {each.partition: Move(position, command.log, each.offset) for each in command.positions}
    return msgspec.structs.replace(source, moves={**source.moves, **moves})


def _check_partitions(partitions: Collection[int]) -> None:
    for partition in partitions:
        if not 0 <= partition < MAX_PARTITIONS:
            raise InvalidConfig(f"partition {partition} must be between 0 and {MAX_PARTITIONS - 1}")
