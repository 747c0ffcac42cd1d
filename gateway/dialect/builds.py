"""Segments and builds in the form of the dialect, which calls them optimizations."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import NAMESPACE_OID, uuid5

from catalog.collection import Collection
from shard.vectors.index import BuildInfo, SegmentInfo, SegmentList

OPTIMIZER = "graph"
Answer = dict[str, Any]


class Builds(NamedTuple):
    """The segments that wait for a graph, those that wait for nothing, and the builds that run and are done, latest first."""

    queued: list[Answer]
    idle: list[Answer]
    running: list[Answer]
    done: list[Answer]


def builds_of(collection: Collection, shard: int, name: str, segments: SegmentList) -> Builds:
    """Of one vector name in one shard."""
    place = f"{collection.id}/{shard}/{name}"
    building = set() if segments.running is None else {one.name for one in segments.running.inputs}
    others = [one for one in segments.segments if one.name not in building]
    return Builds(
        [_segment(place, one) for one in others if one.waits],
        [_segment(place, one) for one in others if not one.waits],
        [] if segments.running is None else [_build(place, segments.running, "optimizing")],
        [_build(place, one, "done") for one in reversed(segments.done)],
    )


def _segment(place: str, segment: SegmentInfo) -> Answer:
    return {"uuid": _uuid(place, segment.name), "points_count": segment.vectors}


def _build(place: str, build: BuildInfo, status: str) -> Answer:
    count = sum(one.vectors for one in build.inputs)
    progress = {"name": "build of the graph", "total": count} | ({"done": count} if status == "done" else {})
    return {
        "uuid": _uuid(place, build.name or "+".join(one.name for one in build.inputs)),
        "optimizer": OPTIMIZER,
        "status": status,
        "segments": [_segment(place, one) for one in build.inputs],
        "progress": progress,
    }


def _uuid(place: str, name: str) -> str:
    """The identity of a segment, the same as long as the segment is there."""
    return str(uuid5(NAMESPACE_OID, f"{place}/{name}"))
