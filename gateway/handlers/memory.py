"""Handler of the memory page (`/admin/memory`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.admission.budget import status_bytes
from gateway.request import ApiRequest, Response
from gateway.services import Services
from shard.replica import ShardStatus


async def show(request: ApiRequest, response: Response, services: Services) -> dict[str, Any]:
    """Memory use: of the process, with its budget, and of each collection by part, in total and per vector."""
    return {
        "budget_bytes": services.node.budget.bytes,
        "anonymous_bytes": status_bytes("RssAnon"),
        "mapped_bytes": status_bytes("RssFile"),
        "result_cache_bytes": services.results.size_bytes(),
        "collections": {
            collection.name: _of_collection(await services.reads.statuses(collection), await services.reads.sizes(collection))
            for collection in services.reads.catalog.collections.values()
        },
    }


def _of_collection(statuses: Sequence[ShardStatus], sizes: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    parts: dict[str, int] = {}
    vectors = sum(status.vectors for status in statuses)
    for one in sizes:
        for part, size in one.items():
            parts[part] = parts.get(part, 0) + size
    return {
        "vectors": vectors,
        "bytes": parts,
        "bytes_per_vector": {part: round(size / vectors, 1) for part, size in parts.items()} if vectors else {},
    }
