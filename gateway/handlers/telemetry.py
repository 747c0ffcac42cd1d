"""Handlers of `/telemetry` and `/quotas`: what the node knows about itself, in the dialect's form."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from catalog.collection import Collection
from gateway.admission.budget import status_bytes, total_bytes
from gateway.dialect import configs
from gateway.dialect.bodies import TelemetryParams
from gateway.durations import ByAnswer, Durations
from gateway.heap import heap
from gateway.reads import ReadService
from gateway.request import ApiRequest, Response
from gateway.services import NodeState, Services
from shard.replica import ShardStatus

NAME = "vecraft"
AGGREGATED, FULL, SHARDS = 1, 2, 3
"""Levels of details from which on collections are told in short, whole, and with their shards."""

_CPU_FLAGS = ("sse", "sse2", "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "neon", "asimd")
Answer = dict[str, Any]


async def telemetry(request: ApiRequest, response: Response, services: Services) -> Answer:
    """Facts about this node, more with each `details_level`; with `per_collection` also the requests of each collection."""
    params: TelemetryParams = request.params
    node, reads, level = services.node, services.reads, params.details_level
    named = anonymous if params.anonymize else str
    collections = list(reads.catalog.collections.values())
    app: Answer = {"name": NAME, "version": node.version, "startup": node.started.isoformat()}
    told: Answer = {
        "id": named(node.name),
        "app": app,
        "collections": {"number_of_collections": len(collections)},
        "cluster": {"enabled": False},
    }
    if level < AGGREGATED:
        return told
    app |= {"features": _features(), "system": _system(node)}
    told["collections"]["collections"] = [await _collection(reads, one, params, named(one.name)) for one in collections]
    told["requests"] = {"rest": _requests(services, params.per_collection, params.anonymize), "grpc": {"responses": {}}}
    told["quota"] = {"config": quota_config(node), "exceeded": {"resident_memory": node.budget.used() > node.budget.bytes}}
    return told | ({"memory": memory} if (memory := memory_bytes()) is not None else {})


async def quotas(request: ApiRequest, response: Response, services: Services) -> Answer:
    """The limits of this node's memory and disk, and how much is used. They are settings of the node."""
    node, disk = services.node, services.node.disk_usage()
    usage = {"resident_memory_percent": _percent(node.budget.used(), total_bytes())}
    if disk is not None:
        usage["disk_usage_percent"] = _percent(disk.total - disk.free, disk.total)
    return {"config": quota_config(node), "usage": usage}


def quota_config(node: NodeState) -> Answer:
    """The memory budget as a quota: what counts is anonymous memory. The disk has none."""
    percent = min(100, max(1, _percent(node.budget.bytes, total_bytes())))
    return {"enabled": True, "max_resident_memory_percent": percent, "release_margin_percent": 0}


def _percent(part: int, whole: int) -> int:
    return round(100 * part / whole)


def memory_bytes() -> Answer | None:
    """The process's memory by the dialect's names; None where the C library does not tell."""
    if (held := heap()) is None:
        return None
    return {
        "active_bytes": held.active,
        "allocated_bytes": held.allocated,
        "metadata_bytes": 0,  # it is in the allocated ones
        "resident_bytes": status_bytes("VmRSS"),
        "retained_bytes": held.retained,
    }


def anonymous(name: str) -> str:
    """Stands for a name without telling it: the same for the same name."""
    return blake2b(name.encode(), digest_size=8).hexdigest()


def _features() -> Answer:
    known = ("debug", "service_debug_feature", "recovery_mode", "gpu", "staging")
    return dict.fromkeys(known, False) | {"rocksdb": True}


def _system(node: NodeState) -> Answer:
    disk, runtime = node.disk_usage(), _container_runtime()
    return {
        "distribution": platform.system(),
        "distribution_version": platform.release(),
        "is_docker": runtime == "docker",
        "container_runtime": runtime,
        "cores": os.cpu_count(),
        "ram_size": total_bytes() >> 10,
        "cpu_flags": _cpu_flags(),
        "cpu_endian": sys.byteorder,
    } | ({"disk_size": disk.total >> 10} if disk is not None else {})


def _container_runtime() -> str:
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return "docker" if Path("/.dockerenv").exists() else "none"


@cache
def _cpu_flags() -> str:
    """Those vector instructions that the processor has; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return ",".join(flag for flag in _CPU_FLAGS if flag in flags)


async def _collection(reads: ReadService, collection: Collection, params: TelemetryParams, name: str) -> Answer:
    statuses = await reads.statuses(collection)
    described = configs.described(collection)
    if params.details_level < FULL:
        vectors = sum(status.vectors for status in statuses)
        return {"vectors": vectors, "optimizers_status": "ok", "params": {} if params.anonymize else described["params"]}
    told: Answer = {"id": name} | ({} if params.anonymize else {"config": described})
    if params.details_level < SHARDS:
        return told
    named = anonymous if params.anonymize else str
    shards = [_shard(number, status, named) for number, status in enumerate(statuses)]
    return told | {"shards": shards, "transfers": [], "resharding": []}


def _shard(number: int, status: ShardStatus, named: Callable[[str], str]) -> Answer:
    local = {
        "variant_name": "local",
        "status": "yellow" if status.vectors - status.indexed >= status.seal_rows else "green",
        "total_optimized_points": status.indexed,
        "num_points": status.points,
        "num_vectors": status.vectors,
        "num_vectors_by_name": {named(name): count for name, count in status.vectors_by_name.items()},
    }
    return {"id": number, "local": local, "remote": [], "replicate_states": {}}


def _requests(services: Services, per_collection: bool, anonymize: bool) -> Answer:
    told: Answer = {"responses": _by_route(services.times.all())}
    if per_collection:
        of = services.times.of_collections(services.reads.catalog.collections)
        told["per_collection_responses"] = {
            anonymous(name) if anonymize else name: _by_route(by_answer) for name, by_answer in of.items()
        }
    return told


def _by_route(by_answer: ByAnswer) -> Mapping[str, Mapping[str, Answer]]:
    routes: dict[str, dict[str, Answer]] = {}
    for (method, route, status), durations in by_answer.items():
        routes.setdefault(f"{method} {route}", {})[str(status)] = _statistics(durations)
    return routes


def _statistics(durations: Durations) -> Answer:
    return {
        "count": durations.count,
        "avg_duration_micros": 1e6 * durations.mean_s,
        "min_duration_micros": 1e6 * durations.shortest_s,
        "max_duration_micros": 1e6 * durations.longest_s,
        "total_duration_micros": round(1e6 * durations.total_s),
        "last_responded": datetime.fromtimestamp(durations.last_s, UTC).isoformat(),
    }
