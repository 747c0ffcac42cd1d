"""A thread that runs background tasks, such as building index segments, one at a time."""

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
"""Requests and replay have priority when the CPU is fully used."""


def give_way() -> None:
    """Lowers the priority of this thread."""
    if sys.platform == "linux":  # Linux has a priority per thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class BackgroundThread:
    """Runs tasks in order. A daemon thread: tasks build only caches, so the process does not wait for it at exit."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], None]) -> None:
        """Adds a task to the queue. Thread-safe."""
        self._tasks.put(task)

    def stop(self) -> None:
        """Drops all queued tasks. Does not wait for the running task."""
        while not self._tasks.empty():
            self._tasks.get_nowait()
        self._tasks.put(None)

    def _work(self) -> None:
        give_way()
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("a background task failed; it is tried again with the next write")
            trim_heap()
            task = None  # releases the memory that the task refers to, before the next wait
