"""Handler of the cutting of the log (`/admin/journal/trim`, docs/operations.md)."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.dialect.bodies import TrimBody
from gateway.handlers.node_snapshots import snapshots_of
from gateway.http.errors import Unavailable
from gateway.request import ApiRequest, Response
from gateway.services import Services
from journal.hlc import text_of
from journal.log import JournalError, TopicPartition
from snapshots.cutter import Part, Plan


async def trim(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Cuts off the old part of the log, or says what would go."""
    body: TrimBody = request.body
    running = snapshots_of(services).trim(body.retention_s, frozenset(body.beyond), body.dry_run)
    try:
        plan = await asyncio.wrap_future(running)
    except JournalError as error:
        raise Unavailable(f"the log was not cut, or not all of it: {error}") from error
    parts = [_shown(partition, part) for partition, part in plan.parts.items()]
    system = {"partition": str(services.node.topics.system_partition), "from": 0, "to": 0, "records": 0, "bytes": 0}
    return {
        "dry_run": plan.wanted.dry_run,
        "retention_s": plan.wanted.retention_s,
        "snapshot": plan.snapshot,
        "partitions": [*parts, {**system, "reason": "the catalog's topic is never cut: every start reads all of it"}],
        "unreadable": unreadable(plan),
    }


def _shown(partition: TopicPartition, part: Part) -> dict[str, Any]:
    start, to, reason = part.cut
    shown: dict[str, Any] = {"partition": str(partition), "from": start, "to": to, "records": to - start, "bytes": part.bytes}
    if part.oldest_ms:
        shown |= {"oldest": text_of(part.oldest_ms), "newest": text_of(part.newest_ms)}
    return {**shown, "reason": reason}


def unreadable(plan: Plan) -> list[str]:
    """What nobody can read any more when this plan is carried out; nothing if no record goes."""
    if not plan.going():
        return []
    before = text_of(max(part.newest_ms for part in plan.parts.values()))
    texts = [
        f"the request history before {before}: `vecraft operations` and `vecraft journal show` have nothing of these ranges",
        "histories of points keep their states, without request id, principal and operation where the record is gone",
        f"a state cannot be made from the log alone any more: a node without one needs snapshot {plan.snapshot} or a later one",
        "`vecraft audit verify` cannot read these records again, it begins at the cut",
    ]
    return texts + [f"node {node} has not applied all of it, and has to start from a snapshot" for node in plan.left_behind]
