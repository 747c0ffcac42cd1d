"""Closes shards on demand: barriers for those in which many points wait to be settled, or one has expired (I7).

A partition without records does not close by itself, and a shard has one in each tier.
"""

from __future__ import annotations

import asyncio

from gateway.services import NodeState
from gateway.writes import WriteService
from journal.hlc import millis_of
from journal.log import Indefinite, JournalError
from journal.topics import TIERS
from query.consistency import NotCaughtUp
from replayer.failures import FailureLog

CHECK_EVERY_S = 5.0
EXPIRY_EVERY_S = 0.1
"""Barriers for points that expire are written this often at most."""

UNSETTLED = 5_000
"""Up to this many points of a shard may wait to be settled."""


async def keep_closing(node: NodeState, writes: WriteService) -> None:
    """Writes barriers every few seconds, and when points expire, where they are needed. Runs until it is cancelled."""
    failures = FailureLog()
    while True:
        next_ms = min((shard.next_expiry_ms() for shard in node.shards.all()), default=0)
        left_s = (next_ms - node.clock.physical_ms()) / 1000
        await asyncio.sleep(min(CHECK_EVERY_S, max(EXPIRY_EVERY_S, left_s)))
        if not node.ready():
            continue
        for shard in node.shards.all():
            now_ms = node.clock.physical_ms()
            behind_s = (now_ms - millis_of(shard.closed())) / 1000
            is_late = shard.unsettled() > UNSETTLED and behind_s > CHECK_EVERY_S  # another node may have closed it
            if is_late or shard.next_expiry_ms() < now_ms or shard.keeps_too_much(now_ms):
                try:
                    await writes.write_barriers(shard.collection, shard.number, list(TIERS))
                    failures.succeeded("shards are closed again")
                except (JournalError, NotCaughtUp) as error:
                    known = error if isinstance(error, JournalError) else Indefinite(str(error))
                    failures.failed(f"shard {shard.number} of collection {shard.collection.name} is not closed", known)
