"""Handlers of the audit (N12): the latest heads of the log's hash chains, and those that cover an answer. docs/audit.md."""

from __future__ import annotations

from typing import Any

from gateway.http.errors import BadRequest, Unavailable
from gateway.log_reading import ask_log
from gateway.request import ApiRequest, Response
from gateway.services import Services
from journal.chain import Head
from journal.token import parse_token
from replayer.audit.auditor import Auditor
from replayer.audit.checkpoints import Checkpoints, CheckpointsDamaged, Covering, covering, read_checkpoints
from shard.deadline import Deadline

FIRST_LOOK_S = 10.0


async def checkpoints(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The latest heads of the log's hash chains that this node has noted, to be kept elsewhere."""
    if (latest := services.node.auditor.heads) is None:
        raise Unavailable("this node has noted no checkpoints since its start", FIRST_LOOK_S)
    return _file(latest.log, latest.at, latest.lines, latest.chain) | {
        "heads": [
            {"partition": str(partition), "begin": run.begin, **_head(run.heads[-1])}
            for partition, run in sorted(latest.heads.items())
        ]
    }


async def proof(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The heads that cover a position token: which checkpoints stand for all records that an answer rests on."""
    node = services.node
    try:
        token = parse_token(request.params.position, node.topics, node.replayer.log_name)
    except ValueError as error:
        raise BadRequest(f"position: {error}") from error
    known = await ask_log(services.reads, _read, node.auditor, services.reads.deadline(request))
    found = [covering(known, partition, position) for partition, position in sorted(token.positions.items())]
    return _file(known.log, known.at, known.lines, known.chain) | {
        "covered": all(each.above is not None for each in found),
        "partitions": [_covered(each) for each in found],
    }


def _read(auditor: Auditor, deadline: Deadline) -> Checkpoints:
    try:
        return read_checkpoints(auditor.path, deadline)
    except FileNotFoundError as error:
        raise Unavailable("this node has noted no checkpoints yet", FIRST_LOOK_S) from error
    except (OSError, CheckpointsDamaged) as error:
        raise Unavailable(f"the checkpoints cannot be read: {error}", retry_after_s=60.0) from error


def _file(log: dict[str, str], at: str, lines: int, chain: bytes) -> dict[str, Any]:
    return {"log": log, "noted": at, "lines": lines, "chain": chain.hex()}


def _covered(each: Covering) -> dict[str, Any]:
    described: dict[str, Any] = {"partition": str(each.partition), "position": each.position}
    if each.begin is not None:
        described["begin"] = each.begin
    if each.below is not None:
        described["below"] = _head(each.below)
    if each.above is not None:
        described["covered_by"] = _head(each.above)
    return described


def _head(head: Head) -> dict[str, Any]:
    return {"offset": head.offset, "records": head.records, "digest": head.digest.hex()}
