"""Handlers of the ingest: its sources, and their control (`/ingest/sources`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from catalog.ingest import IngestSource, SourceConfig, check_source_name
from gateway.dialect.bodies import MoveIngestBody, PartitionsBody
from gateway.http.errors import BadRequest, Conflict, NotFound
from gateway.log_reading import ask_log
from gateway.request import ApiRequest, Response
from gateway.services import NodeState, Services
from journal.log import Journal, Positions, TopicPartition
from journal.records import ControlIngest, DeleteIngestSource, IngestPosition, MoveIngest, PutIngestSource
from payload.paths import as_micros
from replayer.ingest.member import topic_of
from replayer.ingest.status import PartitionStatus, SourceStatus


async def list_all(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """All sources of the ingest, with their state by partition."""
    await services.reads.catch_up_catalog(request)
    sources = services.reads.catalog.sources.values()
    return {"sources": [_described(await ask_log(services.reads, services.node.ingest_status, source)) for source in sources]}


async def show(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """A source of the ingest, with its state by partition."""
    return _described(await ask_log(services.reads, services.node.ingest_status, await _found(request, services)))


async def put(request: ApiRequest, response: Response, services: Services) -> bool:
    """Adds a topic to the ingest, or changes how it is read from now on."""
    config: SourceConfig = request.body
    check_source_name(request.path["name"])
    config.validate()
    await ask_log(services.reads, _check_topic, services.node, config.topic)
    await services.writes.command(request, response, PutIngestSource(request.path["name"], msgspec.json.encode(config)))
    return True


async def delete(request: ApiRequest, response: Response, services: Services) -> bool:
    """Takes a topic from the ingest. What it has written stays."""
    await services.writes.command(request, response, DeleteIngestSource(request.path["name"]))
    return True


async def pause(request: ApiRequest, response: Response, services: Services) -> bool:
    """Stops reading a source, or some of its partitions, until they are resumed."""
    return await _control("pause", request, response, services)


async def resume(request: ApiRequest, response: Response, services: Services) -> bool:
    """Goes on with a source, or with some of its partitions."""
    return await _control("resume", request, response, services)


async def restart(request: ApiRequest, response: Response, services: Services) -> bool:
    """Has all nodes begin anew with a source: a failed one is tried again at once."""
    await services.writes.command(request, response, ControlIngest(request.path["name"], "restart"))
    return True


async def move(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Goes on with a source, or with some of its partitions, at another offset; what was read before is written again."""
    command = await ask_log(services.reads, _move, services.node, await _found(request, services), request.body)
    await services.writes.command(request, response, command)
    return {"moved": [{"partition": each.partition, "position": each.offset} for each in command.positions]}


async def _control(action: str, request: ApiRequest, response: Response, services: Services) -> bool:
    body: PartitionsBody = request.body
    if body.partitions is not None:
        source = await _found(request, services)
        await ask_log(services.reads, _chosen, services.node, source, body.partitions)
    command = ControlIngest(request.path["name"], action, sorted(set(body.partitions or ())))
    await services.writes.command(request, response, command)
    return True


async def _found(request: ApiRequest, services: Services) -> IngestSource:
    await services.reads.catch_up_catalog(request)
    if (source := services.reads.catalog.sources.get(request.path["name"])) is None:
        raise NotFound(f"Not found: ingest source `{request.path['name'][:64]}` doesn't exist!")
    return source


def _check_topic(node: NodeState, topic: str) -> None:
    """Raises BadRequest for a topic that cannot be a source."""
    if topic in node.topics.all():
        raise BadRequest(f"topic {topic!r} is one of the database's own, and cannot be a source")
    if node.journal.brokers() is None and not node.journal.partitions(topic):
        raise BadRequest(f"topic {topic!r} does not exist: the embedded journal has no topics of others, sources need Kafka")


def _chosen(node: NodeState, source: IngestSource, numbers: Sequence[int] | None) -> list[TopicPartition]:
    """The partitions of a source with these numbers; all without numbers. Raises BadRequest, or Conflict without a topic."""
    topic = topic_of(node.topics, source)
    if not (partitions := node.journal.partitions(topic)):
        raise Conflict(f"topic {topic} does not exist")
    chosen = [partition for partition in partitions if numbers is None or partition.partition in numbers]
    if missing := sorted(set(numbers or ()) - {partition.partition for partition in chosen}):
        raise BadRequest(f"partitions: topic {topic} has no partition {missing[0]}, only 0 to {len(partitions) - 1}")
    return chosen


def _move(node: NodeState, source: IngestSource, body: MoveIngestBody) -> MoveIngest:
    """The command that moves partitions to where the body says: to offsets, since a record must not ask for "now"."""
    partitions, topic = _chosen(node, source, body.partitions), topic_of(node.topics, source)
    identity = node.journal.identities([topic]).get(topic, "")
    positions = sorted(_targets(node.journal, partitions, body.to).items())
    return MoveIngest(source.name, identity, [IngestPosition(partition.partition, offset) for partition, offset in positions])


def _targets(journal: Journal, partitions: Sequence[TopicPartition], to: int | str) -> Positions:
    starts, ends = journal.start_offsets(partitions), journal.end_offsets(partitions)
    match to:
        case "earliest":
            return starts
        case "latest":
            return ends
        case int():
            for partition in partitions:
                if not starts[partition] <= to <= ends[partition]:
                    bounds = f"{starts[partition]} and {ends[partition]}"
                    raise BadRequest(f"to: offset {to} must be between {bounds} in {partition}")
            return dict.fromkeys(partitions, to)
    if (micros := as_micros(to)) is None:
        raise BadRequest(f"to {to[:32]!r} must be an offset, earliest, latest, or a time such as 2026-01-31T12:00:00Z")
    return journal.offsets_at(max(0, -(-micros // 1000)), partitions)


def _described(status: SourceStatus) -> dict[str, Any]:
    described: dict[str, Any] = {"name": status.source.name, "topic": status.topic, "group": status.group}
    if status.source.config is not None:
        described["config"] = msgspec.to_builtins(status.source.config)
    described |= {"state": status.state, "partitions": [_partition(each) for each in status.partitions]}
    if status.last_failure is not None:
        described["last_failure"] = status.last_failure._asdict()
    return described


def _partition(status: PartitionStatus) -> dict[str, Any]:
    described: dict[str, Any] = {
        "partition": status.partition,
        "state": status.state,
        "position": status.standing.position,
        "end": status.standing.end,
        "lag": status.standing.lag,
        "epoch": status.epoch,
    }
    if status.node:
        described["node"] = status.node
    if status.since_ms is not None:
        described["since_ms"] = status.since_ms
    return described
