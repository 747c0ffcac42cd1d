"""The fan-out of a request: when one answer fails, nobody waits for the others."""

from __future__ import annotations

import asyncio

import pytest

from query.pinned import all_of
from shard.deadline import NEVER
from tests.encoding_replica import answered


def test_the_other_answers_are_cancelled() -> None:
    """Also one that comes through bytes, with the answer that it is made of."""

    async def fan_out() -> list[asyncio.Future[int]]:
        loop = asyncio.get_running_loop()
        failing, waiting, inner = (loop.create_future() for _ in range(3))
        failing.set_exception(ValueError("broken"))
        encoded = answered(inner, int)
        await asyncio.sleep(0)  # it begins to wait
        with pytest.raises(ValueError, match="broken"):
            await all_of([failing, waiting, encoded], NEVER)
        await asyncio.wait([encoded])
        return [waiting, inner, encoded]

    assert all(answer.cancelled() for answer in asyncio.run(fan_out()))
