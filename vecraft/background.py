"""A thread that builds index segments, one after the other."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable

from vecraft.heap import trim_heap

log = logging.getLogger(__name__)

NICENESS = 10
"""Requests and replay go first where there are fewer cores than work."""


class BackgroundThread:
    """Runs tasks in order. A daemon: what it builds are caches, so the process need not wait for it to end."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], None]) -> None:
        """Runs `task` after all that were submitted before."""
        self._tasks.put(task)

    def stop(self) -> None:
        """Runs nothing more after the task at hand; does not wait for that one."""
        while not self._tasks.empty():
            self._tasks.get_nowait()
        self._tasks.put(None)

    def _work(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("a background task failed; it is tried again with the next write")
            trim_heap()
            task = None  # or the wait for the next would hold on to what this one worked on
