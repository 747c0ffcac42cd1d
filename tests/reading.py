"""Reads of shards without a node: every answer comes at once, so that no event loop is needed."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from query.pinned import Pinned, pin
from shard.local import LocalReplica
from shard.replica import AsOf, Replica
from shard.shard import Shard
from shard.shards import AppliedPositions
from tests.encoding_replica import EncodingReplica

T = TypeVar("T")


def pinned(shards: Sequence[Shard], encoding: bool = False, as_of: AsOf | None = None) -> Pinned:
    """The shards of a collection as they are now, or were; with `encoding`, requests and results go through bytes."""
    replicas: list[Replica] = [LocalReplica(shard, AppliedPositions()) for shard in shards]
    if encoding:
        replicas = [EncodingReplica(replica) for replica in replicas]
    return now(pin(shards[0].collection, replicas, {}, 0, float("inf"), as_of=as_of))


def now(read: Coroutine[Any, Any, T]) -> T:
    """The result of a read that waits for nothing."""
    try:
        read.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the read waits for something")
