"""Jobs: bounded, and ended when the node stops."""

from __future__ import annotations

import asyncio

import pytest

from gateway.http.errors import TooManyRequests, Unavailable
from gateway.jobs import Jobs
from gateway.request import Response


def test_jobs_are_bounded_and_end_with_the_node(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def story() -> None:
        jobs, go_on = Jobs(most=2), asyncio.Event()

        async def work() -> int:
            await go_on.wait()
            return 5

        later = Response([], False)
        assert await jobs.run("the first", work(), later, wait=False) is None
        assert later.accepted
        waited = asyncio.create_task(jobs.run("the second", work(), Response([], False), wait=True))
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await jobs.run("the third", work(), Response([], False), wait=True)
        go_on.set()
        assert await waited == 5

        async def fails() -> None:
            raise ValueError("broken")

        await jobs.run("the fourth", fails(), Response([], False), wait=False)
        go_on.clear()
        await asyncio.sleep(0)
        await jobs.run("the fifth", work(), Response([], False), wait=False)
        jobs.stop()
        while jobs._tasks:
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await jobs.run("the sixth", work(), Response([], False), wait=True)

    asyncio.run(asyncio.wait_for(story(), 30))
    assert [record.message for record in caplog.records if "the" in record.message] == [
        "the first is done",
        "the fourth failed: broken",
        "the fifth was given up: the node is stopping",
    ]
