"""Long work that requests begin, and may not wait for: making and recovering archives. A bounded number at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.http.errors import ApiError, TooManyRequests, Unavailable, status_of
from gateway.request import Response

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST = 4
"""Jobs of a node at the same time; more are refused."""

RETRY_S = 5.0


class Jobs:
    """The jobs of a node. Each is a task of the event loop of its request; `stop` cancels all. Thread-safe."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._tasks: dict[asyncio.Task[Any], asyncio.AbstractEventLoop] = {}
        self._stopped = False

    async def run(self, what: str, work: Coroutine[Any, Any, T], response: Response, wait: bool) -> T | None:
        """Runs `work`, which is `what` in the log. Returns its result; None, when it is not to be waited for, once it has begun.

        Raises TooManyRequests at the bound.
        """
        with self._lock:
            full = len(self._tasks) >= self._most
            if full or self._stopped:
                work.close()
                raise (
                    TooManyRequests(f"{self._most} archives are made or recovered already, which is the bound", RETRY_S)
                    if full
                    else Unavailable("the node is stopping")
                )
            task = asyncio.create_task(work)
            self._tasks[task] = asyncio.get_running_loop()
        task.add_done_callback(self._ended)
        if wait:
            return await task
        task.add_done_callback(lambda ended: _tell(what, ended))
        response.accepted = True
        return None

    def stop(self) -> None:
        """Cancels all jobs; no more begin. Thread-safe."""
        with self._lock:
            self._stopped = True
            for task, loop in self._tasks.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        with self._lock:
            self._tasks.pop(task, None)


def _tell(what: str, task: asyncio.Task[Any]) -> None:
    """Logs how a job ended that nobody waited for."""
    if task.cancelled():
        log.warning("%s was given up: the node is stopping", what)
    elif (error := task.exception()) is None:
        log.info("%s is done", what)
    else:
        known = isinstance(error, Exception) and (isinstance(error, ApiError) or status_of(error)[0] != 500)
        log.warning("%s failed: %s", what, error, exc_info=None if known else error)
