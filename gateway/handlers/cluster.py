"""Handlers for what clients ask of a server beside its collections: where shards are, what is being built, what goes wrong.

Nodes know nothing of each other, each replays the whole log: so there is no cluster in the dialect's sense, and every shard of
every collection is here.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from gateway.service import Call


async def status(call: Call) -> dict[str, str]:
    """Whether this is a cluster in the dialect's sense: it is not."""
    return {"status": "disabled"}


async def telemetry(call: Call) -> dict[str, Any]:
    """A few facts about this node; GET /metrics has the numbers."""
    service = call.service
    return {
        "id": service.node,
        "app": {"name": "vecraft", "version": service.version, "startup": service.started.isoformat()},
        "collections": {"number_of_collections": len(service.replayer.catalog.view.collections)},
        "cluster": {"enabled": False},
    }


async def collection_status(call: Call) -> dict[str, Any]:
    """Where the shards of a collection are: all on this node."""
    _, shards = await call.read(call.path["collection_name"])
    return {
        "peer_id": int.from_bytes(blake2b(call.service.node.encode(), digest_size=6).digest(), "big"),
        "shard_count": len(shards),
        "local_shards": [
            {"shard_id": shard.number, "points_count": len(shard.view.alive), "state": "Active"} for shard in shards
        ],
        "remote_shards": [],
        "shard_transfers": [],
    }


async def shard_keys(call: Call) -> dict[str, Any]:
    """The shard keys of a collection: there are none, points are spread by their ids."""
    await call.find(call.path["collection_name"])
    return {"shard_keys": []}


async def optimizations(call: Call) -> dict[str, Any]:
    """How much of a collection waits for a graph."""
    _, shards = await call.read(call.path["collection_name"])
    waiting = [status for shard in shards if (status := shard.status())["vectors"] - status["indexed"] >= shard.policy.seal_rows]
    return {
        "summary": {
            "queued_optimizations": len(waiting),
            "queued_segments": len(waiting),
            "queued_points": sum(status["vectors"] - status["indexed"] for status in waiting),
            "idle_segments": sum(shard.status()["segments"] for shard in shards) - len(waiting),
        },
        "running": [],
    }


async def issues(call: Call) -> dict[str, Any]:
    """What the dialect's server would advise on: nothing is kept."""
    return {"issues": []}


async def clear_issues(call: Call) -> bool:
    """Forgets the issues; there are none."""
    return True
