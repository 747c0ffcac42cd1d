"""Handler of the page that says what takes memory (`/admin/memory`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.admission.budget import status_bytes
from gateway.service import Call
from shard.shard import Shard


async def show(call: Call) -> dict[str, Any]:
    """What takes memory: the process against its budget, and each collection by part, in all and by vector."""
    service = call.service
    collections = service.replayer.catalog.view.collections.values()
    return {
        "budget_bytes": service.budget.bytes,
        "anonymous_bytes": status_bytes("RssAnon"),
        "mapped_bytes": status_bytes("RssFile"),
        "result_cache_bytes": service.results.size_bytes(),
        "collections": {
            collection.name: await call.in_pool(_of_collection, service.shards.served(collection.id))
            for collection in collections
        },
    }


def _of_collection(shards: Sequence[Shard]) -> dict[str, Any]:
    parts: dict[str, int] = {}
    vectors = 0
    for shard in shards:
        vectors += shard.status()["vectors"]
        for part, size in shard.sizes_bytes().items():
            parts[part] = parts.get(part, 0) + size
    return {
        "vectors": vectors,
        "bytes": parts,
        "bytes_per_vector": {part: round(size / vectors, 1) for part, size in parts.items()} if vectors else {},
    }
