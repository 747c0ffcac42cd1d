"""Handlers of the audit (N12): the latest heads of the log's hash chains, and those that cover an answer. docs/audit.md."""

from __future__ import annotations

from typing import Any

from gateway.http.errors import BadRequest, NotFound, Unavailable
from gateway.log_reading import ask_log
from gateway.request import ApiRequest, Response
from gateway.services import NodeState, Services
from journal.chain import Head
from journal.token import Token, parse_token
from replayer.audit.auditor import Auditor, Heads
from replayer.audit.checkpoints import CheckpointsDamaged, Covering, covering
from shard.deadline import Deadline


async def checkpoints(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The latest heads of the log's hash chains that this node has noted, to be kept elsewhere."""
    _, latest = _auditor(services.node)
    return _file(latest) | {
        "heads": [{"partition": str(partition), **_head(head)} for partition, head in sorted(latest.heads.items())]
    }


async def proof(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The heads that cover a position token: which checkpoints stand for all records that an answer rests on."""
    node, params = services.node, request.params
    auditor, latest = _auditor(node)
    try:
        token = parse_token(params.position, node.topics, node.replayer.log_name)
    except ValueError as error:
        raise BadRequest(f"position: {error}") from error
    found = await ask_log(services.reads, _covering, auditor, token, services.reads.deadline(request))
    return _file(latest) | {
        "covered": all(each.above is not None for each in found),
        "partitions": [_covered(each) for each in found],
    }


def _auditor(node: NodeState) -> tuple[Auditor, Heads]:
    """The auditor and what it has noted last. Raises NotFound when there is none, and Unavailable before its first checkpoint."""
    if node.auditor is None:
        raise NotFound("Not found: this node notes no checkpoints of the log; start it with --audit")
    if (latest := node.auditor.heads) is None:
        raise Unavailable("this node has noted no checkpoints since its start", retry_after_s=10.0)
    return node.auditor, latest


def _covering(auditor: Auditor, token: Token, deadline: Deadline) -> list[Covering]:
    try:
        return covering(auditor.path, token.positions, deadline)
    except (OSError, CheckpointsDamaged) as error:
        raise Unavailable(f"the checkpoints cannot be read: {error}", retry_after_s=60.0) from error


def _file(latest: Heads) -> dict[str, Any]:
    return {"log": latest.log, "noted": latest.at, "lines": latest.lines, "chain": latest.chain.hex()}


def _covered(each: Covering) -> dict[str, Any]:
    described: dict[str, Any] = {"partition": str(each.partition), "position": each.position, "begin": each.begin}
    if each.below is not None:
        described["below"] = _head(each.below)
    if each.above is not None:
        described["covered_by"] = _head(each.above)
    return described


def _head(head: Head) -> dict[str, Any]:
    return {"offset": head.offset, "records": head.records, "digest": head.digest.hex()}
