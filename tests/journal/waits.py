"""Waiting for a log within a bound: for an answer, for a call that works, for a call that may never return."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from journal.log import JournalError

T = TypeVar("T")
WAIT_S = 20
"""The bound of every wait. Only a broken journal makes a test wait that long."""
FOREVER_S = 100 * WAIT_S


def until_it_works(call: Callable[[], T]) -> T:
    """Calls again while the log turns the calls away, as one does that has just started or lost its leader."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return call()
        except JournalError:
            if time.monotonic() > deadline:
                raise


def until_equal(ask: Callable[[], T], expected: T) -> None:
    """Asks again until the answer is the expected one: for what a log does in its own time."""
    deadline = time.monotonic() + WAIT_S
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, f"{found} is still not {expected}"


def in_thread(call: Callable[..., Any], *args: Any) -> Future[Any]:
    """Runs a call that may never return; unlike an executor's, this thread holds nobody up."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
