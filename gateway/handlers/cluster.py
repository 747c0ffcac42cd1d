"""Handlers of the dialect's cluster and diagnostics paths: locations of shards, builds, issues.

Nodes do not know each other, and each replays the whole log. So there is no cluster in the dialect's sense: every node has every
shard of every collection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from catalog.collection import Collection
from gateway.dialect.bodies import OptimizationsParams
from gateway.dialect.builds import OPTIMIZER, builds_of
from gateway.health import Status
from gateway.http.errors import BadRequest
from gateway.request import ApiRequest, Response
from gateway.services import Services
from shard.shards import ShardUnavailable
from shard.vectors.index import SegmentList


async def status(request: ApiRequest, response: Response, services: Services) -> dict[str, str]:
    """Whether this is a cluster in the dialect's sense: it is not."""
    return {"status": "disabled"}


async def collection_status(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The locations of a collection's shards: all on this node."""
    if request.as_of:
        raise BadRequest("as_of: where shards lie is shown of the present only")
    pinned = await services.reads.pin(request, response, request.path["collection_name"])
    counts = await pinned.all_of(lease.count(None) for lease in pinned.leases)
    statuses = await services.reads.statuses(pinned.collection)
    return {
        "peer_id": int.from_bytes(blake2b(services.node.name.encode(), digest_size=6).digest(), "big"),
        "shard_count": len(pinned.leases),
        "local_shards": [
            {
                "shard_id": lease.shard,
                "points_count": count,
                "state": "Active",
                "closed_stamp": status.closed,
                "unsettled": status.unsettled,
            }
            for lease, count, status in zip(pinned.leases, counts, statuses, strict=True)
        ],
        "remote_shards": [],
        "shard_transfers": [],
    }


async def shard_keys(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The shard keys of a collection: there are none, points are spread by their ids."""
    await services.reads.find(request, request.path["collection_name"])
    return {"shard_keys": []}


async def optimizations(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The builds of a collection's graphs: those that wait, run, and are done since the node's start."""
    params: OptimizationsParams = request.params
    wanted = set(params.parts.split(",")) - {""}
    if unknown := sorted(wanted - {"queued", "completed", "idle_segments"}):
        raise BadRequest(f"query string: with {unknown[0][:32]!r} must be of queued, completed, idle_segments")
    collection = await services.reads.find(request, request.path["collection_name"])
    builds = [builds_of(collection, shard, name, one) async for shard, name, one in _segments(services, collection)]
    queued = [one for part in builds for one in part.queued]
    idle = [one for part in builds for one in part.idle]
    told: dict[str, Any] = {
        "summary": {
            "queued_optimizations": len(queued),
            "queued_segments": len(queued),
            "queued_points": sum(one["points_count"] for one in queued),
            "idle_segments": len(idle),
        },
        "running": [one for part in builds for one in part.running],
    }
    if "queued" in wanted:
        told["queued"] = [{"optimizer": OPTIMIZER, "segments": [one]} for one in queued]
    if "completed" in wanted:
        told["completed"] = [one for part in builds for one in part.done][: params.completed_limit]
    return told | ({"idle_segments": idle} if "idle_segments" in wanted else {})


async def _segments(services: Services, collection: Collection) -> AsyncIterator[tuple[int, str, SegmentList]]:
    """The segments of each vector name in each served shard."""
    for shard, names in await services.reads.segments(collection):
        for name, segments in names.items():
            yield shard, name, segments


async def issues(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The issues that the server has detected: the shards in quarantine."""
    node, seen = services.node, services.health.seen().get("shards")
    since_ms = node.clock.physical_ms() if seen is None or seen.status is Status.OK else seen.since_ms
    return {
        "issues": [
            {
                "id": f"quarantine/{quarantine.collection}/{quarantine.number}",
                "description": str(ShardUnavailable(quarantine)),
                "solution": "remove the cause, for example a full disk; the shard is then served again by itself",
                "timestamp": datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(),
                "related_collection": quarantine.collection,
            }
            for quarantine in services.node.shards.quarantined().values()
        ]
    }


async def clear_issues(request: ApiRequest, response: Response, services: Services) -> bool:
    """Does nothing: an issue ends with its cause."""
    return True
