"""Reads of shards without a node: every answer comes at once, so that no event loop is needed."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from query.pinned import Pinned
from shard.deadline import NEVER, Deadline
from shard.local import LocalReplica
from shard.replica import Lease
from shard.shard import Shard
from shard.shards import AppliedPositions

T = TypeVar("T")


def pinned(shards: Sequence[Shard], deadline: Deadline = NEVER) -> Pinned:
    """The shards of a collection as they are now."""
    leases: list[Lease] = []
    for shard in shards:
        lease = LocalReplica(shard, AppliedPositions()).read({}, 0, float("inf"))
        assert not hasattr(lease, "__await__")
        leases.append(lease)  # type: ignore[arg-type]
    return Pinned(shards[0].collection, leases, deadline)


def now(read: Coroutine[Any, Any, T]) -> T:
    """The result of a read that waits for nothing."""
    try:
        read.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the read waits for something")
