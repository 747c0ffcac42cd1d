"""Handlers of the dialect's cluster and diagnostics paths: locations of shards, builds, issues.

Nodes do not know each other, and each replays the whole log. So there is no cluster in the dialect's sense: every node has every
shard of every collection.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from gateway.request import ApiRequest, Response
from gateway.services import Services
from shard.shards import ShardUnavailable


async def status(request: ApiRequest, response: Response, services: Services) -> dict[str, str]:
    """Whether this is a cluster in the dialect's sense: it is not."""
    return {"status": "disabled"}


async def telemetry(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """A few facts about this node; GET /metrics has the numbers."""
    node = services.node
    return {
        "id": node.name,
        "app": {"name": "vecraft", "version": node.version, "startup": node.started.isoformat()},
        "collections": {"number_of_collections": len(services.reads.catalog.collections)},
        "cluster": {"enabled": False},
    }


async def collection_status(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The locations of a collection's shards: all on this node."""
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
    """How many vectors of a collection wait for a graph."""
    collection = await services.reads.find(request, request.path["collection_name"])
    statuses = await services.reads.statuses(collection)
    waiting = [status for status in statuses if status.vectors - status.indexed >= status.seal_rows]
    return {
        "summary": {
            "queued_optimizations": len(waiting),
            "queued_segments": len(waiting),
            "queued_points": sum(status.vectors - status.indexed for status in waiting),
            "idle_segments": sum(status.segments for status in statuses) - len(waiting),
        },
        "running": [],
    }


async def issues(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """The issues that the server has detected: the shards in quarantine."""
    return {
        "issues": [
            {
                "id": f"quarantine/{quarantine.collection}/{quarantine.number}",
                "description": str(ShardUnavailable(quarantine)),
                "solution": "remove the cause, for example a full disk; the shard is then served again by itself",
            }
            for quarantine in services.node.shards.quarantined().values()
        ]
    }


async def clear_issues(request: ApiRequest, response: Response, services: Services) -> bool:
    """Does nothing: an issue ends with its cause."""
    return True
