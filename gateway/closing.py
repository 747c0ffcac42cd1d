"""Closes shards on demand: barriers for those in which many points wait to be settled (I7).

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
UNSETTLED = 5_000
"""Up to this many points of a shard may wait to be settled."""


async def keep_closing(node: NodeState, writes: WriteService) -> None:
    """Writes barriers every few seconds, where they are needed. Runs until it is cancelled."""
    failures = FailureLog()
    while True:
        await asyncio.sleep(CHECK_EVERY_S)
        if not node.ready():
            continue
        for shard in node.shards.all():
            if shard.unsettled() <= UNSETTLED:
                continue
            behind_s = (node.clock.physical_ms() - millis_of(shard.closed())) / 1000
            if behind_s > CHECK_EVERY_S:  # another node may have closed it
                try:
                    await writes.write_barriers(shard.collection, shard.number, list(TIERS))
                    failures.succeeded("shards are closed again")
                except (JournalError, NotCaughtUp) as error:
                    known = error if isinstance(error, JournalError) else Indefinite(str(error))
                    failures.failed(f"shard {shard.number} of collection {shard.collection.name} is not closed", known)
